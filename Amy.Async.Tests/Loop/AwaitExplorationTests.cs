namespace Amy.Async.Tests.Loop;

/// <summary>
/// Explores every interleaving of the other half of an operation's life: two operations of one direction, one after the other, on
/// a thread of their own, awaited and fetched there; a second awaiter with the first one's token, which becomes stale; the loop,
/// which tries, looks, completes and resumes; a canceller and a clock, which mean the first operation only. The real
/// <see cref="StateWord"/> runs in each step; the order of the steps, and which plain fields they touch, is that of
/// <see cref="Operation"/> and <see cref="OperationTimer"/>.
/// </summary>
/// <remarks>
/// The two awaiters do not store their continuations at the same time, as on one thread. Two threads that await the same
/// ValueTask at once break the rule of ValueTasks in a way that the library does not repair: one of them gets the exception, but
/// it may have been its continuation that was stored last.
/// </remarks>
[TestFixture]
internal sealed class AwaitExplorationTests
{
    /// <summary>Deliberate bugs, to show that the exploration would find them.</summary>
    internal enum Bug
    {
        None,
        ContinuationIsStoredAfterTheAwait,
        AlreadyDoneIsTakenForStored,
        ResultIsCopiedAfterTheFetch,
        ResultIsStoredAfterCompleting,
        CompleterLooksForTheAwaiterFirst,
        LookTakesItsBitBackAfterwards,
        LooksAreQueuedWithoutTheBit,
        TimeOutElsewhereAsksForNoLook,
        TimeOutOutlivesItsOperation,
        CancellationMeansWhateverIsThere,
    }

    /// <summary>What is explored.</summary>
    internal readonly record struct Setting(bool SecondAwaiter = false, bool FirstIsAwaited = true, bool Cancels = false, bool TimesOut = false, bool VersionWraps = false);

    /// <summary>One thread's hold on a ValueTask.</summary>
    private struct Awaiter
    {
        internal int At;
        internal short Token;
        internal int Copy;
    }

    /// <summary>One state of the world; copied for each branch.</summary>
    private struct World
    {
        internal StateWord Word;
        internal int Bytes; // in the socket
        internal int Arrivals; // still to come
        internal bool Edge;

        // the operation's fields
        internal int Result; // the operation's number, negative for a failure
        internal int Continuation; // whose
        internal bool WatchesToken;
        internal bool TimeoutSet;
        internal bool LookQueued; // the bit
        internal int Looks; // in the loop's queue
        internal bool InTimerQueue;

        internal Awaiter First; // the thread of the operations
        internal Awaiter Second;
        internal int Number; // of the operation in progress
        internal int Loop;
        internal int Canceller;
        internal bool Cancelled;
        internal bool TimeIsUp;
        internal int Resumed; // whose continuations are about to run, a bit for each
        internal int Got;

        internal int Fetched; // a bit for each operation
        internal int Received; // bytes that were taken from the socket
        internal bool WasStale; // the first awaiter found that the second had its operation's result
    }

    private const int End = 100;
    private const int One = 1; // the awaiters, and the operations
    private const int Two = 2;

    private Bug _bug;
    private Setting _setting;

    private static IEnumerable<Setting> Settings()
    {
        yield return new Setting();
        yield return new Setting(SecondAwaiter: true);
        yield return new Setting(SecondAwaiter: true, FirstIsAwaited: false);
        yield return new Setting(FirstIsAwaited: false, Cancels: true, TimesOut: true);
        yield return new Setting(Cancels: true);
        yield return new Setting(TimesOut: true);
        yield return new Setting(Cancels: true, TimesOut: true);
        yield return new Setting(SecondAwaiter: true, Cancels: true, TimesOut: true);
        yield return new Setting(SecondAwaiter: true, Cancels: true, VersionWraps: true);
    }

