using System.Buffers;

namespace Amy.Async.Kestrel;

/// <summary>A rented buffer in a list of them. Its bytes up to <see cref="End"/> are data.</summary>
internal sealed class Segment : ReadOnlySequenceSegment<byte>
{
    private IMemoryOwner<byte>? _owner;
    private byte[]? _array; // larger than the pool's buffers
    private Memory<byte> _buffer;

    internal int End { get; private set; }

    internal Segment? NextSegment => (Segment?)Next;

    internal Memory<byte> Free => _buffer[End..];

    internal int FreeLength => _buffer.Length - End;

    internal int Size => _buffer.Length;

    internal void Rent(LoopMemory memory, int atLeast)
    {
        if (atLeast <= memory.Pool.MaxBufferSize)
        {
            _owner = memory.Rent();
            _buffer = _owner.Memory;
            if (_buffer.Length >= atLeast) return;
            memory.Return(_owner); // a pool of somebody's whose buffers differ in size
            _owner = null;
        }
        _array = ArrayPool<byte>.Shared.Rent(atLeast);
        _buffer = _array;
    }

    internal void Grow(int count)
    {
        End += count;
        Memory = _buffer[..End];
    }

    /// <summary>Appends a segment, with all that hangs on it.</summary>
    internal void Append(Segment next)
    {
        Next = next;
        for (var last = this; last.NextSegment is { } following; last = following) following.RunningIndex = last.RunningIndex + last.End;
    }

    /// <summary>Gives the buffer back; the object can be used again.</summary>
    internal void Release(LoopMemory memory)
    {
        if (_array is not null) ArrayPool<byte>.Shared.Return(_array);
        if (_owner is not null) memory.Return(_owner);
        _array = null;
        _owner = null;
        _buffer = default;
        Memory = default;
        Next = null;
        RunningIndex = 0;
        End = 0;
    }
}
