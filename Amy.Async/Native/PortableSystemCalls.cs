using System.Runtime.InteropServices;

namespace Amy.Async.Native;

// Linux's sockets can do more than those of other systems, and number things otherwise. What follows from that here:
//
// - Numbers are translated at this seam, both ways: above it everybody speaks Linux's. Addresses are not: SocketAddress of
//   System.Net.Sockets has the system's own layout (sa_len and a family of one byte on the BSDs), and nothing above looks
//   into them. The kernel writes sa_len itself and ignores the one it is given.
// - macOS has no accept4, no SOCK_NONBLOCK and no MSG_NOSIGNAL: a socket is made, then set up. A child that is forked in
//   between inherits the descriptor; only the kernel could prevent that. On the BSDs an accepted socket inherits O_NONBLOCK,
//   on Linux not: it is set anyway.
// - macOS has neither SO_DOMAIN nor SO_PROTOCOL: the family is that of the socket's own address, and TCP is what knows
//   TCP_NODELAY.
// - xnu puts the descriptors that came with a message into the process whether or not there is room to tell of them, and says
//   nothing if no control buffer was given. So there always is one, large enough, and what the caller has no room for is
//   closed here.
// - The bare system calls of the Linux path have other numbers elsewhere, or none (macOS): libc's functions are called.

/// <summary>
/// The sockets' system calls by means that every system has, with the numbers of one of them. With those of Linux itself the
/// emulations run on Linux too, which is how they are tested.
/// </summary>
internal sealed unsafe partial class PortableSystemCalls(PlatformNumbers numbers) : SystemCalls
{
    /// <summary>
    /// xnu answers EPROTOTYPE to a send on a socket that is being shut down by the other side; tried again, it says EPIPE
    /// (libuv's <c>uv__write</c> does so for ever).
    /// </summary>
    private const int MaxSendRetries = 8;

    // ---- making sockets

    internal override int Socket(int domain, int type, int protocol)
    {
        var native = domain == SocketConstants.AF_INET6 ? numbers.AF_INET6 : domain;
        if (numbers.SOCK_CLOEXEC == PlatformNumbers.None) return SetUp(Result(Libc.socket(native, type, protocol)));
        var socket = Result(Libc.socket(native, type | numbers.SOCK_CLOEXEC | numbers.SOCK_NONBLOCK, protocol));
        if (socket >= 0) Adopt(socket);
        return socket;
    }

    internal override int Accept(int listener)
    {
        int n;
        if (numbers.SOCK_CLOEXEC == PlatformNumbers.None)
        {
            do n = Result(Libc.accept(listener, null, null));
            while (n == -Errno.EINTR);
            return SetUp(n);
        }
        do n = Result(Libc.accept4(listener, null, null, numbers.SOCK_CLOEXEC | numbers.SOCK_NONBLOCK));
        while (n == -Errno.EINTR);
        if (n >= 0) Adopt(n);
        return n;
    }

    /// <summary>SO_NOSIGPIPE, where sends cannot say so. It fails only where the connection is gone already.</summary>
    internal override void Adopt(int socket)
    {
        if (numbers.MSG_NOSIGNAL == PlatformNumbers.None && numbers.SO_NOSIGPIPE != PlatformNumbers.None)
            _ = base.SetOption(socket, numbers.SOL_SOCKET, numbers.SO_NOSIGPIPE, 1);
    }

    private int SetUp(int socket)
    {
        if (socket < 0) return socket;
        var n = CloseOnExec(socket);
        if (n >= 0) n = SetFlags(socket, FileConstants.O_NONBLOCK);
        if (n < 0)
        {
            Close(socket);
            return n;
        }
        Adopt(socket);
        return socket;
    }

    private int CloseOnExec(int descriptor) => Result(Libc.ioctl(descriptor, (nuint)(uint)numbers.FIOCLEX));

    // ---- transferring

    internal override int Receive(int socket, Span<byte> buffer) => ReceiveFrom(socket, buffer, default, out _, 0);

    internal override int ReceiveFrom(int socket, Span<byte> buffer, Span<byte> address, out int addressLength, int flags)
    {
        fixed (byte* b = buffer)
        fixed (byte* a = address)
        {
            uint length;
            int n;
            do
            {
                length = (uint)address.Length;
                n = Result(Libc.recvfrom(socket, b, (nuint)buffer.Length, ToNative(flags) | numbers.MSG_DONTWAIT, a, a is null ? null : &length));
            }
            while (n == -Errno.EINTR);
            addressLength = n < 0 || a is null ? 0 : (int)length;
            return n;
        }
    }

