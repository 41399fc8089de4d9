using System.Buffers;
using System.Text;

namespace Amy.Async.Tests.Codecs;

/// <summary>The codecs at their limits, and one byte beyond.</summary>
[TestFixture]
internal sealed class CodecBoundsTests
{
    private const int First = 4096; // the first room
    private const int Most = 0x7FFFFFC7; // an array's

    private static void Put(LineReader reader, string text)
    {
        Encoding.UTF8.GetBytes(text).CopyTo(reader.GetSpan(text.Length));
        reader.Advance(text.Length);
    }

    private static string Text(ReadOnlyMemory<byte> bytes) => Encoding.UTF8.GetString(bytes.ToArray());

    // ---- the buffer

    [TestCase(0)]
    [TestCase(10)]
    [TestCase(First)]
    public void Buffer_SmallLimit_IsTheFirstRoom(int limit)
    {
        var buffer = new ReadBuffer(limit);
        Assert.That((buffer.Length, buffer.Unread.Length), Is.EqualTo((0, 0)));
        Assert.That(buffer.GetRoom(0).Length, Is.EqualTo(First));
        Assert.That(buffer.GetRoom(First).Length, Is.EqualTo(First));
        buffer.Advance(First);
        Assert.That(buffer.Length, Is.EqualTo(First));
        Assert.Throws<InvalidOperationException>(() => buffer.GetRoom(0));
    }

    [Test]
    public void Buffer_Grows_ByDoublingUpToItsLimit()
    {
        var buffer = new ReadBuffer(10_000);
        buffer.GetRoom(0);
        buffer.Advance(First);
        Assert.That(buffer.GetRoom(0).Length, Is.EqualTo(First), "8,192 in all");
        buffer.Advance(First);
        Assert.That(buffer.GetRoom(0).Length, Is.EqualTo(10_000 - 2 * First));
        buffer.Advance(10_000 - 2 * First);
        Assert.Throws<InvalidOperationException>(() => buffer.GetRoom(1));
        buffer.Consume(1);
        Assert.That(buffer.GetRoom(1).Length, Is.EqualTo(1));
        Assert.Throws<InvalidOperationException>(() => buffer.GetRoom(2));
    }

    [TestCase(5000, 5000)]
    [TestCase(8192, 8192)]
    [TestCase(9000, 9000)]
    [TestCase(10_000, 10_000)]
    public void Buffer_AskedForMuchAtOnce_GivesThatAtOnce(int hint, int room) =>
        Assert.That(new ReadBuffer(10_000).GetRoom(hint).Length, Is.EqualTo(room));

    [Test]
    public void Buffer_RoomThatIsThere_IsGivenWithoutMoving()
    {
        var buffer = new ReadBuffer(First);
        buffer.GetRoom(0).Span[0] = 7;
        buffer.Advance(10);
        buffer.Consume(9);
        Assert.That(buffer.GetRoom(First - 10).Length, Is.EqualTo(First - 10), "exactly what is behind the last byte");
        Assert.That(buffer.GetRoom(First - 9).Length, Is.EqualTo(First - 1), "moved to the front");
    }

    [Test]
    public void Buffer_Moving_KeepsWhatIsUnread()
    {
        var buffer = new ReadBuffer(First);
        for (var i = 0; i < First; i++) buffer.GetRoom(0).Span[i] = (byte)i;
        buffer.Advance(First);
        buffer.Consume(First - 3);
        buffer.GetRoom(100).Span[0] = 99;
        buffer.Advance(1);
        Assert.That(buffer.Unread.ToArray(), Is.EqualTo(new byte[] { 253, 254, 255, 99 }));
    }

    [Test]
    public void Buffer_AllConsumed_BeginsAtTheFrontWhenRoomIsAskedFor_NotBefore()
    {
        var buffer = new ReadBuffer(First);
        var room = buffer.GetRoom(0);
        room.Span[5] = 5;
        buffer.Advance(5);
        buffer.Consume(5);
        buffer.Advance(1); // the same room, filled further
        Assert.That(buffer.Unread.ToArray(), Is.EqualTo(new byte[] { 5 }));
        buffer.Consume(1);
        Assert.That(buffer.GetRoom(0).Length, Is.EqualTo(First));
    }

