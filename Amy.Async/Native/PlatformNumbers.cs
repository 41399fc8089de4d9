namespace Amy.Async.Native;

/// <summary>How a system sends a file.</summary>
internal enum SendFileForm
{
    Linux,
    Apple,
    FreeBsd,
}

/// <summary>
/// The numbers of a system that is not Linux, by their names in C. A test compares each with that system's header. What is
/// not here is the same everywhere (SOCK_STREAM, IPPROTO_TCP, MSG_PEEK, POLLIN, F_GETFL, ...).
/// </summary>
internal sealed partial class PlatformNumbers
{
    /// <summary>This system has no such thing.</summary>
    internal const int None = -1;

    internal static readonly PlatformNumbers MacOS = new()
    {
        Errors = ErrorNumbers.MacOS,
        SendFile = SendFileForm.Apple,
        FamilyOffset = 1,
        AF_INET6 = 30,
        SOCK_CLOEXEC = None,
        SOCK_NONBLOCK = None,
        SOL_SOCKET = 0xffff,
        SO_ACCEPTCONN = 0x2,
        SO_REUSEADDR = 0x4,
        SO_KEEPALIVE = 0x8,
        SO_BROADCAST = 0x20,
        SO_LINGER = 0x80, // in clock ticks; only zero is used
        SO_REUSEPORT = 0x200,
        SO_REUSEPORT_LB = None,
        SO_SNDBUF = 0x1001,
        SO_RCVBUF = 0x1002,
        SO_ERROR = 0x1007,
        SO_TYPE = 0x1008,
        SO_DOMAIN = None,
        SO_PROTOCOL = None,
        SO_NOSIGPIPE = 0x1022,
        SO_TIMESTAMP = 0x400,
        SO_TS_CLOCK = None,
        SO_TS_REALTIME = None,
        SO_RXQ_OVFL = None,
        SCM_TIMESTAMP = 2,
        SCM_REALTIME = None,
        IP_PKTINFO = 26,
        IP_RECVDSTADDR = None, // it has that too, but IP_PKTINFO tells more
        IP_RECVIF = None,
        IPV6_V6ONLY = 27,
        IPV6_RECVPKTINFO = 61,
        IPV6_PKTINFO = 46,
        MSG_TRUNC = 0x10,
        MSG_CTRUNC = 0x20,
        MSG_DONTWAIT = 0x80,
        MSG_NOSIGNAL = None, // new, and refused by older releases
        MSG_CMSG_CLOEXEC = None,
        O_NONBLOCK = 0x4,
        O_APPEND = 0x8,
        O_NOCTTY = 0x20000,
        O_CLOEXEC = 0x1000000,
        FIOCLEX = 0x20006601,
        POLLRDHUP = None,
        StatModeOffset = 4,
        MessageSize = 48,
        MessageFlagsOffset = 44,
        ControlLengthSize = 4,
        ControlDataOffset = 12,
        ControlAlignment = 4,
    };

    internal static readonly PlatformNumbers FreeBsd = new()
    {
        Errors = ErrorNumbers.FreeBsd,
        SendFile = SendFileForm.FreeBsd,
        FamilyOffset = 1,
        AF_INET6 = 28,
        SOCK_CLOEXEC = 0x10000000,
        SOCK_NONBLOCK = 0x20000000,
        SOL_SOCKET = 0xffff,
        SO_ACCEPTCONN = 0x2,
        SO_REUSEADDR = 0x4,
        SO_KEEPALIVE = 0x8,
        SO_BROADCAST = 0x20,
        SO_LINGER = 0x80,
        SO_REUSEPORT = 0x200,
        SO_REUSEPORT_LB = 0x10000,
        SO_SNDBUF = 0x1001,
        SO_RCVBUF = 0x1002,
        SO_ERROR = 0x1007,
        SO_TYPE = 0x1008,
        SO_DOMAIN = 0x1019,
        SO_PROTOCOL = 0x1016,
        SO_NOSIGPIPE = 0x800,
        SO_TIMESTAMP = 0x400,
        SO_TS_CLOCK = 0x1017,
        SO_TS_REALTIME = 2,
        SO_RXQ_OVFL = None,
        SCM_TIMESTAMP = 2,
        SCM_REALTIME = 5,
        IP_PKTINFO = None,
        IP_RECVDSTADDR = 7,
        IP_RECVIF = 20,
        IPV6_V6ONLY = 27,
        IPV6_RECVPKTINFO = 36,
        IPV6_PKTINFO = 46,
        MSG_TRUNC = 0x10,
        MSG_CTRUNC = 0x20,
        MSG_DONTWAIT = 0x80,
        MSG_NOSIGNAL = 0x20000,
        MSG_CMSG_CLOEXEC = 0x40000,
        O_NONBLOCK = 0x4,
        O_APPEND = 0x8,
        O_NOCTTY = 0x8000,
        O_CLOEXEC = 0x100000,
        FIOCLEX = 0x20006601,
        POLLRDHUP = None, // 0x4000 in newer releases; older ones would take it for nothing
        StatModeOffset = 24,
        MessageSize = 48,
        MessageFlagsOffset = 44,
        ControlLengthSize = 4,
        ControlDataOffset = 16,
        ControlAlignment = 8,
    };

