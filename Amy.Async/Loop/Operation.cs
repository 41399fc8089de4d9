using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;
using System.Threading.Tasks.Sources;
using Amy.Async.Compat;

namespace Amy.Async;

/// <summary>
/// One direction's operation: the object behind the ValueTasks that a direction hands out, one after the other. It is made
/// with the first operation that has to wait and then used again for ever; <see cref="StateWord"/> says who may touch it
/// when, and its version tells the operations apart.
/// </summary>
/// <remarks>
/// <para>The fields of an operation (buffer, token) belong to the thread that holds Busy until Arm, then to the loop until
/// Complete, then to whoever fetches. The continuation's fields belong to the awaiting thread until Await, then to the
/// completer. Each handover is a compare-exchange on the state word.</para>
/// <para><c>ManualResetValueTaskSourceCore</c> cannot serve: under a captured context it always posts, and allocates.</para>
/// </remarks>
internal abstract partial class Operation : IThreadPoolWorkItem
{
    /// <summary>Where the awaiting method goes on (the table "Who resumes where" of ARCHITECTURE.md).</summary>
    private enum Resume : byte
    {
        /// <summary>In the dispatch, under the loop's context.</summary>
        Inline,

        /// <summary>In the dispatch, with no current context.</summary>
        InlineWithoutContext,

        /// <summary>Posted to the captured <see cref="SynchronizationContext"/>.</summary>
        Context,

        /// <summary>Queued to the captured <see cref="TaskScheduler"/>.</summary>
        Scheduler,

        /// <summary>Queued to the thread pool.</summary>
        Pool,
    }

    private static readonly Action<object, object?> s_look = static (operation, _) => ((Operation)operation).Look();
    private static readonly Action<object, object?> s_leave = static (operation, _) => ((Operation)operation)._timer!.Leave(((Operation)operation).Loop);
    private static readonly Action<object, object?> s_resume = static (operation, _) => ((Operation)operation).ResumeNow();
    private static readonly Action<object?> s_cancel = static operation => ((Operation)operation!).RequestLook();
    private static readonly Action<object?> s_scheduled = static operation => ((Operation)operation!).ResumeHere();
    private static readonly SendOrPostCallback s_posted = static operation => ((Operation)operation!).ResumeHere();

    protected readonly AwaitableSource Source;
    protected readonly Direction Side;
    private Resume _resume;
    private bool _watchesToken; // a callback is registered with _token
    private int _lookQueued; // 1 while Look waits in the loop's queue, so that it is never queued twice; any thread, Interlocked

    private Action<object?>? _continuation;
    private object? _state;
    private object? _target; // the captured context or scheduler
    private ExecutionContext? _flow;
    private CancellationToken _token;
    private CancellationTokenRegistration _registration;
    private OperationTimer? _timer; // made by the first operation that has a time-out

    /// <summary>The failure, or null. Part of the result.</summary>
    protected Exception? Error;

    protected Operation(AwaitableSource source, Direction direction)
    {
        Source = source;
        Side = direction;
    }

    protected EventLoop Loop => Source.Loop;

    /// <summary>The version of the operation in progress, the token of its ValueTask.</summary>
    internal short Version => Source.State.Version(Side);

    /// <summary>Makes the system call; true if that completes the operation (its result or <see cref="Error"/> is stored).</summary>
    protected abstract bool Attempt();

    /// <summary>Whether the direction may still be ready after the stored result, so that the next operation tries at once.</summary>
    protected virtual bool RemainsReady => true;

    /// <summary>Nanoseconds that an operation may take; negative: any number. Asked for when one begins to wait.</summary>
    protected virtual long Timeout => -1;

    /// <summary>Called once the loop owns the operation, by the thread that armed it.</summary>
    protected virtual void OnArmed()
    {
    }

    /// <summary>Loop only, while armed: whatever the subclass waits for besides an edge. True: complete with what is stored.</summary>
    protected virtual bool Examine() => false;

    /// <summary>Lets go of what the operation refers to, before its result is published.</summary>
    protected virtual void OnCompleting()
    {
    }

    // ---- starting: the thread that holds Busy

