using System.Diagnostics;

namespace Amy.Async;

/// <summary>Something that is due at a time; an element of <see cref="TimerQueue{T}"/>.</summary>
internal interface ITimerEntry
{
    /// <summary>Its place in the queue, -1 while it is in none. Written by the queue.</summary>
    int QueueIndex { get; set; }
}

/// <summary>
/// Timers by deadline: a heap with four children a node, the deadlines inside the array (no look at the timer itself to
/// compare) and each timer's index kept in it, so that a timer can be cancelled at once. Belongs to one thread, or to a
/// lock: a loop's to the loop, a poller's to its lock.
/// </summary>
/// <remarks>
/// Insert and cancel are O(log n), and in the usual case of time-outs (later deadlines come later, most are cancelled
/// young) O(1): a new deadline stays at the bottom. Of equal deadlines, the first entered comes first.
/// With 1,000,000 pending, inserting one and cancelling it takes 17 ns; cancelling a random one and inserting another 320 ns,
/// all of them cache misses (micro --filter *TimerBench*); a wheel would not miss less, and would not be exact.
/// </remarks>
internal sealed class TimerQueue<T> where T : class, ITimerEntry
{
    private const int Children = 4;

    private Entry[] _heap = new Entry[64];
    private long _entered; // how many so far: the order among equal deadlines

    internal int Count { get; private set; }

    /// <summary>The earliest deadline in nanoseconds of its owner's clock, or long.MaxValue.</summary>
    internal long NextDeadline => Count == 0 ? long.MaxValue : _heap[0].Deadline;

    internal void Add(T timer, long deadline)
    {
        Debug.Assert(timer.QueueIndex < 0);
        if (Count == _heap.Length) Array.Resize(ref _heap, Count * 2);
        Rise(Count++, new Entry(deadline, _entered++, timer));
    }

    internal bool Remove(T timer)
    {
        var index = timer.QueueIndex;
        if (index < 0) return false;
        timer.QueueIndex = -1;
        var last = _heap[--Count];
        _heap[Count] = default;
        if (index == Count) return true;
        if (index > 0 && last.IsBefore(_heap[(index - 1) / Children])) Rise(index, last);
        else Sink(index, last);
        return true;
    }

    /// <summary>Takes the earliest timer if it is due.</summary>
    internal bool TryTakeDue(long now, out T? timer)
    {
        timer = null;
        if (Count == 0 || _heap[0].Deadline > now) return false;
        timer = _heap[0].Timer;
        Remove(timer);
        return true;
    }

    private void Rise(int index, Entry entry)
    {
        while (index > 0)
        {
            var parent = (index - 1) / Children;
            if (!entry.IsBefore(_heap[parent])) break;
            Place(index, _heap[parent]);
            index = parent;
        }
        Place(index, entry);
    }

    private void Sink(int index, Entry entry)
    {
        while (true)
        {
            var first = index * Children + 1;
            if (first >= Count) break;
            var smallest = first;
            var end = Math.Min(first + Children, Count);
            for (var child = first + 1; child < end; child++)
                if (_heap[child].IsBefore(_heap[smallest])) smallest = child;
            if (!_heap[smallest].IsBefore(entry)) break;
            Place(index, _heap[smallest]);
            index = smallest;
        }
        Place(index, entry);
    }

    private void Place(int index, Entry entry)
    {
        _heap[index] = entry;
        entry.Timer.QueueIndex = index;
    }

    private readonly struct Entry(long deadline, long order, T timer)
    {
        private readonly long _order = order;
        internal readonly long Deadline = deadline;
        internal readonly T Timer = timer;

        internal bool IsBefore(in Entry other) => Deadline < other.Deadline || (Deadline == other.Deadline && _order < other._order);
    }
}
