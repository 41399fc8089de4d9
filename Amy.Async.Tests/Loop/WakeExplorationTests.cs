using System.Runtime.CompilerServices;

namespace Amy.Async.Tests.Loop;

/// <summary>
/// Explores every interleaving of what wakes a loop: two threads that post twice each, one that asks it to stop, the loop with
/// its turn, its sleep and its end, and a kernel with other events. The real <see cref="WakeFlag"/>, <see cref="PollerUse"/> and
/// <see cref="WorkQueue"/> run in each step; the order of the steps is that of <c>TryEnqueue</c>, <c>RequestStop</c>,
/// <c>Poller.Wake</c>, <c>Turn</c>, <c>Collect</c> and <c>End</c>.
/// </summary>
/// <remarks>
/// Two writes are plain and may stay in a store buffer until the writer's next interlocked access: the queue's count together
/// with the release of its lock, which the loop's peeks do not wait for, and the request to stop.
/// </remarks>
[TestFixture]
internal sealed class WakeExplorationTests
{
    /// <summary>Deliberate bugs, to show that the exploration would find them.</summary>
    internal enum Bug
    {
        None,
        LoopClearsTheFlagAfterItsLastLook,
        LoopSleepsWithoutLookingAtTheQueue,
        LoopForgetsWhatItHasTakenOver,
        SleeperOverwritesTheFlag,
        WakerReadsTheFlagOnly,
        WakerReadsTheFlagThenExchanges,
        WakerSavesTheExchangeWhenNotified,
        FirstIsFoundOutOutsideTheLock,
        StopIsRequestedAfterTheWake,
        WakerCountsItselfAfterTheExchange,
        LoopClosesWithoutWaitingForWakers,
        LoopEmptiesTheQueueThenClosesIt,
    }

    /// <summary>What is explored.</summary>
    internal readonly record struct Setting(bool Stop, bool Spawn = false, bool OneItemATurn = false, bool Spins = false, bool OldKernel = false);

    private struct Waker
    {
        internal byte At;
        internal byte Posts; // made so far
        internal bool SawSleeping; // with bugs only
        internal bool SawEmpty; // likewise
    }

    /// <summary>One state of the world; copied for each branch.</summary>
    private struct World
    {
        internal WakeFlag Wake;
        internal PollerUse Use;
        internal int Queue; // its image; what is in a store buffer is not in it
        internal bool Stop;
        internal bool StopBuffered;
        internal sbyte LockedBy; // 1, 2: the poster whose add and release of the lock are in its store buffer
        internal sbyte LockedItem;

        internal Waker First;
        internal Waker Second;
        internal Waker Stopper;
        internal sbyte Loop;
        internal sbyte Taken; // in this turn
        internal sbyte LastTurns;

        internal bool Counter; // the eventfd's is not zero
        internal bool Edge; // the eventfd's, in the kernel
        internal bool Arrived; // another event
        internal sbyte Arrivals; // still to come
        internal bool Woken; // the wake-up is among the events of the last look
        internal bool Closed; // the descriptors

        internal int Waiting; // accepted and not run, three bits each, the oldest lowest
        internal sbyte Accepted;
        internal bool QueueClosed;
        internal sbyte Unwritten; // sleeps minus writes
    }

    private const sbyte Spawned = 5; // posted by the loop itself, when it runs the first poster's first item
    private const byte Over = 100;
    private const sbyte End = 100;

    private Bug _bug;
    private Setting _setting;
    private QueueImages _queues = new();

