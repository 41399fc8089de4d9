using System.Runtime.CompilerServices;
using Amy.Async.Compat;

namespace Amy.Async.Native;

/// <summary>
/// The seam at the system calls. Every call of the library into the kernel goes through one of these members, on an
/// instance that the poller holds, so that tests can count calls, inject faults and play other kernels.
/// </summary>
/// <remarks>
/// Results are a value or <c>-errno</c>. EINTR is retried here where the manual page makes that safe; the exceptions are
/// said at the member. Nothing here throws, keeps state (but for the one probe of epoll_pwait2) or knows about loops.
/// Arguments and results are in the numbers of Linux; where others hold, <see cref="PortableSystemCalls"/> translates.
/// </remarks>
internal unsafe partial class SystemCalls
{
    /// <summary>Those of this system. Set by tests alone.</summary>
    internal static SystemCalls Instance { get; set; } = PlatformNumbers.Current is { } numbers ? new PortableSystemCalls(numbers) : new SystemCalls();

    /// <summary>epoll_pwait2 was refused once: ENOSYS by old kernels, EPERM by old containers' seccomp filters.</summary>
    private volatile bool _preciseWaitRefused;

    // ---- epoll(7), eventfd(2)

    internal virtual int EpollCreate() => Result(Libc.epoll_create1(Epoll.CLOEXEC));

    /// <summary>epoll_ctl(2). EINTR is not among its errors.</summary>
    internal virtual int EpollControl(int epoll, int operation, int descriptor, uint events, long data)
    {
        byte* e = stackalloc byte[16];
        Unsafe.WriteUnaligned(e, events);
        Unsafe.WriteUnaligned(e + Epoll.DataOffset, data);
        return Result(Libc.epoll_ctl(epoll, operation, descriptor, e));
    }

    /// <summary>
    /// epoll_wait(2) with a timeout in nanoseconds (negative: for ever). May return <c>-EINTR</c>: only the caller knows
    /// the deadline. Precise where the kernel has epoll_pwait2, else rounded up to milliseconds: never early.
    /// </summary>
    internal virtual int EpollWait(int epoll, byte[] events, int capacity, long timeout)
    {
        if (timeout > 0 && !_preciseWaitRefused)
        {
            var result = EpollWaitPrecise(epoll, events, capacity, timeout);
            if (result is not (-Errno.ENOSYS or -Errno.EPERM)) return result;
            _preciseWaitRefused = true;
        }
        fixed (byte* e = events)
            return Result(Libc.syscall(SystemCallNumber.EpollWait, epoll, e, capacity, ToMilliseconds(timeout), null, 0));
    }

    /// <summary>epoll_pwait2(2), Linux 5.11; <c>-ENOSYS</c> also where the C library does not have it.</summary>
    internal virtual int EpollWaitPrecise(int epoll, byte[] events, int capacity, long timeout)
    {
        var time = new TimeSpec
        {
            Seconds = timeout / MonotonicClock.NanosecondsPerSecond,
            Nanoseconds = timeout % MonotonicClock.NanosecondsPerSecond,
        };
        try
        {
            fixed (byte* e = events) return Result(Libc.epoll_pwait2(epoll, e, capacity, &time, null));
        }
        catch (EntryPointNotFoundException)
        {
            return -Errno.ENOSYS;
        }
    }

    internal static int ToMilliseconds(long nanoseconds)
    {
        if (nanoseconds <= 0) return nanoseconds < 0 ? -1 : 0;
        var rounded = (nanoseconds - 1) / MonotonicClock.NanosecondsPerMillisecond + 1;
        return rounded > int.MaxValue ? int.MaxValue : (int)rounded;
    }

    internal virtual int EventFdCreate() => Result(Libc.eventfd(0, EventFd.CLOEXEC | EventFd.NONBLOCK));

    // ---- any descriptor

    internal virtual int Read(int descriptor, Span<byte> buffer)
    {
        fixed (byte* b = buffer)
        {
            int n;
            do n = Result(Libc.read(descriptor, b, (nuint)buffer.Length));
            while (n == -Errno.EINTR);
            return n;
        }
    }

    internal virtual int Write(int descriptor, ReadOnlySpan<byte> buffer)
    {
        fixed (byte* b = buffer)
        {
            int n;
            do n = Result(Libc.write(descriptor, b, (nuint)buffer.Length));
            while (n == -Errno.EINTR);
            return n;
        }
    }

    /// <summary>close(2). Never retried: on Linux the descriptor is gone even after EINTR.</summary>
    internal virtual int Close(int descriptor) => Result(Libc.close(descriptor));

    /// <summary>poll(2) of one descriptor without waiting; the events that hold now.</summary>
    internal virtual int Poll(int descriptor, short events)
    {
        var p = new PollFd { Descriptor = descriptor, Events = events };
        int n;
        do n = Result(Libc.poll(&p, 1, 0));
        while (n == -Errno.EINTR);
        return n < 0 ? n : p.Returned;
    }

