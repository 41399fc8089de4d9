using System.Runtime.CompilerServices;

namespace Amy.Async;

// A loop that has caught up with a thread that posts, and slept, would be woken again by its next item. So that a burst costs
// one wake-up and not many, the loop stays a moment, once per bout of posts.
public sealed partial class EventLoop
{
    private const int LingerLooks = 40; // some 3 µs in all
    private const int LingerSpins = 2;

    private int _wakerProcessor = -1; // where the last waker was; a hint

    /// <summary>Loop only, with an empty queue: looks some microseconds whether somebody goes on posting. True: there is work, or there was some.</summary>
    private bool Linger()
    {
        var others = _now.PostsRun - _now.OwnPosts; // exact while the queue is empty
        return others != _now.PostsOfOthers && LingerFor(others);
    }

    [MethodImpl(MethodImplOptions.NoInlining)] // it would push the dispatch out of the turn
    private bool LingerFor(long others)
    {
        _now.PostsOfOthers = others;
        // It never falls, as a counter must not: a wake-up is written before what it is for has run, or for no post at all.
        _now.WakesSaved = Math.Max(_now.WakesSaved, others - _poller.WakesWritten);
        // A poster that was on this processor has made room for the loop; it goes on when the loop makes room for it.
        if (_calls.CurrentProcessor() == _wakerProcessor)
        {
            // It may take that for milliseconds: what is ready comes first.
            var events = _poller.Look();
            if (events > 0) Dispatch(events);
            else Thread.Yield();
            return events > 0 || _queue.HasWork;
        }
        for (var i = 0; i < LingerLooks; i++)
        {
            Thread.SpinWait(LingerSpins);
            if (_queue.HasWork) return true;
        }
        return false;
    }
}
