using System.Threading.Tasks.Sources;

namespace Amy.Async.Tests.Loop;

/// <summary>An operation and its source, step by step: no descriptor, edges by hand.</summary>
[TestFixture]
internal sealed class OperationTests
{
    /// <summary>Takes what the test puts there, as a socket's receive takes bytes.</summary>
    private sealed class Source : AwaitableSource
    {
        internal readonly Op Read;
        internal readonly Op Write;
        internal int Closes;

        internal Source(EventLoop loop, StateWord state = default) : base(loop, state)
        {
            Reader = Read = new Op(this, Direction.Read);
            Writer = Write = new Op(this, Direction.Write);
        }

        internal override void CloseDescriptor() => Closes++;

        protected override string ObjectName => "TestedSource";
    }

    private sealed class Op(Source source, Direction direction) : Operation(source, direction), IValueTaskSource<int>
    {
        internal int Available; // results
        internal int Attempts, Completions, Armings;
        internal bool Remains, CompletesWhenExamined;
        internal long TimeoutNanoseconds = -1;
        internal Action? InAttempt, WhenArmed;
        private int _result;

        protected override bool Attempt()
        {
            Attempts++;
            InAttempt?.Invoke();
            if (Available == 0) return false;
            Available--;
            _result = Attempts;
            return true;
        }

        protected override bool RemainsReady => Remains;

        protected override long Timeout => TimeoutNanoseconds;

        protected override void OnArmed()
        {
            Armings++;
            WhenArmed?.Invoke();
        }

        protected override bool Examine()
        {
            if (CompletesWhenExamined) _result = -1;
            return CompletesWhenExamined;
        }

        protected override void OnCompleting() => Completions++;

        /// <summary>As the library's own operations begin: try if it may be ready, else (or if that brings nothing) wait.</summary>
        internal ValueTask<int> Run(bool deferred = false, CancellationToken token = default)
        {
            var began = Source.State.Begin(Side, defer: deferred);
            if (began >= StateWord.BeginResult.Busy) throw Source.CannotBegin(Side, began);
            var version = Version;
            Start(deferred, token);
            return new ValueTask<int>(this, version);
        }

        int IValueTaskSource<int>.GetResult(short token)
        {
            var result = _result;
            ThrowIf(Fetch(token));
            return result;
        }
    }

    private sealed class Side(EventLoop loop, Readiness wanted) : SideSource(loop, wanted)
    {
        internal int Edges => State.IsReady(Direction.Read) ? 1 : 0;
    }

    private static void On(Func<Source, Task> test) => Run.OnLoop(() => test(new Source(EventLoop.Current!)));

    // ---- starting

    [Test]
    public void Start_Drained_ArmsWithoutATry() => On(async source =>
    {
        var task = source.Read.Run();
        Assert.That((source.Read.Attempts, source.Read.Armings, source.Read.IsArmed, task.IsCompleted), Is.EqualTo((0, 1, true, false)));
        source.Read.Available = 1;
        source.OnReady(Readiness.Readable);
        Assert.That(await task, Is.EqualTo(1));
        Assert.That((source.Read.Completions, source.Read.IsArmed, source.State.IsBusy(Direction.Read)), Is.EqualTo((1, false, false)));
    });

