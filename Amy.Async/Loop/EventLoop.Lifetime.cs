using System.Runtime.ExceptionServices;
using Amy.Async.Compat;

namespace Amy.Async;

// Starting and stopping.
//
// _phase only grows:
//   Running   work is accepted
//   Stopping  set by the loop's thread when it leaves its turns: new operations are refused, pending ones end with an
//             ObjectDisposedException, and what that sets in motion is run (bounded)
//   Stopped   the queue is closed; what is posted through a captured context goes to the thread pool
public sealed partial class EventLoop
{
    private const int Running = 0;
    private const int Stopping = 1;
    private const int Stopped = 2;

    // Turns of posted work after the end, for the code that reacts to it; what exceeds them goes to the thread pool.
    private const int LastTurns = 1024;

    private readonly bool _ownsThread;
    private readonly TaskCompletionSource<bool> _stopped = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private Thread? _thread;
    private volatile bool _stopRequested;
    private volatile int _phase;

    internal bool IsStopping => _phase != Running;

    internal void ThrowIfStopping()
    {
        if (IsStopping) throw StoppedError();
    }

    /// <summary>
    /// Runs a loop on the calling thread until <paramref name="main"/> ends. What else the loop was doing then ends with
    /// errors, and Run returns.
    /// </summary>
    /// <param name="main">Called on the loop, under its context and the caller's execution context.</param>
    /// <param name="options">Null for the defaults.</param>
    /// <exception cref="InvalidOperationException">The calling thread is in a loop already.</exception>
    /// <exception cref="PlatformNotSupportedException">There is no poller for this platform.</exception>
    /// <exception cref="Exception">What <paramref name="main"/> failed with, or an exception of other work that
    /// <see cref="EventLoopOptions.UnhandledException"/> did not handle.</exception>
    /// <exception cref="ObjectDisposedException">The loop was stopped before <paramref name="main"/> ended.</exception>
    public static void Run(Func<Task> main, EventLoopOptions? options = null)
    {
        if (main is null) throw new ArgumentNullException(nameof(main));
        RunMain(main, options).GetAwaiter().GetResult();
    }

    /// <summary>Like <see cref="Run(Func{Task}, EventLoopOptions?)"/>, with a result.</summary>
    /// <exception cref="InvalidOperationException">The calling thread is in a loop already.</exception>
    public static T Run<T>(Func<Task<T>> main, EventLoopOptions? options = null)
    {
        if (main is null) throw new ArgumentNullException(nameof(main));
        Task<T>? task = null;
        RunMain(() => task = main(), options).GetAwaiter().GetResult();
        return task!.GetAwaiter().GetResult();
    }

    /// <summary>Starts a loop on a background thread of its own.</summary>
    /// <exception cref="PlatformNotSupportedException">There is no poller for this platform.</exception>
    public static EventLoop Start(EventLoopOptions? options = null) => StartThread(options, isDefault: false);

    /// <summary>
    /// Asks the loop to stop after its current turn. Pending operations end with an <see cref="ObjectDisposedException"/>.
    /// </summary>
    /// <returns>A task that ends when the loop has stopped.</returns>
    /// <param name="cancellationToken">Ends the wait, not the stopping.</param>
    /// <exception cref="InvalidOperationException">This is <see cref="Default"/>.</exception>
    public Task StopAsync(CancellationToken cancellationToken = default)
    {
        if (_isDefault) throw new InvalidOperationException("The default loop is shared and cannot be stopped.");
        RequestStop();
        return _stopped.Task.IsCompleted || !cancellationToken.CanBeCanceled ? _stopped.Task : Wait(_stopped.Task, cancellationToken);
    }

    /// <summary>
    /// Stops the loop, and waits until it has stopped unless it is called on the loop's own thread. Calling it again does
    /// nothing.
    /// </summary>
    /// <exception cref="InvalidOperationException">This is <see cref="Default"/>.</exception>
    public void Dispose()
    {
        var stopped = StopAsync();
        if (!IsCurrent) stopped.GetAwaiter().GetResult();
    }

