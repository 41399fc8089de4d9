using System.Buffers;

namespace Amy.Async.Kestrel;

/// <summary>
/// A loop's buffers: Kestrel's pool, behind a few buffers that the loop's own thread keeps at hand. In a message that is
/// received, answered and sent on the loop, renting and giving back is a matter of two array accesses then, four times.
/// </summary>
internal sealed class LoopMemory(EventLoop loop, MemoryPool<byte> pool) : IDisposable
{
    private const int Kept = 16;

    private readonly IMemoryOwner<byte>?[] _kept = new IMemoryOwner<byte>?[Kept]; // the loop's thread only
    private int _count;
    private volatile bool _disposed;

    internal EventLoop Loop { get; } = loop;

    internal MemoryPool<byte> Pool { get; } = pool;

    /// <summary>Any thread.</summary>
    internal IMemoryOwner<byte> Rent()
    {
        if (Loop.IsCurrent && _count > 0)
        {
            var owner = _kept[--_count]!;
            _kept[_count] = null;
            return owner;
        }
        return Pool.Rent();
    }

    /// <summary>Any thread. Only what came from <see cref="Rent"/>.</summary>
    internal void Return(IMemoryOwner<byte> owner)
    {
        if (Loop.IsCurrent && _count < Kept && !_disposed) _kept[_count++] = owner;
        else owner.Dispose();
    }

    /// <summary>Once the loop has stopped.</summary>
    public void Dispose()
    {
        _disposed = true;
        while (_count > 0) _kept[--_count]!.Dispose();
        Pool.Dispose();
    }
}
