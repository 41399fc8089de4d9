namespace Amy.Async;

// A loop that has caught up with a thread that posts, and slept, would be woken again by its next item. So that a burst costs
// one wake-up and not many, the loop stays a moment, once per bout of posts.
public sealed partial class EventLoop
{
    private const int LingerLooks = 40; // some 3 µs in all
    private const int LingerSpins = 2;

    private int _wakerProcessor = -1; // where the last waker was; a hint

    /// <summary>Loop only, with an empty queue: looks some microseconds whether somebody goes on posting. True: there is work.</summary>
    private bool Linger()
    {
        var others = _now.PostsRun - _now.OwnPosts; // exact while the queue is empty
        if (others == _now.PostsOfOthers) return false;
        _now.PostsOfOthers = others;
        // A poster that was on this processor has made room for the loop; it goes on when the loop makes room for it.
        if (_calls.CurrentProcessor() == _wakerProcessor)
        {
            Thread.Yield();
            return _queue.HasWork;
        }
        for (var i = 0; i < LingerLooks; i++)
        {
            Thread.SpinWait(LingerSpins);
            if (_queue.HasWork) return true;
        }
        return false;
    }
}
