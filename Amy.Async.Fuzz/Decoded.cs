using System.Buffers.Binary;
using System.Text;

namespace Amy.Async.Fuzz;

/// <summary>How a stream of messages ends.</summary>
internal enum End
{
    /// <summary>With the last message.</summary>
    Whole,

    /// <summary>Within a message.</summary>
    CutOff,

    /// <summary>What comes next is over the limit, or not what it must be.</summary>
    Refused,
}

/// <summary>What becomes of a stream of bytes: messages, and how it ends.</summary>
internal sealed record Decoded(List<byte[]> Messages, End End)
{
    private static readonly UTF8Encoding s_strict = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    /// <summary>What <see cref="LineReader"/> must make of them, said as simply as possible.</summary>
    internal static Decoded OfLines(ReadOnlySpan<byte> bytes, int maxLength)
    {
        var lines = new List<byte[]>();
        while (bytes.Length > 0)
        {
            var feed = bytes.IndexOf((byte)'\n');
            if (feed < 0 && bytes.Length - 1 > maxLength) return new(lines, End.Refused);
            var line = feed < 0 ? bytes : bytes[..feed];
            if (line.Length > 0 && line[^1] == (byte)'\r') line = line[..^1];
            if (line.Length > maxLength) return new(lines, End.Refused);
            lines.Add(line.ToArray());
            bytes = feed < 0 ? default : bytes[(feed + 1)..];
        }
        return new(lines, End.Whole);
    }

    /// <summary>What <see cref="FrameReader"/> must make of them.</summary>
    internal static Decoded OfFrames(ReadOnlySpan<byte> bytes, int maxSize)
    {
        var frames = new List<byte[]>();
        while (bytes.Length >= 4)
        {
            var size = BinaryPrimitives.ReadUInt32BigEndian(bytes);
            if (size > maxSize) return new(frames, End.Refused);
            if (bytes.Length - 4 < size) return new(frames, End.CutOff);
            frames.Add(bytes.Slice(4, (int)size).ToArray());
            bytes = bytes[(4 + (int)size)..];
        }
        return new(frames, bytes.Length > 0 ? End.CutOff : End.Whole);
    }

    /// <summary>The same where messages are text: what is not UTF-8 is refused.</summary>
    internal Decoded AsText()
    {
        var wrong = Messages.FindIndex(static message => !IsText(message));
        return wrong < 0 ? this : new(Messages[..wrong], End.Refused);
    }

    /// <summary>Throws, with what differs, if the other is not the same.</summary>
    internal void MustBe(Decoded expected, string way)
    {
        for (var i = 0; i < Math.Min(Messages.Count, expected.Messages.Count); i++)
            if (!Messages[i].AsSpan().SequenceEqual(expected.Messages[i]))
                throw new BrokenPromiseException($"{way}: message {i} is {Show(Messages[i])}, not {Show(expected.Messages[i])}.");
        if (Messages.Count != expected.Messages.Count || End != expected.End)
            throw new BrokenPromiseException($"{way}: {Messages.Count} messages and {End}, not {expected.Messages.Count} and {expected.End}.");
    }

    private static bool IsText(byte[] message)
    {
        try
        {
            s_strict.GetCharCount(message);
            return true;
        }
        catch (DecoderFallbackException)
        {
            return false;
        }
    }

    private static string Show(byte[] bytes) => $"{bytes.Length} bytes {Convert.ToHexString(bytes.AsSpan(0, Math.Min(bytes.Length, 16)))}";
}
