using System.Buffers;

namespace Amy.Async.Native;

/// <summary>
/// An array of <c>struct iovec</c> over pinned buffers, for one system call after the other. Used by one thread at a time;
/// allocates nothing after it was made.
/// </summary>
internal sealed unsafe class PinnedVectors
{
    /// <summary>Buffers of one call. The kernel takes 1,024 (IOV_MAX); more than this many at once gain nothing measurable.</summary>
    internal const int Capacity = 64;

    private readonly IoVector[] _vectors = new IoVector[Capacity];
    private readonly MemoryHandle[] _pins = new MemoryHandle[Capacity];

    internal int Count { get; private set; }

    /// <summary>Bytes in all of them.</summary>
    internal long Length { get; private set; }

    internal bool IsFull => Count == Capacity;

    internal ReadOnlySpan<IoVector> Vectors => _vectors.AsSpan(0, Count);

    /// <summary>Pins a buffer until <see cref="Clear"/>. Empty ones are left out.</summary>
    internal void Add(ReadOnlyMemory<byte> buffer)
    {
        if (buffer.IsEmpty) return;
        var pin = buffer.Pin(); // throws if the buffer's owner has let go of it
        _pins[Count] = pin;
        _vectors[Count++] = new IoVector { Base = pin.Pointer, Length = (nuint)buffer.Length };
        Length += buffer.Length;
    }

    internal void Clear()
    {
        for (var i = 0; i < Count; i++) _pins[i].Dispose();
        Array.Clear(_pins, 0, Count);
        Count = 0;
        Length = 0;
    }
}