    // ---- sockets

    /// <summary>socket(2), non-blocking and close-on-exec.</summary>
    internal virtual int Socket(int domain, int type, int protocol) =>
        Result(Libc.socket(domain, type | SocketConstants.SOCK_NONBLOCK | SocketConstants.SOCK_CLOEXEC, protocol));

    internal virtual int Bind(int socket, ReadOnlySpan<byte> address)
    {
        fixed (byte* a = address) return Result(Libc.bind(socket, a, (uint)address.Length));
    }

    internal virtual int Listen(int socket, int backlog) => Result(Libc.listen(socket, backlog));

    /// <summary>connect(2). Not retried: after EINTR the attempt goes on by itself, like after EINPROGRESS.</summary>
    internal virtual int Connect(int socket, ReadOnlySpan<byte> address)
    {
        fixed (byte* a = address) return Result(Libc.connect(socket, a, (uint)address.Length));
    }

    /// <summary>accept4(2): the new descriptor, non-blocking and close-on-exec.</summary>
    internal virtual int Accept(int listener)
    {
        int n;
        do n = Result(Libc.accept4(listener, null, null, SocketConstants.SOCK_NONBLOCK | SocketConstants.SOCK_CLOEXEC));
        while (n == -Errno.EINTR);
        return n;
    }

    internal virtual int Receive(int socket, Span<byte> buffer)
    {
        fixed (byte* b = buffer)
        {
            int n;
            do n = Result(Libc.syscall(SystemCallNumber.Recvfrom, socket, b, buffer.Length, SocketConstants.MSG_DONTWAIT, null, 0));
            while (n == -Errno.EINTR);
            return n;
        }
    }

    /// <summary>
    /// recvmsg(2) without room for ancillary data: <paramref name="ancillary"/> tells that there was some (MSG_CTRUNC),
    /// which ends a read early on a Unix-domain stream.
    /// </summary>
    internal virtual int ReceiveMessage(int socket, Span<byte> buffer, out bool ancillary)
    {
        fixed (byte* b = buffer)
        {
            var vector = new IoVector { Base = b, Length = (nuint)buffer.Length };
            var header = new MessageHeader { Vectors = &vector, VectorCount = 1 };
            int n;
            do n = Result(Libc.syscall(SystemCallNumber.Recvmsg, socket, &header, SocketConstants.MSG_DONTWAIT, 0, null, 0));
            while (n == -Errno.EINTR);
            ancillary = (header.Flags & SocketConstants.MSG_CTRUNC) != 0;
            return n;
        }
    }

    /// <summary>send(2), never with a SIGPIPE.</summary>
    internal virtual int Send(int socket, ReadOnlySpan<byte> buffer)
    {
        fixed (byte* b = buffer)
        {
            int n;
            do n = Result(Libc.syscall(SystemCallNumber.Sendto, socket, b, buffer.Length, SocketConstants.MSG_NOSIGNAL | SocketConstants.MSG_DONTWAIT, null, 0));
            while (n == -Errno.EINTR);
            return n;
        }
    }

    internal virtual int Shutdown(int socket, int how) => Result(Libc.shutdown(socket, how));

    /// <summary>getsockname(2): the length of the address written to <paramref name="address"/>.</summary>
    internal virtual int GetSocketName(int socket, Span<byte> address)
    {
        var length = (uint)address.Length;
        fixed (byte* a = address)
        {
            var n = Result(Libc.getsockname(socket, a, &length));
            return n < 0 ? n : (int)length;
        }
    }

    /// <summary>getpeername(2): the length of the address written to <paramref name="address"/>.</summary>
    internal virtual int GetPeerName(int socket, Span<byte> address)
    {
        var length = (uint)address.Length;
        fixed (byte* a = address)
        {
            var n = Result(Libc.getpeername(socket, a, &length));
            return n < 0 ? n : (int)length;
        }
    }

    internal virtual int GetOption(int socket, int level, int name, out int value)
    {
        int v = 0;
        uint length = sizeof(int);
        var n = Result(Libc.getsockopt(socket, level, name, &v, &length));
        value = v;
        return n;
    }

    internal virtual int SetOption(int socket, int level, int name, int value) =>
        Result(Libc.setsockopt(socket, level, name, &value, sizeof(int)));

    /// <summary>socket(7), SO_LINGER on with zero seconds: the next close resets the connection.</summary>
    internal virtual int SetResetOnClose(int socket)
    {
        var linger = new Linger { OnOff = 1, Seconds = 0 };
        return Result(Libc.setsockopt(socket, SocketConstants.SOL_SOCKET, SocketConstants.SO_LINGER, &linger, (uint)sizeof(Linger)));
    }

    // Inlined into the caller, so that errno is asked for right behind the call.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private protected static int Result(nint value) => value >= 0 ? (int)value : -ErrorNumbers.Translate(LastError.Get());
}
