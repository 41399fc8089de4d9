using System.Diagnostics;

namespace Amy.Async;

// Waiting synchronously, for streams.
internal abstract partial class Operation
{
    /// <summary>
    /// Blocks the calling thread, which is no loop's, until the operation is done. The loop itself sets the event: a thread of
    /// the pool may not be there, when many of them block like this one.
    /// </summary>
    internal void Block()
    {
        Debug.Assert(!Loop.IsCurrent);
        var token = Version;
        if (!Source.State.CanAwait(Side, token)) throw Stale();
        using var done = new ManualResetEventSlim();
        _flow = null;
        _target = null;
        _resume = Resume.InlineWithoutContext;
        _continuation = static e => ((ManualResetEventSlim)e!).Set();
        _state = done;
        switch (Source.State.Await(Side, token))
        {
            case StateWord.AwaitResult.Invalid:
                throw Stale();
            case StateWord.AwaitResult.Stored:
                WaitFor(done);
                break;
        }
    }

    // An interrupted thread must not leave the operation behind, which nobody would ever fetch: it is interrupted afterwards.
    private static void WaitFor(ManualResetEventSlim done)
    {
        var interrupted = false;
        while (true)
        {
            try
            {
                done.Wait();
                break;
            }
            catch (ThreadInterruptedException)
            {
                interrupted = true;
            }
        }
        if (interrupted) Thread.CurrentThread.Interrupt();
    }
}
