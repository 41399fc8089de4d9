using System.Diagnostics;

namespace Amy.Async;

/// <summary>
/// A deadline for several operations together, used again and again: <see cref="Set"/> it before a request, pass
/// <see cref="Token"/> to every operation of it, <see cref="Clear"/> it behind. Allocates only after it has expired.
/// </summary>
/// <remarks>
/// <para>May be used from any thread. The token is a <see cref="CancellationToken"/> like any other, so operations of other
/// libraries can be given it too; it is cancelled on the loop's thread. An operation that it ends throws an
/// <see cref="OperationCanceledException"/>: <c>catch (OperationCanceledException) when (deadline.HasExpired)</c>.</para>
/// <para>Like a socket's time-out it stays in the loop's queue when it is cleared or set anew, and looks at the time when
/// it fires: setting it costs a look at the clock.</para>
/// </remarks>
[DebuggerDisplay("expired: {HasExpired}")]
public sealed class LoopDeadline : ILoopTimer, IDisposable
{
    private const long None = long.MaxValue;
    private static readonly Action<object, object?> s_enter = static (deadline, _) => ((LoopDeadline)deadline).EnterQueued();
    private static readonly Action<object, object?> s_leave = static (deadline, _) => ((LoopDeadline)deadline).Leave();
    private static readonly Action<object, object?> s_cancel = static (source, _) => ((CancellationTokenSource)source).Cancel();

    private readonly EventLoop _loop;
    private readonly object _lock = new();
    private CancellationTokenSource _source = new(); // guarded by _lock
    private long _deadline = None; // on the loop's clock; guarded by _lock
    private bool _expired; // of _source; guarded by _lock
    private bool _disposed; // guarded by _lock
    private bool _enterQueued; // guarded by _lock
    private long _entered; // loop only: the time under which it is in the queue

    int ITimerEntry.QueueIndex { get; set; } = -1;

    internal LoopDeadline(EventLoop loop) => _loop = loop;

    /// <summary>Cancelled when the deadline passes. After that, <see cref="Set"/> makes a new one; until then it stays the same.</summary>
    public CancellationToken Token
    {
        get
        {
            lock (_lock) return _source.Token;
        }
    }

    /// <summary>Whether the deadline that was set last has passed.</summary>
    public bool HasExpired
    {
        get
        {
            lock (_lock) return _expired;
        }
    }

    /// <summary>Sets the deadline, from now on the loop's clock, instead of the one before. Never expires early.</summary>
    /// <param name="timeout">Positive; <see cref="Timeout.InfiniteTimeSpan"/> is like <see cref="Clear"/>, with a fresh
    /// token.</param>
    /// <exception cref="ArgumentOutOfRangeException">Zero, or negative and not infinite.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public void Set(TimeSpan timeout)
    {
        if (timeout <= TimeSpan.Zero && timeout != Timeout.InfiniteTimeSpan)
            throw new ArgumentOutOfRangeException(nameof(timeout), timeout, "A deadline is positive or infinite.");
        _loop.ThrowIfStopping();
        var deadline = timeout == Timeout.InfiniteTimeSpan ? None : PollerTimers.Sum(_loop.Now, Poller.Nanoseconds(timeout));
        bool enter;
        lock (_lock)
        {
            if (_disposed) throw new ObjectDisposedException(nameof(LoopDeadline));
            if (_expired) _source = new CancellationTokenSource(); // the old one is cancelled, or is being cancelled
            _expired = false;
            _deadline = deadline;
            enter = deadline != None && (_loop.IsCurrent || !_enterQueued);
            if (enter && !_loop.IsCurrent) _enterQueued = true;
        }
        if (!enter) return;
        if (_loop.IsCurrent) Enter(deadline);
        else _loop.EnqueueOrPool(s_enter, this);
    }

    /// <summary>Takes the deadline away: the operations were in time.</summary>
    public void Clear()
    {
        lock (_lock) _deadline = None;
    }

    /// <summary>Ends it for good, without cancelling the token.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            if (_disposed) return;
            _disposed = true;
            _deadline = None;
        }
        if (_loop.IsCurrent) Leave();
        else _loop.EnqueueOrPool(s_leave, this);
    }

    void ILoopTimer.Fire()
    {
        long left;
        lock (_lock) left = _deadline;
        if (left == None) return;
        if (left > _loop.Now) Enter(left);
        else Expire(left);
    }

    void ILoopTimer.Stop() // nobody would fire it any more
    {
        long left;
        lock (_lock) left = _deadline;
        if (left != None) Expire(left);
    }

    // Marked before it is cancelled, outside the lock: whoever sets it anew in between gets a fresh token.
    private void Expire(long deadline)
    {
        CancellationTokenSource source;
        lock (_lock)
        {
            if (_deadline != deadline) return; // set anew meanwhile; that has entered, or will
            _deadline = None;
            _expired = true;
            source = _source;
        }
        if (_loop.IsCurrent) _loop.RunItem(s_cancel, source, null, null); // foreign callbacks: what they throw goes to the loop's handler
        else source.Cancel();
    }

    private void EnterQueued()
    {
        long deadline;
        lock (_lock)
        {
            _enterQueued = false;
            deadline = _deadline;
        }
        if (deadline == None) return;
        if (_loop.IsCurrent && !_loop.IsStopping) Enter(deadline);
        else Expire(deadline); // left over when the loop stopped, or run behind the end of its timers
    }

    private void Enter(long deadline)
    {
        if (((ITimerEntry)this).QueueIndex >= 0)
        {
            if (_entered <= deadline) return; // fires before, and looks
            _loop.RemoveTimer(this);
        }
        _entered = deadline;
        _loop.AddTimer(this, deadline);
    }

    private void Leave()
    {
        if (_loop.IsCurrent) _loop.RemoveTimer(this); // after the stop there is no queue
    }
}
