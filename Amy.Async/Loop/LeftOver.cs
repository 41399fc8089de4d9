using Amy.Async.Compat;

namespace Amy.Async;

/// <summary>
/// Work that came too late for a loop, on its way to the thread pool. What it throws still goes to the handler first; unhandled,
/// it ends the process, as all that fails on the thread pool.
/// </summary>
internal sealed class LeftOver(Func<Exception, bool>? handler, WorkItem item)
{
    private static readonly ContextCallback s_inContext = static left => ((LeftOver)left!).Run();
    private static readonly WaitCallback s_run = static left => ((LeftOver)left!).Run();
    private static readonly WaitCallback s_runInContext = static left => Runtime.RunIn(((LeftOver)left!)._item.Context!, s_inContext, left);

    private readonly WorkItem _item = item;

    internal void Queue() => ThreadPool.UnsafeQueueUserWorkItem(_item.Context is null ? s_run : s_runInContext, this);

    private void Run()
    {
        try
        {
            _item.Run(_item.Target, _item.State);
        }
        catch (Exception e) when (handler is not null && handler(e))
        {
            // handled
        }
    }
}
