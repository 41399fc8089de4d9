namespace Amy.Async;

/// <summary>
/// One piece of posted work: a delegate that knows its two arguments, so that no closure is needed, and the execution
/// context to run in (null: the loop's own).
/// </summary>
internal readonly struct WorkItem(Action<object, object?> run, object target, object? state, ExecutionContext? context)
{
    internal readonly Action<object, object?> Run = run;
    internal readonly object Target = target;
    internal readonly object? State = state;
    internal readonly ExecutionContext? Context = context;
}

/// <summary>
/// What waits for the loop: any thread adds, the loop's thread takes. First in, first out over all threads.
/// </summary>
/// <remarks>
/// A lock around two arrays that swap places, instead of a lock-free list: it keeps one total order, allocates nothing once
/// the arrays have grown, and closes atomically. Posting and running one item of another thread takes 1.7 times as long as
/// through an unbounded channel with one reader (bench post). The lock is held for a few instructions and never while
/// foreign code runs.
/// </remarks>
internal sealed class WorkQueue
{
    private readonly object _lock = new();
    private WorkItem[] _incoming = new WorkItem[64]; // guarded by _lock
    private int _incomingCount; // written under _lock; the loop peeks without it, ordered by the poller's wake handshake
    private bool _closed; // guarded by _lock
    private long _addedByOthers; // written under _lock
    private WorkItem[] _taken = new WorkItem[64]; // loop only
    private int _next;
    private int _end;

    /// <summary>Loop only: whether there is anything to run. May miss what is added meanwhile, never what was there.</summary>
    internal bool HasWork => _next < _end || Volatile.Read(ref _incomingCount) > 0;

    /// <summary>Loop only: how many items one can take before the next look at what came in.</summary>
    internal int Taken => _end - _next;

    /// <summary>How many items came from other threads than the loop's. Any thread.</summary>
    internal long AddedByOthers => Volatile.Read(ref _addedByOthers);

    /// <summary>Adds an item. False: the queue is closed. <paramref name="first"/>: it was empty, so the loop may be asleep.</summary>
    internal bool TryAdd(in WorkItem item, bool byLoop, out bool first)
    {
        lock (_lock)
        {
            first = _incomingCount == 0;
            if (_closed) return false;
            if (!byLoop) _addedByOthers++;
            if (_incomingCount == _incoming.Length) Array.Resize(ref _incoming, _incomingCount * 2);
            _incoming[_incomingCount] = item;
            Volatile.Write(ref _incomingCount, _incomingCount + 1);
            return true;
        }
    }

    /// <summary>Loop only: takes over what has come in, once all taken before has been run.</summary>
    internal void Refill()
    {
        if (_next < _end || Volatile.Read(ref _incomingCount) == 0) return;
        lock (_lock)
        {
            (_incoming, _taken) = (_taken, _incoming);
            _end = _incomingCount;
            _next = 0;
            Volatile.Write(ref _incomingCount, 0);
        }
    }

    /// <summary>Loop only: the next item taken over.</summary>
    internal bool TryTake(out WorkItem item)
    {
        if (_next == _end)
        {
            item = default;
            return false;
        }
        item = _taken[_next];
        _taken[_next++] = default; // let go of what the item refers to
        return true;
    }

    /// <summary>Loop only: refuses what comes from now on, if nothing is left. False: there is something left to run.</summary>
    internal bool TryClose()
    {
        if (_next < _end) return false;
        lock (_lock)
        {
            if (_incomingCount > 0) return false;
            return _closed = true;
        }
    }

    /// <summary>Loop only: refuses what comes from now on; what is left can still be taken.</summary>
    internal void Close()
    {
        lock (_lock) _closed = true;
    }
}
