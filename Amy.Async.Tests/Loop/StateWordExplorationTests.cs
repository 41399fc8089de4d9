using Amy.Async.Native;

namespace Amy.Async.Tests.Loop;

/// <summary>
/// Explores every interleaving of the state word's transitions: an operation on a thread of its own, the loop, a closer, a
/// canceller, and a kernel whose data arrives at any moment. Each step is one atomic transition or one system call; the real
/// <see cref="StateWord"/> runs in each.
/// </summary>
[TestFixture]
internal sealed class StateWordExplorationTests
{
    /// <summary>Deliberate bugs, to show that the exploration would find them.</summary>
    internal enum Bug
    {
        None,
        IgnoreTheEdgeWhileArming,
        LookBeforeArmingOnly,
        CloseWithoutAskingWhoIsInside,
        EdgeDoesNotTakeArmed,
        CompleteOnCancelFromTheCancellersThread,
    }

    /// <summary>One state of the world; copied for each branch.</summary>
    private struct World
    {
        internal StateWord Word;
        internal int Op; // the operation's program counter
        internal int Loop; // the loop's
        internal int Closer;
        internal int Canceller;
        internal int Bytes; // in the socket
        internal int Arrivals; // still to come
        internal bool Edge; // pending in the kernel
        internal bool LookQueued;
        internal bool Cancelled;
        internal bool OpInCall;
        internal bool LoopInCall;
        internal int Got; // what the operation's or the loop's call returned
        internal int Closes;
        internal int Completions;
        internal int Received;
        internal int Errors;
        internal bool Awaited;
        internal int Resumes;
    }

    private const int End = 100;
    private Bug _bug;
    private bool _withCloser;
    private bool _withCanceller;
    private Explorer<World> _explorer = new();

    [TestCase(false, false)]
    [TestCase(true, false)]
    [TestCase(false, true)]
    [TestCase(true, true)]
    public void AllInterleavings_CompleteOnceLoseNothingAndCloseOnce(bool closer, bool canceller)
    {
        Explore(Bug.None, closer, canceller);
        _explorer.Report();
        Assert.That(_explorer.States, Is.GreaterThan(50));
    }

    [TestCase(Bug.IgnoreTheEdgeWhileArming, false, false)]
    [TestCase(Bug.LookBeforeArmingOnly, false, true)]
    [TestCase(Bug.CloseWithoutAskingWhoIsInside, true, false)]
    [TestCase(Bug.EdgeDoesNotTakeArmed, false, false)]
    [TestCase(Bug.CompleteOnCancelFromTheCancellersThread, false, true)]
    public void SeededBug_IsFound(Bug bug, bool closer, bool canceller) =>
        Assert.That(() => Explore(bug, closer, canceller), Throws.InstanceOf<BrokenPromiseException>());

    private void Explore(Bug bug, bool closer, bool canceller)
    {
        _bug = bug;
        _withCloser = closer;
        _withCanceller = canceller;
        _explorer = new Explorer<World>(("kernel", Arrive), ("op", StepOp), ("loop", StepLoop),
            ("closer", (ref w) => closer && StepCloser(ref w)), ("canceller", (ref w) => canceller && StepCanceller(ref w)));
        foreach (var fresh in new[] { StateWord.MaybeReady, default })
            for (var arrivals = closer || canceller ? 0 : 1; arrivals < 3; arrivals++)
                _explorer.Explore(new World { Word = fresh, Arrivals = arrivals }, Check, CheckEnd);
    }

    private static bool Arrive(ref World w)
    {
        if (w.Arrivals == 0) return false;
        w.Arrivals--;
        w.Bytes++;
        w.Edge = true;
        return true;
    }

    // Begin -> call -> result -> End, or Arm (again a call, or armed) -> look after arming -> await -> fetch
    private bool StepOp(ref World w)
    {
        switch (w.Op)
        {
            case 0:
                w.Op = w.Word.Begin(Direction.Read) switch
                {
                    StateWord.BeginResult.Attempt => 1,
                    StateWord.BeginResult.Wait => 3,
                    StateWord.BeginResult.Ended => Fail(ref w, End),
                    _ => throw new BrokenPromiseException("busy"),
                };
                return true;
            case 1: // recv, one atomic step of the kernel's, during which the descriptor must stay open
                w.OpInCall = true;
                w.Got = w.Bytes > 0 ? 1 : -Errno.EAGAIN;
                if (w.Got > 0) w.Bytes--;
                w.Op = 2;
                return true;
            case 2:
                w.OpInCall = false;
                if (w.Got < 0)
                {
                    w.Op = 3;
                    return true;
                }
                w.Received++;
                w.Completions++;
                if (w.Word.End(Direction.Read, ready: true)) w.Closes++;
                w.Op = End;
                return true;
            case 3:
                switch (w.Word.Arm(Direction.Read, evenIfReady: _bug == Bug.IgnoreTheEdgeWhileArming))
                {
                    case StateWord.ArmResult.Armed:
                        w.Op = 4;
                        break;
                    case StateWord.ArmResult.Attempt:
                        w.Op = 1;
                        break;
                    default:
                        w.Errors++;
                        w.Completions++;
                        if (w.Word.Complete(Direction.Read, true).MustClose) w.Closes++;
                        w.Op = 5;
                        break;
                }
                return true;
            case 4:
                if (w.Cancelled && _bug != Bug.LookBeforeArmingOnly) w.LookQueued = true;
                w.Op = 5;
                return true;
            case 5:
                w.Awaited = true;
                switch (w.Word.Await(Direction.Read, 0))
                {
                    case StateWord.AwaitResult.AlreadyDone:
                        w.Resumes++;
                        break;
                    case StateWord.AwaitResult.Invalid:
                        throw new BrokenPromiseException("the await found a stale version");
                }
                w.Op = 6;
                return true;
            case 6:
                if (w.Resumes == 0) return false;
                if (!w.Word.Fetch(Direction.Read, 0)) throw new BrokenPromiseException("resumed without a result");
                w.Op = End;
                return true;
            default:
                return false;
        }
    }

