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
/// added: does the loop have to be woken for it, and is there still a loop? Both are asked behind a full fence. Each fence is the
/// exchange of a field that changes at that moment anyway, which costs what a fence alone costs.</para>
/// <para><b>Waking.</b> The adder A adds, fences (it exchanges its word that it adds), and looks whether the loop L sleeps; it
/// wakes L only then. L says that it sleeps (WakeFlag.TrySleep, a full fence), looks at the queue once more, and waits in the
/// kernel only if it is empty. Both write, fence and read what the other writes: one of them sees the other. If A does not see L asleep, L finds the item. So an
/// item costs no access to the flag that others would feel, unless L sleeps.</para>
/// <para><b>Closing.</b> L closes (an exchange), then takes what is left. A that sees the queue open behind its
/// fence has added before, and L finds the item. A that sees it closed takes what is left itself, L does so too, and each
/// item goes to one of them.</para>
/// <para><b>Marks.</b> Two hints, on cache lines of their own; nothing is lost by one that is late, as L looks at the queue itself
/// before it sleeps. <see cref="HasWork"/> saves L the look in each of its turns (1 % of a round trip): A marks behind its fence; L
/// exchanges the mark for none, then counts, so that an item that was not counted is marked after that. And an adder says that it
/// is adding: two at once fight for the cache line of the queue's tail, and both are slow. Another that reads so waits some
/// microseconds at most, in which the first adds dozens of items, and goes on whatever it reads: of two that add, the first that is
/// done takes away the word of both, and one that was stopped in its middle leaves it for as long. Four adders on two cores take half the time with it.</para>
/// </remarks>
internal sealed class WorkQueue
{
    private const int Looks = 4;
    private const int LookSpins = 32; // about a microsecond

    private readonly ConcurrentQueue<WorkItem> _items = new();
    private int _closed;
    private Marks _marks;

    [StructLayout(LayoutKind.Explicit, Size = 384)] // cache lines have 64 or 128 bytes
    private struct Marks
    {
        [FieldOffset(128)]
        internal int SomethingIsThere;

        [FieldOffset(256)]
        internal int SomebodyAdds;
    }

    internal bool IsEmpty => _items.IsEmpty;

    /// <summary>Whether there is something, or will be in a moment; may say so late.</summary>
    internal bool HasWork => Volatile.Read(ref _marks.SomethingIsThere) != 0;

    /// <summary>Whether somebody says that it adds; see the marks.</summary>
    internal bool IsBusy => Volatile.Read(ref _marks.SomebodyAdds) != 0;

    internal void SayThatSomebodyAdds() => _marks.SomebodyAdds = 1;

    internal bool IsClosed => Volatile.Read(ref _closed) != 0;

    /// <summary>Adds an item. False: the queue is closed. A full fence: what the caller looks at next is read behind it.</summary>
    internal bool TryAdd(in WorkItem item)
    {
        if (IsClosed) return false;
        for (var i = 0; i < Looks && IsBusy; i++) Thread.SpinWait(LookSpins);
        SayThatSomebodyAdds();
        _items.Enqueue(item);
        Interlocked.Exchange(ref _marks.SomebodyAdds, 0);
        if (!HasWork) Mark();
        return true;
    }

    /// <summary>Loop only: how many items to take now; what is more, or comes in meanwhile, remains marked.</summary>
    internal int Count(int atMost)
    {
        Interlocked.Exchange(ref _marks.SomethingIsThere, 0);
        var count = _items.Count;
        if (count <= atMost) return count;
        Mark();
        return atMost;
    }

    internal void Mark() => Volatile.Write(ref _marks.SomethingIsThere, 1);

    /// <summary>The oldest item: the loop's, or once the queue is closed, anybody's.</summary>
    internal bool TryTake(out WorkItem item) => _items.TryDequeue(out item);

    /// <summary>Loop only: refuses what comes from now on; the caller takes what is left.</summary>
    internal void Close() => Interlocked.Exchange(ref _closed, 1);
}
