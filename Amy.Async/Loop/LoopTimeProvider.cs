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
        private static readonly Action<object, object?> s_passed = static (waiter, _) => ((TaskCompletionSource<bool>)waiter).TrySetResult(true);

        private readonly object _lock = new();
        private long _deadline = long.MaxValue; // all guarded by _lock; MaxValue: never
        private long _period; // 0: none
        private bool _disposed;
        private bool _lookQueued;
        private bool _changed; // since the successor was told
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
                _changed = true;
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
                _changed = true;
            }
            HaveLooked();
        }

        // Ends when no callback is running any more: behind it in the loop's queue.
        public ValueTask DisposeAsync()
        {
            Dispose();
            lock (_lock)
            {
                if (_successor is not null) return _successor.DisposeAsync();
            }
            if (loop.IsCurrent) return default;
            var passed = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
            loop.EnqueueOrPool(s_passed, passed);
            return new ValueTask(passed.Task);
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
            loop.RunItem(TimerAction.CallOnLoop, action, null, action.Context);
        }

        public void Stop()
        {
            lock (_lock) Succeed();
        }

        private void Succeed()
        {
            Debug.Assert(Monitor.IsEntered(_lock));
            if (_successor is not null && !_changed) return;
            _changed = false;
            // Not zero: some sources fire that at once, under our lock.
            var due = _deadline == long.MaxValue ? Timeout.InfiniteTimeSpan : ToTimeSpan(Math.Max(1, _deadline - loop.Now));
            var period = _period == 0 ? Timeout.InfiniteTimeSpan : ToTimeSpan(_period);
            if (_disposed) _successor?.Dispose();
            else if (_successor is not null) _successor.Change(due, period);
            else if (_deadline != long.MaxValue) _successor = source.CreateTimer(static action => ((TimerAction)action!).Invoke(), action, due, period);
        }

        // Rounded up: the system's timers cut off what is less than a millisecond, and a period of zero is none. (They count
        // in ticks of the kernel's coarse clock besides, and may be early by one of those.)
        private TimeSpan ToTimeSpan(long nanoseconds)
        {
            var unit = source is VirtualTimeProvider ? 1 : TimeSpan.TicksPerMillisecond;
            var ticks = (nanoseconds - 1) / 100 + 1;
            return TimeSpan.FromTicks(Math.Min((ticks - 1) / unit + 1, Longest / unit) * unit);
        }

        private const long Longest = (uint.MaxValue - 1L) * TimeSpan.TicksPerMillisecond;
    }
}