    internal override int Send(int socket, ReadOnlySpan<byte> buffer) => SendTo(socket, buffer, default, 0);

    internal override int SendTo(int socket, ReadOnlySpan<byte> buffer, ReadOnlySpan<byte> address, int flags)
    {
        fixed (byte* b = buffer)
        fixed (byte* a = address)
        {
            int n;
            var tries = 0;
            do n = Result(Libc.sendto(socket, b, (nuint)buffer.Length, ToSendFlags(flags), a, (uint)address.Length));
            while (n < 0 && MustSendAgain(ref n, ref tries));
            return n;
        }
    }

    /// <summary>sendfile(2) in this system's form.</summary>
    internal override int SendFile(int socket, int file, long offset, int count)
    {
        if (numbers.SendFile == SendFileForm.Linux) return base.SendFile(socket, file, offset, count);
        if (count == 0) return 0; // to which both say: all that there is
        int n;
        var tries = 0;
        do
        {
            long sent = count;
            int result;
            if (numbers.SendFile == SendFileForm.Apple) result = Result(Libc.sendfile_apple(file, socket, offset, &sent, null, 0));
            else
            {
                sent = 0;
                result = Result(Libc.sendfile_freebsd(file, socket, offset, (nuint)count, null, &sent, 0));
            }
            n = SendFileResult(result, sent);
        }
        while (n < 0 && MustSendAgain(ref n, ref tries));
        return n;
    }

    /// <summary>
    /// What a sendfile of the BSDs came to: what was sent, although it may have ended with an error (EAGAIN: the socket is full;
    /// the next call tells any other again). A file that is no regular one is a wrong argument, as Linux says.
    /// </summary>
    internal static int SendFileResult(int result, long sent) =>
        sent > 0 ? (int)sent : result == -Errno.EOPNOTSUPP ? -Errno.EINVAL : result;

    /// <summary>Whether a send that has failed is to be tried again; else <paramref name="result"/> is what it came to.</summary>
    internal static bool MustSendAgain(ref int result, ref int tries)
    {
        if (result == -Errno.EINTR) return true;
        if (result != -Errno.EPROTOTYPE) return false;
        if (tries++ < MaxSendRetries) return true;
        result = -Errno.EPIPE;
        return false;
    }

    private int ToSendFlags(int flags)
    {
        var native = ToNative(flags) | numbers.MSG_DONTWAIT;
        return numbers.MSG_NOSIGNAL == PlatformNumbers.None ? native : native | numbers.MSG_NOSIGNAL;
    }

    // MSG_OOB and MSG_PEEK, which is all that comes from above, are the same everywhere.
    private static int ToNative(int flags) => flags & (SocketConstants.MSG_OOB | SocketConstants.MSG_PEEK);

    // ---- options

    internal override int GetOption(int socket, int level, int name, out int value)
    {
        value = 0;
        if (level == SocketConstants.SOL_SOCKET && name == SocketConstants.SO_DOMAIN && numbers.SO_DOMAIN == PlatformNumbers.None) return GetDomain(socket, out value);
        if (level == SocketConstants.SOL_SOCKET && name == SocketConstants.SO_PROTOCOL && numbers.SO_PROTOCOL == PlatformNumbers.None) return GetProtocol(socket, out value);
        if (!numbers.TryTranslateOption(ref level, ref name)) return -Errno.ENOPROTOOPT;
        var n = base.GetOption(socket, level, name, out value);
        if (level != numbers.SOL_SOCKET) return n;
        if (name == numbers.SO_ERROR && numbers.Errors is { } errors) value = errors.ToLinux(value);
        if (name == numbers.SO_DOMAIN) value = numbers.ToDomain(value);
        return n;
    }

    internal override int SetOption(int socket, int level, int name, int value)
    {
        if (level == SocketConstants.IPPROTO_IP && name == SocketConstants.IP_PKTINFO && numbers.IP_PKTINFO == PlatformNumbers.None)
        {
            var n = base.SetOption(socket, level, numbers.IP_RECVDSTADDR, value);
            return n < 0 ? n : base.SetOption(socket, level, numbers.IP_RECVIF, value);
        }
        if (level == SocketConstants.SOL_SOCKET && name == SocketConstants.SO_TIMESTAMPNS && numbers.SO_TS_CLOCK != PlatformNumbers.None)
        {
            var n = base.SetOption(socket, numbers.SOL_SOCKET, numbers.SO_TS_CLOCK, numbers.SO_TS_REALTIME);
            if (n < 0) return n;
        }
        return numbers.TryTranslateOption(ref level, ref name) ? base.SetOption(socket, level, name, value) : -Errno.ENOPROTOOPT;
    }

