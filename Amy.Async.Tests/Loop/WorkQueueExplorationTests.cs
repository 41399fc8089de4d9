namespace Amy.Async.Tests.Loop;

/// <summary>
/// Explores every interleaving of three threads that add to the work queue and a loop that takes one item a turn and at some
/// moment closes it, as an ending loop does. The real <see cref="WorkQueue"/> runs in each step. What is added under the lock,
/// and the lock's release, may stay in the adder's store buffer, so that the loop's looks without the lock see it late.
/// </summary>
[TestFixture]
internal sealed class WorkQueueExplorationTests
{
    /// <summary>Deliberate bugs, to show that the exploration would find them.</summary>
    internal enum Bug
    {
        None,
        ClosesAfterALookWithoutTheLock,
        EmptiesTheQueueThenCloses,
        LooksAtWhatHasComeInOnly,
        SwapsWhileThereIsSomethingLeft,
    }

    private struct Adder
    {
        internal byte Adds; // done, or refused
        internal bool Refused;
        internal bool Buffered; // the end of its section has not become visible
    }

    /// <summary>One state of the world; copied for each branch.</summary>
    private struct World
    {
        internal int Queue; // its image, without what is in a store buffer
        internal Adder First;
        internal Adder Second;
        internal Adder Third;
        internal byte Loop;
        internal byte Turns; // after the end
        internal bool Stops;
        internal bool Closed;
        internal byte LockedItem;
        internal byte Accepted; // and not run
        internal int Waiting; // these, three bits each, the oldest lowest
        internal byte Visible; // how many of these have left the store buffers
    }

    private const byte End = 100;

    private Bug _bug;
    private int _lastTurns;
    private QueueImages _queues = new();

    [TestCase(0)]
    [TestCase(1)]
    [TestCase(100)]
    public void AllInterleavings_KeepTheOrderAndLoseNothing(int lastTurns)
    {
        var explorer = Explore(Bug.None, lastTurns);
        explorer.Report();
        Assert.That(explorer.States, Is.GreaterThan(1000));
    }

    [TestCase(Bug.ClosesAfterALookWithoutTheLock, 100)]
    [TestCase(Bug.EmptiesTheQueueThenCloses, 0)]
    [TestCase(Bug.LooksAtWhatHasComeInOnly, 0)]
    [TestCase(Bug.SwapsWhileThereIsSomethingLeft, 0)]
    public void SeededBug_IsFound(Bug bug, int lastTurns)
    {
        var found = Assert.Throws<BrokenPromiseException>(() => Explore(bug, lastTurns));
        TestContext.Out.WriteLine(found!.Message);
    }

    private Explorer<World> Explore(Bug bug, int lastTurns)
    {
        _bug = bug;
        _lastTurns = lastTurns;
        _queues = new QueueImages();
        var explorer = new Explorer<World>(
            ("add 1", (ref w) => StepAdder(ref w, ref w.First, 1)),
            ("add 2", (ref w) => StepAdder(ref w, ref w.Second, 3)),
            ("add 3", (ref w) => StepAdder(ref w, ref w.Third, 5)),
            ("flush", Flush),
            ("loop", StepLoop),
            ("stop", static (ref w) => !w.Stops && (w.Stops = true)));
        explorer.Explore(new World { Queue = _queues.Empty() }, Check, CheckEnd);
        return explorer;
    }

    // ---- any thread

    private bool StepAdder(ref World w, ref Adder me, int item)
    {
        if (me.Adds == 2 || me.Refused) return false;
        if (me.Buffered) Flush(ref w); // taking a lock is an interlocked access
        if (w.LockedItem != 0) return false;
        item += me.Adds;
        var image = w.Queue;
        var wasEmpty = !_queues.HasIncoming(image);
        if (!_queues.TryAdd(ref image, item, out var first))
        {
            if (!w.Closed) throw new BrokenPromiseException($"An open queue refuses item {item}.");
            me.Refused = true;
            return true;
        }
        if (w.Closed) throw new BrokenPromiseException($"A closed queue accepts item {item}.");
        if (first != wasEmpty) throw new BrokenPromiseException($"Item {item} is wrong about being the first.");
        me.Adds++;
        me.Buffered = true;
        w.LockedItem = (byte)item;
        w.Waiting |= item << 3 * w.Accepted++;
        return true;
    }

