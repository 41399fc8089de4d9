namespace Amy.Async.Tests.Loop;

/// <summary>
/// Explores every interleaving of three threads that add two items each and a loop that takes them and at some moment closes
/// the queue, as an ending loop does. The steps are those of <c>EventLoop.TryEnqueue</c>, <c>WorkQueue.TryAdd</c>,
/// <c>WorkQueue.Close</c> and <c>EventLoop.End</c>; the platform's queue between them is taken for what it promises: each item
/// is taken once, and those of one thread in their order.
/// </summary>
/// <remarks>
/// What is added, and that the queue is closed, may stay in a store buffer until the fence. That the platform's queue happens to
/// have a fence of its own is not relied on.
/// </remarks>
[TestFixture]
internal sealed class WorkQueueExplorationTests
{
    /// <summary>Deliberate bugs, to show that the exploration would find them.</summary>
    internal enum Bug
    {
        None,
        AdderDoesNotFence,
        AdderLooksOnlyBefore,
        AdderThatComesLateLeavesItsItem,
        LoopDoesNotFence,
        LoopEmptiesTheQueueThenCloses,
        LoopClosesAndLeavesTheRest,
    }

    private struct Adder
    {
        internal byte At;
        internal byte Adds; // done, or refused
        internal bool Refused;
        internal byte Buffered; // an item that nobody else sees yet
    }

    /// <summary>One state of the world; copied for each branch.</summary>
    private struct World
    {
        internal Adder First;
        internal Adder Second;
        internal Adder Third;
        internal SmallQueue Queue;
        internal bool Closed;
        internal bool ClosedBuffered;
        internal byte Loop;
        internal byte Turns; // after the end
        internal bool Stops;
        internal byte Run; // a bit for each item, wherever it ran
        internal byte Accepted; // likewise
    }

    private const byte End = 100;

    private Bug _bug;
    private int _lastTurns;

    [TestCase(0)]
    [TestCase(1)]
    [TestCase(100)]
    public void AllInterleavings_RunEachAcceptedItemOnceAndInOrder(int lastTurns)
    {
        var explorer = Explore(Bug.None, lastTurns);
        explorer.Report();
        Assert.That(explorer.States, Is.GreaterThan(1000));
    }

    [TestCase(Bug.AdderDoesNotFence)]
    [TestCase(Bug.AdderLooksOnlyBefore)]
    [TestCase(Bug.AdderThatComesLateLeavesItsItem)]
    [TestCase(Bug.LoopDoesNotFence)]
    [TestCase(Bug.LoopEmptiesTheQueueThenCloses)]
    [TestCase(Bug.LoopClosesAndLeavesTheRest)]
    public void SeededBug_IsFound(Bug bug)
    {
        var found = Assert.Throws<BrokenPromiseException>(() => Explore(bug, 1));
        TestContext.Out.WriteLine(found!.Message);
    }

    private Explorer<World> Explore(Bug bug, int lastTurns)
    {
        _bug = bug;
        _lastTurns = lastTurns;
        var explorer = new Explorer<World>(
            ("add 1", (ref w) => StepAdder(ref w, ref w.First, 1)),
            ("add 2", (ref w) => StepAdder(ref w, ref w.Second, 3)),
            ("add 3", (ref w) => StepAdder(ref w, ref w.Third, 5)),
            ("flush 1", static (ref w) => Flush(ref w, ref w.First)),
            ("flush 2", static (ref w) => Flush(ref w, ref w.Second)),
            ("flush 3", static (ref w) => Flush(ref w, ref w.Third)),
            ("loop", StepLoop),
            ("flush loop", FlushClosed),
            ("stop", static (ref w) => !w.Stops && (w.Stops = true)));
        explorer.Explore(default, static (in _) => { }, CheckEnd);
        return explorer;
    }

    // ---- any thread

    private bool StepAdder(ref World w, ref Adder me, int firstItem)
    {
        if (me.Adds == 2 || me.Refused) return false;
        switch (me.At)
        {
            case 0: // TryAdd
                if (w.Closed)
                {
                    me.Refused = true;
                    return true;
                }
                if (me.Buffered != 0) Flush(ref w, ref me); // the next add's own order, without a fence
                me.Buffered = (byte)(firstItem + me.Adds);
                w.Accepted |= (byte)(1 << me.Buffered);
                me.At = 1;
                return true;
            case 1:
                if (_bug != Bug.AdderDoesNotFence) Flush(ref w, ref me);
                me.At = 2;
                return true;
            case 2: // TryEnqueue
                if (w.Closed && _bug is not (Bug.AdderLooksOnlyBefore or Bug.AdderThatComesLateLeavesItsItem)) me.At = 3;
                else Done(ref me);
                return true;
            default: // RunLeftOvers
                if (!TakeOne(ref w)) Done(ref me);
                return true;
        }
    }

    private static void Done(ref Adder me)
    {
        me.Adds++;
        me.At = 0;
    }

    private static bool Flush(ref World w, ref Adder me)
    {
        if (me.Buffered == 0) return false;
        w.Queue.Add(me.Buffered);
        me.Buffered = 0;
        return true;
    }

    // ---- the loop

    private bool StepLoop(ref World w)
    {
        switch (w.Loop)
        {
            case 0: // a turn, of one item
                if (w.Stops) w.Loop = 10;
                else if (!TakeOne(ref w)) return false;
                return true;
            case 10: // End
                if (w.Queue.IsEmpty || w.Turns == _lastTurns) w.Loop = _bug == Bug.LoopEmptiesTheQueueThenCloses ? (byte)13 : (byte)12;
                else w.Loop = 11;
                return true;
            case 11:
                TakeOne(ref w);
                if (_lastTurns != 100) w.Turns++;
                w.Loop = 10;
                return true;
            case 12: // Close
                w.ClosedBuffered = true;
                if (_bug != Bug.LoopDoesNotFence) FlushClosed(ref w);
                w.Loop = _bug is Bug.LoopEmptiesTheQueueThenCloses or Bug.LoopClosesAndLeavesTheRest ? End : (byte)13;
                return true;
            case 13: // RunLeftOvers
                if (!TakeOne(ref w)) w.Loop = _bug == Bug.LoopEmptiesTheQueueThenCloses ? (byte)12 : End;
                return true;
            default:
                return false;
        }
    }

    private static bool FlushClosed(ref World w)
    {
        if (!w.ClosedBuffered) return false;
        w.ClosedBuffered = false;
        return w.Closed = true;
    }

    private static bool TakeOne(ref World w)
    {
        if (!w.Queue.TryTake(out var item)) return false;
        if (item % 2 == 0 && (w.Run & 1 << item - 1) == 0) throw new BrokenPromiseException($"Item {item} runs before the one that the same thread added before it.");
        w.Run |= (byte)(1 << item);
        return true;
    }

    // ---- what was promised

    private static void CheckEnd(in World w)
    {
        if (w.Loop != End) throw new BrokenPromiseException("The loop hangs.");
        if (w.Run != w.Accepted) throw new BrokenPromiseException("An accepted item is lost.");
        foreach (var adder in new[] { w.First, w.Second, w.Third })
            if (adder is { Adds: < 2, Refused: false }) throw new BrokenPromiseException("An adder hangs.");
    }
}