    internal override int SetResetOnClose(int socket)
    {
        var linger = new Linger { OnOff = 1, Seconds = 0 };
        return Result(Libc.setsockopt(socket, numbers.SOL_SOCKET, numbers.SO_LINGER, &linger, (uint)sizeof(Linger)));
    }

    // EINVAL: the connection is dead already, and xnu has forgotten its address. Nothing is proven by such a socket.
    private int GetDomain(int socket, out int domain)
    {
        Span<byte> address = stackalloc byte[SocketConstants.AddressCapacity];
        domain = 0;
        var n = GetSocketName(socket, address);
        if (n < 0) return n == -Errno.EINVAL ? 0 : n;
        domain = numbers.GetDomain(address.Slice(0, Math.Min(n, address.Length)));
        return 0;
    }

    private int GetProtocol(int socket, out int protocol)
    {
        protocol = base.GetOption(socket, SocketConstants.IPPROTO_TCP, SocketConstants.TCP_NODELAY, out _) >= 0 ? SocketConstants.IPPROTO_TCP : 0;
        return 0;
    }

    // ---- descriptors of any kind

    /// <summary>
    /// poll(2). POLLRDHUP is Linux's: elsewhere the end of a stream is seen by looking, once what came before it has been read.
    /// </summary>
    internal override int Poll(int descriptor, short events)
    {
        if (numbers.POLLRDHUP != PlatformNumbers.None) return base.Poll(descriptor, events);
        var n = base.Poll(descriptor, (short)(events & ~PollEvents.RDHUP));
        return n > 0 && (events & PollEvents.RDHUP) != 0 && (n & PollEvents.IN) != 0 && HasEnded(descriptor) ? n | PollEvents.RDHUP : n;
    }

    private bool HasEnded(int descriptor)
    {
        if (GetOption(descriptor, SocketConstants.SOL_SOCKET, SocketConstants.SO_TYPE, out var type) < 0 || type != SocketConstants.SOCK_STREAM) return false;
        Span<byte> one = stackalloc byte[1];
        return ReceiveFrom(descriptor, one, default, out _, SocketConstants.MSG_PEEK) == 0;
    }

    internal override int GetFlags(int descriptor)
    {
        var native = Result(Libc.FileControl(descriptor, FileConstants.F_GETFL, 0));
        return native < 0 ? native : numbers.ToFileFlags(native);
    }

    /// <summary>F_SETFL of O_NONBLOCK and O_APPEND; the others stay as they are.</summary>
    internal override int SetFlags(int descriptor, int flags)
    {
        var native = Result(Libc.FileControl(descriptor, FileConstants.F_GETFL, 0));
        return native < 0 ? native : Result(Libc.FileControl(descriptor, FileConstants.F_SETFL, numbers.FromFileFlags(native, flags)));
    }

    internal override int Open(ReadOnlySpan<byte> path, int flags)
    {
        var native = flags & FileConstants.O_ACCMODE | numbers.O_CLOEXEC;
        if ((flags & FileConstants.O_NONBLOCK) != 0) native |= numbers.O_NONBLOCK;
        if ((flags & FileConstants.O_NOCTTY) != 0) native |= numbers.O_NOCTTY;
        fixed (byte* p = path)
        {
            int n;
            do n = Result(Libc.open(p, native));
            while (n == -Errno.EINTR);
            return n;
        }
    }

    /// <summary>Never: opening one anew goes by /proc, which is Linux's. A terminal is shared then, and O_NONBLOCK given back.</summary>
    internal override bool IsTerminal(int descriptor) => false;

    /// <summary>Not told without statx(2): all descriptors are compared by their descriptions then.</summary>
    internal override (long Device, long Inode) GetFile(int descriptor) => default;

    internal override int CompareDescriptions(int first, int second) => -Errno.ENOSYS; // kcmp(2) is Linux's

    internal override int GetAffinity(Span<byte> mask) => -Errno.ENOSYS;

    internal override int SetAffinity(ReadOnlySpan<byte> mask) => -Errno.ENOSYS;

    /// <summary>Not told: no two threads are taken to be on the same one.</summary>
    internal override int CurrentProcessor() => -Environment.CurrentManagedThreadId;
}
