using Amy.Async.Native;

namespace Amy.Async;

/// <summary>
/// When descriptors or memory run out, accepting waits a little and tries again: the connections stay in the kernel's
/// queue, and the others are served meanwhile. Trying at once would be a hot loop, and giving up would end the server.
/// Belongs to the listener's loop.
/// </summary>
internal sealed class AcceptBackoff(AwaitableSource listener) : ILoopTimer
{
    private const long First = 5 * MonotonicClock.NanosecondsPerMillisecond;
    private const long Longest = 320 * MonotonicClock.NanosecondsPerMillisecond;

    private long _delay = First;

    /// <inheritdoc/>
    public int QueueIndex { get; set; } = -1;

    internal bool IsWaiting => QueueIndex >= 0;

    internal static bool IsExhaustion(int result) => result is -Errno.EMFILE or -Errno.ENFILE or -Errno.ENOBUFS or -Errno.ENOMEM;

    internal void Start()
    {
        if (IsWaiting) return;
        listener.Loop.CountAcceptBackoff();
        listener.Loop.AddHousekeeping(this, _delay);
        _delay = Math.Min(_delay * 2, Longest);
    }

    /// <summary>A connection was accepted. May race with the loop's Start by design: it only makes a delay short.</summary>
    internal void Reset() => _delay = First;

    /// <inheritdoc/>
    public void Fire() => listener.OnReady(Readiness.Readable); // as if an edge had come: the pending accept tries

    /// <inheritdoc/>
    public void Stop()
    {
    }
}
