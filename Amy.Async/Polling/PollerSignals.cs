namespace Amy.Async;

/// <summary>A source of notifications that is no descriptor: a channel's.</summary>
internal sealed class PollerSignal : Registration
{
    internal int Raised; // 1 from the first Raise to the Take that tells of it; any thread, Interlocked
}

/// <summary>
/// Notifications from other threads: a raised signal is told once by the next wait, however often it was raised.
/// </summary>
/// <remarks>
/// Story. W puts something where the signal's reader looks for it, then exchanges Raised for 1. S, the waiting thread,
/// exchanges it for 0, then returns the notification, and then its user looks. If W's exchange comes after S's, W finds 0
/// and raises anew. If it comes before, W finds 1 and does nothing more, and what it has put is there when the user looks.
/// </remarks>
internal sealed class PollerSignals(Poller poller)
{
    private const int FirstSlot = 1 << 29;

    private readonly object _lock = new();
    private readonly RegistrationTable _table = new(FirstSlot); // guarded by _lock
    private PollerSignal[] _raised = new PollerSignal[16]; // likewise
    private bool _closed; // likewise
    private int _count; // written under _lock; the waiting thread peeks, ordered by the poller's wake handshake

    /// <summary>Waiting thread: whether a wait has something to tell.</summary>
    internal bool Any => Volatile.Read(ref _count) > 0;

    internal int Count
    {
        get { lock (_lock) return _table.Count; }
    }

    internal PollerSignal Add()
    {
        var signal = new PollerSignal();
        lock (_lock)
        {
            if (_closed) throw new ObjectDisposedException(nameof(Poller));
            _table.Add(signal);
        }
        return signal;
    }

    internal void Close()
    {
        lock (_lock) _closed = true;
    }

    /// <summary>No notification comes out of a later wait. Any thread; false: removed before.</summary>
    internal bool Remove(PollerSignal signal)
    {
        lock (_lock)
        {
            if (signal.Id == 0) return false;
            _table.Remove(signal); // Take passes over it
            return true;
        }
    }

    /// <summary>Any thread, after what it tells of was published.</summary>
    internal void Raise(PollerSignal signal)
    {
        if (Interlocked.Exchange(ref signal.Raised, 1) != 0) return; // pairs with the exchange in Take
        lock (_lock)
        {
            if (signal.Id == 0) return;
            if (_count == _raised.Length) Array.Resize(ref _raised, _count * 2);
            _raised[_count] = signal;
            Volatile.Write(ref _count, _count + 1);
        }
        poller.Wake();
    }

    /// <summary>Waiting thread: what was raised, in that order, as much as there is room for.</summary>
    internal int Take(Span<Notification> notifications)
    {
        if (!Any) return 0;
        lock (_lock)
        {
            var taken = 0;
            var count = 0;
            while (taken < _count && count < notifications.Length)
            {
                var signal = _raised[taken++];
                Interlocked.Exchange(ref signal.Raised, 0); // a fence: before the user looks
                if (signal.Id != 0) notifications[count++] = new Notification(signal.Id, Readiness.Readable, 1);
            }
            Array.Copy(_raised, taken, _raised, 0, _count - taken);
            Array.Clear(_raised, _count - taken, taken);
            Volatile.Write(ref _count, _count - taken);
            return count;
        }
    }
}
