namespace Amy.Async;

/// <summary>
/// The time-out of one direction's operations. It stays in the loop's queue when an operation ends in time, and looks at the
/// deadline of the one in progress when it fires: an operation that is in time costs one look at the clock and no change of
/// the queue.
/// </summary>
/// <remarks>The deadline belongs to the operation: written by its thread before Arm, then the loop's. Everything else is the
/// loop's.</remarks>
internal sealed class OperationTimer(Operation operation) : ILoopTimer
{
    private const long None = long.MaxValue;

    private long _deadline = None; // on the loop's clock
    private long _entered; // the deadline under which it is in the queue

    /// <inheritdoc/>
    public int QueueIndex { get; set; } = -1;

    internal bool IsSet => _deadline != None;

    internal void Set(EventLoop loop, long timeout) => _deadline = PollerTimers.Sum(loop.Now, timeout);

    internal void Unset() => _deadline = None;

    /// <summary>Loop only, while armed.</summary>
    internal bool IsDue(EventLoop loop) => loop.Now >= _deadline;

    /// <summary>Loop only, while armed: makes sure that it fires in time.</summary>
    internal void Enter(EventLoop loop)
    {
        if (QueueIndex >= 0)
        {
            if (_entered <= _deadline) return;
            loop.RemoveTimer(this);
        }
        _entered = _deadline;
        loop.AddTimer(this, _deadline);
    }

    /// <summary>Takes it out of the queue for good. Does nothing once the loop has stopped: then there is no queue.</summary>
    internal void Leave(EventLoop loop)
    {
        if (loop.IsCurrent) loop.RemoveTimer(this);
    }

    /// <inheritdoc/>
    public void Fire()
    {
        if (operation.IsArmed && IsSet) operation.Look(); // up, or in the queue again
    }

    /// <inheritdoc/>
    public void Stop()
    {
    }
}
