namespace Amy.Async.Tests.Loop;

/// <summary>
/// Explores every interleaving of what wakes a loop: two threads that post, one that asks it to stop, the loop with
/// its turn, its sleep and its end, and a kernel with other events. The real <see cref="WakeFlag"/> and <see cref="PollerUse"/>
/// run in each step; the order of the steps is that of <c>TryEnqueue</c>, <c>RequestStop</c>, <c>Poller.Wake</c>, <c>SomeTurns</c>,
/// <c>EventLoop.Sleep</c>, <c>Poller.Sleep</c> and <c>End</c>.
/// </summary>
/// <remarks>
/// Two writes may stay in a store buffer until the writer's next fence or interlocked access: what is added to the queue, and
/// the request to stop. The steps of the queue's mark are told apart only where the loop never sleeps: elsewhere it looks at the
/// queue itself before it waits.
/// </remarks>
[TestFixture]
internal sealed class WakeExplorationTests
{
    /// <summary>Deliberate bugs, to show that the exploration would find them.</summary>
    internal enum Bug
    {
        None,
        LoopClearsTheFlagAfterItsLastLook,
        LoopDoesNotLookAgainBeforeItSleeps,
        LoopLooksAgainBeforeItSaysSo,
        PosterLooksAtTheFlagWithoutAFence,
        SleeperOverwritesTheFlag,
        WakerReadsTheFlagOnly,
        WakerReadsTheFlagThenExchanges,
        StopperWakesOnlyWhoSleeps,
        StopIsRequestedAfterTheWake,
        WakerCountsItselfAfterTheExchange,
        LoopClosesWithoutWaitingForWakers,
        LoopEmptiesTheQueueThenClosesIt,
        PosterLeavesWhatCameLate,
        LoopCountsThenTakesTheMarkAway,
        PosterMarksOnlyWhatItHasNotAddedYet,
    }

    /// <summary>What is explored.</summary>
    internal readonly record struct Setting(bool Stop, bool Spawn = false, bool OneItemATurn = false, bool Spins = false, bool OldKernel = false, bool NeverSleeps = false);

    private struct Waker
    {
        internal byte At;
        internal byte Posts; // made so far
        internal byte Buffered; // an item that nobody else sees yet
        internal bool SawSleeping; // with bugs only
    }

    /// <summary>One state of the world; copied for each branch.</summary>
    private struct World
    {
        internal WakeFlag Wake;
        internal PollerUse Use;
        internal SmallQueue Queue;
        internal bool QueueMarked;
        internal bool QueueClosed;
        internal bool Stop;
        internal bool StopBuffered;

        internal Waker First;
        internal Waker Second;
        internal Waker Stopper;
        internal sbyte Loop;
        internal sbyte Left; // to run in this turn
        internal sbyte LastTurns;

        internal bool Counter; // the eventfd's is not zero
        internal bool Edge; // the eventfd's, in the kernel
        internal bool Arrived; // another event
        internal sbyte Arrivals; // still to come
        internal bool Woken; // the wake-up is among the events of the last look
        internal bool Closed; // the descriptors

        internal byte Accepted; // a bit for each item
        internal byte Ran; // likewise, wherever it ran
        internal sbyte Unwritten; // sleeps minus writes
    }

    private const sbyte Spawned = 5; // posted by the loop itself, when it runs the first poster's first item
    private const byte Over = 100;
    private const sbyte End = 100;

    private Bug _bug;
    private Setting _setting;

    private static IEnumerable<Setting> Settings()
    {
        foreach (var oldKernel in new[] { false, true })
        {
            yield return new Setting(Stop: false, OldKernel: oldKernel);
            yield return new Setting(Stop: true, OldKernel: oldKernel);
        }
        yield return new Setting(Stop: true, Spins: true);
        yield return new Setting(Stop: false, NeverSleeps: true); // it has the mark alone to go by
        yield return new Setting(Stop: true, NeverSleeps: true);
        yield return new Setting(Stop: false, NeverSleeps: true, OneItemATurn: true);
        yield return new Setting(Stop: true, Spawn: true);
        yield return new Setting(Stop: true, Spawn: true, OneItemATurn: true);
    }

