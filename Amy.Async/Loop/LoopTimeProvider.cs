using System.Diagnostics;
using Amy.Async.Native;

namespace Amy.Async;

/// <summary>The time of a loop: its clock, and timers that fire on its thread.</summary>
internal sealed class LoopTimeProvider(EventLoop loop, TimeProvider source) : TimeProvider
{
    public override long GetTimestamp() => loop.Now;

    public override long TimestampFrequency => MonotonicClock.NanosecondsPerSecond;

    public override DateTimeOffset GetUtcNow() => source.GetUtcNow();

    public override TimeZoneInfo LocalTimeZone => source.LocalTimeZone;

    public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
    {
        if (callback is null) throw new ArgumentNullException(nameof(callback));
        var timer = new LoopProviderTimer(loop, source, new TimerAction(callback, state));
        timer.Change(dueTime, period);
        return timer;
    }

    /// <summary>
    /// One timer. Any thread changes what is wanted, under its lock, and has the loop look; the loop alone enters and removes
    /// it. When the loop has stopped, a timer of the source takes over, so that nobody waits for ever.
    /// </summary>
    private sealed class LoopProviderTimer(EventLoop loop, TimeProvider source, TimerAction action) : ITimer, ILoopTimer
    {
        private static readonly Action<object, object?> s_look = static (timer, _) => ((LoopProviderTimer)timer).Look();
        private static readonly Action<object, object?> s_call = static (action, _) => ((TimerAction)action).Call();

        private readonly object _lock = new();
        private long _deadline = long.MaxValue; // all guarded by _lock; MaxValue: never
        private long _period; // 0: none
        private bool _disposed;
        private bool _lookQueued;
        private ITimer? _successor;

        public int QueueIndex { get; set; } = -1; // loop only

        public bool Change(TimeSpan dueTime, TimeSpan period)
        {
            TimerAction.Check(dueTime, period);
            lock (_lock)
            {
                if (_disposed) return false;
                _deadline = dueTime < TimeSpan.Zero ? long.MaxValue : PollerTimers.Sum(loop.Now, Poller.Nanoseconds(dueTime));
                _period = period > TimeSpan.Zero ? Poller.Nanoseconds(period) : 0;
            }
            HaveLooked();
            return true;
        }

        public void Dispose()
        {
            lock (_lock)
            {
                _disposed = true;
                _deadline = long.MaxValue;
            }
            HaveLooked();
        }

        public ValueTask DisposeAsync()
        {
            Dispose();
            return default;
        }

        private void HaveLooked()
        {
            if (loop.IsCurrent)
            {
                Look();
                return;
            }
            lock (_lock)
            {
                if (_lookQueued) return;
                _lookQueued = true;
            }
            loop.EnqueueOrPool(s_look, this);
        }

        // The loop; after it has stopped, any thread.
        private void Look()
        {
            lock (_lock)
            {
                _lookQueued = false;
                if (loop.IsCurrent)
                {
                    loop.RemoveTimer(this);
                    if (!loop.IsStopping)
                    {
                        if (_deadline != long.MaxValue) loop.AddTimer(this, _deadline);
                        return;
                    }
                }
                Succeed();
            }
        }

        public void Fire()
        {
            lock (_lock)
            {
                if (_deadline > loop.Now) // changed meanwhile; the look that enters it anew is queued
                    return;
                _deadline = _period == 0 ? long.MaxValue : PollerTimers.Sum(_deadline, _period * ((loop.Now - _deadline) / _period + 1));
                if (_deadline != long.MaxValue) loop.AddTimer(this, _deadline);
            }
            loop.RunItem(s_call, action, null, action.Context);
        }

        public void Stop()
        {
            lock (_lock) Succeed();
        }

        private void Succeed()
        {
            Debug.Assert(Monitor.IsEntered(_lock));
            var due = _deadline == long.MaxValue ? Timeout.InfiniteTimeSpan : TimeSpan.FromTicks(Math.Max(1, (_deadline - loop.Now) / 100)); // not zero: some sources fire that at once, under our lock
            if (_disposed) _successor?.Dispose();
            else if (_successor is not null) _successor.Change(due, Period);
            else if (_deadline != long.MaxValue) _successor = source.CreateTimer(static action => ((TimerAction)action!).Invoke(), action, due, Period);
        }

        private TimeSpan Period => _period == 0 ? Timeout.InfiniteTimeSpan : TimeSpan.FromTicks(_period / 100);
    }
}
