using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;
using Amy.Async.Compat;

namespace Amy.Async;

// The turn: posted work, timers, wait, dispatch. Everything here runs on the loop's thread.
//
// Fairness. One turn runs at most MaxItems posted items and MaxTimers timers before it polls, and dispatches one batch of
// events. Each of these pieces of user code has a budget of operations that complete at once; what exceeds it goes through the
// queue. So the longest wait of a ready connection is bounded by the number of others, not by what one of them does. The
// budget stands for time: what takes longer than a small message costs more of it (a quiet connection beside one that
// receives 64 KiB at a time: bench fairness).
public sealed partial class EventLoop
{
    private const int MaxItems = 256;
    private const int MaxTimers = 256;
    private const int Budget = 64;
    private const int BytesPerUnit = 8192; // of the budget, beyond the operation's own
    internal const int AcceptUnits = 8;

    private const int LingerLooks = 40; // some 3 µs in all
    private const int LingerSpins = 2;
    private static readonly bool s_singleProcessor = Environment.ProcessorCount == 1;

    private readonly WorkQueue _queue = new();
    private readonly SpinPolicy _spin;
    private int _budget = Budget;
    private long _lingeredFor; // posts of others, when the loop last lingered
    private ExecutionContext? _baseContext; // what user code finds, unless its own context flows
    private ExceptionDispatchInfo? _fatal;

    // Written by the loop's thread only, read by Statistics.
    private long _turns;
    private long _polls;
    private long _postsRun;
    private long _events;
    private long _resumes;
    private long _timersFired;
    private long _budgetYields;
    private long _accepts; // those that had to wait
    private long _acceptBackoffs; // Interlocked

    // Not inlined into the endless loop around it, which never returns to be compiled again: only what is called anew gets
    // the JIT's best code.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private void Turn()
    {
        _turns++;
        _poller.ClearWake(); // before the queue is looked at: whoever adds later wakes anew
        RunPosted();
        RunTimers();
        WaitAndDispatch();
    }

    private void RunPosted()
    {
        _queue.Refill();
        for (var i = 0; i < MaxItems && _fatal is null && _queue.TryTake(out var item); i++)
        {
            _postsRun++;
            RunItem(item.Run, item.Target, item.State, item.Context);
        }
    }

    private void WaitAndDispatch()
    {
        Pool.Flush();
        if (_activeSince != 0) EndActivity(); // listeners may post: before the queue is looked at
        if (_stopRequested || _fatal is not null) return;
        var timeout = TimeToSleep();
        if (timeout == 0 || Linger()) Dispatch(_poller.Collect(0)); // every turn looks at the kernel
        else if (_foreign?.Jumper is { } time && JumpIfIdle(time, timeout)) return;
        else if (_spin.ShouldSpin(_kernelClock)) SpinThenWait(timeout);
        else Dispatch(_poller.Collect(timeout));
    }

    /// <summary>
    /// Whether another thread that posted a moment ago goes on posting: a loop that caught up with it and slept would be woken
    /// again by its next item. So a burst costs one wake-up, not many. Looks some microseconds long, once per bout of posts.
    /// </summary>
    private bool Linger()
    {
        var added = _queue.AddedByOthers;
        if (added == _lingeredFor) return false;
        _lingeredFor = added;
        if (s_singleProcessor)
        {
            Thread.Yield(); // nobody posts while we look
            return _queue.HasWork;
        }
        for (var i = 0; i < LingerLooks; i++)
        {
            Thread.SpinWait(LingerSpins);
            if (_queue.HasWork) return true;
        }
        return false;
    }

    /// <summary>Nanoseconds until there is something to do without an event; 0: at once; negative: never.</summary>
    private long TimeToSleep()
    {
        // The sleep handshake: the queue is seen empty here, then Collect's compare-exchange; whoever adds in between has
        // woken the poller before it (see WakeFlag).
        if (_queue.HasWork) return 0;
        return TimeToNextTimer();
    }

    private void SpinThenWait(long timeout)
    {
        var events = _poller.Collect(0); // costs no look at the clock when there is something
        if (events > 0)
        {
            Dispatch(events);
            return;
        }
        var start = _kernelClock.Now();
        var end = start;
        var due = timeout < 0 ? long.MaxValue : start + timeout;
        var work = false;
        while (events == 0 && !(work = _queue.HasWork || end >= due || _stopRequested) && (_spin.Always || end - start < _spin.Bound))
        {
            events = _poller.Collect(0);
            _polls++;
            end = _kernelClock.Now();
        }
        if (events == 0 && !work)
        {
            _spin.Record(start, end, paid: false);
            Dispatch(_poller.Collect(timeout < 0 ? timeout : Math.Max(0, due - end)));
            return;
        }
        var before = _resumes + _postsRun - _accepts;
        Dispatch(events);
        // Edges that nobody awaited (AF_UNIX makes one per read of the peer's) do not count as paid. Nor do accepted connections:
        // nobody waits for an answer yet, and spinning for them cost a server half as much CPU again (bench accept).
        _spin.Record(start, end, work || _resumes + _postsRun - _accepts > before);
    }