    private static IEnumerable<Setting> Settings()
    {
        foreach (var oldKernel in new[] { false, true })
        {
            yield return new Setting(Stop: false, OldKernel: oldKernel);
            yield return new Setting(Stop: true, OldKernel: oldKernel);
        }
        yield return new Setting(Stop: true, Spins: true);
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

    [TestCase(Bug.LoopClearsTheFlagAfterItsLastLook, false, false, false)]
    [TestCase(Bug.LoopSleepsWithoutLookingAtTheQueue, false, true, false)]
    [TestCase(Bug.LoopForgetsWhatItHasTakenOver, false, false, true)]
    [TestCase(Bug.SleeperOverwritesTheFlag, false, false, false)]
    [TestCase(Bug.WakerReadsTheFlagOnly, false, false, false)]
    [TestCase(Bug.WakerReadsTheFlagThenExchanges, true, false, false)]
    [TestCase(Bug.WakerSavesTheExchangeWhenNotified, true, false, false)]
    [TestCase(Bug.FirstIsFoundOutOutsideTheLock, false, false, false)]
    [TestCase(Bug.StopIsRequestedAfterTheWake, true, false, false)]
    [TestCase(Bug.WakerCountsItselfAfterTheExchange, true, false, false)]
    [TestCase(Bug.LoopClosesWithoutWaitingForWakers, true, false, false)]
    [TestCase(Bug.LoopEmptiesTheQueueThenClosesIt, true, false, false)]
    public void SeededBug_IsFound(Bug bug, bool stop, bool spawn, bool oneItemATurn)
    {
        var found = Assert.Throws<BrokenPromiseException>(() => Explore(bug, new Setting(stop, spawn, oneItemATurn)));
        TestContext.Out.WriteLine(found!.Message);
    }

    private Explorer<World> Explore(Bug bug, Setting setting)
    {
        _bug = bug;
        _setting = setting;
        _queues = new QueueImages();
        var explorer = new Explorer<World>(
            ("post 1", (ref w) => StepPoster(ref w, ref w.First, 1)),
            ("post 2", (ref w) => StepPoster(ref w, ref w.Second, 2)),
            ("stop", (ref w) => setting.Stop && StepStopper(ref w, ref w.Stopper)),
            ("loop", StepLoop),
            ("event", Arrive),
            ("flush count", FlushCount),
            ("flush stop", FlushStop));
        explorer.Explore(new World { Queue = _queues.Empty(), Arrivals = 1 }, Check, CheckEnd);
        return explorer;
    }

    // ---- wakers

    // TryAdd -> first: Wake
    private bool StepPoster(ref World w, ref Waker me, int number)
    {
        var item = number * 2 - 1 + me.Posts;
        switch (me.At)
        {
            case 0 when me.Posts == 2:
                return false;
            case 0 when _bug == Bug.FirstIsFoundOutOutsideTheLock:
                me.SawEmpty = !_queues.HasIncoming(w.Queue) && w.LockedBy != number;
                me.At = 1;
                return true;
            case 0 or 1:
                if (w.LockedBy == number) FlushCount(ref w); // taking a lock is an interlocked access
                if (w.LockedBy != 0) return false;
                var image = w.Queue;
                if (_queues.TryAdd(ref image, item, out var first))
                {
                    Accept(ref w, item);
                    w.LockedBy = (sbyte)number;
                    w.LockedItem = (sbyte)item;
                    if (_bug == Bug.FirstIsFoundOutOutsideTheLock) first = me.SawEmpty;
                }
                else first = false;
                me.SawEmpty = false;
                if (!first) me.Posts++;
                me.At = (byte)(first ? 2 : 0);
                return true;
            default:
                if (!StepWake(ref w, ref me, number)) return false;
                if (me.At != Over) return true;
                me.Posts++;
                me.At = 0;
                return true;
        }
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
            case Over when _bug == Bug.StopIsRequestedAfterTheWake && !w.Stop:
                return w.Stop = true;
            default:
                return StepWake(ref w, ref me, 0);
        }
    }

