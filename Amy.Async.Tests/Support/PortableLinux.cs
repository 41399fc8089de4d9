using Amy.Async.Native;

namespace Amy.Async.Tests;

/// <summary>
/// Linux as if it had none of its extensions: what PortableSystemCalls does for macOS by other means, it does here too, so that
/// the same tests judge it. The numbers, where they exist, are Linux's own.
/// </summary>
internal static class PortableLinux
{
    internal static readonly PlatformNumbers Numbers = new()
    {
        Errors = null,
        SendFile = SendFileForm.Linux,
        FamilyOffset = 0,
        AF_INET6 = 10,
        SOCK_CLOEXEC = PlatformNumbers.None,
        SOCK_NONBLOCK = PlatformNumbers.None,
        SOL_SOCKET = 1,
        SO_ACCEPTCONN = 30,
        SO_REUSEADDR = 2,
        SO_KEEPALIVE = 9,
        SO_BROADCAST = 6,
        SO_LINGER = 13,
        SO_REUSEPORT = 15,
        SO_REUSEPORT_LB = PlatformNumbers.None,
        SO_SNDBUF = 7,
        SO_RCVBUF = 8,
        SO_ERROR = 4,
        SO_TYPE = 3,
        SO_DOMAIN = PlatformNumbers.None,
        SO_PROTOCOL = PlatformNumbers.None,
        SO_NOSIGPIPE = PlatformNumbers.None,
        SO_TIMESTAMP = 29, // of microseconds, which is what macOS has
        SO_TS_CLOCK = PlatformNumbers.None,
        SO_TS_REALTIME = PlatformNumbers.None,
        SO_RXQ_OVFL = 40,
        SCM_TIMESTAMP = 29,
        SCM_REALTIME = PlatformNumbers.None,
        IP_PKTINFO = 8,
        IP_RECVDSTADDR = PlatformNumbers.None,
        IP_RECVIF = PlatformNumbers.None,
        IPV6_V6ONLY = 26,
        IPV6_RECVPKTINFO = 49,
        IPV6_PKTINFO = 50,
        MSG_TRUNC = 0x20,
        MSG_CTRUNC = 0x8,
        MSG_DONTWAIT = 0x40,
        MSG_NOSIGNAL = PlatformNumbers.None,
        MSG_CMSG_CLOEXEC = PlatformNumbers.None,
        O_NONBLOCK = 0x800,
        O_APPEND = 0x400,
        O_NOCTTY = 0x100,
        O_CLOEXEC = 0x80000,
        FIOCLEX = 0x5451, // asm-generic/ioctls.h
        POLLRDHUP = PlatformNumbers.None,
        StatModeOffset = System.Runtime.InteropServices.RuntimeInformation.ProcessArchitecture == System.Runtime.InteropServices.Architecture.X64 ? 24 : 16,
        MessageSize = 56,
        MessageFlagsOffset = 48,
        ControlLengthSize = 8,
        ControlDataOffset = 16,
        ControlAlignment = 8,
    };

    internal static readonly PortableSystemCalls Calls = new(Numbers);

    /// <summary>Makes every loop of these tests use them; what it returns takes that back.</summary>
    internal static IDisposable Use()
    {
        var before = SystemCalls.Instance;
        SystemCalls.Instance = Calls;
        return new Restorer(before);
    }

    private sealed class Restorer(SystemCalls before) : IDisposable
    {
        public void Dispose() => SystemCalls.Instance = before;
    }
}
