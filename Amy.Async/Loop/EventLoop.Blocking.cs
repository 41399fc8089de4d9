using System.Diagnostics;
using System.Runtime.ExceptionServices;
using Amy.Async.Compat;

namespace Amy.Async;

// What is told of code that blocks the loop: turns that take too long, seen by the watchdog, and synchronous waits, told by
// the loop's SynchronizationContext.
public sealed partial class EventLoop
{
    private static readonly Action<object, object?> s_rethrow = static (failure, _) => ((ExceptionDispatchInfo)failure).Throw();

    private readonly TimeSpan _blockedThreshold;
    private readonly bool _throwOnTaskWait;
    private bool _inWaitReport; // loop only: the report's own waits are not reported
    private long _blockedTurns; // Interlocked: written by the watchdog
    private long _synchronousWaits; // written by the loop

    /// <summary>
    /// The loop has not come back to its poller for <see cref="EventLoopOptions.BlockedThreshold"/>. Raised once each time, on
    /// the watchdog's thread while the loop is still blocked. What a handler throws goes to
    /// <see cref="EventLoopOptions.UnhandledException"/>.
    /// </summary>
    public event EventHandler<LoopBlockedEventArgs>? Blocked;

    /// <summary>
    /// Code on the loop's thread, under its context, is about to wait synchronously: for a Task, a contended lock, an event.
    /// Raised on the loop's thread just before the wait. What a handler throws goes to
    /// <see cref="EventLoopOptions.UnhandledException"/>. Subscribing costs a stack trace for each such wait.
    /// </summary>
    /// <remarks>The runtime does not tell of <c>Thread.Sleep</c>, of system calls that block, nor of waits while no
    /// context is current (behind <c>ConfigureAwait(false)</c>): the watchdog sees those. A lock that is free, and an event
    /// that is set or comes while the waiter still spins, is no wait.</remarks>
    public event EventHandler<SynchronousWaitEventArgs>? SynchronousWait;

    /// <summary>How often the loop has looked at the kernel. Written by the loop's thread, read by the watchdog.</summary>
    internal long Polls => Volatile.Read(ref _now.Polls);

    private void StartWatching()
    {
        if (_blockedThreshold != Timeout.InfiniteTimeSpan) Watchdog.Add(this, _blockedThreshold);
    }

    private void EndWatching()
    {
        if (_blockedThreshold != Timeout.InfiniteTimeSpan) Watchdog.Remove(this);
    }

    /// <summary>The watchdog's thread.</summary>
    internal void OnBlocked(TimeSpan duration)
    {
        Interlocked.Increment(ref _blockedTurns);
        if (Blocked is not { } handlers) return;
        try
        {
            // Racy on purpose: whatever runs at this moment has a part in it.
            var name = WorkName.Of(Volatile.Read(ref _now.Running), Volatile.Read(ref _now.RunningState));
            handlers(this, new LoopBlockedEventArgs(duration, name));
        }
        catch (Exception e)
        {
            EnqueueOrPool(s_rethrow, ExceptionDispatchInfo.Capture(e));
        }
    }

    /// <summary>Loop's thread, from within a wait of any kind: may throw only where the options ask for it.</summary>
    internal void OnSynchronousWait()
    {
        if (_inWaitReport || !IsCurrent) return;
        _synchronousWaits++;
        var handlers = SynchronousWait;
        if (handlers is null && !_throwOnTaskWait) return;
        var isTaskWait = false;
        _inWaitReport = true;
        try
        {
            var trace = new StackTrace(1, fNeedFileInfo: false);
            isTaskWait = WorkName.IsTaskWait(trace, out var method);
            if (method is not null) handlers?.Invoke(this, new SynchronousWaitEventArgs(isTaskWait, method, trace.ToString()));
        }
        catch (Exception e) // never into a lock of the platform's
        {
            EnqueueOrPool(s_rethrow, ExceptionDispatchInfo.Capture(e));
        }
        finally
        {
            _inWaitReport = false;
        }
        if (isTaskWait && _throwOnTaskWait)
            throw new InvalidOperationException("A synchronous wait for a Task would block the event loop's thread and everything on it; the Task may even need the loop to end. Await it.");
    }
}