    [TestCaseSource(nameof(Settings))]
    public void AllInterleavings_LoseNoWakeUpAndRunEachItemOnce(object setting)
    {
        var explorer = Explore(Bug.None, (Setting)setting);
        explorer.Report();
        Assert.That(explorer.States, Is.GreaterThan(1000));
    }

    [TestCase(Bug.LoopClearsTheFlagAfterItsLastLook, true)]
    [TestCase(Bug.LoopDoesNotLookAgainBeforeItSleeps, false)]
    [TestCase(Bug.LoopLooksAgainBeforeItSaysSo, false)]
    [TestCase(Bug.PosterLooksAtTheFlagWithoutAFence, false)]
    [TestCase(Bug.SleeperOverwritesTheFlag, true)]
    [TestCase(Bug.WakerReadsTheFlagOnly, false)]
    [TestCase(Bug.WakerReadsTheFlagThenExchanges, true)]
    [TestCase(Bug.StopperWakesOnlyWhoSleeps, true)]
    [TestCase(Bug.StopIsRequestedAfterTheWake, true)]
    [TestCase(Bug.WakerCountsItselfAfterTheExchange, true)]
    [TestCase(Bug.LoopClosesWithoutWaitingForWakers, true)]
    [TestCase(Bug.LoopEmptiesTheQueueThenClosesIt, true)]
    [TestCase(Bug.PosterLeavesWhatCameLate, true)]
    [TestCase(Bug.LoopCountsThenTakesTheMarkAway, false)]
    [TestCase(Bug.PosterMarksOnlyWhatItHasNotAddedYet, false)]
    public void SeededBug_IsFound(Bug bug, bool stop)
    {
        var ofTheMark = bug is Bug.LoopCountsThenTakesTheMarkAway or Bug.PosterMarksOnlyWhatItHasNotAddedYet;
        var found = Assert.Throws<BrokenPromiseException>(() => Explore(bug, new Setting(stop, NeverSleeps: ofTheMark)));
        TestContext.Out.WriteLine(found!.Message);
    }

    private Explorer<World> Explore(Bug bug, Setting setting)
    {
        _bug = bug;
        _setting = setting;
        var explorer = new Explorer<World>(
            ("post 1", (ref w) => StepPoster(ref w, ref w.First, 1)),
            ("post 2", (ref w) => StepPoster(ref w, ref w.Second, 2)),
            ("stop", (ref w) => setting.Stop && StepStopper(ref w, ref w.Stopper)),
            ("loop", StepLoop),
            ("event", Arrive),
            ("flush 1", static (ref w) => Flush(ref w, ref w.First)),
            ("flush 2", static (ref w) => Flush(ref w, ref w.Second)),
            ("flush stop", FlushStop));
        explorer.Explore(new World { Arrivals = 1 }, Check, CheckEnd);
        return explorer;
    }

    // ---- wakers