    [TestCaseSource(nameof(Settings))]
    public void AllInterleavings_FetchEachResultOnceAndHitTheRightOperation(object setting)
    {
        var explorer = Explore(Bug.None, (Setting)setting);
        explorer.Report();
        Assert.That(explorer.States, Is.GreaterThan(100));
    }

    private static IEnumerable<TestCaseData> Bugs()
    {
        yield return new TestCaseData(Bug.ContinuationIsStoredAfterTheAwait, new Setting());
        yield return new TestCaseData(Bug.AlreadyDoneIsTakenForStored, new Setting());
        yield return new TestCaseData(Bug.ResultIsCopiedAfterTheFetch, new Setting(SecondAwaiter: true));
        yield return new TestCaseData(Bug.ResultIsStoredAfterCompleting, new Setting());
        yield return new TestCaseData(Bug.CompleterLooksForTheAwaiterFirst, new Setting());
        yield return new TestCaseData(Bug.LookTakesItsBitBackAfterwards, new Setting(Cancels: true));
        yield return new TestCaseData(Bug.LooksAreQueuedWithoutTheBit, new Setting(Cancels: true, TimesOut: true));
        yield return new TestCaseData(Bug.TimeOutElsewhereAsksForNoLook, new Setting(TimesOut: true));
        yield return new TestCaseData(Bug.TimeOutOutlivesItsOperation, new Setting(TimesOut: true));
        yield return new TestCaseData(Bug.CancellationMeansWhateverIsThere, new Setting(Cancels: true));
    }

    [TestCaseSource(nameof(Bugs))]
    public void SeededBug_IsFound(object bug, object setting)
    {
        var found = Assert.Throws<BrokenPromiseException>(() => Explore((Bug)bug, (Setting)setting));
        TestContext.Out.WriteLine(found!.Message);
    }

    private Explorer<World> Explore(Bug bug, Setting setting)
    {
        _bug = bug;
        _setting = setting;
        var explorer = new Explorer<World>(
            ("kernel", Arrive),
            ("op", StepOperation),
            ("second", (ref w) => setting.SecondAwaiter && StepSecond(ref w)),
            ("loop", StepLoop),
            ("cancel", (ref w) => setting.Cancels && StepCanceller(ref w)),
            ("clock", (ref w) => setting.TimesOut && !w.TimeIsUp && (w.TimeIsUp = true)));
        var word = setting.VersionWraps ? WithTheLastVersion() : default;
        for (var arrivals = setting.Cancels || setting.TimesOut ? 0 : 2; arrivals < 3; arrivals++)
            explorer.Explore(new World { Word = word, Arrivals = arrivals, Second = new Awaiter { At = -1 } }, Check, CheckEnd);
        return explorer;
    }

    private static StateWord WithTheLastVersion()
    {
        StateWord word = default;
        for (var version = 0; version < ushort.MaxValue; version++)
        {
            word.Begin(Direction.Read);
            word.Complete(Direction.Read, ready: false);
            word.Fetch(Direction.Read, (short)version);
        }
        Assert.That(word.Version(Direction.Read), Is.EqualTo(-1));
        return word;
    }

    private static bool Arrive(ref World w)
    {
        if (w.Arrivals == 0) return false;
        w.Arrivals--;
        w.Bytes++;
        return w.Edge = true;
    }

    private static bool Receive(ref World w)
    {
        if (w.Bytes == 0) return false;
        w.Bytes--;
        w.Received++;
        return true;
    }

    // ---- the operations' thread: begin, arm, look after arming, await, fetch

