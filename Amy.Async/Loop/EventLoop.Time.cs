using System.Diagnostics;
using Amy.Async.Native;

namespace Amy.Async;

// Time. The loop's own timers run on its clock, which may be a virtual one; what the library itself waits for (looking for
// closed handles, backing off) always runs on the kernel's.
public sealed partial class EventLoop
{
    private readonly MonotonicClock _clock;
    private readonly MonotonicClock _kernelClock;
    private readonly ForeignTime? _foreign; // null: the loop's clock is the kernel's
    private readonly TimerQueue<ILoopTimer> _timers = new();
    private readonly TimerQueue<ILoopTimer> _housekeeping; // the same queue, unless time is foreign
    private readonly Stack<DelayOperation> _delays = new(); // idle ones; any thread, locked

    /// <summary>
    /// The loop's clock, and timers that fire on the loop's thread: <c>Task.Delay(…, loop.TimeProvider)</c>,
    /// <c>new CancellationTokenSource(…, loop.TimeProvider)</c>, <c>new PeriodicTimer(…, loop.TimeProvider)</c>.
    /// </summary>
    /// <remarks>
    /// May be used from any thread. An exception of a timer's callback goes to <see cref="EventLoopOptions.UnhandledException"/>.
    /// When the loop has stopped, its timers go on as the platform's, on the thread pool, so that nothing waits for ever; with a
    /// <see cref="EventLoopOptions.TimeProvider"/>, as its time moves on.
    /// </remarks>
    public TimeProvider TimeProvider { get; }

    /// <summary>Makes a timer that ticks on this loop, as <c>PeriodicTimer</c> does on the thread pool.</summary>
    /// <param name="period">The time between two ticks, positive, in steps of 100 ns.</param>
    /// <exception cref="ArgumentOutOfRangeException">Zero or negative.</exception>
    /// <exception cref="ObjectDisposedException">The loop has stopped.</exception>
    public LoopTimer CreateTimer(TimeSpan period)
    {
        if (period <= TimeSpan.Zero) throw new ArgumentOutOfRangeException(nameof(period), period, "The period of a timer is positive.");
        ThrowIfStopping();
        return new LoopTimer(this, period);
    }

    /// <summary>Waits for a time to pass on the loop's clock; never shorter. Allocates nothing after the first few.</summary>
    /// <param name="delay">Zero completes at once; <see cref="Timeout.InfiniteTimeSpan"/> only by cancelling.</param>
    /// <param name="cancellationToken">Ends the wait early.</param>
    /// <exception cref="ArgumentOutOfRangeException">Negative and not infinite.</exception>
    /// <exception cref="OperationCanceledException">Cancelled (out of the await).</exception>
    /// <exception cref="ObjectDisposedException">The loop has stopped (also out of the await).</exception>
    public ValueTask Delay(TimeSpan delay, CancellationToken cancellationToken = default)
    {
        var nanoseconds = delay == Timeout.InfiniteTimeSpan || delay >= TimeSpan.Zero
            ? Poller.Nanoseconds(delay)
            : throw new ArgumentOutOfRangeException(nameof(delay), delay, "A delay is zero, positive or infinite.");
        ThrowIfStopping();
        if (cancellationToken.IsCancellationRequested) return new ValueTask(Task.FromCanceled(cancellationToken));
        if (nanoseconds == 0) return default;
        return RentDelay().Start(nanoseconds < 0 ? long.MaxValue : PollerTimers.Sum(_clock.Now(), nanoseconds), cancellationToken);
    }

    /// <summary>Makes a deadline for several operations together, which this loop watches.</summary>
    /// <exception cref="ObjectDisposedException">The loop has stopped.</exception>
    public LoopDeadline CreateDeadline()
    {
        ThrowIfStopping();
        return new LoopDeadline(this);
    }

    /// <summary>Nanoseconds on the loop's clock.</summary>
    internal long Now => _clock.Now();

    internal void AddTimer(ILoopTimer timer, long deadline)
    {
        Debug.Assert(IsCurrent);
        _timers.Add(timer, deadline);
    }

    internal void RemoveTimer(ILoopTimer timer)
    {
        Debug.Assert(IsCurrent);
        if (timer.QueueIndex >= 0) _timers.Remove(timer);
    }

    /// <summary>Starts a timer of the library's own, on the kernel's clock.</summary>
    internal void AddHousekeeping(ILoopTimer timer, long nanoseconds)
    {
        Debug.Assert(IsCurrent);
        _housekeeping.Add(timer, _kernelClock.Now() + nanoseconds);
    }

    internal void ReturnDelay(DelayOperation delay)
    {
        lock (_delays) _delays.Push(delay);
    }

    private DelayOperation RentDelay()
    {
        lock (_delays)
        {
            if (_delays.Count > 0) return _delays.Pop();
        }
        return new DelayOperation(this);
    }

    private void RunTimers()
    {
        RunTimers(_timers, _clock);
        if (_foreign is not null) RunTimers(_housekeeping, _kernelClock);
    }

    private void RunTimers(TimerQueue<ILoopTimer> timers, MonotonicClock clock)
    {
        if (timers.Count == 0) return;
        var now = clock.Now();
        for (var i = 0; i < MaxTimers && _fatal is null && timers.TryTakeDue(now, out var timer); i++)
        {
            _now.TimersFired++;
            timer!.Fire();
        }
    }

    /// <summary>Nanoseconds until a timer is due; 0: at once; negative: never.</summary>
    private long TimeToNextTimer()
    {
        if (_foreign is not null && !_foreign.SetAlarm(_timers.NextDeadline)) return 0;
        if (_housekeeping.Count == 0) return -1;
        var deadline = _housekeeping.NextDeadline;
        return deadline == long.MaxValue ? -1 : Math.Max(0, deadline - _kernelClock.Now());
    }

    /// <summary>
    /// Nothing is to be done: if nothing comes within the threshold either, virtual time jumps. False: there is no next timer.
    /// </summary>
    private bool JumpIfIdle(VirtualTimeProvider time, long timeout)
    {
        var end = PollerTimers.Sum(_kernelClock.Now(), Poller.Nanoseconds(time.AutoJumpThreshold));
        while (true) // a wait may end early, for a signal or a wake-up whose work was done already
        {
            var left = Math.Max(0, end - _kernelClock.Now());
            var events = Sleep(timeout < 0 ? left : Math.Min(left, timeout));
            Dispatch(events);
            if (events > 0 || _queue.HasWork || _stopRequested) return true;
            timeout = TimeToNextTimer();
            if (timeout == 0) return true;
            if (_kernelClock.Now() >= end) break;
        }
        if (!time.TryGetNext(out var next)) return false;
        while (_fatal is null && time.TakeDue(next) is { } action) RunItem(TimerAction.CallOnLoop, action, null, action.Context);
        return true;
    }
}
