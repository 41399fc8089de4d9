using System.IO.Pipelines;

namespace Amy.Async;

/// <summary>The context that is current on a loop's thread: what awaits under it goes on there.</summary>
internal sealed class LoopSynchronizationContext : SynchronizationContext
{
    private static readonly Action<object, object?> s_run = static (callback, state) => ((SendOrPostCallback)callback)(state);

    internal LoopSynchronizationContext(EventLoop loop)
    {
        Loop = loop;
        PipeScheduler = new LoopPipeScheduler(loop);
        SetWaitNotificationRequired(); // have Wait called
    }

    internal EventLoop Loop { get; }

    internal PipeScheduler PipeScheduler { get; }

    /// <summary>Queues to the loop; to the thread pool once the loop has stopped, so that nothing waits for ever.</summary>
    public override void Post(SendOrPostCallback d, object? state)
    {
        if (d is null) throw new ArgumentNullException(nameof(d));
        Loop.EnqueueOrPool(s_run, d, state);
    }

    /// <summary>Runs on the loop's thread and waits for the end; at once if that is the calling thread.</summary>
    public override void Send(SendOrPostCallback d, object? state)
    {
        if (d is null) throw new ArgumentNullException(nameof(d));
        if (Loop.IsCurrent) d(state);
        else Loop.InvokeAsync(() => d(state)).GetAwaiter().GetResult();
    }

    /// <summary>
    /// Called by the runtime for every wait on the thread that blocks, contended locks of the platform's own included: so it
    /// only tells, unless it is asked to throw where the wait is one for a Task.
    /// </summary>
    public override int Wait(IntPtr[] waitHandles, bool waitAll, int millisecondsTimeout)
    {
        if (millisecondsTimeout != 0) Loop.OnSynchronousWait();
        return WaitHelper(waitHandles, waitAll, millisecondsTimeout);
    }

    public override SynchronizationContext CreateCopy() => this;

    private sealed class LoopPipeScheduler(EventLoop loop) : PipeScheduler
    {
        private static readonly Action<object, object?> s_run = static (action, state) => ((Action<object?>)action)(state);

        public override void Schedule(Action<object?> action, object? state) => loop.EnqueueOrPool(s_run, action, state);
    }
}
