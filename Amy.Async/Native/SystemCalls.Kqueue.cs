using Amy.Async.Compat;

namespace Amy.Async.Native;

// kqueue(2), kevent(2), and a pipe for wake-ups where there are no user events.
internal unsafe partial class SystemCalls
{
    /// <summary>What the environment wants <see cref="PollerKind.Auto"/> to mean, or null.</summary>
    internal virtual string? RequestedPoller => Environment.GetEnvironmentVariable("AMY_ASYNC_POLLER");

    /// <summary>Why there is no kqueue here, or null.</summary>
    internal virtual string? KqueueRefusal() => Platform.KqueueRefusal(Machine);

    /// <summary>The layout and the constants of this system's kqueue.</summary>
    internal virtual KqueueAbi KqueueAbi => KqueueLibrary.Abi;

    /// <summary>
    /// kqueue(2), close-on-exec. A queue is not inherited by fork(2), but exec alone would keep it; that the flag is set a moment
    /// later lets nothing through that fork does not stop.
    /// </summary>
    internal virtual int KqueueCreate()
    {
        var queue = KqueueLibrary.IsForeign ? Libkqueue.kqueue() : Libc.kqueue();
        if (queue < 0) return LastError.Get() == 0 ? -Errno.EMFILE : Result(queue); // libkqueue has no errno for it
        _ = CloseOnExec(queue);
        return queue;
    }

    /// <summary>
    /// kevent(2) with a timeout in nanoseconds (negative: for ever). May return <c>-EINTR</c>; the changes have been applied
    /// then.
    /// </summary>
    internal virtual int Kevent(int queue, byte[]? changes, int changeCount, byte[]? events, int capacity, long timeout)
    {
        var time = new TimeSpec
        {
            Seconds = timeout / MonotonicClock.NanosecondsPerSecond,
            Nanoseconds = timeout % MonotonicClock.NanosecondsPerSecond,
        };
        fixed (byte* c = changes, e = events)
        {
            var t = timeout < 0 ? null : &time;
            return Result(KqueueLibrary.IsForeign
                ? Libkqueue.kevent(queue, c, changeCount, e, capacity, t)
                : Libc.kevent(queue, c, changeCount, e, capacity, t));
        }
    }

    /// <summary>pipe(2), close-on-exec and non-blocking: the end to read from, or -errno.</summary>
    internal virtual int PipeCreate(out int writer)
    {
        var ends = stackalloc int[2];
        writer = -1;
        var n = Result(Libc.pipe(ends));
        if (n < 0) return n;
        for (var i = 0; i < 2 && n >= 0; i++)
        {
            n = CloseOnExec(ends[i]);
            if (n >= 0) n = SetFlags(ends[i], FileConstants.O_NONBLOCK);
        }
        if (n < 0)
        {
            _ = Libc.close(ends[0]);
            _ = Libc.close(ends[1]);
            return n;
        }
        writer = ends[1];
        return ends[0];
    }

    private static int CloseOnExec(int descriptor) => Result(Libc.FileControl(descriptor, Kqueue.F_SETFD, Kqueue.FD_CLOEXEC));
}
