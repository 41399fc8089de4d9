using System.Buffers;
using System.Text;
using Amy.Async.Compat;

namespace Amy.Async;

/// <summary>
/// Splits bytes into lines. A line ends with LF or CR LF, which is not part of it; its length is bounded. Pure buffers: put
/// in what was received, take out lines.
/// </summary>
/// <remarks>
/// <para>Two ways to put bytes in. As an <see cref="IBufferWriter{T}"/>: receive into <see cref="GetMemory"/>, tell with
/// <see cref="Advance"/> how much, then <see cref="TryRead(out ReadOnlyMemory{byte})"/> until it says no. Or from a
/// <see cref="ReadOnlySequence{T}"/>, of a pipe, with the other <c>TryRead</c>. Either way no byte is looked at twice, and
/// nothing is allocated per line.</para>
/// <para>Belongs to one thread at a time. Memory: at most the greater of 4 KiB and the maximum length plus 2.</para>
/// </remarks>
public sealed class LineReader : IBufferWriter<byte>
{
    private const byte LineFeed = (byte)'\n';
    private const byte CarriageReturn = (byte)'\r';

    private static readonly UTF8Encoding s_utf8 = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    private ReadBuffer _buffer;
    private int _searched; // bytes of the buffer known to hold no line feed
    private long _sequenceSearched; // likewise, of the caller's sequence

    /// <summary>Makes a reader.</summary>
    /// <param name="maxLength">The most bytes of a line, without its end.</param>
    /// <exception cref="ArgumentOutOfRangeException">Less than 1, or more than an array can hold.</exception>
    public LineReader(int maxLength)
    {
        if (maxLength is < 1 or > 0x7FFFFFC7 - 2) throw new ArgumentOutOfRangeException(nameof(maxLength), maxLength, "A line may have at least 1 byte, and fit an array.");
        MaxLength = maxLength;
        _buffer = new ReadBuffer(maxLength + 2);
    }

    /// <summary>The most bytes of a line, without its end.</summary>
    public int MaxLength { get; }

    /// <summary>Whether everything put in was taken out; at the end of a stream, false says that the last line had no end.</summary>
    public bool IsEmpty => _buffer.Length == 0;

    /// <summary>Room to receive into, at least one byte (or <paramref name="sizeHint"/>). Ends the validity of lines taken out.</summary>
    /// <exception cref="InvalidOperationException">The buffer is full of lines that were not taken out.</exception>
    public Memory<byte> GetMemory(int sizeHint = 0) => _buffer.GetRoom(sizeHint);

    /// <summary>Like <see cref="GetMemory"/>.</summary>
    /// <exception cref="InvalidOperationException">The buffer is full of lines that were not taken out.</exception>
    public Span<byte> GetSpan(int sizeHint = 0) => _buffer.GetRoom(sizeHint).Span;

    /// <summary>Says how many bytes were put into the room.</summary>
    /// <exception cref="ArgumentOutOfRangeException">More than the room, or negative.</exception>
    public void Advance(int count) => _buffer.Advance(count);

    /// <summary>Takes out the next line.</summary>
    /// <param name="line">The line without its end; valid until room is asked for.</param>
    /// <returns>False: there is no whole line.</returns>
    /// <exception cref="InvalidDataException">The line is longer than <see cref="MaxLength"/>. The reader is of no more use.</exception>
    public bool TryRead(out ReadOnlyMemory<byte> line)
    {
        var unread = _buffer.Unread;
        var index = unread.Span.Slice(_searched).IndexOf(LineFeed);
        if (index < 0)
        {
            _searched = unread.Length;
            CheckUnfinished(unread.Length);
            line = default;
            return false;
        }
        index += _searched;
        line = unread.Slice(0, index > 0 && unread.Span[index - 1] == CarriageReturn ? index - 1 : index);
        Check(line.Length);
        _searched = 0;
        _buffer.Consume(index + 1);
        return true;
    }

    /// <summary>Takes out the next line as text. Allocates the string.</summary>
    /// <exception cref="InvalidDataException">The line is too long, or not UTF-8.</exception>
    public bool TryRead(out string? line)
    {
        line = TryRead(out ReadOnlyMemory<byte> bytes) ? Decode(bytes) : null;
        return line is not null;
    }

    /// <summary>At the end of a stream: takes out a last line that has no end (or only a CR).</summary>
    /// <returns>False: there is nothing left.</returns>
    /// <exception cref="InvalidDataException">The line is longer than <see cref="MaxLength"/>.</exception>
    public bool TryReadRest(out ReadOnlyMemory<byte> line)
    {
        var unread = _buffer.Unread;
        line = Rest(unread);
        _searched = 0;
        _buffer.Consume(unread.Length);
        return unread.Length > 0;
    }

    /// <summary>What a stream ends with, as a line.</summary>
    internal ReadOnlyMemory<byte> Rest(ReadOnlyMemory<byte> line)
    {
        if (line.Length > 0 && line.Span[line.Length - 1] == CarriageReturn) line = line.Slice(0, line.Length - 1);
        Check(line.Length);
        return line;
    }

    /// <summary>
    /// Takes the next line off the front of a sequence, such as a pipe's buffer. What was searched in vain is not searched
    /// again: pass the same bytes, and more behind them, the next time.
    /// </summary>
    /// <param name="sequence">What was not read yet; the rest of it after the line.</param>
    /// <param name="line">The line without its end.</param>
    /// <returns>False: there is no whole line, and nothing is taken off.</returns>
    /// <exception cref="InvalidDataException">The line is longer than <see cref="MaxLength"/>.</exception>
    public bool TryRead(ref ReadOnlySequence<byte> sequence, out ReadOnlySequence<byte> line)
    {
        var end = sequence.Slice(Math.Min(_sequenceSearched, sequence.Length)).PositionOf(LineFeed);
        if (end is null)
        {
            _sequenceSearched = sequence.Length;
            CheckUnfinished(sequence.Length);
            line = default;
            return false;
        }
        line = sequence.Slice(0, end.Value);
        if (line.Length > 0 && line.Slice(line.Length - 1).First.Span[0] == CarriageReturn) line = line.Slice(0, line.Length - 1);
        Check(line.Length);
        _sequenceSearched = 0;
        sequence = sequence.Slice(sequence.GetPosition(1, end.Value));
        return true;
    }

    /// <summary>The text of a line, which must be UTF-8.</summary>
    /// <exception cref="InvalidDataException">It is not.</exception>
    internal static string Decode(ReadOnlyMemory<byte> line)
    {
        try
        {
            return Text.GetString(s_utf8, line);
        }
        catch (DecoderFallbackException) // not passed on: it names bytes that the peer sent
        {
            throw new InvalidDataException("The line is not UTF-8.");
        }
    }

    // A carriage return at the end may belong to the line's end.
    private void CheckUnfinished(long length) => Check(length - 1);

    private void Check(long length)
    {
        if (length > MaxLength) throw new InvalidDataException($"A line is longer than the {MaxLength} bytes that are allowed.");
    }
}