    private bool StepOperation(ref World w)
    {
        ref var me = ref w.First;
        switch (me.At)
        {
            case 0:
                switch (w.Word.Begin(Direction.Read))
                {
                    case StateWord.BeginResult.Attempt:
                        me.At = 2;
                        break;
                    case StateWord.BeginResult.Wait:
                        me.At = 1;
                        break;
                    default:
                        return false; // busy with an operation that nobody has fetched: ask again later
                }
                w.Number++;
                return true;
            case 1: // Start
                w.Result = 0;
                me.Token = w.Word.Version(Direction.Read);
                w.TimeoutSet = _setting.TimesOut && (w.Number == One || _bug == Bug.TimeOutOutlivesItsOperation && w.TimeoutSet);
                w.WatchesToken = _setting.Cancels && w.Number == One;
                me.At = 3;
                return true;
            case 2: // the try before there is an operation
                if (!Receive(ref w))
                {
                    me.At = 1;
                    return true;
                }
                me.At = 20;
                return true;
            case 20:
                w.Word.End(Direction.Read, ready: true);
                w.Fetched |= w.Number;
                Next(ref w, ref me);
                return true;
            case 3:
                me.At = w.Word.Arm(Direction.Read) == StateWord.ArmResult.Armed ? 5 : 4;
                return true;
            case 4: // the try between
                me.At = 3;
                if (!Receive(ref w)) return true;
                w.Result = w.Number;
                w.WatchesToken = w.TimeoutSet = false;
                me.At = 21;
                return true;
            case 21:
                w.Word.Complete(Direction.Read, ready: true);
                me.At = 8;
                return true;
            case 5: // what belongs to the operation was known before it was armed
                var asks = _setting.TimesOut && w.Number == One && _bug != Bug.TimeOutElsewhereAsksForNoLook
                    || _setting.Cancels && w.Number == One && w.Cancelled;
                me.At = asks ? 6 : 8;
                return true;
            case 6:
                me.At = RequestLook(ref w) ? 7 : 8;
                return true;
            case 7:
                w.Looks++;
                me.At = 8;
                return true;
            case 8: // the ValueTask is there
                if (w.Number == One && w.Second.At < 0) w.Second = new Awaiter { Token = me.Token, At = 10 };
                if (w.Number == One && !_setting.FirstIsAwaited) Next(ref w, ref me);
                else me.At = 10;
                return true;
            default:
                return StepAwaiter(ref w, ref me, One);
        }
    }

    private static void Next(ref World w, ref Awaiter me)
    {
        me = default;
        if (w.Number == Two) me.At = End;
    }

    private bool StepSecond(ref World w) => w.Second.At >= 0 && StepAwaiter(ref w, ref w.Second, Two);

    // GetStatus -> OnCompleted: may it await? stores, awaits -> resumed -> GetResult: copies, fetches
    private bool StepAwaiter(ref World w, ref Awaiter me, int who)
    {
        switch (me.At)
        {
            case 10:
                switch (w.Word.IsDone(Direction.Read, me.Token))
                {
                    case null:
                        Stale(ref w, ref me, who);
                        break;
                    case true:
                        me.At = 15;
                        break;
                    case false:
                        me.At = 11;
                        break;
                }
                return true;
            case 11:
                if (IsStoring(who == One ? w.Second : w.First)) return false;
                if (w.Word.CanAwait(Direction.Read, me.Token)) me.At = 12;
                else Stale(ref w, ref me, who);
                return true;
            case 12:
                if (_bug != Bug.ContinuationIsStoredAfterTheAwait) w.Continuation = who;
                me.At = 13;
                return true;
            case 13:
                switch (w.Word.Await(Direction.Read, me.Token))
                {
                    case StateWord.AwaitResult.Invalid:
                        w.Continuation = 0; // fetched by the other meanwhile; nobody else's, as they do not store at the same time
                        Stale(ref w, ref me, who);
                        return true;
                    case StateWord.AwaitResult.AlreadyDone when _bug != Bug.AlreadyDoneIsTakenForStored:
                        w.Resumed |= TakeContinuation(ref w);
                        break;
                }
                me.At = _bug == Bug.ContinuationIsStoredAfterTheAwait ? 22 : 14;
                return true;
            case 22:
                w.Continuation = who;
                me.At = 14;
                return true;
            case 14:
                if ((w.Resumed & who) == 0) return false;
                w.Resumed &= ~who;
                if (!_setting.SecondAwaiter && w.Word.IsDone(Direction.Read, me.Token) != true) throw new BrokenPromiseException("Resumed without a result.");
                me.At = 15;
                return true;
            case 15:
                if (_bug != Bug.ResultIsCopiedAfterTheFetch) me.Copy = w.Result;
                me.At = 16;
                return true;
            case 16:
                if (!w.Word.Fetch(Direction.Read, me.Token))
                {
                    Stale(ref w, ref me, who);
                    return true;
                }
                me.At = 17;
                if (_bug != Bug.ResultIsCopiedAfterTheFetch) Fetched(ref w, ref me, who);
                return true;
            case 17: // with the bug only
                me.Copy = w.Result;
                Fetched(ref w, ref me, who);
                return true;
            default:
                return false;
        }
    }