    private void Dispatch(int events)
    {
        _polls++;
        if (_isWatched && Watchdog.IsParked) Watchdog.Unpark(); // behind Collect's fence
        if (LoopMeter.TurnDuration.Enabled) _activeSince = _kernelClock.Now();
        if (events == 0) return;
        if (LoopMeter.BatchSize.Enabled) Record(LoopMeter.BatchSize, events);
        _events += events;
        _spin.Served(events);
        for (var i = 0; i < events && _fatal is null; i++)
            if (_poller.Event(i, out var readiness) is AwaitableSource source) source.OnReady(readiness);
        Pool.Flush();
    }

    // ---- running user code

    private Action<object, object?>? _runCallback; // the arguments of InContext, which must not be a closure
    private object? _runTarget;
    private object? _runState;

    // What runs now, for the watchdog to name; null in between. Costs a watched loop 2 ns a resume.
    private object? _running;
    private object? _runningState;
    private readonly bool _isWatched;

    private static readonly ContextCallback s_inContext = static loop => ((EventLoop)loop!).InContext();

    private static readonly Action<object, object?> s_continue = static (continuation, state) => ((Action<object?>)continuation)(state);

    /// <summary>
    /// Resumes an awaiting method in the dispatch, under the loop's context, or without one, so that Task continuations of
    /// libraries further up are inlined too and do not leave for the thread pool.
    /// </summary>
    internal void Resume(Action<object?> continuation, object? state, ExecutionContext? flow, bool withContext)
    {
        if (!IsCurrent) // the loop has stopped, and the last completions run on the thread pool
        {
            Operation.Run(continuation, state, flow);
            return;
        }
        _resumes++;
        if (!withContext) SynchronizationContext.SetSynchronizationContext(null);
        Invoke(s_continue, continuation, state, flow);
    }

    /// <summary>Loop only: runs user code as if it had been posted.</summary>
    internal void RunItem(Action<object, object?> run, object target, object? state, ExecutionContext? context)
    {
        RestoreExecutionContext();
        Invoke(run, target, state, context);
    }

    private void Invoke(Action<object, object?> run, object target, object? state, ExecutionContext? context)
    {
        _budget = Budget;
        var (outer, outerState) = (_running, _runningState);
        if (_isWatched) (_running, _runningState) = (target, state);
        try
        {
            if (context is null && (!Runtime.IsolateItems || _baseContext is null)) run(target, state);
            else
            {
                _runCallback = run;
                _runTarget = target;
                _runState = state;
                ExecutionContext.Run(context ?? _baseContext!, s_inContext, this);
            }
        }
        catch (Exception e)
        {
            OnUnhandled(e);
        }
        if (_isWatched) (_running, _runningState) = (outer, outerState);
        RestoreContext();
    }

    private void InContext()
    {
        var (run, target, state) = (_runCallback!, _runTarget!, _runState);
        _runCallback = null;
        _runTarget = _runState = null;
        run(target, state);
    }

    // What one item leaves behind is not seen by the next.
    private void RestoreContext()
    {
        if (SynchronizationContext.Current != _context) SynchronizationContext.SetSynchronizationContext(_context);
    }

    // Before each posted item, the only thing that can see what was left behind: an async method that is resumed brings its
    // own context and takes it away again, and so does a continuation that asked for the flow. (A look costs 10 ns.)
    private void RestoreExecutionContext()
    {
        if (ExecutionContext.Capture() != _baseContext) Runtime.Restore(_baseContext);
    }

    private void OnUnhandled(Exception exception)
    {
        var handled = false;
        try
        {
            handled = _unhandledException is not null && _unhandledException(exception);
        }
        catch (Exception e)
        {
            exception = new AggregateException("The handler of unhandled exceptions failed.", exception, e);
        }
        if (!handled) _fatal ??= ExceptionDispatchInfo.Capture(exception);
    }

    /// <summary>Tells the handler of an exception that ends nothing: what it belongs to goes on elsewhere.</summary>
    internal void Report(Exception exception)
    {
        try
        {
            _unhandledException?.Invoke(exception);
        }
        catch (Exception e)
        {
            OnUnhandled(e);
        }
    }

    /// <summary>Takes one from the budget of operations that complete at once. False: it is used up.</summary>
    internal bool SpendBudget()
    {
        Debug.Assert(IsCurrent);
        if (--_budget >= 0) return true;
        _budgetYields++;
        return false;
    }

    /// <summary>Any thread: an operation that completed at once has moved so many bytes; on the loop's they use up the budget.</summary>
    internal void SpendBytes(long bytes)
    {
        if (bytes >= BytesPerUnit && IsCurrent) _budget -= (int)Math.Min(Budget, bytes / BytesPerUnit);
    }

    /// <summary>Any thread: an operation that completed at once took as long as so many small ones.</summary>
    internal void SpendUnits(int units)
    {
        if (IsCurrent) _budget -= units;
    }
}
