namespace Amy.Async;

/// <summary>
/// What a loop's thread writes all the time. An object of its own: beside what other threads read to post, each of these writes
/// would take a cache line away from them (a post of four threads took a third longer).
/// </summary>
internal sealed class TurnState
{
    // What runs now, for the watchdog to name; null in between. Costs a watched loop 2 ns a resume.
    internal object? Running;
    internal object? RunningState;

    // The arguments of EventLoop.InContext, which must not be a closure.
    internal Action<object, object?>? Callback;
    internal object? Target;
    internal object? State;

    internal int Budget; // of operations that complete at once
    internal long ActiveSince; // when the loop last came back from the kernel, while somebody listens to the meter; else 0

    // A spin that ended because there was something, until that has been dispatched.
    internal bool HasSpun;
    internal long SpinStart;
    internal long SpinEnd;
    internal bool SpinFoundWork; // posted, a timer, the end
    internal long ServedBefore;

    // From now on methods are resumed on the thread pool, until then by the loop's thread alone. Written before the queue is
    // closed, a full fence; read by whoever got there because it found the queue closed.
    internal bool IsOver;

    // Counted for Statistics.
    internal long Turns;
    internal long Polls;
    internal long PostsRun;
    internal long OwnPosts; // by the loop's own thread
    internal long PostsOfOthers; // that have run, when the queue was last seen empty
    internal long WakesSaved; // likewise
    internal long Events;
    internal long Resumes;
    internal long Accepts; // those that had to wait
    internal long TimersFired;
    internal long BudgetYields;
}