    private static bool IsStoring(in Awaiter other) => other.At is 12 or 13;

    private void Stale(ref World w, ref Awaiter me, int who)
    {
        if (who == Two)
        {
            me.At = End;
            return;
        }
        if (!_setting.SecondAwaiter || w.Number != One) throw new BrokenPromiseException($"Operation {w.Number} is said to be stale.");
        w.WasStale = true;
        Next(ref w, ref me);
    }

    private static void Fetched(ref World w, ref Awaiter me, int who)
    {
        var number = who == One ? w.Number : One;
        if (Math.Abs(me.Copy) != number) throw new BrokenPromiseException($"Operation {number} gets the result {me.Copy}.");
        if ((w.Fetched & number) != 0) throw new BrokenPromiseException($"Operation {number} is fetched twice.");
        w.Fetched |= number;
        if (who == One) Next(ref w, ref me);
        else me.At = End;
    }

    // ---- looks

    private bool RequestLook(ref World w)
    {
        if (w.LookQueued && _bug != Bug.LooksAreQueuedWithoutTheBit) return false;
        return w.LookQueued = true; // an exchange
    }

    private bool StepCanceller(ref World w)
    {
        switch (w.Canceller)
        {
            case 0:
                w.Cancelled = true;
                w.Canceller = 1;
                return true;
            case 1: // the callback, if it was registered by then; it may run late
                w.Canceller = w.Number > 0 && RequestLook(ref w) ? 2 : End;
                return true;
            case 2:
                w.Looks++;
                w.Canceller = End;
                return true;
            default:
                return false;
        }
    }

    // ---- the loop

