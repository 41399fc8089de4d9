using System.Runtime.CompilerServices;

namespace Amy.Async.Tests.Polling;

/// <summary>
/// Explores every interleaving of a poller that is used alone: a thread that waits three times, one that asks it to return
/// twice, one that raises a signal, a disposer, and a kernel with another event. The real <see cref="WakeFlag"/> and
/// <see cref="PollerUse"/> run in each step; the order of the steps is that of <see cref="Poller"/>.
/// </summary>
/// <remarks>The request to return and the count of raised signals are plain writes, which may stay in a store buffer until the
/// writer's next interlocked access.</remarks>
[TestFixture]
internal sealed class PollerExplorationTests
{
    /// <summary>Deliberate bugs, to show that the exploration would find them.</summary>
    internal enum Bug
    {
        None,
        DisposerWakesNobody,
        DisposerClosesUnderTheWait,
        CloserDoesNotWaitForWakers,
        WakerCountsItselfAfterTheExchange,
        ReturnIsAskedForAfterTheWake,
        SignalIsRaisedAfterTheWake,
        WaitDoesNotLookAfterItsSleep,
    }

    private struct Waker
    {
        internal int At;
        internal int Times;
        internal bool SawSleeping;
    }

    /// <summary>One state of the world; copied for each branch.</summary>
    private struct World
    {
        internal WakeFlag Wake;
        internal PollerUse Use;
        internal bool ReturnAsked;
        internal bool ReturnBuffered;
        internal bool Raised;
        internal bool RaisedBuffered;

        internal int Waiter;
        internal int Waits;
        internal bool Found;
        internal bool Woken;
        internal Waker Asker;
        internal Waker Raiser;
        internal Waker Disposer;

        internal bool Edge;
        internal bool Arrived;
        internal int Arrivals;
        internal bool Closed;
        internal int Unwritten; // sleeps minus writes
    }

    private const int End = 100;
    private const int Waits = 3; // the second with a time-out of zero

    private Bug _bug;
    private bool _disposes;

    [TestCase(false)]
    [TestCase(true)]
    public void AllInterleavings_LoseNoWakeUpAndCloseOnceWithNobodyInside(bool disposes)
    {
        var explorer = Explore(Bug.None, disposes);
        explorer.Report();
        Assert.That(explorer.States, Is.GreaterThan(1000));
    }

    [TestCase(Bug.DisposerWakesNobody, true)]
    [TestCase(Bug.DisposerClosesUnderTheWait, true)]
    [TestCase(Bug.CloserDoesNotWaitForWakers, true)]
    [TestCase(Bug.WakerCountsItselfAfterTheExchange, true)]
    [TestCase(Bug.ReturnIsAskedForAfterTheWake, false)]
    [TestCase(Bug.SignalIsRaisedAfterTheWake, false)]
    [TestCase(Bug.WaitDoesNotLookAfterItsSleep, true)]
    public void SeededBug_IsFound(Bug bug, bool disposes)
    {
        var found = Assert.Throws<BrokenPromiseException>(() => Explore(bug, disposes));
        TestContext.Out.WriteLine(found!.Message);
    }

    private Explorer<World> Explore(Bug bug, bool disposes)
    {
        _bug = bug;
        _disposes = disposes;
        var explorer = new Explorer<World>(
            ("wait", StepWaiter),
            ("ask", StepAsker),
            ("raise", StepRaiser),
            ("dispose", (ref w) => disposes && StepDisposer(ref w)),
            ("event", Arrive),
            ("flush return", FlushReturn),
            ("flush raised", FlushRaised));
        explorer.Explore(new World { Arrivals = 1 }, Check, CheckEnd);
        return explorer;
    }

    // ---- wakers

    private bool StepAsker(ref World w)
    {
        ref var me = ref w.Asker;
        switch (me.At)
        {
            case 0:
                w.ReturnBuffered = _bug != Bug.ReturnIsAskedForAfterTheWake;
                me.At = 2;
                return true;
            case End:
                if (_bug == Bug.ReturnIsAskedForAfterTheWake) w.ReturnAsked = true;
                if (++me.Times == 2)
                {
                    me.At = End + 1;
                    return true;
                }
                me.At = 0;
                return true;
            default:
                return StepWake(ref w, ref me);
        }
    }

    private bool StepRaiser(ref World w)
    {
        ref var me = ref w.Raiser;
        switch (me.At)
        {
            case 0:
                w.RaisedBuffered = _bug != Bug.SignalIsRaisedAfterTheWake;
                me.At = 2;
                return true;
            case End:
                if (_bug == Bug.SignalIsRaisedAfterTheWake) w.Raised = true;
                me.At = End + 1;
                return true;
            default:
                return StepWake(ref w, ref me);
        }
    }