    /// <summary>
    /// Arms the operation, trying again as long as edges come in between. On return it is armed or done; its ValueTask says
    /// which.
    /// </summary>
    internal void Start(bool deferred, CancellationToken token)
    {
        Error = null;
        var timeout = Timeout;
        if (timeout >= 0) (_timer ??= new OperationTimer(this)).Set(Loop, timeout);
        if (token.CanBeCanceled)
        {
            _token = token;
            _watchesToken = true;
            _registration = Runtime.Register(s_cancel, this, token); // before arming: armed, it may end at any moment
        }
        while (true)
        {
            switch (Source.State.Arm(Side, evenIfReady: deferred))
            {
                case StateWord.ArmResult.Armed:
                    OnArmed();
                    // Cancelled before Arm: the callback's look may have come too early to see it armed. Later: it sees it.
                    // A time-out is the loop's to watch.
                    if (timeout >= 0 && Loop.IsCurrent) _timer!.Enter(Loop);
                    if (deferred || token.IsCancellationRequested || timeout >= 0 && !Loop.IsCurrent) RequestLook();
                    return;
                case StateWord.ArmResult.Attempt:
                    if (!Attempt()) continue;
                    break;
                default:
                    Error = Source.EndedError();
                    break;
            }
            Complete(); // before anybody has the ValueTask: there is no continuation to resume
            return;
        }
    }

    /// <summary>Whoever holds Inside: the operation has got on, and its time begins anew. The timer looks when it fires.</summary>
    internal void RenewTimeout()
    {
        if (_timer is { IsSet: true } timer && Timeout is >= 0 and var timeout) timer.Set(Loop, timeout);
    }

    // ---- completing: the loop's thread

    /// <summary>Loop only: the operation was taken (Inside); try, and complete or arm again.</summary>
    internal void Proceed()
    {
        while (!Attempt())
        {
            var armed = Source.State.Arm(Side);
            if (armed == StateWord.ArmResult.Armed) return;
            if (armed == StateWord.ArmResult.Attempt) continue;
            Error = Source.EndedError();
            break;
        }
        CompleteAndResume();
    }

    /// <summary>
    /// Asks the loop to look at this operation: cancelled, closed, deferred? From any thread. It is only a hint, the loop
    /// examines what is true when it looks: a late request finds another operation and changes nothing.
    /// </summary>
    internal void RequestLook()
    {
        // Pairs with the exchange in Look: what the requester published before is seen by that look, or it queues another.
        if (Interlocked.Exchange(ref _lookQueued, 1) == 0) Loop.EnqueueOrPool(s_look, this);
    }

    /// <summary>
    /// The source is closed: its timer, which stays in the queue from one operation to the next, has none to come and would keep
    /// all this alive until it fires. From any thread.
    /// </summary>
    internal void LeaveTimer()
    {
        if (Volatile.Read(ref _timer) is not { } timer) return;
        if (Loop.IsCurrent) timer.Leave(Loop);
        else Loop.EnqueueOrPool(s_leave, this);
    }

    /// <summary>Loop only: whether an operation waits.</summary>
    internal bool IsArmed => Source.State.IsArmed(Side);

    /// <summary>The loop (or, after it has stopped, whoever is left) examines an armed operation.</summary>
    internal void Look()
    {
        Interlocked.Exchange(ref _lookQueued, 0);
        ref var state = ref Source.State;
        if (!state.IsArmed(Side)) return;
        Exception? error = null;
        if (state.IsEnded) error = Source.EndedError();
        else if (_token.IsCancellationRequested) error = new OperationCanceledException(_token);
        else if (_timer is { IsSet: true } && _timer.IsDue(Loop)) error = new TimeoutException(Source.TimeoutMessage(Side));
        if (error is not null || Examine())
        {
            if (!state.Withdraw(Side)) return;
            Error = error ?? Error;
            CompleteAndResume();
        }
        else
        {
            if (_timer is { IsSet: true }) _timer.Enter(Loop);
            if (state.Take(Side)) Proceed();
        }
    }

    private StateWord.Completion Complete()
    {
        if (_watchesToken)
        {
            _watchesToken = false;
            Runtime.Unregister(_registration); // does not wait for a callback in progress
            _registration = default;
            _token = default;
        }
        _timer?.Unset();
        OnCompleting();
        var completion = Source.State.Complete(Side, RemainsReady);
        if (completion.MustClose) Source.CloseDescriptor();
        return completion;
    }

    private void CompleteAndResume()
    {
        if (Complete().IsAwaited) ResumeNow(); // not awaited yet: whoever awaits finds it done
    }

    // ---- resuming

    [MethodImpl(MethodImplOptions.AggressiveInlining)] // into the dispatch: see EventLoop.SomeTurns
    private void ResumeNow()
    {
        if (_resume > Resume.InlineWithoutContext)
        {
            ResumeElsewhere();
            return;
        }
        var (continuation, state, flow) = TakeContinuation();
        Loop.Resume(continuation, state, flow, _resume == Resume.Inline);
    }

