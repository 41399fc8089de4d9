using System.Threading.Tasks.Sources;

namespace Amy.Async;

/// <summary>
/// A wait for a point in time. Taken from the loop's pool by <see cref="EventLoop.Delay"/>, given back when it is fetched.
/// </summary>
/// <remarks>
/// Armed by the calling thread; entered into the loop's timer queue by the loop, at once or by a look. That look, and the
/// one that a cancellation asks for, see the same truth in whatever order they come: cancelled, so complete; or not in the
/// queue yet, so enter.
/// </remarks>
internal sealed class DelayOperation : Operation, IValueTaskSource, ILoopTimer
{
    private long _deadline; // written before Arm; long.MaxValue: never

    internal DelayOperation(EventLoop loop) : base(new TimerSource(loop), Direction.Write) => ((TimerSource)Source).SetOperation(this);

    /// <inheritdoc/>
    public int QueueIndex { get; set; } = -1;

    internal ValueTask Start(long deadline, CancellationToken token)
    {
        if (Source.State.Begin(Direction.Write) == StateWord.BeginResult.Ended) throw Source.EndedError();
        _deadline = deadline;
        var version = Version;
        Start(deferred: false, token);
        return new ValueTask(this, version);
    }

    /// <inheritdoc/>
    public void Fire()
    {
        if (Source.State.Edge(read: false, write: true, 0, out _)) Proceed();
    }

    /// <inheritdoc/>
    public void Stop() => Source.Stop();

    protected override void OnArmed()
    {
        if (Loop.IsCurrent) Loop.AddTimer(this, _deadline);
        else RequestLook();
    }

    protected override bool Examine()
    {
        if (Loop.IsStopping)
        {
            Error = EventLoop.StoppedError();
            return true;
        }
        if (QueueIndex < 0) Loop.AddTimer(this, _deadline);
        return false;
    }

    protected override bool Attempt() => true; // the edge is the result

    protected override bool RemainsReady => false;

    protected override void OnCompleting()
    {
        if (QueueIndex >= 0) Loop.RemoveTimer(this); // after the loop has stopped it is in no queue, and this another thread
    }

    void IValueTaskSource.GetResult(short token)
    {
        var error = Fetch(token);
        Loop.ReturnDelay(this); // fetched once and for all: nobody else gives it back
        ThrowIf(error);
    }

    private sealed class TimerSource(EventLoop loop) : AwaitableSource(loop, default)
    {
        internal void SetOperation(Operation operation) => Writer = operation;

        protected override string ObjectName => nameof(EventLoop);
    }
}