    [Test]
    public void Buffer_AdvanceBeyondTheRoom_IsRefused()
    {
        var buffer = new ReadBuffer(First);
        Assert.Throws<ArgumentOutOfRangeException>(() => buffer.Advance(1), "there is none yet");
        buffer.Advance(0);
        buffer.GetRoom(0);
        buffer.Advance(1);
        Assert.Throws<ArgumentOutOfRangeException>(() => buffer.Advance(First));
        Assert.Throws<ArgumentOutOfRangeException>(() => buffer.Advance(-1));
        buffer.Advance(First - 1);
        Assert.Throws<ArgumentOutOfRangeException>(() => buffer.GetRoom(-1));
    }

    [Test]
    public void SpaciousBuffer_MovesOnlyWhenAsMuchIsGained()
    {
        var buffer = new ReadBuffer(First, spacious: true);
        buffer.GetRoom(0);
        buffer.Advance(First);
        buffer.Consume(First / 2 - 1);
        Assert.That(buffer.GetRoom(1).Length, Is.EqualTo(First * 2 - (First / 2 + 1)), "little was consumed: a larger array");
        buffer = new ReadBuffer(First, spacious: true);
        buffer.GetRoom(0);
        buffer.Advance(First);
        buffer.Consume(First / 2);
        Assert.That(buffer.GetRoom(1).Length, Is.EqualTo(First / 2), "half was: the same array");
    }

    [Test]
    public void SpaciousBuffer_AtItsLargest_MovesAnyway()
    {
        var buffer = new ReadBuffer(First, spacious: true);
        buffer.GetRoom(0);
        buffer.Advance(First);
        buffer.Consume(10);
        Assert.That(buffer.GetRoom(10).Length, Is.EqualTo(First * 2 - (First - 10)));
        buffer.Advance(10);
        for (var i = 0; i < 1000; i++)
        {
            buffer.Consume(7);
            buffer.GetRoom(7);
            buffer.Advance(7);
            Assert.That(buffer.Length, Is.EqualTo(First));
        }
    }

    // ---- lines

    [Test]
    public void LineReader_Bounds()
    {
        Assert.That(new LineReader(1).MaxLength, Is.EqualTo(1));
        Assert.That(new LineReader(Most - 2).MaxLength, Is.EqualTo(Most - 2));
        Assert.Throws<ArgumentOutOfRangeException>(() => _ = new LineReader(Most - 1));
        Assert.Throws<ArgumentOutOfRangeException>(() => _ = new LineReader(-1));
    }

    [Test]
    public void LineReader_OneByteMoreThanTheMaximum_MayBeACarriageReturn()
    {
        var reader = new LineReader(5);
        Put(reader, "12345\r");
        Assert.That(reader.TryRead(out ReadOnlyMemory<byte> line), Is.False);
        Assert.That(line.Length, Is.Zero);
        Put(reader, "\n");
        Assert.That(reader.TryRead(out line), Is.True);
        Assert.That(Text(line), Is.EqualTo("12345"));
        Put(reader, "123456");
        Assert.That(reader.TryRead(out line), Is.False);
        Put(reader, "\n");
        Assert.Throws<InvalidDataException>(() => reader.TryRead(out ReadOnlyMemory<byte> _));
        reader = new LineReader(5);
        Put(reader, "1234567");
        Assert.Throws<InvalidDataException>(() => reader.TryRead(out ReadOnlyMemory<byte> _));
    }