    /// <summary>Stops the loop; see <see cref="StopAsync"/>.</summary>
    /// <exception cref="InvalidOperationException">This is <see cref="Default"/>.</exception>
    public ValueTask DisposeAsync() => new(StopAsync());

    // ---- private

    private static Task RunMain(Func<Task> main, EventLoopOptions? options)
    {
        if (t_current is not null) throw new InvalidOperationException("This thread is in an event loop already; await instead of running another.");
        var loop = new EventLoop(options, ownsThread: false);
        var context = SynchronizationContext.Current;
        Task task;
        try
        {
            task = loop.RunUntilEnd(main);
        }
        finally
        {
            SynchronizationContext.SetSynchronizationContext(context);
        }
        loop._fatal?.Throw();
        return task.IsCompleted ? task : throw StoppedError();
    }

    private static EventLoop StartThread(EventLoopOptions? options, bool isDefault)
    {
        var loop = new EventLoop(options, ownsThread: true, isDefault);
        loop._thread = new Thread(static state => ((EventLoop)state!).RunThread(), 0) { IsBackground = true, Name = loop._name };
        Runtime.StartWithoutContext(loop._thread, loop);
        return loop;
    }

    private void RunThread()
    {
        RunUntilEnd(null);
        _fatal?.Throw(); // on a thread of our own: ends the process, as an unhandled exception does
    }

    private Task RunUntilEnd(Func<Task>? main)
    {
        _thread = Thread.CurrentThread;
        Pin();
        _baseContext = ExecutionContext.Capture();
        t_current = this;
        SynchronizationContext.SetSynchronizationContext(_context);
        var task = Task.CompletedTask;
        LoopMeter.Add(this);
        StartWatching();
        try
        {
            if (main is not null)
            {
                task = Begin(main);
                RestoreContext();
            }
            while (!_stopRequested && _fatal is null) SomeTurns();
        }
        catch (Exception e) // the poller failed: nothing of this loop can go on
        {
            _fatal = ExceptionDispatchInfo.Capture(e);
        }
        try
        {
            if (_fatal is null || !_ownsThread) End();
        }
        finally
        {
            EndWatching();
            Unpin();
            LoopMeter.Remove(this);
            t_current = null;
        }
        return task;
    }

    private Task Begin(Func<Task> main)
    {
        Task task;
        try
        {
            _now.Running = _isWatched ? main : null;
            task = main() ?? throw new InvalidOperationException("The main function returned null instead of a task.");
        }
        catch (Exception e)
        {
            task = Task.FromException(e);
        }
        _now.Running = null;
        if (task.IsCompleted) _stopRequested = true;
        else task.ConfigureAwait(false).GetAwaiter().UnsafeOnCompleted(RequestStop);
        return task;
    }

    private void RequestStop()
    {
        _stopRequested = true; // before the wake: the turn that it starts sees it
        _poller.Wake();
    }

    private void End()
    {
        var fatal = _fatal;
        _fatal = null;
        _phase = Stopping;
        try
        {
            foreach (var registration in _registrar.Snapshot()) (registration as AwaitableSource)?.Stop();
            while (_timers.TryTakeDue(long.MaxValue, out var timer)) timer!.Stop();
            while (_housekeeping.TryTakeDue(long.MaxValue, out var timer)) timer!.Stop();
            for (var turn = 0; turn < LastTurns && _fatal is null && !_queue.IsEmpty; turn++) RunPosted();
        }
        finally
        {
            _now.IsOver = true;
            _queue.Close();
            RunLeftOvers();
            Pool.Flush(); // what the last turns ended
            _phase = Stopped;
            _foreign?.End(this);
            _poller.Dispose();
            _fatal = fatal ?? _fatal;
            _stopped.TrySetResult(true);
        }
    }

    private static async Task Wait(Task task, CancellationToken cancellationToken)
    {
        var cancelled = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
        using (cancellationToken.Register(static c => ((TaskCompletionSource<bool>)c!).TrySetResult(true), cancelled))
        {
            if (await Task.WhenAny(task, cancelled.Task).ConfigureAwait(false) != task) cancellationToken.ThrowIfCancellationRequested();
        }
    }
}