    /// <summary>Those of this system; null on Linux.</summary>
    internal static PlatformNumbers? Current => Of(PlatformDescription.Current);

    internal static PlatformNumbers? Of(PlatformDescription platform) => platform.System switch
    {
        PlatformDescription.MacOS => MacOS,
        PlatformDescription.FreeBsd => FreeBsd,
        _ => null,
    };

    /// <summary>Null: Linux's own.</summary>
    internal required ErrorNumbers? Errors { get; init; }

    internal required SendFileForm SendFile { get; init; }

    /// <summary>Where <c>struct sockaddr</c> has its family: one byte behind sa_len, or two bytes at the beginning.</summary>
    internal required int FamilyOffset { get; init; }

    internal required int AF_INET6 { get; init; }

    internal required int SOCK_CLOEXEC { get; init; }
    internal required int SOCK_NONBLOCK { get; init; }

    internal required int SOL_SOCKET { get; init; }
    internal required int SO_ACCEPTCONN { get; init; }
    internal required int SO_REUSEADDR { get; init; }
    internal required int SO_KEEPALIVE { get; init; }
    internal required int SO_BROADCAST { get; init; }
    internal required int SO_LINGER { get; init; }
    internal required int SO_REUSEPORT { get; init; }

    /// <summary>Connections are spread over the listeners, as Linux does with SO_REUSEPORT.</summary>
    internal required int SO_REUSEPORT_LB { get; init; }
    internal required int SO_SNDBUF { get; init; }
    internal required int SO_RCVBUF { get; init; }
    internal required int SO_ERROR { get; init; }
    internal required int SO_TYPE { get; init; }
    internal required int SO_DOMAIN { get; init; }
    internal required int SO_PROTOCOL { get; init; }
    internal required int SO_NOSIGPIPE { get; init; }
    internal required int SO_TIMESTAMP { get; init; }

    /// <summary>Which clock SO_TIMESTAMP reads: SO_TS_REALTIME has nanoseconds, told as SCM_REALTIME.</summary>
    internal required int SO_TS_CLOCK { get; init; }
    internal required int SO_TS_REALTIME { get; init; }
    internal required int SO_RXQ_OVFL { get; init; }
    internal required int SCM_TIMESTAMP { get; init; }
    internal required int SCM_REALTIME { get; init; }

    internal required int IP_PKTINFO { get; init; }

    /// <summary>With IP_RECVIF, what stands in where there is no IP_PKTINFO.</summary>
    internal required int IP_RECVDSTADDR { get; init; }
    internal required int IP_RECVIF { get; init; }
    internal required int IPV6_V6ONLY { get; init; }
    internal required int IPV6_RECVPKTINFO { get; init; }
    internal required int IPV6_PKTINFO { get; init; }

    internal required int MSG_TRUNC { get; init; }
    internal required int MSG_CTRUNC { get; init; }
    internal required int MSG_DONTWAIT { get; init; }
    internal required int MSG_NOSIGNAL { get; init; }
    internal required int MSG_CMSG_CLOEXEC { get; init; }

    internal required int O_NONBLOCK { get; init; }
    internal required int O_APPEND { get; init; }
    internal required int O_NOCTTY { get; init; }
    internal required int O_CLOEXEC { get; init; }

    /// <summary>ioctl(2) without a third argument, so without the question how variadic ones travel.</summary>
    internal required int FIOCLEX { get; init; }

    internal required int POLLRDHUP { get; init; }

    /// <summary>Where <c>struct stat</c> has st_mode, of two bytes.</summary>
    internal required int StatModeOffset { get; init; }

    /// <summary>The size of <c>struct msghdr</c>. All have the name at 0, its length at 8, the vectors at 16 and 24, the control
    /// data at 32 and 40; the numbers at 24 and 40 have 4 bytes on the BSDs and 8 on Linux.</summary>
    internal required int MessageSize { get; init; }
    internal required int MessageFlagsOffset { get; init; }

    /// <summary>The size of cmsg_len; level and type, 4 bytes each, follow it.</summary>
    internal required int ControlLengthSize { get; init; }

    /// <summary>CMSG_DATA: the header, aligned.</summary>
    internal required int ControlDataOffset { get; init; }

    /// <summary>Of one control message behind another.</summary>
    internal required int ControlAlignment { get; init; }
}