    [Test]
    public void LineReader_NoByteIsLookedAtTwice()
    {
        var reader = new LineReader(100);
        var room = reader.GetMemory();
        Put(reader, "abc");
        Assert.That(reader.TryRead(out ReadOnlyMemory<byte> _), Is.False);
        room.Span[1] = (byte)'\n'; // behind its back
        Put(reader, "d\nx\n");
        Assert.That(reader.TryRead(out ReadOnlyMemory<byte> line), Is.True);
        Assert.That(Text(line), Is.EqualTo("a\ncd"));
        Assert.That(reader.TryRead(out line), Is.True, "the next one is searched from its beginning");
        Assert.That(Text(line), Is.EqualTo("x"));
        var sequence = new ReadOnlySequence<byte>(Encoding.UTF8.GetBytes("abc"));
        Assert.That(reader.TryRead(ref sequence, out var rest), Is.False);
        Assert.That((sequence.Length, rest.Length), Is.EqualTo((3L, 0L)));
        sequence = new ReadOnlySequence<byte>(Encoding.UTF8.GetBytes("a\ncd\nx\n"));
        Assert.That(reader.TryRead(ref sequence, out rest), Is.True);
        Assert.That(Encoding.UTF8.GetString(rest.ToArray()), Is.EqualTo("a\ncd"));
        Assert.That(reader.TryRead(ref sequence, out rest), Is.True);
        Assert.That(Encoding.UTF8.GetString(rest.ToArray()), Is.EqualTo("x"));
        Assert.That(sequence.Length, Is.Zero);
    }

    [Test]
    public void LineReader_SequenceShorterThanTheLastOne_IsSearchedAsFarAsItGoes()
    {
        var reader = new LineReader(100);
        var sequence = new ReadOnlySequence<byte>(Encoding.UTF8.GetBytes("abcdef"));
        reader.TryRead(ref sequence, out _);
        sequence = new ReadOnlySequence<byte>(Encoding.UTF8.GetBytes("ab"));
        Assert.That(reader.TryRead(ref sequence, out _), Is.False);
    }

    [TestCase("\n", "")]
    [TestCase("\r\n", "")]
    [TestCase("\r\r\n", "\r")]
    [TestCase("a\r\n", "a")]
    [TestCase("12345\n", "12345")]
    [TestCase("12345\r\n", "12345")]
    public void LineReader_SequenceOfOneLine(string input, string expected)
    {
        var sequence = new ReadOnlySequence<byte>(Encoding.UTF8.GetBytes(input));
        Assert.That(new LineReader(5).TryRead(ref sequence, out var line), Is.True);
        Assert.That(Encoding.UTF8.GetString(line.ToArray()), Is.EqualTo(expected));
        Assert.That(sequence.IsEmpty, Is.True);
    }

    [TestCase("123456\n")]
    [TestCase("1234567")]
    public void LineReader_SequenceTooLong_IsRefused(string input)
    {
        var sequence = new ReadOnlySequence<byte>(Encoding.UTF8.GetBytes(input));
        Assert.Throws<InvalidDataException>(() => new LineReader(5).TryRead(ref sequence, out _));
    }

    [TestCase("", null)]
    [TestCase("abc", "abc")]
    [TestCase("abc\r", "abc")]
    [TestCase("\r", "")]
    [TestCase("12345\r", "12345")]
    public void LineReader_Rest(string input, string? expected)
    {
        var reader = new LineReader(5);
        Put(reader, input);
        Assert.That(reader.TryRead(out string? none), Is.False);
        Assert.That(none, Is.Null);
        Assert.That(reader.TryReadRest(out var rest), Is.EqualTo(expected is not null));
        Assert.That(Text(rest), Is.EqualTo(expected ?? ""));
        Assert.That(reader.IsEmpty, Is.True);
        Put(reader, "x\n");
        Assert.That(reader.TryRead(out string? line), Is.True, "and begins anew");
        Assert.That(line, Is.EqualTo("x"));
    }

    [Test]
    public void LineReader_RestTooLong_IsRefused()
    {
        var reader = new LineReader(5);
        Put(reader, "123456");
        Assert.Throws<InvalidDataException>(() => reader.TryReadRest(out _));
    }

    [Test]
    public void Readers_RoomForAsMuchAsIsAskedFor()
    {
        (IBufferWriter<byte> Reader, int Most)[] readers = [(new LineReader(10_000), 10_002), (new FrameReader(10_000), 10_004)];
        foreach (var (reader, most) in readers)
        {
            Assert.That(reader.GetMemory().Length, Is.EqualTo(First));
            Assert.That(reader.GetSpan(5000).Length, Is.EqualTo(2 * First));
            Assert.That(reader.GetMemory(9000).Length, Is.EqualTo(most));
        }
    }

