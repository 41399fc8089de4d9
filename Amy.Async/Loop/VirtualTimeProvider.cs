using System.Diagnostics;

namespace Amy.Async;

/// <summary>
/// Time that passes only when it is told to, or, with <see cref="AutoJump"/>, when everybody waits for it: for tests of
/// time-outs that take no time and always go the same way. Pass it as <see cref="EventLoopOptions.TimeProvider"/>.
/// </summary>
/// <remarks>
/// Members may be called from any thread. Timers made directly on this object run on the thread that moves the time; those
/// of a loop (<see cref="EventLoop.Delay"/>, <see cref="EventLoop.TimeProvider"/>) on the loop.
/// </remarks>
[DebuggerDisplay("{GetUtcNow()}, {_timers.Count} timers")]
public sealed class VirtualTimeProvider : TimeProvider
{
    private readonly object _lock = new();
    private readonly TimerQueue<VirtualTimer> _timers = new(); // guarded by _lock
    private readonly DateTimeOffset _start;
    private long _ticks; // of 100 ns, since the start; written under _lock
    private long _target; // where the last Advance goes; guarded by _lock

    /// <summary>Time that begins on 1 January 2000, UTC.</summary>
    public VirtualTimeProvider() : this(new DateTimeOffset(2000, 1, 1, 0, 0, 0, TimeSpan.Zero))
    {
    }

    /// <summary>Time that begins at a date.</summary>
    public VirtualTimeProvider(DateTimeOffset start) => _start = start;

    /// <summary>
    /// When a loop with this time has nothing to do but wait (nothing posted, no event from the kernel), time jumps to the
    /// next deadline, as with trio's autojump clock. Work elsewhere, on the thread pool for example, is not seen; see
    /// <see cref="AutoJumpThreshold"/>. Meant for one loop: another one's work is not seen either.
    /// </summary>
    public bool AutoJump { get; init; }

    /// <summary>How long, in real time, the loop must have had nothing to do before time jumps. Zero by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">Negative.</exception>
    public TimeSpan AutoJumpThreshold
    {
        get => _threshold;
        init => _threshold = value >= TimeSpan.Zero ? value : throw new ArgumentOutOfRangeException(nameof(value), value, "The threshold is zero or positive.");
    }

    private readonly TimeSpan _threshold;

    /// <inheritdoc/>
    public override DateTimeOffset GetUtcNow() => _start + TimeSpan.FromTicks(GetTimestamp());

    /// <inheritdoc/>
    public override long GetTimestamp() => Volatile.Read(ref _ticks);

    /// <inheritdoc/>
    public override long TimestampFrequency => TimeSpan.TicksPerSecond;

    /// <summary>UTC, so that nothing depends on where a test runs.</summary>
    public override TimeZoneInfo LocalTimeZone => TimeZoneInfo.Utc;

    /// <summary>
    /// Lets time pass. Timers that become due on the way fire one after the other, in the order of their deadlines, each at
    /// its own time, on this thread.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">Negative, or beyond the last date.</exception>
    public void Advance(TimeSpan time)
    {
        long end;
        lock (_lock)
        {
            var from = Math.Max(_ticks, _target); // another thread may be on its way to its own end
            if (time < TimeSpan.Zero || time.Ticks > (DateTimeOffset.MaxValue - _start).Ticks - from)
                throw new ArgumentOutOfRangeException(nameof(time), time, "Time passes forwards, and ends with the last date.");
            end = _target = from + time.Ticks;
        }
        while (TakeDue(end) is { } action) action.Invoke();
    }

    /// <summary>The next time at which a timer is due. False: there is none.</summary>
    internal bool TryGetNext(out long ticks)
    {
        lock (_lock) ticks = _timers.NextDeadline;
        return ticks <= (DateTimeOffset.MaxValue - _start).Ticks;
    }

    /// <summary>Moves to the next timer due until then, at its time, and returns what it calls; or to the end, and returns null.</summary>
    internal TimerAction? TakeDue(long end)
    {
        lock (_lock)
        {
            if (!_timers.TryTakeDue(end, out var timer))
            {
                Volatile.Write(ref _ticks, Math.Max(_ticks, end));
                return null;
            }
            Volatile.Write(ref _ticks, Math.Max(_ticks, timer!.Deadline));
            if (timer.Period > 0) _timers.Add(timer, timer.Deadline = PollerTimers.Sum(timer.Deadline, timer.Period));
            return timer.Action;
        }
    }

    /// <summary>
    /// A timer on this time. It fires on the thread that moves the time; with a due time of zero at once, on this thread.
    /// The execution context flows. Disposing it does not wait for a callback that is running on another thread.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">A time is negative and not infinite.</exception>
    public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
    {
        if (callback is null) throw new ArgumentNullException(nameof(callback));
        var timer = new VirtualTimer(this, new TimerAction(callback, state));
        timer.Change(dueTime, period);
        return timer;
    }

    private sealed class VirtualTimer(VirtualTimeProvider owner, TimerAction action) : ITimer, ITimerEntry
    {
        private bool _disposed; // guarded by the owner's lock, as all here

        public int QueueIndex { get; set; } = -1;

        internal readonly TimerAction Action = action;
        internal long Deadline;
        internal long Period; // 0: none

        public bool Change(TimeSpan dueTime, TimeSpan period)
        {
            TimerAction.Check(dueTime, period);
            lock (owner._lock)
            {
                if (_disposed) return false;
                owner._timers.Remove(this);
                Period = period > TimeSpan.Zero ? period.Ticks : 0;
                Deadline = owner._ticks + dueTime.Ticks;
                var later = dueTime == TimeSpan.Zero ? Period : dueTime.Ticks;
                if (later > 0) owner._timers.Add(this, Deadline = PollerTimers.Sum(owner._ticks, later));
            }
            if (dueTime == TimeSpan.Zero) Action.Invoke();
            return true;
        }

        public void Dispose()
        {
            lock (owner._lock)
            {
                _disposed = true;
                owner._timers.Remove(this);
            }
        }

        public ValueTask DisposeAsync()
        {
            Dispose();
            return default;
        }
    }
}
