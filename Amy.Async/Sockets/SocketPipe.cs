using System.Buffers;
using System.IO.Pipelines;

namespace Amy.Async;

/// <summary>
/// A socket as an <see cref="IDuplexPipe"/>, without a <see cref="Pipe"/> and its pumps in between: reading receives into the
/// reader's own buffers, flushing sends from the writer's.
/// </summary>
/// <remarks>
/// A buffer is rented for a receive that finds data, and given back when the data is consumed, so an idle connection holds
/// none. Nothing is read ahead: who does not read is not read for, and the peer's sends stop in the kernel. What is written
/// ahead is bounded by the thresholds. Awaiters resume as those of the socket do.
/// </remarks>
internal sealed class SocketPipe : IDuplexPipe
{
    private int _open = 2; // sides not completed; Interlocked

    internal SocketPipe(AsyncSocket socket, SocketSource source, AsyncPipeOptions options)
    {
        Socket = socket;
        Source = source;
        Options = options;
        Input = new SocketPipeReader(this);
        Output = new SocketPipeWriter(this);
    }

    public PipeReader Input { get; }

    public PipeWriter Output { get; }

    internal AsyncSocket Socket { get; }

    internal SocketSource Source { get; }

    internal AsyncPipeOptions Options { get; }

    /// <summary>One side is done with the socket.</summary>
    internal void OnCompleted()
    {
        if (Interlocked.Decrement(ref _open) == 0 && Options.OwnsSocket) Socket.Dispose();
    }
}

/// <summary>A rented buffer in a list of them. Bytes from Start to End are data.</summary>
internal sealed class PipeSegment : ReadOnlySequenceSegment<byte>
{
    private byte[]? _array;
    private IMemoryOwner<byte>? _owner;
    private Memory<byte> _buffer;

    /// <summary>Where its data ends.</summary>
    internal int End { get; private set; }

    internal PipeSegment? NextSegment => (PipeSegment?)Next;

    internal Memory<byte> Free => _buffer.Slice(End);

    internal Memory<byte> Buffer => _buffer;

    internal int Size => _buffer.Length;

    internal void Rent(AsyncPipeOptions options, int size)
    {
        size = Math.Max(size, options.MinimumSegmentSize);
        if (options.Pool is null || size > options.Pool.MaxBufferSize)
        {
            _array = ArrayPool<byte>.Shared.Rent(size);
            _buffer = _array;
        }
        else
        {
            _owner = options.Pool.Rent(size);
            _buffer = _owner.Memory;
        }
        End = 0;
        Memory = default;
    }

    internal void Grow(int count)
    {
        End += count;
        Memory = _buffer.Slice(0, End);
    }

    internal void Append(PipeSegment next)
    {
        next.RunningIndex = RunningIndex + End;
        Next = next;
    }

    /// <summary>For a list of those that are not in use.</summary>
    internal void Link(PipeSegment? next) => Next = next;

    /// <summary>Gives the buffer back; the object can be used again.</summary>
    internal void Release()
    {
        if (_array is not null) ArrayPool<byte>.Shared.Return(_array);
        _owner?.Dispose();
        _array = null;
        _owner = null;
        _buffer = default;
        Memory = default;
        Next = null;
        RunningIndex = 0;
        End = 0;
    }
}

/// <summary>Segments without a buffer, to be used again: as many as there are in a pipe that is written to and read from evenly.</summary>
internal struct SpareSegments
{
    private const int Limit = 64;

    private PipeSegment? _first;
    private int _count;

    internal PipeSegment Take()
    {
        if (_first is not { } segment) return new PipeSegment();
        _first = segment.NextSegment;
        _count--;
        segment.Link(null);
        return segment;
    }

    internal void Keep(PipeSegment released)
    {
        if (_count == Limit) return;
        released.Link(_first);
        _first = released;
        _count++;
    }
}
