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
    private const int TurnsAtOnce = 16;
    private const int BytesPerUnit = 8192; // of the budget, beyond the operation's own
    internal const int AcceptUnits = 8;

    private readonly WorkQueue _queue = new();
    private readonly TurnState _now = new() { Budget = Budget };
    private readonly SpinPolicy _spin;
    private ExecutionContext? _baseContext; // what user code finds, unless its own context flows
    private ExceptionDispatchInfo? _fatal;
    private long _acceptBackoffs; // Interlocked

    // A few turns at a time: the endless loop around them never returns to be compiled again, and only what is called anew gets
    // the JIT's best code. One method down to the resume: see "One frame from the wait to the resume" in ARCHITECTURE.md.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private void SomeTurns()
    {
        for (var left = TurnsAtOnce; left > 0 && !_stopRequested && _fatal is null; left--)
        {
            _now.Turns++;
            _poller.ClearWake(); // before the queue is looked at: whoever adds later wakes anew
            if (_queue.HasWork) RunPosted();
            RunTimers();
            Pool.Flush();
            if (_now.ActiveSince != 0) EndActivity(); // listeners may post: before the queue is looked at
            if (_stopRequested || _fatal is not null) return;
            var timeout = _queue.HasWork ? 0 : TimeToNextTimer();
            int events;
            if (timeout == 0 || Linger()) events = _poller.Look(); // every turn looks at the kernel
            else if (_foreign?.Jumper is { } time && JumpIfIdle(time, timeout)) continue;
            else if (_spin.ShouldSpin(_kernelClock)) events = SpinThenWait(timeout);
            else events = Sleep(timeout);
            DispatchInline(events);
            if (_now.HasSpun) RecordSpin();
        }
    }

    private void RunPosted()
    {
        for (var left = _queue.Count(MaxItems); left > 0 && _fatal is null && _queue.TryTake(out var item); left--)
        {
            _now.PostsRun++;
            RunItem(item.Run, item.Target, item.State, item.Context);
        }
    }

    /// <summary>Waits in the kernel, if there is still nothing to do when that has been said: see WorkQueue.</summary>
    private int Sleep(long timeout)
    {
        if (timeout == 0 || !_poller.TrySleep()) return _poller.Look();
        if (_queue.IsEmpty) return _poller.Sleep(timeout);
        _queue.Mark(); // before who added it does so
        return _poller.Sleep(0);
    }

    private int SpinThenWait(long timeout)
    {
        var events = _poller.Look(); // costs no look at the clock when there is something
        if (events > 0) return events;
        var start = _kernelClock.Now();
        var end = start;
        var due = timeout < 0 ? long.MaxValue : start + timeout;
        var work = false;
        while (events == 0 && !(work = _queue.HasWork || end >= due || _stopRequested) && (_spin.Always || end - start < _spin.Bound))
        {
            events = _poller.Look();
            _now.Polls++;
            end = _kernelClock.Now();
        }
        if (events == 0 && !work)
        {
            _spin.Record(start, end, paid: false);
            return Sleep(timeout < 0 ? timeout : Math.Max(0, due - end));
        }
        (_now.HasSpun, _now.SpinStart, _now.SpinEnd, _now.SpinFoundWork, _now.ServedBefore) = (true, start, end, work, Served);
        return events;
    }

    // Edges that nobody awaited (AF_UNIX makes one per read of the peer's) do not count as paid. Nor do accepted connections:
    // nobody waits for an answer yet, and spinning for them cost a server half as much CPU again (bench accept).
    private void RecordSpin()
    {
        _spin.Record(_now.SpinStart, _now.SpinEnd, _now.SpinFoundWork || Served > _now.ServedBefore);
        _now.HasSpun = false;
    }

    private long Served => _now.Resumes + _now.PostsRun - _now.Accepts;

    private void Dispatch(int events) => DispatchInline(events);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private void DispatchInline(int events)
    {
        _now.Polls++;
        if (_isWatched && Watchdog.IsParked) Watchdog.Unpark(); // behind the wait's fence
        if (LoopMeter.TurnDuration.Enabled) _now.ActiveSince = _kernelClock.Now();
        if (events == 0) return;
        if (LoopMeter.BatchSize.Enabled) Record(LoopMeter.BatchSize, events);
        _now.Events += events;
        _spin.Served(events);
        for (var i = 0; i < events && _fatal is null; i++)
            if (_poller.Event(i, out var readiness) is AwaitableSource source) source.OnReady(readiness);
        Pool.Flush();
    }

    // ---- running user code

    private readonly bool _isWatched;

    private static readonly ContextCallback s_inContext = static loop => ((EventLoop)loop!).InContext();

    private static readonly Action<object, object?> s_continue = static (continuation, state) => ((Action<object?>)continuation)(state);

    /// <summary>
    /// Resumes an awaiting method in the dispatch, under the loop's context, or without one, so that Task continuations of
    /// libraries further up are inlined too and do not leave for the thread pool.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Resume(Action<object?> continuation, object? state, ExecutionContext? flow, bool withContext)
    {
        Debug.Assert(IsCurrent || _now.IsOver);
        if (_now.IsOver) // the last completions run on the thread pool
        {
            Operation.Run(continuation, state, flow);
            return;
        }
        _now.Resumes++;
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
        _now.Budget = Budget;
        var (outer, outerState) = (_now.Running, _now.RunningState);
        if (_isWatched) (_now.Running, _now.RunningState) = (target, state);
        try
        {
            if (context is null && (!Runtime.IsolateItems || _baseContext is null)) run(target, state);
            else
            {
                _now.Callback = run;
                _now.Target = target;
                _now.State = state;
                Runtime.RunIn(context ?? _baseContext!, s_inContext, this);
            }
        }
        catch (Exception e)
        {
            OnUnhandled(e);
        }
        if (_isWatched) (_now.Running, _now.RunningState) = (outer, outerState);
        RestoreContext();
    }

    private void InContext()
    {
        var (run, target, state) = (_now.Callback!, _now.Target!, _now.State);
        _now.Callback = null;
        _now.Target = _now.State = null;
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

    internal void OnUnhandled(Exception exception)
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
        if (--_now.Budget >= 0) return true;
        _now.BudgetYields++;
        return false;
    }

    /// <summary>Any thread: an operation that completed at once has moved so many bytes; on the loop's they use up the budget.</summary>
    internal void SpendBytes(long bytes)
    {
        if (bytes >= BytesPerUnit && IsCurrent) _now.Budget -= (int)Math.Min(Budget, bytes / BytesPerUnit);
    }

    /// <summary>Any thread: an operation that completed at once took as long as so many small ones.</summary>
    internal void SpendUnits(int units)
    {
        if (IsCurrent) _now.Budget -= units;
    }
}