    // TryAdd -> Closed: RunLeftOvers; asleep: Wake
    private bool StepPoster(ref World w, ref Waker me, int number)
    {
        switch (me.At)
        {
            case 0:
                if (me.Posts == PostsOf(number)) return false;
                if (w.QueueClosed)
                {
                    me.Posts++;
                    return true;
                }
                Flush(ref w, ref me); // the next add's own order, without a fence
                me.Buffered = (byte)(number * 2 - 1 + me.Posts);
                Accept(ref w, me.Buffered);
                if (_bug == Bug.PosterMarksOnlyWhatItHasNotAddedYet) w.QueueMarked = true;
                me.At = 20;
                return true;
            case 20:
                if (_bug != Bug.PosterLooksAtTheFlagWithoutAFence) Flush(ref w, ref me);
                me.At = (byte)(_bug == Bug.PosterMarksOnlyWhatItHasNotAddedYet ? 21 : 24);
                return true;
            case 24:
                if (_setting.NeverSleeps && !w.QueueMarked)
                {
                    me.At = 25;
                    return true;
                }
                w.QueueMarked = true;
                me.At = 21;
                return true;
            case 25:
                w.QueueMarked = true;
                me.At = 21;
                return true;
            case 21:
                me.At = (byte)(w.QueueClosed && _bug != Bug.PosterLeavesWhatCameLate ? 22 : 23);
                return true;
            case 22:
                if (w.Queue.TryTake(out var item)) Run(ref w, item);
                else Done(ref me);
                return true;
            case 23:
                if (w.Wake.IsSleeping) me.At = 2;
                else Done(ref me);
                return true;
            default:
                if (!StepWake(ref w, ref me)) return false;
                if (me.At == Over) Done(ref me);
                return true;
        }
    }

    // With a stop as well, fewer: all of it would be many millions of states.
    private int PostsOf(int number) => number == 1 || !_setting.Stop ? 2 : _setting.Spawn ? 0 : 1;

    private static void Done(ref Waker me)
    {
        me.Posts++;
        me.At = 0;
    }

    // Says so -> Wake
    private bool StepStopper(ref World w, ref Waker me)
    {
        switch (me.At)
        {
            case 0:
                w.StopBuffered = _bug != Bug.StopIsRequestedAfterTheWake;
                me.At = 2;
                return true;
            case 2 when _bug == Bug.StopperWakesOnlyWhoSleeps && !w.Wake.IsSleeping:
                FlushStop(ref w);
                me.At = Over;
                return true;
            case Over when _bug == Bug.StopIsRequestedAfterTheWake && !w.Stop:
                return w.Stop = true;
            default:
                return StepWake(ref w, ref me);
        }
    }

    // Counts itself -> exchanges -> writes -> counts itself out
    private bool StepWake(ref World w, ref Waker me)
    {
        switch (me.At)
        {
            case 2:
                if (_bug != Bug.WakerCountsItselfAfterTheExchange) CountIn(ref w, ref me);
                me.At = 4;
                return true;
            case 4:
                if (_bug == Bug.WakerReadsTheFlagThenExchanges)
                {
                    me.SawSleeping = w.Wake.IsSleeping;
                    me.At = 5;
                    return true;
                }
                EmptyBuffer(ref w, ref me);
                me.SawSleeping = _bug == Bug.WakerReadsTheFlagOnly ? w.Wake.IsSleeping : w.Wake.Notify();
                me.At = (byte)(_bug == Bug.WakerCountsItselfAfterTheExchange ? 5 : me.SawSleeping ? 6 : 7);
                return true;
            case 5: // with bugs only
                if (_bug == Bug.WakerReadsTheFlagThenExchanges) w.Wake.Notify();
                else CountIn(ref w, ref me);
                me.At = (byte)(me.SawSleeping ? 6 : 7);
                return true;
            case 6:
                if (w.Closed) throw new BrokenPromiseException("The wake descriptor is written after it was closed.");
                if (!_setting.OldKernel || !w.Counter) w.Edge = true; // libuv#4400
                w.Counter = _setting.OldKernel;
                w.Unwritten--;
                me.At = 7;
                return true;
            case 7:
                w.Use.RemoveWriter();
                me.SawSleeping = false;
                me.At = Over;
                return true;
            default:
                return false;
        }
    }

    private static void CountIn(ref World w, ref Waker me)
    {
        w.Use.AddWriter();
        EmptyBuffer(ref w, ref me);
    }

    // What an interlocked access does besides.
    private static void EmptyBuffer(ref World w, ref Waker me)
    {
        if (me.Buffered != 0) Flush(ref w, ref me);
        else if (me.Posts == 0) FlushStop(ref w);
    }