    private bool StepLoop(ref World w)
    {
        switch (w.Loop)
        {
            case 0 when w.Edge:
                w.Edge = false;
                if (w.Word.Edge(read: true, write: false, 0, out _)) w.Loop = 1;
                return true;
            case 0 when w.Looks > 0:
                w.Looks--;
                w.Loop = 4;
                return true;
            case 0 when w.InTimerQueue && w.TimeIsUp: // Fire
                w.InTimerQueue = false;
                if (w.Word.IsArmed(Direction.Read) && w.TimeoutSet) w.Loop = 4;
                return true;
            case 1: // Proceed
                w.Got = Receive(ref w) ? w.Number : 0;
                w.Loop = w.Got > 0 ? 8 : 2;
                return true;
            case 2:
                w.Loop = w.Word.Arm(Direction.Read) == StateWord.ArmResult.Armed ? 0 : 1;
                return true;
            case 4: // Look
                if (_bug != Bug.LookTakesItsBitBackAfterwards) w.LookQueued = false; // an exchange
                w.Loop = 5;
                return true;
            case 5:
                w.Loop = w.Word.IsArmed(Direction.Read) ? 6 : _bug == Bug.LookTakesItsBitBackAfterwards ? 10 : 0;
                return true;
            case 6:
                var cancelled = w.Cancelled && (w.WatchesToken || _bug == Bug.CancellationMeansWhateverIsThere);
                if (cancelled || w.TimeoutSet && w.TimeIsUp)
                {
                    if (!w.Word.Withdraw(Direction.Read)) throw new BrokenPromiseException("Somebody else has taken an armed operation.");
                    w.Got = -w.Number;
                    w.Loop = 8;
                    return true;
                }
                if (w.TimeoutSet) w.InTimerQueue = true;
                w.Loop = 7;
                return true;
            case 7:
                w.Loop = w.Word.Take(Direction.Read) ? 1 : _bug == Bug.LookTakesItsBitBackAfterwards ? 10 : 0;
                return true;
            case 8: // Complete
                if (_bug != Bug.ResultIsStoredAfterCompleting) w.Result = w.Got;
                if (_bug != Bug.TimeOutOutlivesItsOperation) w.TimeoutSet = false;
                w.WatchesToken = false;
                w.Loop = _bug == Bug.CompleterLooksForTheAwaiterFirst ? w.Word.CanAwait(Direction.Read, w.Word.Version(Direction.Read)) ? 11 : 12 : 9;
                return true;
            case 9:
                if (w.Word.Complete(Direction.Read, ready: true).IsAwaited) w.Resumed |= TakeContinuation(ref w);
                w.Loop = _bug switch
                {
                    Bug.ResultIsStoredAfterCompleting => 13,
                    Bug.LookTakesItsBitBackAfterwards => 10,
                    _ => 0,
                };
                return true;
            case 10: // with bugs only, from here on
                w.LookQueued = false;
                w.Loop = 0;
                return true;
            case 11 or 12:
                w.Word.Complete(Direction.Read, ready: true);
                if (w.Loop == 12) w.Resumed |= TakeContinuation(ref w);
                w.Loop = 0;
                return true;
            case 13:
                w.Result = w.Got;
                w.Loop = 0;
                return true;
            default:
                return false;
        }
    }

    private static int TakeContinuation(ref World w)
    {
        if (w.Continuation == 0) throw new BrokenPromiseException("There is no continuation to resume.");
        if ((w.Resumed & w.Continuation) != 0) throw new BrokenPromiseException("A continuation is resumed before the one before it has run.");
        var whose = w.Continuation;
        w.Continuation = 0;
        return whose;
    }

    // ---- what was promised

    private static void Check(in World w)
    {
        if (w.Looks > 1) throw new BrokenPromiseException("A look is queued twice.");
        if (w.Result == -Two) throw new BrokenPromiseException("The first operation's end hits the second.");
    }

    private void CheckEnd(in World w)
    {
        if (w.Arrivals != 0 || w.Loop != 0 || w.Looks != 0) throw new BrokenPromiseException("Somebody hangs.");
        if (w.Word.IsBusy(Direction.Write) || w.Word.Version(Direction.Write) != 0) throw new BrokenPromiseException("The other direction has changed.");
        if (w.LookQueued) throw new BrokenPromiseException("Nobody can ask for a look any more.");
        var armed = w.Word.IsArmed(Direction.Read);
        if (armed && w.Bytes > 0) throw new BrokenPromiseException("An operation sleeps although a byte is there.");
        if (armed && w.Number == One && (w.Cancelled || w.TimeIsUp)) throw new BrokenPromiseException("An operation sleeps although it is cancelled or its time is up.");
        if (armed)
        {
            if (w.First.At is not (14 or 0)) throw new BrokenPromiseException("An awaiter hangs.");
            return;
        }
        if (w.First.At != End) throw new BrokenPromiseException("An awaiter hangs.");
        if (_setting.SecondAwaiter && w.Second.At is > 0 and not End) throw new BrokenPromiseException("The second awaiter hangs.");
        if ((w.Fetched & Two) == 0) throw new BrokenPromiseException("The second operation's result is lost.");
        if (_setting.FirstIsAwaited && (w.Fetched & One) == 0) throw new BrokenPromiseException("The first operation's result is lost.");
        if (w.WasStale && !_setting.SecondAwaiter) throw new BrokenPromiseException("A good token is refused.");
    }
}
