using System.Runtime.InteropServices;

namespace Amy.Async.Native;

// The constants and structures of Linux that cross the P/Invoke boundary. 64-bit only: Platform.Refusal turns
// everything else away before a structure is used.

internal static class Epoll
{
    internal const int CTL_ADD = 1;
    internal const int CTL_DEL = 2;
    internal const int CTL_MOD = 3;
    internal const int CLOEXEC = 0x80000;

    internal const uint IN = 0x001;
    internal const uint PRI = 0x002;
    internal const uint OUT = 0x004;
    internal const uint ERR = 0x008;
    internal const uint HUP = 0x010;
    internal const uint RDHUP = 0x2000;
    internal const uint ET = 1u << 31;

    /// <summary>
    /// <c>struct epoll_event</c> is packed on x86-64 and only there (EPOLL_PACKED in linux/eventpoll.h): 12 bytes with the
    /// user data at offset 4; elsewhere 16 bytes with the user data at offset 8.
    /// </summary>
    internal static readonly int EventSize = RuntimeInformation.ProcessArchitecture == Architecture.X64 ? 12 : 16;

    internal static readonly int DataOffset = EventSize - 8;
}

/// <summary>Numbers of the bare system calls (asm/unistd_64.h of x86-64, asm-generic/unistd.h of arm64).</summary>
internal static class SystemCallNumber
{
    private static readonly bool s_x64 = RuntimeInformation.ProcessArchitecture == Architecture.X64;

    /// <summary>epoll_wait(2); arm64 has only epoll_pwait, which is the same without a mask.</summary>
    internal static readonly nint EpollWait = s_x64 ? 232 : 22;
    internal static readonly nint Recvfrom = s_x64 ? 45 : 207;
    internal static readonly nint Recvmsg = s_x64 ? 47 : 212;
    internal static readonly nint Sendto = s_x64 ? 44 : 206;
    internal static readonly nint Sendmsg = s_x64 ? 46 : 211;
    internal static readonly nint Recvmmsg = s_x64 ? 299 : 243;
    internal static readonly nint Sendmmsg = s_x64 ? 307 : 269;
    internal static readonly nint Kcmp = s_x64 ? 312 : 272;
    internal static readonly nint Statx = s_x64 ? 332 : 291;
}

internal static partial class SocketConstants
{
    internal const int AF_UNIX = 1;
    internal const int AF_INET = 2;
    internal const int AF_INET6 = 10;

    internal const int SOCK_STREAM = 1;
    internal const int SOCK_DGRAM = 2;
    internal const int SOCK_NONBLOCK = 0x800;
    internal const int SOCK_CLOEXEC = 0x80000;

    internal const int IPPROTO_TCP = 6;
    internal const int IPPROTO_IPV6 = 41;
    internal const int TCP_NODELAY = 1;
    internal const int IPV6_V6ONLY = 26;

    internal const int SOL_SOCKET = 1;
    internal const int SO_REUSEADDR = 2;
    internal const int SO_TYPE = 3;
    internal const int SO_ERROR = 4;
    internal const int SO_SNDBUF = 7;
    internal const int SO_RCVBUF = 8;
    internal const int SO_LINGER = 13;
    internal const int SO_REUSEPORT = 15;
    internal const int SO_ACCEPTCONN = 30;
    internal const int SO_PROTOCOL = 38;
    internal const int SO_DOMAIN = 39;

    internal const int MSG_CTRUNC = 0x8;
    internal const int MSG_DONTWAIT = 0x40;
    internal const int MSG_NOSIGNAL = 0x4000;

    internal const int SHUT_RD = 0;
    internal const int SHUT_WR = 1;
    internal const int SHUT_RDWR = 2;

    /// <summary>Room for any address the library meets: <c>struct sockaddr_storage</c> is 128 bytes.</summary>
    internal const int AddressCapacity = 128;
}

internal static class PollEvents
{
    internal const short IN = 0x001;
    internal const short PRI = 0x002;
    internal const short OUT = 0x004;
    internal const short ERR = 0x008;
    internal const short HUP = 0x010;
    internal const short NVAL = 0x020;
    internal const short RDHUP = 0x2000;
}

internal static class EventFd
{
    internal const int CLOEXEC = 0x80000;
    internal const int NONBLOCK = 0x800;
}

[StructLayout(LayoutKind.Sequential)]
internal struct TimeSpec
{
    internal long Seconds;
    internal long Nanoseconds;
}

[StructLayout(LayoutKind.Sequential)]
internal struct PollFd
{
    internal int Descriptor;
    internal short Events;
    internal short Returned;
}

[StructLayout(LayoutKind.Sequential)]
internal struct Linger
{
    internal int OnOff;
    internal int Seconds;
}

/// <summary><c>struct iovec</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct IoVector
{
    internal void* Base;
    internal nuint Length;
}

/// <summary><c>struct msghdr</c> of 64-bit Linux: 56 bytes, padded after the name length and after the flags.</summary>
[StructLayout(LayoutKind.Sequential)]
internal unsafe struct MessageHeader
{
    internal void* Name;
    internal uint NameLength;
    internal IoVector* Vectors;
    internal nuint VectorCount;
    internal void* Control;
    internal nuint ControlLength;
    internal int Flags;
}
