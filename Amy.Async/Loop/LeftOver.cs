using Amy.Async.Compat;

namespace Amy.Async;

/// <summary>
/// Work that came too late for a loop, on its way to the thread pool. What it throws still goes to the handler first; unhandled,
/// it ends the process, as all that fails on the thread pool.
/// </summary>
/// <param name="handler">The loop's.</param>
/// <param name="item">What is left over.</param>
/// <param name="baseContext">What the loop would have run it in, if it brings no execution context of its own.</param>
internal sealed class LeftOver(Func<Exception, bool>? handler, WorkItem item, ExecutionContext? baseContext)
{
    private static readonly ContextCallback s_inContext = static left => ((LeftOver)left!).Run();
    private static readonly WaitCallback s_run = static left => ((LeftOver)left!).Run();
    private static readonly WaitCallback s_runInContext = static left => Runtime.RunIn(((LeftOver)left!)._context!, s_inContext, left);

    private readonly WorkItem _item = item;
    private readonly ExecutionContext? _context = item.Context ?? baseContext;

    internal void Queue() => ThreadPool.UnsafeQueueUserWorkItem(_context is null ? s_run : s_runInContext, this);

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