    // Counts itself -> exchanges -> writes -> counts itself out
    private bool StepWake(ref World w, ref Waker me, int number)
    {
        switch (me.At)
        {
            case 2:
                if (_bug == Bug.WakerSavesTheExchangeWhenNotified && IsNotified(ref w.Wake))
                {
                    me.At = Over;
                    return true;
                }
                if (_bug != Bug.WakerCountsItselfAfterTheExchange) CountIn(ref w, number);
                me.At = 4;
                return true;
            case 4:
                if (_bug == Bug.WakerReadsTheFlagThenExchanges)
                {
                    me.SawSleeping = w.Wake.IsSleeping;
                    me.At = 5;
                    return true;
                }
                EmptyBuffer(ref w, number);
                me.SawSleeping = _bug == Bug.WakerReadsTheFlagOnly ? w.Wake.IsSleeping : w.Wake.Notify();
                me.At = (byte)(_bug == Bug.WakerCountsItselfAfterTheExchange ? 5 : me.SawSleeping ? 6 : 7);
                return true;
            case 5: // with bugs only
                if (_bug == Bug.WakerReadsTheFlagThenExchanges) w.Wake.Notify();
                else CountIn(ref w, number);
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

    private void CountIn(ref World w, int number)
    {
        w.Use.AddWriter();
        EmptyBuffer(ref w, number);
    }

    // What an interlocked access does besides.
    private void EmptyBuffer(ref World w, int number)
    {
        if (number == 0) FlushStop(ref w);
        else if (w.LockedBy == number) FlushCount(ref w);
    }

    private static bool IsNotified(ref WakeFlag flag) => Unsafe.As<WakeFlag, int>(ref flag) == 2;

    private bool FlushCount(ref World w)
    {
        if (w.LockedBy == 0) return false;
        _queues.TryAdd(ref w.Queue, w.LockedItem, out _);
        w.LockedBy = w.LockedItem = 0;
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
            case 1: // Turn
                if (_bug != Bug.LoopClearsTheFlagAfterItsLastLook) w.Wake.Clear();
                w.Loop = 2;
                return true;
            case 2:
                return Refill(ref w, 3);
            case 3:
                return RunPosted(ref w, 5);
            case 5: // WaitAndDispatch
                w.Loop = (sbyte)(w.Stop ? 0 : 6);
                return true;
            case 6:
                w.Loop = (sbyte)(HasWork(w) ? 7 : _bug == Bug.LoopClearsTheFlagAfterItsLastLook ? 11 : _setting.Spins ? 8 : 12);
                return true;
            case 7:
                Collect(ref w);
                w.Loop = (sbyte)(w.Woken ? 15 : 0);
                return true;
            case 8: // SpinThenWait
                Collect(ref w);
                w.Loop = (sbyte)(w.Woken ? 15 : 9);
                return true;
            case 9:
                w.Loop = (sbyte)(HasWork(w) ? 0 : 10);
                return true;
            case 10:
                w.Loop = (sbyte)(w.Stop ? 0 : 12);
                return true;
            case 11:
                w.Wake.Clear();
                w.Loop = 12;
                return true;
            case 12: // Poller.Collect
                if (_bug == Bug.SleeperOverwritesTheFlag) w.Wake.EndSleep();
                if (w.Wake.TrySleep())
                {
                    w.Unwritten++;
                    w.Loop = 13;
                }
                else w.Loop = 7;
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
                if (_queues.TakenOver(w.Queue) == 0 && w.LockedBy != 0) return false;
                w.QueueClosed = _queues.TryClose(ref w.Queue);
                w.Loop = (sbyte)(w.QueueClosed ? 23 : w.LastTurns++ == 0 ? 21 : _bug == Bug.LoopEmptiesTheQueueThenClosesIt ? 24 : 23);
                return true;
            case 21:
                return Refill(ref w, 22);
            case 22:
                return RunPosted(ref w, 20);
            case 23:
                if (w.LockedBy != 0) return false;
                _queues.Close(ref w.Queue);
                w.QueueClosed = true;
                w.Loop = (sbyte)(_bug == Bug.LoopEmptiesTheQueueThenClosesIt ? 26 : 24);
                return true;
            case 24: // to the thread pool
                while (_queues.TryTake(ref w.Queue, out var item)) Run(ref w, item);
                w.Loop = 25;
                return true;
            case 25:
                if (!Refill(ref w, 24)) return false;
                if (_queues.TakenOver(w.Queue) == 0) w.Loop = (sbyte)(_bug == Bug.LoopEmptiesTheQueueThenClosesIt && !w.QueueClosed ? 23 : 26);
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

    private bool HasWork(in World w) => _bug switch
    {
        Bug.LoopSleepsWithoutLookingAtTheQueue => false,
        Bug.LoopForgetsWhatItHasTakenOver => _queues.HasIncoming(w.Queue),
        _ => _queues.HasWork(w.Queue),
    };

    // The look without the lock sees only what has left the store buffers; the rest is under the lock.
    private bool Refill(ref World w, sbyte next)
    {
        if (w.LockedBy != 0 && _queues.TakenOver(w.Queue) == 0 && _queues.HasIncoming(w.Queue)) return false;
        _queues.Refill(ref w.Queue);
        w.Taken = 0;
        w.Loop = next;
        return true;
    }

    // What an item posts takes the lock, and wakes nobody.
    private bool RunPosted(ref World w, sbyte next)
    {
        if (w.Taken < 0)
        {
            if (w.LockedBy != 0) return false;
            w.Taken = (sbyte)-w.Taken;
            if (_queues.TryAdd(ref w.Queue, Spawned, out _)) Accept(ref w, Spawned);
            return true;
        }
        while (w.Taken < (_setting.OneItemATurn ? 1 : 100) && _queues.TryTake(ref w.Queue, out var item)) // nobody else sees these
        {
            w.Taken++;
            Run(ref w, item);
            if (item != 1 || !_setting.Spawn) continue;
            w.Taken = (sbyte)-w.Taken;
            return true;
        }
        w.Taken = 0;
        w.Loop = next;
        return true;
    }

    // ---- what was promised

    private static void Accept(ref World w, int item)
    {
        if (w.QueueClosed) throw new BrokenPromiseException($"Item {item} is accepted by a closed queue.");
        w.Waiting |= item << 3 * w.Accepted++;
    }

    private static void Run(ref World w, int item)
    {
        if ((w.Waiting & 7) != item) throw new BrokenPromiseException($"Item {item} runs when it is not its turn.");
        w.Waiting >>= 3;
        w.Accepted--;
    }

    private static void Check(in World w)
    {
        if (w.Unwritten < 0) throw new BrokenPromiseException("More than one write for one sleep.");
    }

    private void CheckEnd(in World w)
    {
        if (w.First.Posts != 2 || w.Second.Posts != 2) throw new BrokenPromiseException("A poster hangs.");
        if (w.Waiting != 0) throw new BrokenPromiseException($"Item {w.Waiting & 7} never runs.");
        if (w.Loop != (_setting.Stop ? End : (sbyte)13)) throw new BrokenPromiseException(_setting.Stop ? "The loop does not stop." : "The loop hangs.");
    }
}