    private static int Fail(ref World w, int next)
    {
        w.Errors++;
        w.Completions++;
        return next;
    }

    private bool StepLoop(ref World w)
    {
        switch (w.Loop)
        {
            case 0 when w.Edge:
                w.Edge = false;
                if (_bug == Bug.EdgeDoesNotTakeArmed)
                {
                    w.Word.Edge(read: false, write: true, 0, out _);
                    return true;
                }
                if (w.Word.Edge(read: true, write: false, 0, out _)) w.Loop = 1;
                return true;
            case 0 when w.LookQueued:
                w.LookQueued = false;
                if (!w.Word.IsArmed(Direction.Read)) return true;
                if (w.Word.IsEnded || w.Cancelled)
                {
                    if (!w.Word.Withdraw(Direction.Read)) return true;
                    w.Errors++;
                    w.Loop = 4;
                }
                else if (w.Word.Take(Direction.Read)) w.Loop = 1;
                return true;
            case 1:
                w.LoopInCall = true;
                w.Got = w.Bytes > 0 ? 1 : -Errno.EAGAIN;
                if (w.Got > 0) w.Bytes--;
                w.Loop = 2;
                return true;
            case 2:
                w.LoopInCall = false;
                if (w.Got > 0)
                {
                    w.Received++;
                    w.Loop = 4;
                    return true;
                }
                switch (w.Word.Arm(Direction.Read))
                {
                    case StateWord.ArmResult.Armed:
                        w.Loop = 0;
                        break;
                    case StateWord.ArmResult.Attempt:
                        w.Loop = 1;
                        break;
                    default:
                        w.Errors++;
                        w.Loop = 4;
                        break;
                }
                return true;
            case 4:
                w.Completions++;
                var completion = w.Word.Complete(Direction.Read, ready: true);
                if (completion.MustClose) w.Closes++;
                if (completion.IsAwaited) w.Resumes++;
                w.Loop = 0;
                return true;
            default:
                return false;
        }
    }

    private bool StepCloser(ref World w)
    {
        switch (w.Closer)
        {
            case 0:
                w.Edge = false; // deregistered: no more events
                w.Closer = 1;
                return true;
            case 1:
                if (!w.Word.Close(out var mustClose)) throw new BrokenPromiseException("closed twice");
                if (mustClose || _bug == Bug.CloseWithoutAskingWhoIsInside) w.Closes++;
                w.Closer = 2;
                return true;
            case 2:
                w.LookQueued = true;
                w.Closer = End;
                return true;
            default:
                return false;
        }
    }

    private bool StepCanceller(ref World w)
    {
        switch (w.Canceller)
        {
            case 0:
                w.Cancelled = true;
                w.Canceller = 1;
                return true;
            case 1:
                if (_bug == Bug.CompleteOnCancelFromTheCancellersThread)
                {
                    if (w.Word.IsArmed(Direction.Read)) // looked, and acts on what it saw a moment ago
                    {
                        w.Canceller = 2;
                        return true;
                    }
                }
                else w.LookQueued = true;
                w.Canceller = End;
                return true;
            case 2:
                w.Errors++;
                w.Completions++;
                w.Canceller = End;
                return true;
            default:
                return false;
        }
    }

    private static void Check(in World w)
    {
        if (w.Closes > 1) throw new BrokenPromiseException("the descriptor is closed twice");
        if (w.Closes > 0 && (w.OpInCall || w.LoopInCall)) throw new BrokenPromiseException("closed under a system call");
        if (w.Completions > 1) throw new BrokenPromiseException("the operation completes twice");
        if (w.Resumes > 1) throw new BrokenPromiseException("the awaiter is resumed twice");
        if (w.OpInCall && w.LoopInCall) throw new BrokenPromiseException("two threads are in the same direction's call");
    }

    // Nobody can move any more: everything must be as promised.
    private void CheckEnd(in World w)
    {
        if (w.Completions != 1) throw new BrokenPromiseException($"the operation hangs: op {w.Op}, loop {w.Loop}, {w.Bytes} bytes there");
        if (w.Op != End) throw new BrokenPromiseException("the awaiting method hangs");
        if (_withCloser && w.Closes != 1) throw new BrokenPromiseException("the descriptor leaks");
        if (!_withCloser && !_withCanceller && (w.Errors != 0 || w.Received != 1)) throw new BrokenPromiseException("a byte is lost");
        if (w.Received + w.Errors != 1) throw new BrokenPromiseException("a byte and an error");
    }
}
