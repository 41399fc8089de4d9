using System.Collections.Concurrent;
using System.Runtime.InteropServices;

namespace Amy.Async;

/// <summary>
/// One piece of posted work: a delegate that knows its two arguments, so that no closure is needed, and the execution
/// context to run in (null: the loop's own).
/// </summary>
internal readonly struct WorkItem(Action<object, object?> run, object target, object? state, ExecutionContext? context)
{
    internal readonly Action<object, object?> Run = run;
    internal readonly object Target = target;
    internal readonly object? State = state;
    internal readonly ExecutionContext? Context = context;
}

/// <summary>
/// What waits for the loop: any thread adds, the loop's thread takes. First in, first out over all threads.
/// </summary>
/// <remarks>
/// <para>The platform's concurrent queue, whose adders do not wait for each other, and two questions about what has just been
/// added: does the loop have to be woken for it, and is there still a loop? Both are asked behind a full fence.</para>
/// <para><b>Waking.</b> The adder A adds, fences, and looks whether the loop L sleeps; it wakes L only then. L says that it
/// sleeps (WakeFlag.TrySleep, a full fence), looks at the queue once more, and waits in the kernel only if it is empty. Both
/// write, fence and read what the other writes: one of them sees the other. If A does not see L asleep, L finds the item. So an
/// item costs no access to the flag that others would feel, unless L sleeps.</para>
/// <para><b>Closing.</b> L closes (a write and a full fence), then takes what is left. A that sees the queue open behind its
/// fence has added before, and L finds the item. A that sees it closed takes what is left itself, L does so too, and each
/// item goes to one of them.</para>
/// <para><b>Waiting a moment.</b> Two adders at once fight for the cache line of the queue's tail, and both are slow. Each says
/// that it is adding; another that reads so waits some microseconds at most, in which the first adds dozens of items. Only a
/// hint: nothing depends on it. Four adders on two cores take half the time with it.</para>
/// </remarks>
internal sealed class WorkQueue
{
    private const int Looks = 4;
    private const int LookSpins = 32; // about a microsecond

    private readonly ConcurrentQueue<WorkItem> _items = new();
    private bool _closed;
    private Hint _hint;

    /// <summary>On cache lines of its own (64 or 128 bytes).</summary>
    [StructLayout(LayoutKind.Explicit, Size = 256)]
    private struct Hint
    {
        [FieldOffset(128)]
        internal bool SomebodyAdds;
    }

    internal bool IsEmpty => _items.IsEmpty;

    internal bool IsClosed => Volatile.Read(ref _closed);

    /// <summary>Loop only: how many items are there.</summary>
    internal int Count => _items.Count;

    /// <summary>Adds an item. False: the queue is closed. A full fence: what the caller looks at next is read behind it.</summary>
    internal bool TryAdd(in WorkItem item)
    {
        if (IsClosed) return false;
        for (var i = 0; i < Looks && Volatile.Read(ref _hint.SomebodyAdds); i++) Thread.SpinWait(LookSpins);
        _hint.SomebodyAdds = true;
        _items.Enqueue(item);
        _hint.SomebodyAdds = false;
        Interlocked.MemoryBarrier();
        return true;
    }

    /// <summary>The oldest item: the loop's, or once the queue is closed, anybody's.</summary>
    internal bool TryTake(out WorkItem item) => _items.TryDequeue(out item);

    /// <summary>Loop only: refuses what comes from now on; the caller takes what is left.</summary>
    internal void Close()
    {
        Volatile.Write(ref _closed, true);
        Interlocked.MemoryBarrier();
    }
}
