using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async.Native;
using Microsoft.Win32.SafeHandles;

namespace Amy.Async;

/// <summary>What <see cref="AsyncSocket.ReceiveMessageAsync"/> has received, besides the data itself.</summary>
public readonly struct ReceivedMessage
{
    private const long EarliestSecond = -62_135_596_800, LatestSecond = 253_402_300_799; // of a DateTimeOffset, since 1970

    private readonly int _flags;
    private readonly ReadOnlyMemory<byte> _control;
    private readonly SafeFileHandle[]? _descriptors;

    internal ReceivedMessage(int count, int flags, ReadOnlyMemory<byte> control, SafeFileHandle[] descriptors)
    {
        Count = count;
        _flags = flags;
        _control = control;
        _descriptors = descriptors;
    }

    /// <summary>Bytes of data; 0 is an empty datagram, or the end of a stream.</summary>
    public int Count { get; }

    /// <summary>
    /// <see cref="SocketFlags.Truncated"/>: the datagram was larger than the buffer; <see cref="SocketFlags.ControlDataTruncated"/>:
    /// there were more control messages than had room; <see cref="SocketFlags.OutOfBand"/>.
    /// </summary>
    public SocketFlags Flags
    {
        get
        {
            var flags = SocketFlags.None;
            if ((_flags & SocketConstants.MSG_TRUNC) != 0) flags |= SocketFlags.Truncated;
            if ((_flags & SocketConstants.MSG_CTRUNC) != 0) flags |= SocketFlags.ControlDataTruncated;
            if ((_flags & SocketConstants.MSG_OOB) != 0) flags |= SocketFlags.OutOfBand;
            return flags;
        }
    }

    /// <summary>The control messages, in the buffer that was given for them.</summary>
    public ControlMessages ControlMessages => new(_control.Span);

    /// <summary>
    /// The descriptors that came with the message, close-on-exec, the receiver's to dispose; those that nobody takes are closed
    /// when they are collected.
    /// </summary>
    public IReadOnlyList<SafeFileHandle> Descriptors => _descriptors ?? [];

    /// <summary>When the kernel got the datagram, with <see cref="AsyncSocketOptions.ReceiveTimestamps"/>; else null.</summary>
    public DateTimeOffset? Timestamp
    {
        get
        {
            if (!TryFind(SocketConstants.SOL_SOCKET, SocketConstants.SO_TIMESTAMPNS, 16, out var data)) return null;
            var time = MemoryMarshal.Read<TimeSpec>(data);
            if (time.Seconds is < EarliestSecond or > LatestSecond || time.Nanoseconds is < 0 or >= MonotonicClock.NanosecondsPerSecond) return null; // the buffer is the caller's
            return DateTimeOffset.FromUnixTimeSeconds(time.Seconds).AddTicks(time.Nanoseconds / 100);
        }
    }

    /// <summary>Where the datagram arrived, with <see cref="AsyncSocketOptions.ReceivePacketInformation"/>; else null.</summary>
    public PacketInformation? PacketInformation
    {
        get
        {
            if (TryFind(SocketConstants.IPPROTO_IP, SocketConstants.IP_PKTINFO, 12, out var data)) // struct in_pktinfo: index, local address, destination
                return new PacketInformation(new IPAddress(MemoryMarshal.Read<uint>(data.Slice(8))), MemoryMarshal.Read<int>(data));
            if (TryFind(SocketConstants.IPPROTO_IPV6, SocketConstants.IPV6_PKTINFO, 20, out data)) // struct in6_pktinfo: destination, index
                return new PacketInformation(new IPAddress(data.Slice(0, 16).ToArray()), MemoryMarshal.Read<int>(data.Slice(16)));
            return null;
        }
    }

    /// <summary>How many datagrams the socket has dropped since it was made, with
    /// <see cref="AsyncSocketOptions.ReceiveDropCounts"/>; null: none yet, or not asked for.</summary>
    public long? Drops => TryFind(SocketConstants.SOL_SOCKET, SocketConstants.SO_RXQ_OVFL, sizeof(uint), out var data) ? MemoryMarshal.Read<uint>(data) : null;

    // The kernel cuts what has no room in the buffer: a message that is shorter than it should be tells nothing.
    private bool TryFind(int level, int type, int length, out ReadOnlySpan<byte> data)
    {
        foreach (var message in ControlMessages)
        {
            if (message.Level != level || message.Type != type || message.Data.Length < length) continue;
            data = message.Data;
            return true;
        }
        data = default;
        return false;
    }
}

/// <summary>Where a datagram arrived.</summary>
/// <param name="Address">Its destination: this machine's address, or the group's or broadcast's.</param>
/// <param name="InterfaceIndex">The network interface.</param>
public readonly record struct PacketInformation(IPAddress Address, int InterfaceIndex);

/// <summary>One control message (<c>cmsg(3)</c>).</summary>
public readonly ref struct ControlMessage
{
    internal const int HeaderSize = 16;

    internal ControlMessage(int level, int type, ReadOnlySpan<byte> data)
    {
        Level = level;
        Type = type;
        Data = data;
    }

    /// <summary>The protocol that made it, as in setsockopt(2).</summary>
    public int Level { get; }

    /// <summary>What it is, of that protocol.</summary>
    public int Type { get; }

    /// <summary>Its content.</summary>
    public ReadOnlySpan<byte> Data { get; }

    /// <summary>The room that a message takes in a control buffer, in bytes (CMSG_SPACE).</summary>
    /// <param name="dataLength">The length of its data.</param>
    /// <exception cref="ArgumentOutOfRangeException">Negative.</exception>
    public static int GetSpace(int dataLength)
    {
        if (dataLength < 0) throw new ArgumentOutOfRangeException(nameof(dataLength), dataLength, "A length is zero or positive.");
        return checked(HeaderSize + Align(dataLength));
    }

    internal static int Align(int length) => (length + 7) & ~7;

    /// <summary>Writes the header of the first message of a buffer.</summary>
    internal static void Write(Span<byte> buffer, int level, int type, int dataLength, out Span<byte> data)
    {
        buffer.Clear();
        MemoryMarshal.Cast<byte, ControlHeader>(buffer)[0] = new ControlHeader { Length = (nuint)(HeaderSize + dataLength), Level = level, Type = type };
        data = buffer.Slice(HeaderSize, dataLength);
    }
}

/// <summary>The control messages of a buffer, one after the other: for <c>foreach</c>.</summary>
public ref struct ControlMessages
{
    private ReadOnlySpan<byte> _rest;

    internal ControlMessages(ReadOnlySpan<byte> buffer)
    {
        _rest = buffer;
        Current = default;
    }

    /// <summary>The message at which the enumeration stands.</summary>
    public ControlMessage Current { get; private set; }

    /// <summary>This.</summary>
    public readonly ControlMessages GetEnumerator() => this;

    /// <summary>Goes on to the next message; false: there is none, or no whole one.</summary>
    public bool MoveNext()
    {
        if (_rest.Length < ControlMessage.HeaderSize) return false;
        var header = MemoryMarshal.Read<ControlHeader>(_rest);
        var length = (long)header.Length;
        if (length < ControlMessage.HeaderSize || length > _rest.Length) return false;
        Current = new ControlMessage(header.Level, header.Type, _rest.Slice(ControlMessage.HeaderSize, (int)length - ControlMessage.HeaderSize));
        _rest = _rest.Slice(Math.Min(ControlMessage.Align((int)length), _rest.Length));
        return true;
    }
}
