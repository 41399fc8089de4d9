using System.Collections.Concurrent;
using Amy.Async.Compat;

namespace Amy.Async;

/// <summary>
/// What a loop hands to the thread pool: operations whose awaiters go on there. A batch of events wakes a thread of the pool
/// once or twice, not once for each.
/// </summary>
/// <remarks>
/// Whoever takes the first item asks for another thread before it runs it, so an awaiter that blocks holds its own thread and
/// nobody else's item. With one processor, a thread that is woken takes it from the loop at once, and there would be batches of
/// one: there the loop asks when it has dispatched all.
/// </remarks>
internal sealed class PoolQueue : IThreadPoolWorkItem
{
    private const int MaxItems = 64; // of one work item: then whatever else the pool has to do has its turn
    private static readonly ContextCallback s_resume = static operation => ((Operation)operation!).ResumeHere();

    private readonly ConcurrentQueue<Operation> _items = new();
    private int _requested; // 1: a thread was asked for and has not looked yet; any thread, Interlocked
    private bool _late; // loop only: items were added since the last request

    /// <summary>Whether the loop asks for a thread when it has dispatched all, instead of at the first item. Set before the first.</summary>
    internal bool AsksLate { get; set; } = Environment.ProcessorCount == 1;

    /// <summary>Loop only.</summary>
    internal void Add(Operation operation)
    {
        _items.Enqueue(operation);
        if (AsksLate) _late = true;
        else Request();
    }

    /// <summary>Loop only: before it waits, and after a dispatch.</summary>
    internal void Flush()
    {
        if (!_late) return;
        _late = false;
        Request();
    }

    // Story: whoever adds enqueues, then sets the flag; a worker clears the flag, then looks. Either the worker sees the item, or
    // the adder finds the flag cleared and asks for another.
    private void Request()
    {
        if (Interlocked.Exchange(ref _requested, 1) == 0) Runtime.QueueToPool(this);
    }

    // The pool gives each work item a clean context; so does this each operation.
    void IThreadPoolWorkItem.Execute()
    {
        Interlocked.Exchange(ref _requested, 0);
        var context = ExecutionContext.Capture();
        for (var i = 0; _items.TryDequeue(out var operation); i++)
        {
            if (!_items.IsEmpty) Request();
            if (!Runtime.IsolateItems || context is null) operation.ResumeHere();
            else Runtime.RunIn(context, s_resume, operation);
            Runtime.Restore(context);
            if (SynchronizationContext.Current is not null) SynchronizationContext.SetSynchronizationContext(null);
            if (i == MaxItems) return; // the rest was asked for
        }
    }
}