    private bool Flush(ref World w)
    {
        if (w.LockedItem == 0) return false;
        _queues.TryAdd(ref w.Queue, w.LockedItem, out _);
        w.LockedItem = 0;
        w.Visible++;
        w.First.Buffered = w.Second.Buffered = w.Third.Buffered = false;
        return true;
    }

    // ---- the loop

    private bool StepLoop(ref World w)
    {
        switch (w.Loop)
        {
            case 0: // a turn
                if (w.Stops) w.Loop = _bug == Bug.EmptiesTheQueueThenCloses ? (byte)14 : (byte)10;
                else if (!Refill(ref w, 1)) return false;
                return true;
            case 1:
                TakeOne(ref w);
                w.Loop = 2;
                return true;
            case 2: // may sleep?
                var hasWork = _bug == Bug.LooksAtWhatHasComeInOnly ? _queues.HasIncoming(w.Queue) : _queues.HasWork(w.Queue);
                if (!hasWork && w.Visible > 0) throw new BrokenPromiseException("The loop sleeps although an item is there.");
                w.Loop = 0;
                return true;
            case 10: // the end
                if (_bug == Bug.ClosesAfterALookWithoutTheLock)
                {
                    w.Loop = _queues.HasWork(w.Queue) ? (byte)11 : (byte)16;
                    return true;
                }
                if (w.Turns == _lastTurns)
                {
                    w.Loop = 13;
                    return true;
                }
                if (_queues.TakenOver(w.Queue) == 0 && w.LockedItem != 0) return false;
                w.Closed = _queues.TryClose(ref w.Queue);
                if (w.Closed && w.Accepted != 0) throw new BrokenPromiseException("A queue that is not empty has closed.");
                if (!w.Closed && _lastTurns != 100) w.Turns++;
                w.Loop = w.Closed ? (byte)13 : (byte)11;
                return true;
            case 11:
                return Refill(ref w, 12);
            case 12:
                TakeOne(ref w);
                w.Loop = 10;
                return true;
            case 13:
                if (w.LockedItem != 0) return false;
                _queues.Close(ref w.Queue);
                w.Closed = true;
                w.Loop = _bug == Bug.EmptiesTheQueueThenCloses ? End : (byte)14;
                return true;
            case 14:
                while (TakeOne(ref w)) { }
                w.Loop = 15;
                return true;
            case 15:
                if (!Refill(ref w, 14)) return false;
                if (_queues.TakenOver(w.Queue) == 0) w.Loop = _bug == Bug.EmptiesTheQueueThenCloses ? (byte)13 : End;
                return true;
            case 16: // with the bug only
                if (w.LockedItem != 0) return false;
                _queues.Close(ref w.Queue);
                w.Closed = true;
                if (w.Accepted != 0) throw new BrokenPromiseException("A queue that is not empty has closed.");
                w.Loop = End;
                return true;
            default:
                return false;
        }
    }

    // The look without the lock sees only what has left the store buffers; the rest is under the lock.
    private bool Refill(ref World w, byte next)
    {
        var left = _queues.TakenOver(w.Queue);
        if (w.LockedItem != 0 && left == 0 && _queues.HasIncoming(w.Queue)) return false;
        if (left > 0 && _bug == Bug.SwapsWhileThereIsSomethingLeft && _queues.HasIncoming(w.Queue) && w.LockedItem == 0)
            while (_queues.TryTake(ref w.Queue, out _)) { } // what a swap does with them
        _queues.Refill(ref w.Queue);
        w.Loop = next;
        return true;
    }

    private bool TakeOne(ref World w)
    {
        if (!_queues.TryTake(ref w.Queue, out var item)) return false;
        if ((w.Waiting & 7) != item) throw new BrokenPromiseException($"Item {item} is taken when it is not its turn.");
        w.Waiting >>= 3;
        w.Accepted--;
        w.Visible--;
        return true;
    }

    // ---- what was promised

    private static void Check(in World w)
    {
        if (w.Visible > w.Accepted) throw new BrokenPromiseException("An item is there that nobody has added.");
    }

    private static void CheckEnd(in World w)
    {
        if (w.Loop != End) throw new BrokenPromiseException("The loop hangs.");
        if (w.Waiting != 0) throw new BrokenPromiseException($"Item {w.Waiting & 7} is lost.");
        foreach (var adder in new[] { w.First, w.Second, w.Third })
            if (adder is { Adds: < 2, Refused: false }) throw new BrokenPromiseException("An adder hangs.");
    }
}
