using System.Buffers;
using System.Buffers.Binary;

namespace Amy.Async;

/// <summary>
/// Queues frames (see <see cref="FrameReader"/>) until a socket takes them: put frames in, write out as much as goes, keep
/// the rest. Both the size of a frame and the queue are bounded. Pure buffers; nothing is allocated per frame.
/// </summary>
/// <remarks>
/// Belongs to one thread at a time. Memory: at most twice what may wait. To write out, offer <see cref="Unwritten"/> to the socket and tell with
/// <see cref="Advance"/> what it took; the <c>TrySend</c> and <c>SendAsync</c> of <see cref="CodecExtensions"/> do that.
/// </remarks>
public sealed class FrameWriter
{
    private readonly int _maxQueued;
    private ReadBuffer _queue;

    /// <summary>Makes a writer.</summary>
    /// <param name="maxSize">The most bytes of a frame, without its header.</param>
    /// <param name="maxQueued">The most bytes that may wait, headers included; by default 16 of the largest frames, at least
    /// 64 KiB. <see cref="TryWrite"/> says when it is reached.</param>
    /// <exception cref="ArgumentOutOfRangeException">Negative, or the queue does not hold the largest frame.</exception>
    public FrameWriter(int maxSize, int? maxQueued = null)
    {
        if (maxSize is < 0 or > 0x7FFFFFC7 - FrameReader.HeaderSize) throw new ArgumentOutOfRangeException(nameof(maxSize), maxSize, "A size is not negative, and fits an array.");
        MaxSize = maxSize;
        _maxQueued = maxQueued ?? (int)Math.Min(0x7FFFFFC7, Math.Max(65536, 16L * (maxSize + FrameReader.HeaderSize)));
        if (_maxQueued < maxSize + FrameReader.HeaderSize)
            throw new ArgumentOutOfRangeException(nameof(maxQueued), maxQueued, "The queue must hold at least the largest frame and its header.");
        _queue = new ReadBuffer(_maxQueued, spacious: true);
    }

    /// <summary>The most bytes of a frame, without its header.</summary>
    public int MaxSize { get; }

    /// <summary>Whether everything was written out.</summary>
    public bool IsEmpty => _queue.Length == 0;

    /// <summary>What waits to be written out, in order; valid until the next frame is put in.</summary>
    public ReadOnlyMemory<byte> Unwritten => _queue.Unread;

    /// <summary>Puts a frame in.</summary>
    /// <returns>False: too much is waiting. Write out, and try again.</returns>
    /// <exception cref="ArgumentException">The frame is larger than <see cref="MaxSize"/>.</exception>
    public bool TryWrite(ReadOnlySpan<byte> frame)
    {
        if (frame.Length > MaxSize) throw new ArgumentException($"A frame of {frame.Length} bytes is larger than the {MaxSize} that are allowed.", nameof(frame));
        var size = FrameReader.HeaderSize + frame.Length;
        if (size > _maxQueued - _queue.Length) return false;
        Encode(frame, _queue.GetRoom(size).Span);
        _queue.Advance(size);
        return true;
    }

    /// <summary>Says how many bytes of <see cref="Unwritten"/> were written out.</summary>
    /// <exception cref="ArgumentOutOfRangeException">More than there were, or negative.</exception>
    public void Advance(int count)
    {
        if (count < 0 || count > _queue.Length) throw new ArgumentOutOfRangeException(nameof(count), count, "Not that much was waiting.");
        _queue.Consume(count);
    }

    /// <summary>Writes one frame to a buffer that grows by itself, such as a <c>PipeWriter</c>.</summary>
    public static void Write(IBufferWriter<byte> output, ReadOnlySpan<byte> frame)
    {
        if (output is null) throw new ArgumentNullException(nameof(output));
        var size = FrameReader.HeaderSize + frame.Length;
        Encode(frame, output.GetSpan(size));
        output.Advance(size);
    }

    private static void Encode(ReadOnlySpan<byte> frame, Span<byte> room)
    {
        BinaryPrimitives.WriteUInt32BigEndian(room, (uint)frame.Length);
        frame.CopyTo(room.Slice(FrameReader.HeaderSize));
    }
}
