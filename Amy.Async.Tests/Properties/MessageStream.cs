using System.Buffers;
using Amy.Async.Fuzz;
using FsCheck;
using FsCheck.Fluent;

namespace Amy.Async.Tests.Properties;

/// <summary>Messages, the bytes that they become, and how those are cut.</summary>
internal sealed record MessageStream(int Max, byte[][] Messages, byte[] Encoded, int[] Pieces)
{
    /// <summary>Messages of up to a maximum, as lines with either end.</summary>
    internal static Gen<MessageStream> Lines(bool text = false) =>
        from max in Maximum(1)
        from messages in AnyMessages(max, text)
        from pieces in Property.Pieces()
        from ends in Gen.Choose(0, int.MaxValue)
        select OfLines(max, messages, pieces, ends);

    /// <summary>Messages of up to a maximum, as frames.</summary>
    internal static Gen<MessageStream> Frames() =>
        from max in Maximum(0)
        from messages in AnyMessages(max, text: false)
        from pieces in Property.Pieces()
        select OfFrames(max, messages, pieces);

    /// <summary>Messages about the maximum, some of them over it.</summary>
    internal static Gen<MessageStream> AtTheLimit(bool lines) =>
        from max in Gen.OneOf(Gen.Choose(1, 40), Gen.Choose(4090, 4100), Gen.Elements(9000))
        from messages in Gen.ArrayOf(Property.Bytes(Gen.Frequency((4, Gen.Choose(-2, 0)), (1, Gen.Choose(1, 3))).Select(n => Math.Max(0, max + n))), 4)
        from pieces in Property.Pieces()
        from ends in Gen.Choose(0, int.MaxValue)
        select lines ? OfLines(max, messages, pieces, ends) : OfFrames(max, messages, pieces);

    private static Gen<int> Maximum(int least) => Gen.OneOf(Gen.Choose(least, 40), Gen.Elements(4090, 4096, 5000), Gen.Elements(20_000));

    private static Gen<byte[][]> AnyMessages(int max, bool text) =>
        from count in Gen.Choose(0, 6)
        from messages in Gen.ArrayOf(text ? Text(max) : Property.Bytes(Property.Lengths(max)), count)
        select messages;

    // Of one to four bytes a character, in UTF-8.
    private static Gen<byte[]> Text(int max) =>
        from length in Property.Lengths(max)
        from seed in Gen.Choose(0, int.MaxValue)
        select Characters(length, new Random(seed));

    private static byte[] Characters(int most, Random random)
    {
        var text = new System.Text.StringBuilder();
        var used = 0;
        while (true)
        {
            var rune = new System.Text.Rune(random.Next(4) switch { 0 => random.Next(0xE000, 0x10FFFF), 1 => random.Next(0x80, 0xD800), _ => random.Next(0x80) });
            used += rune.Utf8SequenceLength;
            if (used > most) return System.Text.Encoding.UTF8.GetBytes(text.ToString());
            text.Append(rune.ToString());
        }
    }

    private static MessageStream OfLines(int max, byte[][] messages, int[] pieces, int ends)
    {
        messages = [.. messages.Select(m => m.Select(b => b == (byte)'\n' ? (byte)'.' : b).ToArray())];
        var output = new ArrayBufferWriter<byte>();
        for (var i = 0; i < messages.Length; i++)
        {
            output.Write(messages[i]);
            output.Write((ends >> i & 1) != 0 || messages[i] is [.., (byte)'\r'] ? "\r\n"u8 : "\n"u8);
        }
        return new(max, messages, output.WrittenSpan.ToArray(), Ways.Suited(pieces, output.WrittenCount));
    }

    private static MessageStream OfFrames(int max, byte[][] messages, int[] pieces)
    {
        var output = new ArrayBufferWriter<byte>();
        foreach (var message in messages) FrameWriter.Write(output, message);
        return new(max, messages, output.WrittenSpan.ToArray(), Ways.Suited(pieces, output.WrittenCount));
    }

    /// <summary>What must come out: the messages, up to the first over the maximum.</summary>
    internal Decoded Expected()
    {
        var wrong = Array.FindIndex(Messages, m => m.Length > Max);
        return wrong < 0 ? new([.. Messages], End.Whole) : new([.. Messages[..wrong]], End.Refused);
    }

    /// <summary>For a failure: the same with less in it.</summary>
    internal static IEnumerable<MessageStream> Smaller(MessageStream stream, bool lines)
    {
        for (var i = 0; i < stream.Messages.Length; i++)
        {
            byte[][] rest = [.. stream.Messages[..i], .. stream.Messages[(i + 1)..]];
            yield return lines ? OfLines(stream.Max, rest, stream.Pieces, -1) : OfFrames(stream.Max, rest, stream.Pieces);
        }
        if (stream.Pieces.Length > 0) yield return stream with { Pieces = stream.Pieces[1..] };
    }

    /// <summary>The beginning of each message is enough.</summary>
    public override string ToString() =>
        $"maximum {Max}, pieces [{string.Join(' ', Pieces)}], messages [{string.Join(' ', Messages.Select(m => $"{m.Length}:{Convert.ToHexString(m.AsSpan(0, Math.Min(8, m.Length)))}"))}]";
}
