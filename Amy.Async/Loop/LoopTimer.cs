using System.Diagnostics;
using System.Threading.Tasks.Sources;

namespace Amy.Async;

/// <summary>
/// A timer that ticks on a loop, awaited like <c>PeriodicTimer</c>: ticks keep their phase, and those that nobody
/// awaited in time are one. Made by <see cref="EventLoop.CreateTimer"/>.
/// </summary>
/// <remarks>Members may be called from any thread. One wait at a time. Waiting allocates nothing.</remarks>
[DebuggerDisplay("every {Period}")]
public sealed class LoopTimer : IDisposable
{
    private readonly TickOperation _ticks;

    internal LoopTimer(EventLoop loop, TimeSpan period)
    {
        Period = period;
        _ticks = new TickOperation(loop, Poller.Nanoseconds(period));
        _ticks.Begin();
    }

    /// <summary>A timer that was never disposed stops ticking when it is collected; not while somebody waits.</summary>
    ~LoopTimer() => _ticks?.Close();

    /// <summary>The time between two ticks.</summary>
    public TimeSpan Period { get; }

    /// <summary>Waits for the next tick; at once if one has passed since the last wait.</summary>
    /// <returns>True: a tick. False: the timer is disposed, possibly during the wait.</returns>
    /// <param name="cancellationToken">Ends this wait, not the timer.</param>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="InvalidOperationException">Another wait is in progress.</exception>
    /// <exception cref="ObjectDisposedException">The loop has stopped.</exception>
    public ValueTask<bool> WaitForNextTickAsync(CancellationToken cancellationToken = default) => _ticks.Wait(this, cancellationToken);

    /// <summary>Stops the timer. A wait in progress ends with false, through the loop's queue.</summary>
    public void Dispose()
    {
        _ticks.Close();
        GC.SuppressFinalize(this);
    }

    /// <summary>The waiting side and the queue's entry. The loop knows it, not the public object.</summary>
    private sealed class TickOperation : Operation, IValueTaskSource<bool>, ILoopTimer
    {
        private static readonly Action<object, object?> s_enter = static (ticks, _) => ((TickOperation)ticks).Enter();
        private static readonly Action<object, object?> s_leave = static (ticks, _) => ((TickOperation)ticks).Leave();

        private readonly long _period;
        private long _deadline; // loop only, after Begin
        private LoopTimer? _owner; // kept alive while somebody waits

        internal TickOperation(EventLoop loop, long period) : base(new TickSource(loop), Direction.Write)
        {
            _period = period;
            ((TickSource)Source).SetOperation(this);
        }

        public int QueueIndex { get; set; } = -1;

        internal void Begin()
        {
            _deadline = PollerTimers.Sum(Loop.Now, _period);
            if (Loop.IsCurrent) Enter();
            else Loop.Enqueue(s_enter, this);
        }

        private void Enter()
        {
            if (Loop.IsCurrent && !Loop.IsStopping && !Source.State.IsEnded) Loop.AddTimer(this, _deadline);
            else Stop();
        }

        internal void Close()
        {
            if (!Source.Close()) return;
            if (Loop.IsCurrent) Leave();
            else Loop.EnqueueOrPool(s_leave, this);
        }

        private void Leave()
        {
            if (Loop.IsCurrent) Loop.RemoveTimer(this); // else the loop's queue is gone
        }

        internal ValueTask<bool> Wait(LoopTimer owner, CancellationToken token)
        {
            if (token.IsCancellationRequested) return new ValueTask<bool>(Task.FromCanceled<bool>(token));
            if (Source.State.IsClosed) return new ValueTask<bool>(false);
            switch (Source.State.Begin(Direction.Write))
            {
                case StateWord.BeginResult.Attempt: // a tick has passed
                    Source.End(Direction.Write, ready: false);
                    return new ValueTask<bool>(true);
                case StateWord.BeginResult.Busy:
                    throw new InvalidOperationException("Another wait for this timer's tick is in progress.");
                case StateWord.BeginResult.Ended:
                    return Source.State.IsClosed ? new ValueTask<bool>(false) : throw Source.EndedError();
            }
            _owner = owner;
            var version = Version;
            Start(deferred: false, token);
            return new ValueTask<bool>(this, version);
        }

        public void Fire()
        {
            if (Source.State.IsEnded) return;
            var late = (Loop.Now - _deadline) / _period;
            _deadline = PollerTimers.Sum(_deadline, (late + 1) * _period);
            Loop.AddTimer(this, _deadline);
            if (Source.State.Edge(read: false, write: true, 0, out _)) Proceed();
        }

        public void Stop() => Source.Stop();

        protected override bool Attempt() => true; // the edge is the tick

        protected override bool RemainsReady => false;

        protected override void OnCompleting() => _owner = null;

        bool IValueTaskSource<bool>.GetResult(short token)
        {
            var error = Fetch(token);
            if (error is ObjectDisposedException && Source.State.IsClosed) return false;
            ThrowIf(error);
            return true;
        }
    }

    private sealed class TickSource(EventLoop loop) : AwaitableSource(loop, default)
    {
        internal void SetOperation(Operation operation) => Writer = operation;

        protected override string ObjectName => nameof(LoopTimer);
    }
}
