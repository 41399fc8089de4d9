using System.Buffers;
using System.Buffers.Binary;

namespace Amy.Async;

/// <summary>
/// Splits bytes into frames: a length of 4 bytes, big-endian, unsigned, then as many bytes. The size is bounded, and checked
/// before any room is made for it. Pure buffers: put in what was received, take out frames.
/// </summary>
/// <remarks>
/// <para>Two ways to put bytes in. As an <see cref="IBufferWriter{T}"/>: receive into <see cref="GetMemory"/>, tell with
/// <see cref="Advance"/> how much, then <see cref="TryRead(out ReadOnlyMemory{byte})"/> until it says no. Or from a
/// <see cref="ReadOnlySequence{T}"/>, of a pipe, with the other <c>TryRead</c>. Nothing is allocated per frame.</para>
/// <para>Belongs to one thread at a time. Memory grows with what has arrived, not with what a header announces: at most
/// twice that, and never beyond the greater of 4 KiB and the maximum size plus 4.</para>
/// </remarks>
public sealed class FrameReader : IBufferWriter<byte>
{
    /// <summary>The bytes of a frame's length.</summary>
    internal const int HeaderSize = sizeof(uint);

    private ReadBuffer _buffer;

    /// <summary>Makes a reader.</summary>
    /// <param name="maxSize">The most bytes of a frame, without its header.</param>
    /// <exception cref="ArgumentOutOfRangeException">Negative, or more than an array can hold.</exception>
    public FrameReader(int maxSize)
    {
        if (maxSize is < 0 or > 0x7FFFFFC7 - HeaderSize) throw new ArgumentOutOfRangeException(nameof(maxSize), maxSize, "A size is not negative, and fits an array.");
        MaxSize = maxSize;
        _buffer = new ReadBuffer(maxSize + HeaderSize);
    }

    /// <summary>The most bytes of a frame, without its header.</summary>
    public int MaxSize { get; }

    /// <summary>Whether everything put in was taken out; at the end of a stream, false says that a frame was cut off.</summary>
    public bool IsEmpty => _buffer.Length == 0;

    /// <summary>Room to receive into, at least one byte (or <paramref name="sizeHint"/>). Ends the validity of frames taken out.</summary>
    /// <exception cref="InvalidOperationException">The buffer is full of frames that were not taken out.</exception>
    public Memory<byte> GetMemory(int sizeHint = 0) => _buffer.GetRoom(sizeHint);

    /// <summary>Like <see cref="GetMemory"/>.</summary>
    /// <exception cref="InvalidOperationException">The buffer is full of frames that were not taken out.</exception>
    public Span<byte> GetSpan(int sizeHint = 0) => _buffer.GetRoom(sizeHint).Span;

    /// <summary>Says how many bytes were put into the room.</summary>
    /// <exception cref="ArgumentOutOfRangeException">More than the room, or negative.</exception>
    public void Advance(int count) => _buffer.Advance(count);

    /// <summary>Takes out the next frame.</summary>
    /// <param name="frame">The frame without its header, possibly empty; valid until room is asked for.</param>
    /// <returns>False: there is no whole frame.</returns>
    /// <exception cref="InvalidDataException">The frame is larger than <see cref="MaxSize"/>. The reader is of no more use.</exception>
    public bool TryRead(out ReadOnlyMemory<byte> frame)
    {
        frame = default;
        var unread = _buffer.Unread;
        if (unread.Length < HeaderSize) return false;
        var size = Check(BinaryPrimitives.ReadUInt32BigEndian(unread.Span));
        if (unread.Length - HeaderSize < size) return false;
        frame = unread.Slice(HeaderSize, size);
        _buffer.Consume(HeaderSize + size);
        return true;
    }

    /// <summary>Takes the next frame off the front of a sequence, such as a pipe's buffer.</summary>
    /// <param name="sequence">What was not read yet; the rest of it after the frame.</param>
    /// <param name="frame">The frame without its header, possibly empty.</param>
    /// <returns>False: there is no whole frame, and nothing is taken off.</returns>
    /// <exception cref="InvalidDataException">The frame is larger than <see cref="MaxSize"/>.</exception>
    public bool TryRead(ref ReadOnlySequence<byte> sequence, out ReadOnlySequence<byte> frame)
    {
        frame = default;
        if (sequence.Length < HeaderSize) return false;
        Span<byte> header = stackalloc byte[HeaderSize];
        sequence.Slice(0, HeaderSize).CopyTo(header);
        var size = Check(BinaryPrimitives.ReadUInt32BigEndian(header));
        if (sequence.Length - HeaderSize < size) return false;
        frame = sequence.Slice(HeaderSize, size);
        sequence = sequence.Slice(frame.End);
        return true;
    }

    private int Check(uint size) =>
        size <= (uint)MaxSize ? (int)size : throw new InvalidDataException($"A frame of {size} bytes is larger than the {MaxSize} that are allowed.");
}