    // A context or scheduler that refuses (one that has been shut down, for example) must neither end this loop nor lose the
    // awaiting method: it goes on on the thread pool.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private void ResumeElsewhere()
    {
        if (_resume == Resume.Pool)
        {
            if (Loop.IsCurrent) Loop.Pool.Add(this);
            else Runtime.QueueToPool(this);
            return;
        }
        try
        {
            if (_resume == Resume.Context) ((SynchronizationContext)_target!).Post(s_posted, this);
            else _ = Task.Factory.StartNew(s_scheduled, this, CancellationToken.None, TaskCreationOptions.DenyChildAttach, (TaskScheduler)_target!);
        }
        catch (Exception e)
        {
            Loop.Report(e);
            Runtime.QueueToPool(this);
        }
    }

    internal void ResumeHere()
    {
        var (continuation, state, flow) = TakeContinuation();
        Run(continuation, state, flow);
    }

    void IThreadPoolWorkItem.Execute() => ResumeHere();

    internal static void Run(Action<object?> continuation, object? state, ExecutionContext? flow)
    {
        if (flow is null) continuation(state);
        else Runtime.RunIn(flow, static pair => { var (c, s) = ((Action<object?>, object?))pair!; c(s); }, (continuation, state));
    }

    // The continuation leaves the fields before it runs: it fetches, and then the next operation uses them.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private (Action<object?> Continuation, object? State, ExecutionContext? Flow) TakeContinuation()
    {
        var result = (_continuation!, _state, _flow);
        _continuation = null;
        _state = null;
        _target = null;
        _flow = null;
        return result;
    }

    // ---- IValueTaskSource, for the subclasses: the awaiting thread

    public ValueTaskSourceStatus GetStatus(short token) => Source.State.IsDone(Side, token) switch
    {
        null => throw Stale(),
        false => ValueTaskSourceStatus.Pending,
        true when Error is null => ValueTaskSourceStatus.Succeeded,
        true => Error is OperationCanceledException ? ValueTaskSourceStatus.Canceled : ValueTaskSourceStatus.Faulted,
    };

    public void OnCompleted(Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags)
    {
        if (continuation is null) throw new ArgumentNullException(nameof(continuation));
        if (!Source.State.CanAwait(Side, token)) throw Stale();

        if ((flags & ValueTaskSourceOnCompletedFlags.FlowExecutionContext) != 0) _flow = ExecutionContext.Capture();
        _resume = (flags & ValueTaskSourceOnCompletedFlags.UseSchedulingContext) != 0 ? CaptureTarget() : WithoutTarget();
        _continuation = continuation;
        _state = state;

        switch (Source.State.Await(Side, token))
        {
            case StateWord.AwaitResult.Invalid:
                throw Stale();
            case StateWord.AwaitResult.AlreadyDone: // completed since the caller's look at the status; never inline from here
                if (_resume is Resume.Inline or Resume.InlineWithoutContext) Loop.EnqueueOrPool(s_resume, this);
                else ResumeNow();
                break;
        }
    }

    /// <summary>
    /// Ends the operation for whoever holds its ValueTask; the caller has copied the result before. Returns the failure.
    /// </summary>
    protected Exception? Fetch(short token)
    {
        var error = Error;
        return Source.State.Fetch(Side, token) ? error : throw Stale();
    }

    /// <summary>Throws the failure, if there is one, as the exception of the awaiting method.</summary>
    protected static void ThrowIf(Exception? error)
    {
        if (error is not null) ExceptionDispatchInfo.Capture(error).Throw();
    }

    private Resume CaptureTarget()
    {
        var context = SynchronizationContext.Current;
        if (context == Loop.SynchronizationContext && Loop.IsCurrent) return Resume.Inline;
        if (context is not null && context.GetType() != typeof(SynchronizationContext))
        {
            _target = context;
            return Resume.Context;
        }
        var scheduler = TaskScheduler.Current;
        if (scheduler == TaskScheduler.Default) return WithoutTarget();
        _target = scheduler;
        return Resume.Scheduler;
    }

    private Resume WithoutTarget() => Loop.IsCurrent ? Resume.InlineWithoutContext : Resume.Pool;

    private static InvalidOperationException Stale() =>
        new("This ValueTask was awaited already, or its operation is over or not finished. A ValueTask may be awaited once.");
}
