using Amy.Async.Native;

namespace Amy.Async;

/// <summary>A time-out or an interval of a poller's. Pooled: setting one allocates nothing.</summary>
internal sealed class PollerTimer : Registration, ITimerEntry
{
    public int QueueIndex { get; set; } = -1;

    internal long Deadline;
    internal long Period; // 0: a time-out, which fires once
}

/// <summary>
/// The timers of a poller: any thread sets and cancels, the waiting thread takes what is due. One lock, held for a few
/// instructions and never during a system call.
/// </summary>
/// <remarks>
/// <para>Waking the sleeper. The waiting thread notes under the lock until when it will sleep (<c>_sleepsUntil</c>), and
/// under the lock again that it is awake. Whoever sets an earlier deadline meanwhile lowers the note and wakes; a later
/// one, or one set while nobody sleeps, wakes nobody.</para>
/// <para>Story. T sets a timer, S goes to sleep. If T has the lock first, S sees the timer and sleeps no longer than to it.
/// If S has it first, T sees the note and calls <see cref="Poller.Wake"/>, whose handshake ends S's sleep or prevents it,
/// whether or not S is in the kernel yet. Two setters T1 and T2: the lock orders them, and the second wakes only if its
/// deadline is before the first one's, which S is being woken for already.</para>
/// </remarks>
internal sealed class PollerTimers(Poller poller, MonotonicClock clock)
{
    private const int FirstSlot = 1 << 30;
    private const long Awake = long.MinValue;

    private readonly object _lock = new();
    private readonly TimerQueue<PollerTimer> _queue = new(); // all below: guarded by _lock
    private readonly RegistrationTable _table = new(FirstSlot);
    private readonly Stack<PollerTimer> _pool = new();
    private long _sleepsUntil = Awake; // long.MaxValue: for ever
    private bool _closed;

    internal int Count
    {
        get { lock (_lock) return _queue.Count; }
    }

    /// <summary>Starts a timer. Any thread.</summary>
    /// <param name="dueTime">Nanoseconds from now, saturating.</param>
    /// <param name="period">Nanoseconds between expirations; 0: only one.</param>
    internal long Set(long dueTime, long period)
    {
        var deadline = Sum(clock.Now(), dueTime);
        long id;
        lock (_lock)
        {
            if (_closed) throw new ObjectDisposedException(nameof(Poller));
            var timer = _pool.Count > 0 ? _pool.Pop() : new PollerTimer();
            timer.Deadline = deadline;
            timer.Period = period;
            _table.Add(timer);
            _queue.Add(timer, deadline);
            id = timer.Id;
            if (deadline >= _sleepsUntil) return id;
            _sleepsUntil = deadline;
        }
        poller.Wake();
        return id;
    }

    /// <summary>False: it has fired, was cancelled or never was. Any thread.</summary>
    internal bool Cancel(long id)
    {
        lock (_lock)
        {
            if (_table.Find(id) is not PollerTimer timer) return false;
            _queue.Remove(timer);
            Recycle(timer);
            return true;
        }
    }

    /// <summary>The waiting thread is about to sleep; returns the deadline or the first timer's, whichever is earlier.</summary>
    internal long SleepUntil(long deadline)
    {
        lock (_lock) return _sleepsUntil = Math.Min(deadline, _queue.NextDeadline);
    }

    /// <summary>The waiting thread has woken; takes the timers that are due, as many as there is room for.</summary>
    internal int TakeDue(Span<Notification> notifications)
    {
        lock (_lock)
        {
            _sleepsUntil = Awake;
            if (_queue.Count == 0) return 0;
            var now = clock.Now();
            var count = 0;
            while (count < notifications.Length && _queue.TryTakeDue(now, out var timer))
                notifications[count++] = new Notification(timer!.Id, Readiness.Readable, Expire(timer, now));
            return count;
        }
    }

    internal void Close()
    {
        lock (_lock) _closed = true;
    }

    // How often it has expired since the last time. An interval keeps its phase, however late it is looked at.
    private int Expire(PollerTimer timer, long now)
    {
        if (timer.Period == 0)
        {
            Recycle(timer);
            return 1;
        }
        var times = (now - timer.Deadline) / timer.Period + 1;
        timer.Deadline = Sum(timer.Deadline, times * timer.Period); // at most now + Period: no overflow in the product
        _queue.Add(timer, timer.Deadline);
        return (int)Math.Min(times, int.MaxValue);
    }

    private void Recycle(PollerTimer timer)
    {
        _table.Remove(timer);
        _pool.Push(timer);
    }

    internal static long Sum(long now, long nanoseconds) => nanoseconds > long.MaxValue - now ? long.MaxValue : now + nanoseconds;
}