    [Test]
    public void CompletedWhenTheLoopIsOver_ResumesThere_AndLeavesNoContextBehind() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start();
        var source = new Source(loop);
        async Task<int> Wait() => await source.Read.Run();
        Task<int>? waiting = null;
        Run.Wait(loop.InvokeAsync(() => { waiting = Wait(); }));
        loop.Dispose();
        source.Read.Available = 1;
        source.OnReady(Readiness.Readable); // on a thread of another's, as what the loop leaves to the pool
        Assert.That((waiting!.IsCompletedSuccessfully, SynchronizationContext.Current), Is.EqualTo((true, (SynchronizationContext?)null)));
    });

    [Test]
    public void Start_EdgeBeforeArming_TriesAndIsDoneAtOnce() => On(async source =>
    {
        source.State.Begin(Direction.Read);
        source.State.Edge(read: true, write: false, 0, out _);
        source.Read.Available = 1;
        var version = source.Read.Version;
        source.Read.Start(deferred: false, default);
        Assert.That((source.Read.Attempts, source.Read.Armings), Is.EqualTo((1, 0)));
        Assert.That(source.Read.GetStatus(version), Is.EqualTo(ValueTaskSourceStatus.Succeeded));
        Assert.That(await new ValueTask<int>(source.Read, version), Is.EqualTo(1));
    });

    [Test]
    public void Start_EdgeWithNothingBehindIt_ArmsAfterTheTry() => On(async source =>
    {
        source.State.Begin(Direction.Read);
        source.State.Edge(read: true, write: false, 0, out _);
        source.Read.Start(deferred: false, default);
        Assert.That((source.Read.Attempts, source.Read.IsArmed), Is.EqualTo((1, true)));
        source.Close();
        await Task.Yield();
    });

    [Test]
    public void Start_Deferred_ArmsAlthoughReady_AndTheQueueCompletesIt() => On(async source =>
    {
        source.OnReady(Readiness.Readable);
        source.Read.Available = 1;
        var task = source.Read.Run(deferred: true);
        Assert.That((source.Read.Attempts, task.IsCompleted), Is.EqualTo((0, false)));
        Assert.That(await task, Is.EqualTo(1));
    });

    [Test]
    public void Start_OnAClosedSource_EndsWithItsError() => On(async source =>
    {
        source.State.Begin(Direction.Read);
        source.Close();
        var version = source.Read.Version;
        source.Read.Start(deferred: false, default);
        Assert.That(source.Read.GetStatus(version), Is.EqualTo(ValueTaskSourceStatus.Faulted));
        var error = await Expect.Throws<ObjectDisposedException>(async () => await new ValueTask<int>(source.Read, version));
        Assert.That(error.ObjectName, Is.EqualTo("TestedSource"));
    });

    [Test]
    public void Start_AfterAFailure_DoesNotInheritIt() => On(async source =>
    {
        using var cancellation = new CancellationTokenSource();
        var task = source.Read.Run(token: cancellation.Token);
        cancellation.Cancel();
        await Expect.Throws<OperationCanceledException>(async () => await task);
        task = source.Read.Run();
        source.Read.Available = 1;
        source.OnReady(Readiness.Readable);
        Assert.That(await task, Is.EqualTo(1));
    });

    // ---- edges

    [TestCase(Readiness.Readable, true, false)]
    [TestCase(Readiness.Writable, false, true)]
    [TestCase(Readiness.Readable | Readiness.Writable, true, true)]
    [TestCase(Readiness.ReadClosed, true, false)]
    [TestCase(Readiness.WriteClosed, false, true)]
    [TestCase(Readiness.Error, true, true)]
    [TestCase(Readiness.Priority, true, false)]
    public void OnReady_WakesTheDirectionsConcerned(Readiness readiness, bool reads, bool writes) => On(async source =>
    {
        var read = source.Read.Run();
        var write = source.Write.Run();
        source.OnReady(readiness);
        Assert.That((source.Read.Attempts, source.Write.Attempts), Is.EqualTo((reads ? 1 : 0, writes ? 1 : 0)));
        Assert.That((source.Read.IsArmed, source.Write.IsArmed), Is.EqualTo((true, true)), "nothing was there: armed again");
        source.Close();
        await Expect.Throws<ObjectDisposedException>(async () => await read);
        await Expect.Throws<ObjectDisposedException>(async () => await write);
    });

    [TestCase(Readiness.Readable | Readiness.Writable, 0L)]
    [TestCase(Readiness.ReadClosed, StateWord.SeenReadClosed)]
    [TestCase(Readiness.WriteClosed, StateWord.SeenWriteClosed)]
    [TestCase(Readiness.Error, StateWord.SeenError)]
    [TestCase(Readiness.Priority, StateWord.SeenUrgent)]
    public void OnReady_IsRemembered(Readiness readiness, long seen) => On(source =>
    {
        source.OnReady(readiness);
        long[] all = [StateWord.SeenReadClosed, StateWord.SeenWriteClosed, StateWord.SeenError, StateWord.SeenUrgent];
        Assert.That(all.Where(bit => source.State.HasSeen(bit)).Sum(), Is.EqualTo(seen));
        return Task.CompletedTask;
    });

    [Test]
    public void OnReady_BothArmed_ReaderClosesInItsResume_WriterIsNotTried() => On(async source =>
    {
        source.Read.Available = source.Write.Available = 1;
        var write = source.Write.Run();
        async Task ReadThenClose()
        {
            await source.Read.Run();
            source.Close();
        }
        var reading = ReadThenClose();
        source.OnReady(Readiness.Readable | Readiness.Writable);
        await reading;
        await Expect.Throws<ObjectDisposedException>(async () => await write);
        Assert.That((source.Write.Attempts, source.Closes), Is.EqualTo((0, 1)));
    });

    [Test]
    public void OnReady_BothArmed_BothAreCompleted() => On(async source =>
    {
        source.Read.Available = source.Write.Available = 1;
        var read = source.Read.Run();
        var write = source.Write.Run();
        source.OnReady(Readiness.Readable | Readiness.Writable);
        Assert.That((read.IsCompleted, write.IsCompleted), Is.EqualTo((true, true)));
        await read;
        await write;
    });

    [Test]
    public void Proceed_EdgeDuringTheTry_TriesAgain() => On(async source =>
    {
        var task = source.Read.Run();
        source.Read.InAttempt = () =>
        {
            source.Read.InAttempt = null;
            source.State.Edge(read: true, write: false, 0, out _);
        };
        source.OnReady(Readiness.Readable);
        Assert.That((source.Read.Attempts, source.Read.IsArmed), Is.EqualTo((2, true)));
        source.Read.Available = 1;
        source.OnReady(Readiness.Readable);
        Assert.That(await task, Is.EqualTo(3));
    });

    [Test]
    public void Proceed_ClosedDuringTheTry_EndsWithTheError_AndTheLastOneInsideCloses() => On(async source =>
    {
        var task = source.Read.Run();
        var closedInside = -1;
        source.Read.InAttempt = () =>
        {
            source.Close();
            closedInside = source.Closes;
        };
        source.OnReady(Readiness.Readable);
        await Expect.Throws<ObjectDisposedException>(async () => await task);
        Assert.That((closedInside, source.Closes), Is.EqualTo((0, 1)));
    });

    [TestCase(true)]
    [TestCase(false)]
    public void Complete_LeavesTheDirectionAsTheResultSays(bool remains) => On(async source =>
    {
        source.Read.Remains = remains;
        source.Read.Available = 1;
        var task = source.Read.Run();
        source.OnReady(Readiness.Readable);
        await task;
        Assert.That(source.State.IsReady(Direction.Read), Is.EqualTo(remains));
    });

    [Test]
    public void RemainsReady_OfAnOperationThatSaysNothing_IsTrue() => On(async source =>
    {
        var silent = new SilentOp(source);
        source.State.Begin(Direction.Read);
        var version = silent.Version;
        silent.Start(deferred: false, default);
        Assert.That(silent.IsArmed, Is.True);
        source.State.Withdraw(Direction.Read);
        silent.Proceed();
        Assert.That(source.State.IsReady(Direction.Read), Is.True);
        await new ValueTask(silent, version);
    });

    private sealed class SilentOp(AwaitableSource source) : Operation(source, Direction.Read), IValueTaskSource
    {
        protected override bool Attempt() => true;

        public void GetResult(short token) => ThrowIf(Fetch(token));
    }

    // ---- looks

    [Test]
    public void Look_NothingIsTheMatter_ChangesNothing() => On(async source =>
    {
        var task = source.Read.Run();
        source.Read.Look();
        Assert.That((source.Read.IsArmed, source.Read.Attempts, source.Read.Completions), Is.EqualTo((true, 0, 0)));
        source.Close();
        await Expect.Throws<ObjectDisposedException>(async () => await task);
        source.Read.Look();
        Assert.That(source.Read.Completions, Is.EqualTo(1), "there is no operation to look at");
    });

    [Test]
    public void Look_WhatTheOperationExamines_CompletesIt() => On(async source =>
    {
        var task = source.Read.Run();
        source.Read.CompletesWhenExamined = true;
        source.Read.Look();
        Assert.That(await task, Is.EqualTo(-1));
    });

    [Test]
    public void RequestLook_ManyTimes_IsOneItemInTheQueue() => On(async source =>
    {
        var task = source.Read.Run();
        var before = source.Loop.Statistics.PostsRun;
        for (var i = 0; i < 100; i++) source.Read.RequestLook();
        await Task.Yield();
        Assert.That(source.Loop.Statistics.PostsRun - before, Is.LessThanOrEqualTo(2));
        source.Read.CompletesWhenExamined = true;
        source.Read.RequestLook();
        Assert.That(await task, Is.EqualTo(-1), "and the next one is another");
    });

    // ---- cancelling and time-outs

    [Test]
    public void Cancel_EndsTheOperationWithItsToken() => On(async source =>
    {
        using var cancellation = new CancellationTokenSource();
        var version = (short)0;
        source.Read.WhenArmed = () => version = source.Read.Version;
        var task = source.Read.Run(token: cancellation.Token);
        cancellation.Cancel();
        Assert.That(source.Read.IsArmed, Is.True, "nothing is completed in the canceller's call");
        await Task.Yield();
        Assert.That(source.Read.GetStatus(version), Is.EqualTo(ValueTaskSourceStatus.Canceled));
        var error = await Expect.Throws<OperationCanceledException>(async () => await task);
        Assert.That(error.CancellationToken, Is.EqualTo(cancellation.Token));
    });

    [Test]
    public void Cancel_WhileItArms_IsNotMissed() => On(async source =>
    {
        using var cancellation = new CancellationTokenSource();
        source.State.Begin(Direction.Read);
        cancellation.Cancel(); // the callback runs at once, before the operation is armed
        var version = source.Read.Version;
        source.Read.Start(deferred: false, cancellation.Token);
        await Expect.Throws<OperationCanceledException>(async () => await new ValueTask<int>(source.Read, version));
    });

    [Test]
    public void Cancel_AfterTheEnd_DoesNotHitTheNextOperation() => On(async source =>
    {
        using var cancellation = new CancellationTokenSource();
        source.Read.Available = 1;
        var first = source.Read.Run(token: cancellation.Token);
        source.OnReady(Readiness.Readable);
        await first;
        var second = source.Read.Run();
        cancellation.Cancel();
        source.Read.RequestLook();
        await Task.Yield();
        Assert.That(source.Read.IsArmed, Is.True);
        source.Close();
        await Expect.Throws<ObjectDisposedException>(async () => await second);
    });

    private static void OnVirtualTime(Func<Source, VirtualTimeProvider, Task> test)
    {
        var time = new VirtualTimeProvider { AutoJump = true };
        Run.OnLoop(() => test(new Source(EventLoop.Current!), time), new EventLoopOptions { TimeProvider = time, SpinDuration = TimeSpan.Zero });
    }

    [Test]
    public void Timeout_EndsTheOperationThenAndNotBefore() => OnVirtualTime(async (source, time) =>
    {
        source.Read.TimeoutNanoseconds = 1_000_000_000;
        var start = time.GetTimestamp();
        var error = await Expect.Throws<TimeoutException>(async () => await source.Read.Run());
        Assert.That(time.GetElapsedTime(start), Is.EqualTo(TimeSpan.FromSeconds(1)));
        Assert.That(error.Message, Does.Contain("reading").And.Contain("TestedSource"));
        source.Write.TimeoutNanoseconds = 0;
        error = await Expect.Throws<TimeoutException>(async () => await source.Write.Run());
        Assert.That(error.Message, Does.Contain("writing"));
        Assert.That(time.GetElapsedTime(start), Is.EqualTo(TimeSpan.FromSeconds(1)));
    });

    [Test]
    public void Timeout_InTime_DoesNotEndTheNextOperation() => OnVirtualTime(async (source, time) =>
    {
        source.Read.TimeoutNanoseconds = 1_000_000_000;
        var first = source.Read.Run();
        source.Read.Available = 1;
        source.OnReady(Readiness.Readable);
        await first;
        source.Read.TimeoutNanoseconds = -1;
        var second = source.Read.Run();
        await source.Loop.Delay(TimeSpan.FromSeconds(2));
        Assert.That(source.Read.IsArmed, Is.True);
        source.Close();
        await Expect.Throws<ObjectDisposedException>(async () => await second);
    });

    [Test]
    public void RenewTimeout_TheTimeBeginsAnew() => OnVirtualTime(async (source, time) =>
    {
        source.Read.RenewTimeout(); // of no operation: nothing
        source.Read.TimeoutNanoseconds = 1_000_000_000;
        var start = time.GetTimestamp();
        var task = source.Read.Run();
        source.Read.InAttempt = source.Read.RenewTimeout;
        await source.Loop.Delay(TimeSpan.FromSeconds(0.6));
        source.OnReady(Readiness.Readable);
        await Expect.Throws<TimeoutException>(async () => await task);
        Assert.That(time.GetElapsedTime(start), Is.EqualTo(TimeSpan.FromSeconds(1.6)));
    });

    [Test]
    public void Close_TakesTheTimerAlong() => OnVirtualTime(async (source, _) =>
    {
        source.Read.TimeoutNanoseconds = source.Write.TimeoutNanoseconds = 3600_000_000_000;
        var read = source.Read.Run();
        var write = source.Write.Run();
        Assert.That(source.Loop.Statistics.TimersPending, Is.EqualTo(2));
        source.Close();
        await Expect.Throws<ObjectDisposedException>(async () => await read);
        await Expect.Throws<ObjectDisposedException>(async () => await write);
        Assert.That(source.Loop.Statistics.TimersPending, Is.Zero);
    });

    [Test]
    public void Timeout_FromAnotherThread_IsWatchedByTheLoop_AndCloseThereTakesTheTimerAlong() => On(async source =>
    {
        source.Read.TimeoutNanoseconds = 1_000_000;
        await Expect.Throws<TimeoutException>(() => Task.Run(async () => await source.Read.Run()));
        source.Write.TimeoutNanoseconds = 3600_000_000_000;
        var writing = Task.Run(() => source.Write.Run().AsTask());
        while (source.Loop.Statistics.TimersPending == 0) await Task.Yield();
        await Task.Run(source.Close);
        await Expect.Throws<ObjectDisposedException>(() => writing);
        await Task.Yield();
        Assert.That(source.Loop.Statistics.TimersPending, Is.Zero);
    });

    // ---- closing, stopping

    [Test]
    public void Close_Twice_IsFalseAndClosesOnce() => On(source =>
    {
        Assert.That(source.Close(), Is.True);
        Assert.That(source.Close(), Is.False);
        Assert.That(source.Closes, Is.EqualTo(1));
        Assert.Throws<ObjectDisposedException>(() => source.Read.Run());
        Assert.Throws<ObjectDisposedException>(() => source.Begin(Direction.Read, out _));
        Assert.Throws<ObjectDisposedException>(() => source.BeginTry(Direction.Read));
        return Task.CompletedTask;
    });

    [Test]
    public void Close_SomebodyInside_TheLastOneCloses() => On(source =>
    {
        source.BeginTry(Direction.Read);
        source.Close();
        Assert.That(source.Closes, Is.Zero);
        source.End(Direction.Read, ready: false);
        Assert.That(source.Closes, Is.EqualTo(1));
        return Task.CompletedTask;
    });

    [Test]
    public void Stop_EndsBothDirections_RefusesNewOnesAndLeavesTheDescriptorOpen() => On(async source =>
    {
        var read = source.Read.Run();
        var write = source.Write.Run();
        source.Stop();
        var error = await Expect.Throws<ObjectDisposedException>(async () => await read);
        Assert.That(error.ObjectName, Is.EqualTo(nameof(EventLoop)));
        await Expect.Throws<ObjectDisposedException>(async () => await write);
        Assert.Throws<ObjectDisposedException>(() => source.Read.Run());
        Assert.That(source.Closes, Is.Zero);
    });

    [Test]
    public void Begin_WhileBusy_NamesTheDirection() => On(source =>
    {
        source.Begin(Direction.Read, out _);
        source.Begin(Direction.Write, out _);
        Assert.That(Assert.Throws<InvalidOperationException>(() => source.Begin(Direction.Read, out _))!.Message, Does.Contain("reading").And.Contain("TestedSource"));
        Assert.That(Assert.Throws<InvalidOperationException>(() => source.BeginTry(Direction.Write))!.Message, Does.Contain("writing").And.Contain("TestedSource"));
        return Task.CompletedTask;
    });

    [Test]
    public void Begin_BudgetUsedUp_IsDeferred_OnTheLoopAlone() => On(async source =>
    {
        var deferrals = 0;
        for (var i = 0; i < 1000; i++)
        {
            source.OnReady(Readiness.Readable);
            source.Begin(Direction.Read, out var deferred);
            source.End(Direction.Read, ready: false);
            if (deferred) deferrals++;
            else Assert.That(deferrals, Is.Zero, "used up is used up");
        }
        Assert.That(deferrals, Is.InRange(1, 999));
        await Task.Run(() =>
        {
            for (var i = 0; i < 1000; i++)
            {
                source.Begin(Direction.Write, out var deferred);
                source.End(Direction.Write, ready: false);
                if (deferred) Assert.Fail("there is no budget elsewhere");
            }
        });
    });

    // ---- sides

    [Test]
    public void Sides_GetTheEdgesThatTheyWant() => On(source =>
    {
        var hangUp = new Side(source.Loop, Readiness.ReadClosed);
        var urgent = new Side(source.Loop, Readiness.Priority);
        source.Add(hangUp);
        source.Add(urgent);
        source.OnReady(Readiness.Readable | Readiness.Writable);
        Assert.That((hangUp.Edges, urgent.Edges), Is.EqualTo((0, 0)));
        source.OnReady(Readiness.Priority);
        Assert.That((hangUp.Edges, urgent.Edges), Is.EqualTo((0, 1)));
        source.OnReady(Readiness.ReadClosed);
        Assert.That((hangUp.Edges, urgent.Edges), Is.EqualTo((1, 1)));
        return Task.CompletedTask;
    });

    [TestCase(false)]
    [TestCase(true)]
    public void Sides_EndWithTheirSource_WhicheverComesFirst(bool sideIsLate) => On(source =>
    {
        Side[] sides = [new(source.Loop, Readiness.ReadClosed), new(source.Loop, Readiness.Priority)];
        if (!sideIsLate) foreach (var side in sides) source.Add(side);
        source.Close();
        if (sideIsLate) foreach (var side in sides) source.Add(side);
        Assert.That(sides.Select(s => s.State.IsClosed), Is.All.True);
        return Task.CompletedTask;
    });

    [TestCase(false)]
    [TestCase(true)]
    public void Sides_StopWithTheirSource_WhicheverComesFirst(bool sideIsLate) => On(source =>
    {
        Side[] sides = [new(source.Loop, Readiness.ReadClosed), new(source.Loop, Readiness.Priority)];
        if (!sideIsLate) foreach (var side in sides) source.Add(side);
        source.Stop();
        if (sideIsLate) foreach (var side in sides) source.Add(side);
        Assert.That(sides.Select(s => (s.State.IsClosed, s.State.IsEnded)), Is.All.EqualTo((false, true)));
        return Task.CompletedTask;
    });

    [Test]
    public void OnStale_Closes() => On(source =>
    {
        source.OnStale();
        Assert.That(source.State.IsClosed, Is.True);
        Assert.That(source.CheckHandle(), Is.False);
        return Task.CompletedTask;
    });

    // ---- the ValueTask

    [Test]
    public void OnCompleted_BadArguments_AreRefused() => On(async source =>
    {
        var task = source.Read.Run();
        var version = source.Read.Version;
        Assert.Throws<ArgumentNullException>(() => source.Read.OnCompleted(null!, null, version, default));
        Assert.Throws<InvalidOperationException>(() => source.Read.OnCompleted(static _ => { }, null, (short)(version + 1), default));
        Assert.Throws<InvalidOperationException>(() => source.Read.GetStatus((short)(version + 1)));
        Assert.That(source.Read.GetStatus(version), Is.EqualTo(ValueTaskSourceStatus.Pending));
        source.Close();
        await Expect.Throws<ObjectDisposedException>(async () => await task);
        Assert.Throws<InvalidOperationException>(() => source.Read.GetStatus(version));
    });

    [Test]
    public void GetResult_BeforeTheEnd_IsRefusedAndChangesNothing() => On(async source =>
    {
        var task = source.Read.Run();
        Assert.Throws<InvalidOperationException>(() => ((IValueTaskSource<int>)source.Read).GetResult(source.Read.Version));
        source.Read.Available = 1;
        source.OnReady(Readiness.Readable);
        Assert.That(await task, Is.EqualTo(1));
    });

    [Test]
    public void OnCompleted_DoneMeanwhile_RunsLaterOnTheLoop_NeverInline() => On(async source =>
    {
        source.Read.Available = 1;
        _ = source.Read.Run();
        var version = source.Read.Version;
        source.OnReady(Readiness.Readable);
        var ran = 0;
        var context = SynchronizationContext.Current;
        source.Read.OnCompleted(state => ran = state is "state" && SynchronizationContext.Current == context ? 1 : 2, "state", version, ValueTaskSourceOnCompletedFlags.UseSchedulingContext);
        Assert.That(ran, Is.Zero);
        await Task.Yield();
        Assert.That(ran, Is.EqualTo(1));
        Assert.That(((IValueTaskSource<int>)source.Read).GetResult(version), Is.EqualTo(1));
    });

    [Test]
    public void OnCompleted_FlowsTheExecutionContextIfAsked([Values] bool flow) => On(async source =>
    {
        var local = new AsyncLocal<string> { Value = "captured" };
        var seen = "";
        source.Read.Available = 1;
        _ = source.Read.Run();
        var version = source.Read.Version;
        source.Read.OnCompleted(_ => seen = local.Value, null, version, flow ? ValueTaskSourceOnCompletedFlags.FlowExecutionContext : default);
        local.Value = "later";
        source.OnReady(Readiness.Readable);
        if (flow) Assert.That(seen, Is.EqualTo("captured"));
        else Assert.That(seen, Is.Not.EqualTo("captured"));
        ((IValueTaskSource<int>)source.Read).GetResult(version);
        await Task.Yield();
    });

    [Test]
    public void Completed_LetsGoOfTheContinuation() => On(async source =>
    {
        source.Read.Available = 1;
        var reference = Await(source);
        for (var i = 0; i < 10 && reference.IsAlive; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
            await Task.Yield();
        }
        Assert.That(reference.IsAlive, Is.False);
        GC.KeepAlive(source);
    });

    [System.Runtime.CompilerServices.MethodImpl(System.Runtime.CompilerServices.MethodImplOptions.NoInlining)]
    private static WeakReference Await(Source source)
    {
        _ = source.Read.Run();
        var version = source.Read.Version;
        var state = new object();
        source.Read.OnCompleted(static _ => { }, state, version, default);
        source.OnReady(Readiness.Readable);
        ((IValueTaskSource<int>)source.Read).GetResult(version);
        return new WeakReference(state);
    }
}
