using System.Runtime.InteropServices;

namespace Amy.Async.Native;

// What only the extras need of Linux's constants and structures: datagrams, messages, any descriptor.
internal static partial class SocketConstants
{
    internal const int SO_BROADCAST = 6;
    internal const int SO_KEEPALIVE = 9;
    internal const int SO_TIMESTAMPNS = 35;
    internal const int SO_RXQ_OVFL = 40;
    internal const int SCM_RIGHTS = 1;

    internal const int IPPROTO_IP = 0;
    internal const int IP_PKTINFO = 8;
    internal const int IPV6_RECVPKTINFO = 49;
    internal const int IPV6_PKTINFO = 50;

    internal const int MSG_OOB = 0x1;
    internal const int MSG_PEEK = 0x2;
    internal const int MSG_TRUNC = 0x20;
    internal const int MSG_CMSG_CLOEXEC = 0x40000000;
}

/// <summary>open(2) and fcntl(2).</summary>
internal static class FileConstants
{
    internal const int F_GETFL = 3;
    internal const int F_SETFL = 4;
    internal const int O_ACCMODE = 3;
    internal const int O_NOCTTY = 0x100;
    internal const int O_APPEND = 0x400;
    internal const int O_NONBLOCK = 0x800;
    internal const int O_CLOEXEC = 0x80000;

    internal const int AT_EMPTY_PATH = 0x1000;
    internal const int STATX_TYPE = 0x1;
    internal const int STATX_INO = 0x100;

    internal const int S_IFMT = 0xf000;
    internal const int S_IFDIR = 0x4000;
    internal const int S_IFREG = 0x8000;

    /// <summary>linux/stat.h: size and offsets in <c>struct statx</c>.</summary>
    internal const int StatxSize = 256;
    internal const int StatxModeOffset = 28;
    internal const int StatxInodeOffset = 32;
    internal const int StatxDeviceOffset = 136;

    /// <summary>linux/kcmp.h: compare two descriptors' open file descriptions.</summary>
    internal const int KCMP_FILE = 0;
}

/// <summary><c>struct mmsghdr</c>: a message and how much of it was transferred; 64 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct BatchHeader
{
    internal MessageHeader Message;
    internal uint Length;
}

/// <summary><c>struct cmsghdr</c> of 64-bit Linux. Data follows it; both are aligned to 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct ControlHeader
{
    internal nuint Length; // of header and data, without the padding behind
    internal int Level;
    internal int Type;
}
