using System.Runtime.InteropServices;

namespace Amy.Async.Native;

// The numbers at work: pure functions between them and those of Linux.
internal sealed partial class PlatformNumbers
{
    internal static int Align(int length, int alignment) => (length + alignment - 1) & ~(alignment - 1);

    /// <summary>An option's level and name; false: this system has no such option.</summary>
    internal bool TryTranslateOption(ref int level, ref int name)
    {
        name = level switch
        {
            SocketConstants.SOL_SOCKET => name switch
            {
                SocketConstants.SO_ACCEPTCONN => SO_ACCEPTCONN,
                SocketConstants.SO_REUSEADDR => SO_REUSEADDR,
                SocketConstants.SO_KEEPALIVE => SO_KEEPALIVE,
                SocketConstants.SO_BROADCAST => SO_BROADCAST,
                SocketConstants.SO_REUSEPORT => SO_REUSEPORT_LB == None ? SO_REUSEPORT : SO_REUSEPORT_LB,
                SocketConstants.SO_SNDBUF => SO_SNDBUF,
                SocketConstants.SO_RCVBUF => SO_RCVBUF,
                SocketConstants.SO_ERROR => SO_ERROR,
                SocketConstants.SO_TYPE => SO_TYPE,
                SocketConstants.SO_DOMAIN => SO_DOMAIN,
                SocketConstants.SO_PROTOCOL => SO_PROTOCOL,
                SocketConstants.SO_TIMESTAMPNS => SO_TIMESTAMP,
                SocketConstants.SO_RXQ_OVFL => SO_RXQ_OVFL,
                _ => None,
            },
            SocketConstants.IPPROTO_IP => name == SocketConstants.IP_PKTINFO ? IP_PKTINFO : None,
            SocketConstants.IPPROTO_IPV6 => name switch
            {
                SocketConstants.IPV6_V6ONLY => IPV6_V6ONLY,
                SocketConstants.IPV6_RECVPKTINFO => IPV6_RECVPKTINFO,
                _ => None,
            },
            SocketConstants.IPPROTO_TCP => name, // TCP_NODELAY, the same everywhere
            _ => None,
        };
        if (level == SocketConstants.SOL_SOCKET) level = SOL_SOCKET;
        return name != None;
    }

    internal int ToDomain(int native) => native == AF_INET6 ? SocketConstants.AF_INET6 : native;

    /// <summary>The family of a <c>struct sockaddr</c>, as Linux numbers it; 0 if it is too short to have one.</summary>
    internal int GetDomain(ReadOnlySpan<byte> address) =>
        address.Length < 2 ? 0 : ToDomain(FamilyOffset == 1 ? address[1] : MemoryMarshal.Read<ushort>(address));

    /// <summary>The flags of a received message.</summary>
    internal int ToMessageFlags(int native)
    {
        var flags = native & SocketConstants.MSG_OOB;
        if ((native & MSG_TRUNC) != 0) flags |= SocketConstants.MSG_TRUNC;
        if ((native & MSG_CTRUNC) != 0) flags |= SocketConstants.MSG_CTRUNC;
        return flags;
    }

    /// <summary>What of a file's flags the library looks at.</summary>
    internal int ToFileFlags(int native)
    {
        var flags = native & FileConstants.O_ACCMODE;
        if ((native & O_NONBLOCK) != 0) flags |= FileConstants.O_NONBLOCK;
        if ((native & O_APPEND) != 0) flags |= FileConstants.O_APPEND;
        return flags;
    }

    /// <summary>The flags to set on a file that has <paramref name="native"/>: only those that the library knows change.</summary>
    internal int FromFileFlags(int native, int flags)
    {
        native &= ~(O_NONBLOCK | O_APPEND);
        if ((flags & FileConstants.O_NONBLOCK) != 0) native |= O_NONBLOCK;
        if ((flags & FileConstants.O_APPEND) != 0) native |= O_APPEND;
        return native;
    }

    /// <summary>A <c>struct msghdr</c> in 56 bytes. Little-endian: a number of 4 bytes with zeros behind is one of 8, too, and the
    /// BSDs' flags, behind the last of 4, are none.</summary>
    internal static void WriteHeader(Span<byte> header, nint name, int nameLength, nint vectors, int vectorCount, nint control, int controlLength)
    {
        header.Clear();
        var words = MemoryMarshal.Cast<byte, long>(header);
        words[0] = name;
        words[1] = nameLength;
        words[2] = vectors;
        words[3] = vectorCount;
        words[4] = control;
        words[5] = controlLength;
    }

    internal (int NameLength, int ControlLength, int Flags) ReadHeader(ReadOnlySpan<byte> header)
    {
        var words = MemoryMarshal.Cast<byte, int>(header);
        return (words[2], words[10], words[MessageFlagsOffset / sizeof(int)]);
    }
}