    private static bool Flush(ref World w, ref Waker me)
    {
        if (me.Buffered == 0) return false;
        w.Queue.Add(me.Buffered);
        me.Buffered = 0;
        return true;
    }

    private static bool FlushStop(ref World w)
    {
        if (!w.StopBuffered) return false;
        w.StopBuffered = false;
        return w.Stop = true;
    }

    // ---- the kernel

    private static bool Arrive(ref World w)
    {
        if (w.Arrivals == 0) return false;
        w.Arrivals--;
        return w.Arrived = true;
    }

    private void Collect(ref World w)
    {
        w.Woken = w.Edge && _setting.OldKernel; // to others, it makes no difference on a newer one
        w.Edge = w.Arrived = false;
    }

    // ---- the loop

    private bool StepLoop(ref World w)
    {
        switch (w.Loop)
        {
            case 0: // RunUntilEnd
                w.Loop = (sbyte)(w.Stop ? 20 : 1);
                return true;
            case 1: // SomeTurns
                if (_bug != Bug.LoopClearsTheFlagAfterItsLastLook) w.Wake.Clear();
                w.Loop = 2;
                return true;
            case 2: // RunPosted
                w.Loop = (sbyte)(w.QueueMarked ? 4 : 5);
                return true;
            case 4:
                if (_bug == Bug.LoopCountsThenTakesTheMarkAway) CountItems(ref w);
                else w.QueueMarked = false;
                w.Loop = 30;
                return _setting.NeverSleeps || StepLoop(ref w);
            case 30:
                if (_bug == Bug.LoopCountsThenTakesTheMarkAway) w.QueueMarked = false;
                else CountItems(ref w);
                w.Loop = 3;
                return true;
            case 3:
                RunOne(ref w, 5);
                return true;
            case 5: // before it waits
                w.Loop = (sbyte)(w.Stop ? 0 : 6);
                return true;
            case 6:
                w.Loop = (sbyte)(w.QueueMarked ? 7 : _bug == Bug.LoopClearsTheFlagAfterItsLastLook ? 11 : _bug == Bug.LoopLooksAgainBeforeItSaysSo ? 18 : _setting.Spins || _setting.NeverSleeps ? 8 : 12);
                return true;
            case 7:
                Collect(ref w);
                w.Loop = (sbyte)(w.Woken ? 15 : 0);
                return true;
            case 8: // SpinThenWait
                Collect(ref w);
                w.Loop = (sbyte)(w.Woken ? 15 : 9);
                return true;
            case 9 when _setting.NeverSleeps: // until there is a reason to go on
                if (!w.QueueMarked && !w.Stop && !w.Edge && !w.Arrived) return false;
                w.Loop = 0;
                return true;
            case 9:
                w.Loop = (sbyte)(w.QueueMarked ? 0 : 10);
                return true;
            case 10:
                w.Loop = (sbyte)(w.Stop ? 0 : 12);
                return true;
            case 11:
                w.Wake.Clear();
                w.Loop = 12;
                return true;
            case 12: // Sleep
                if (_bug == Bug.SleeperOverwritesTheFlag) w.Wake.EndSleep();
                if (w.Wake.TrySleep())
                {
                    w.Unwritten++;
                    w.Loop = (sbyte)(_bug is Bug.LoopDoesNotLookAgainBeforeItSleeps or Bug.LoopLooksAgainBeforeItSaysSo ? 13 : 16);
                }
                else w.Loop = 7;
                return true;
            case 16:
                w.QueueMarked |= !w.Queue.IsEmpty;
                w.Loop = (sbyte)(w.Queue.IsEmpty ? 13 : 17);
                return true;
            case 17: // without waiting
                Collect(ref w);
                w.Loop = 14;
                return true;
            case 18: // with a bug only
                w.Loop = (sbyte)(w.Queue.IsEmpty ? 12 : 7);
                return true;
            case 13:
                if (!w.Edge && !w.Arrived) return false;
                Collect(ref w);
                w.Loop = 14;
                return true;
            case 14:
                w.Wake.EndSleep();
                w.Loop = (sbyte)(w.Woken ? 15 : 0);
                return true;
            case 15: // Dispatch
                w.Counter = w.Woken = false; // AcknowledgeWake
                w.Loop = 0;
                return true;
            default:
                return StepEnd(ref w);
        }
    }

