using Amy.Async.Native;

namespace Amy.Async;

/// <summary>
/// Looks now and then whether a handle was closed under a plain wait: the kernel says nothing about a close. Only while
/// there are such waits; otherwise the loop sleeps undisturbed.
/// </summary>
internal sealed class PlainSweep(EventLoop loop) : ILoopTimer
{
    /// <summary>Nanoseconds between two looks: 250 ms.</summary>
    internal const long Period = 250 * MonotonicClock.NanosecondsPerMillisecond;

    private static readonly Action<object, object?> s_schedule = static (sweep, _) => ((PlainSweep)sweep).Schedule();

    // 1 while the timer runs or is about to be started.
    // Story: a waiter W counts its wait, then reads this; the sweep S clears this, then counts waits. Either W reads 0 and
    // starts the timer, or S sees W's wait and starts it again. Both steps of each are separated by a full fence.
    private int _scheduled;

    /// <inheritdoc/>
    public int QueueIndex { get; set; } = -1;

    /// <summary>Called by a waiter, after it has counted its wait with an Interlocked operation. Any thread.</summary>
    internal void Ensure()
    {
        if (Volatile.Read(ref _scheduled) != 0 || Interlocked.Exchange(ref _scheduled, 1) != 0) return;
        if (loop.IsCurrent) Schedule();
        else loop.EnqueueOrPool(s_schedule, this);
    }

    /// <inheritdoc/>
    public void Fire()
    {
        Interlocked.Exchange(ref _scheduled, 0);
        var any = false;
        for (var slot = 0; loop.Registrar.TryGetSlot(slot, out var registration); slot++)
            any |= registration is AwaitableSource source && source.CheckHandle();
        if (any && Interlocked.Exchange(ref _scheduled, 1) == 0) Schedule();
    }

    /// <inheritdoc/>
    public void Stop()
    {
    }

    private void Schedule()
    {
        if (!loop.IsStopping) loop.AddHousekeeping(this, Period);
    }
}
