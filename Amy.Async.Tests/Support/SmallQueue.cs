namespace Amy.Async.Tests;

/// <summary>A queue of up to seven small numbers (1 to 15), a value for explorations.</summary>
internal struct SmallQueue
{
    private int _items; // four bits each, the oldest lowest
    private sbyte _count;

    internal readonly bool IsEmpty => _count == 0;

    internal readonly int Count => _count;

    internal void Add(int item) => _items |= item << 4 * _count++;

    internal bool TryTake(out int item)
    {
        item = _items & 15;
        if (_count == 0) return false;
        _items >>= 4;
        _count--;
        return true;
    }
}