    private bool StepDisposer(ref World w)
    {
        ref var me = ref w.Disposer;
        switch (me.At)
        {
            case 0:
                if (!w.Use.TryDispose(out var close)) throw new BrokenPromiseException("Somebody else disposed of the poller.");
                if (_bug == Bug.DisposerClosesUnderTheWait) close = true;
                me.At = close ? 10 : _bug == Bug.DisposerWakesNobody ? End : 2;
                return true;
            case 10:
                if (!TryClose(ref w)) return false;
                me.At = End;
                return true;
            case End:
                return false;
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
                me.At = 3;
                return true;
            case 3:
                EmptyBuffer(ref w, ref me);
                me.SawSleeping = w.Wake.Notify();
                me.At = _bug == Bug.WakerCountsItselfAfterTheExchange ? 4 : me.SawSleeping ? 5 : 6;
                return true;
            case 4: // with the bug only
                CountIn(ref w, ref me);
                me.At = me.SawSleeping ? 5 : 6;
                return true;
            case 5:
                if (w.Closed) throw new BrokenPromiseException("The wake descriptor is written after it was closed.");
                w.Edge = true;
                w.Unwritten--;
                me.At = 6;
                return true;
            case 6:
                w.Use.RemoveWriter();
                me.SawSleeping = false;
                me.At = End;
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
        if (Unsafe.AreSame(ref me, ref w.Asker)) FlushReturn(ref w);
        else if (Unsafe.AreSame(ref me, ref w.Raiser)) FlushRaised(ref w);
    }

    private static bool FlushReturn(ref World w)
    {
        if (!w.ReturnBuffered) return false;
        w.ReturnBuffered = false;
        return w.ReturnAsked = true;
    }

    private static bool FlushRaised(ref World w)
    {
        if (!w.RaisedBuffered) return false;
        w.RaisedBuffered = false;
        return w.Raised = true;
    }

    private bool TryClose(ref World w)
    {
        if (w.Use.HasWriters && _bug != Bug.CloserDoesNotWaitForWakers) return false;
        if (w.Closed) throw new BrokenPromiseException("The descriptors are closed twice.");
        return w.Closed = true;
    }

    // ---- the kernel

    private static bool Arrive(ref World w)
    {
        if (w.Arrivals == 0) return false;
        w.Arrivals--;
        return w.Arrived = true;
    }

    private static void Collect(ref World w)
    {
        if (w.Closed) throw new BrokenPromiseException("The kernel is asked after the descriptors were closed.");
        w.Woken = w.Edge;
        w.Found = w.Arrived;
        w.Edge = w.Arrived = false;
    }

    // ---- the waiting thread

    private bool StepWaiter(ref World w)
    {
        switch (w.Waiter)
        {
            case 0:
                w.Waiter = w.Use.TryEnter() ? 1 : End;
                if (w.Waiter == End && !w.Use.IsDisposed) throw new BrokenPromiseException("Another thread is waiting.");
                return true;
            case 1: // WaitFor
                w.Waiter = w.Waits == 1 || w.Raised ? 3 : 2;
                return true;
            case 2: // Collect
                if (w.Wake.TrySleep())
                {
                    w.Unwritten++;
                    w.Waiter = 4;
                }
                else w.Waiter = 3;
                return true;
            case 3:
                Collect(ref w);
                w.Waiter = 6;
                return true;
            case 4:
                if (!w.Edge && !w.Arrived) return false;
                Collect(ref w);
                w.Waiter = 5;
                return true;
            case 5:
                w.Wake.EndSleep();
                w.Waiter = 6;
                return true;
            case 6:
                w.Waiter = w.Use.IsDisposed && _bug != Bug.WaitDoesNotLookAfterItsSleep ? 9 : 7;
                return true;
            case 7:
                w.Found |= w.Raised;
                w.Raised = false;
                w.Waiter = 8;
                return true;
            case 8:
                var returns = w.ReturnAsked || w.Found || w.Waits == 1;
                w.ReturnAsked = w.Found = w.Woken = false;
                w.Waiter = returns ? 9 : 1;
                return true;
            case 9:
                w.Waits++;
                w.Waiter = w.Use.Leave() ? 10 : w.Waits == Waits ? End : 0;
                return true;
            case 10:
                if (!TryClose(ref w)) return false;
                w.Waiter = End;
                return true;
            default:
                return false;
        }
    }

    // ---- what was promised

    private static void Check(in World w)
    {
        if (w.Unwritten < 0) throw new BrokenPromiseException("More than one write for one sleep.");
    }

    private void CheckEnd(in World w)
    {
        if (w.Asker.At != End + 1 || w.Raiser.At != End + 1) throw new BrokenPromiseException("A waker hangs.");
        if (_disposes && (w.Waiter != End || w.Disposer.At != End)) throw new BrokenPromiseException("Disposing hangs.");
        if (_disposes && !w.Closed) throw new BrokenPromiseException("The descriptors leak.");
        if (w.Waiter == 4 && w.ReturnAsked) throw new BrokenPromiseException("A wait sleeps although it was asked to return.");
        if (w.Waiter == 4 && w.Raised) throw new BrokenPromiseException("A wait sleeps although a signal is raised.");
        if (w.Waiter is not 4 and not End) throw new BrokenPromiseException("A wait hangs.");
    }
}