    private bool StepEnd(ref World w)
    {
        switch (w.Loop)
        {
            case 20:
                if (w.Queue.IsEmpty || w.LastTurns++ == 1) w.Loop = (sbyte)(_bug == Bug.LoopEmptiesTheQueueThenClosesIt ? 24 : 23);
                else w.Loop = 21;
                return true;
            case 21:
                w.QueueMarked = false;
                w.Loop = 25;
                return _setting.NeverSleeps || StepLoop(ref w);
            case 25:
                CountItems(ref w);
                w.Loop = 22;
                return true;
            case 22:
                RunOne(ref w, 20);
                return true;
            case 23: // with a fence
                w.QueueClosed = true;
                w.Loop = (sbyte)(_bug == Bug.LoopEmptiesTheQueueThenClosesIt ? 26 : 24);
                return true;
            case 24: // to the thread pool
                if (w.Queue.TryTake(out var item)) Run(ref w, item);
                else w.Loop = (sbyte)(w.QueueClosed ? 26 : 23);
                return true;
            case 26: // Poller.Dispose
                if (!w.Use.TryDispose(out var close) || !close) throw new BrokenPromiseException("Somebody else disposed of the poller.");
                w.Loop = 27;
                return true;
            case 27:
                if (w.Use.HasWriters && _bug != Bug.LoopClosesWithoutWaitingForWakers) return false;
                w.Closed = true;
                w.Loop = End;
                return true;
            default:
                return false;
        }
    }

    private int MostItems => _setting.OneItemATurn ? 1 : 100;

    // The mark has been taken away before: what was added in between is counted, and marked again for nothing.
    private void CountItems(ref World w)
    {
        w.Left = (sbyte)Math.Min(w.Queue.Count, MostItems);
        w.QueueMarked |= w.Queue.Count > MostItems;
    }

    private void RunOne(ref World w, sbyte next)
    {
        if (w.Left == 0 || !w.Queue.TryTake(out var item))
        {
            w.Loop = next;
            return;
        }
        w.Left--;
        Run(ref w, item);
        if (item != 1 || !_setting.Spawn) return;
        w.Queue.Add(Spawned); // wakes nobody
        w.QueueMarked = true;
        Accept(ref w, Spawned);
    }

    // ---- what was promised

    private static void Accept(ref World w, int item) => w.Accepted |= (byte)(1 << item);

    private static void Run(ref World w, int item)
    {
        if (item is 2 or 4 && (w.Ran & 1 << item - 1) == 0) throw new BrokenPromiseException($"Item {item} runs before the one that was posted before it.");
        w.Ran |= (byte)(1 << item);
    }

    private static void Check(in World w)
    {
        if (w.Unwritten < 0) throw new BrokenPromiseException("More than one write for one sleep.");
    }

    private void CheckEnd(in World w)
    {
        if (w.First.Posts != PostsOf(1) || w.Second.Posts != PostsOf(2)) throw new BrokenPromiseException("A poster hangs.");
        if (w.Ran != w.Accepted) throw new BrokenPromiseException("An accepted item never runs.");
        if (w.Loop != (_setting.Stop ? End : _setting.NeverSleeps ? (sbyte)9 : (sbyte)13)) throw new BrokenPromiseException(_setting.Stop ? "The loop does not stop." : "The loop hangs.");
    }
}