    // ---- frames

    [Test]
    public void FrameReader_Bounds()
    {
        Assert.That(new FrameReader(0).MaxSize, Is.Zero);
        Assert.That(new FrameReader(Most - 4).MaxSize, Is.EqualTo(Most - 4));
        Assert.Throws<ArgumentOutOfRangeException>(() => _ = new FrameReader(Most - 3));
        Assert.Throws<ArgumentOutOfRangeException>(() => _ = new FrameWriter(Most - 3));
        Assert.That(new FrameWriter(Most - 4).MaxSize, Is.EqualTo(Most - 4));
        Assert.That(new FrameWriter(0).MaxSize, Is.Zero);
    }

    [Test]
    public void FrameReader_AlmostAFrame_TakesNothing()
    {
        var bytes = new byte[] { 0, 0, 0, 2, 8, 9 };
        for (var length = 0; length < bytes.Length; length++)
        {
            var reader = new FrameReader(2);
            bytes.AsSpan(0, length).CopyTo(reader.GetSpan());
            reader.Advance(length);
            Assert.That(reader.TryRead(out ReadOnlyMemory<byte> frame), Is.False);
            Assert.That(frame.Length, Is.Zero);
            Assert.That(reader.IsEmpty, Is.EqualTo(length == 0));
            var sequence = new ReadOnlySequence<byte>(bytes, 0, length);
            Assert.That(reader.TryRead(ref sequence, out var part), Is.False);
            Assert.That((sequence.Length, part.Length), Is.EqualTo(((long)length, 0L)));
        }
        var whole = new ReadOnlySequence<byte>(bytes);
        Assert.That(new FrameReader(2).TryRead(ref whole, out var taken), Is.True);
        Assert.That(taken.ToArray(), Is.EqualTo(new byte[] { 8, 9 }));
        Assert.That(whole.IsEmpty, Is.True);
        whole = new ReadOnlySequence<byte>(bytes);
        Assert.Throws<InvalidDataException>(() => new FrameReader(1).TryRead(ref whole, out _));
    }

    [TestCase(10, 65536)]
    [TestCase(4092, 65536)]
    [TestCase(4093, 16 * 4097)]
    [TestCase(8192, 16 * 8196)]
    public void FrameWriter_ByDefault_QueuesSixteenOfTheLargest_OrSixtyFourKibibytes(int maxSize, int queue)
    {
        var writer = new FrameWriter(maxSize);
        var frame = new byte[maxSize];
        var queued = 0;
        for (; writer.TryWrite(frame); queued += frame.Length + 4) Assert.That(queued, Is.LessThan(queue));
        for (; writer.TryWrite([]); queued += 4) Assert.That(queued, Is.LessThan(queue));
        Assert.That(queue - queued, Is.InRange(0, 3));
        Assert.That(writer.Unwritten.Length, Is.EqualTo(queued));
    }

    [Test]
    public void FrameWriter_QueueOfTheLargestFrameExactly_Holds()
    {
        var writer = new FrameWriter(10, 14);
        Assert.That(writer.IsEmpty, Is.True);
        Assert.That(writer.TryWrite(new byte[10]), Is.True);
        Assert.That(writer.IsEmpty, Is.False);
        Assert.That(writer.TryWrite([]), Is.False);
        writer.Advance(0);
        writer.Advance(14);
        Assert.That(writer.IsEmpty, Is.True);
        Assert.Throws<ArgumentOutOfRangeException>(() => writer.Advance(1));
        Assert.Throws<ArgumentNullException>(() => FrameWriter.Write(null!, []));
    }

    [Test]
    public void FrameWriter_Write_AsksForTheRoomThatItNeeds()
    {
        var output = new ArrayBufferWriter<byte>(1);
        FrameWriter.Write(output, [1, 2, 3]);
        Assert.That(output.WrittenSpan.ToArray(), Is.EqualTo(new byte[] { 0, 0, 0, 3, 1, 2, 3 }));
    }
}
