using System.Buffers;
using System.Buffers.Binary;
using System.IO.Pipelines;
using System.Text;

namespace Amy.Async.Tests.Codecs;

/// <summary>amy's codec tests, and what amy gets wrong: the maximum, zero-length frames, compaction.</summary>
[TestFixture]
internal sealed class CodecTests
{
    private static byte[] Utf8(string text) => Encoding.UTF8.GetBytes(text);

    private static byte[] Framed(params byte[][] frames)
    {
        var output = new ArrayBufferWriter<byte>();
        foreach (var frame in frames) FrameWriter.Write(output, frame);
        return output.WrittenSpan.ToArray();
    }

    private static List<string> Lines(LineReader reader, byte[] input, IEnumerable<int> cuts)
    {
        var lines = new List<string>();
        var start = 0;
        foreach (var end in cuts.Append(input.Length))
        {
            for (var at = start; at < end;)
            {
                var room = reader.GetSpan();
                var count = Math.Min(room.Length, end - at);
                input.AsSpan(at, count).CopyTo(room);
                reader.Advance(count);
                at += count;
                while (reader.TryRead(out string? line)) lines.Add(line!);
            }
            start = end;
        }
        return lines;
    }

    private static List<byte[]> Frames(FrameReader reader, byte[] input, IEnumerable<int> cuts)
    {
        var frames = new List<byte[]>();
        var start = 0;
        foreach (var end in cuts.Append(input.Length))
        {
            for (var at = start; at < end;)
            {
                var room = reader.GetSpan();
                var count = Math.Min(room.Length, end - at);
                input.AsSpan(at, count).CopyTo(room);
                reader.Advance(count);
                at += count;
                while (reader.TryRead(out ReadOnlyMemory<byte> frame)) frames.Add(frame.ToArray());
            }
            start = end;
        }
        return frames;
    }

    private sealed class Segment : ReadOnlySequenceSegment<byte>
    {
        internal static ReadOnlySequence<byte> Split(byte[] bytes, params int[] cuts)
        {
            Segment? first = null, last = null;
            var start = 0;
            foreach (var end in cuts.Append(bytes.Length))
            {
                var next = new Segment { Memory = bytes.AsMemory(start, end - start), RunningIndex = start };
                if (last is null) first = next;
                else last.Next = next;
                last = next;
                start = end;
            }
            return new ReadOnlySequence<byte>(first!, 0, last!, last!.Memory.Length);
        }
    }

    // ---- lines

    /// <summary>amy: lines split anywhere.</summary>
    [Test]
    public void Lines_SplitAtEveryPairOfPlaces_AreTheSame()
    {
        var input = Utf8("one\n\r\ntwo\r\n\nä€😀\nlast\rone\r\r\n");
        string[] expected = ["one", "", "two", "", "ä€😀", "last\rone\r"];
        for (var a = 0; a <= input.Length; a++)
            for (var b = a; b <= input.Length; b++)
            {
                Assert.That(Lines(new LineReader(100), input, [a, b]), Is.EqualTo(expected));
                var sequence = Segment.Split(input, a, b);
                var reader = new LineReader(100);
                var lines = new List<string>();
                while (reader.TryRead(ref sequence, out var line)) lines.Add(Encoding.UTF8.GetString(line.ToArray()));
                Assert.That(lines, Is.EqualTo(expected));
                Assert.That(sequence.IsEmpty, Is.True);
            }
    }

    /// <summary>amy: a partial line is kept, and moved to the front when room is needed.</summary>
    [Test]
    public void Lines_PartialLineInAFullBuffer_IsCompacted()
    {
        var reader = new LineReader(5000);
        var text = new string('x', 3000) + "\n" + new string('y', 4999) + "\n" + new string('z', 5000) + "\r\n";
        Assert.That(Lines(reader, Utf8(text), []).Select(l => (l[0], l.Length)), Is.EqualTo(new[] { ('x', 3000), ('y', 4999), ('z', 5000) }));
        Assert.That(reader.IsEmpty, Is.True);
    }

    /// <summary>amy: a full buffer without a newline is refused, not taken for the end.</summary>
    [TestCase(1)]
    [TestCase(10)]
    [TestCase(4096)]
    [TestCase(10_000)]
    public void Lines_LongerThanTheMaximum_AreRefused_AndExactlyTheMaximumIsNot(int max)
    {
        Assert.That(Lines(new LineReader(max), Utf8(new string('a', max) + "\r\n"), []), Has.Count.EqualTo(1));
        Assert.That(Lines(new LineReader(max), Utf8(new string('a', max) + "\n"), []), Has.Count.EqualTo(1));
        Assert.Throws<InvalidDataException>(() => Lines(new LineReader(max), Utf8(new string('a', max + 1) + "\n"), []));
        Assert.Throws<InvalidDataException>(() => Lines(new LineReader(max), Utf8(new string('a', max + 2)), Enumerable.Range(0, max + 2)));
        var sequence = new ReadOnlySequence<byte>(Utf8(new string('a', max + 2)));
        Assert.Throws<InvalidDataException>(() => new LineReader(max).TryRead(ref sequence, out _));
    }

    [Test]
    public void Lines_Rest_IsTheLastLineWithoutAnEnd()
    {
        var reader = new LineReader(10);
        Assert.That(Lines(reader, Utf8("a\nbc"), []), Is.EqualTo(new[] { "a" }));
        Assert.That(reader.IsEmpty, Is.False);
        Assert.That(reader.TryReadRest(out var rest), Is.True);
        Assert.That(rest.ToArray(), Is.EqualTo(Utf8("bc")));
        Assert.That(reader.TryReadRest(out _), Is.False);
    }

    [Test]
    public void Lines_NotUtf8_AreRefusedAsTextAndGivenAsBytes()
    {
        var reader = new LineReader(10);
        new byte[] { 0xC3, 0x28, (byte)'\n', 0xFF, (byte)'\n' }.CopyTo(reader.GetSpan());
        reader.Advance(5);
        Assert.Throws<InvalidDataException>(() => reader.TryRead(out string? _));
        Assert.That(reader.TryRead(out ReadOnlyMemory<byte> line) && line.Span[0] == 0xFF, Is.True);
    }

    [Test]
    public void Readers_FullOfUnreadMessages_SaySo()
    {
        var lines = new LineReader(10);
        lines.GetSpan().Fill((byte)'\n');
        lines.Advance(lines.GetSpan().Length);
        Assert.Throws<InvalidOperationException>(() => lines.GetMemory());
        Assert.That(lines.TryRead(out string? empty) && empty!.Length == 0, Is.True);
        Assert.That(lines.GetMemory().Length, Is.EqualTo(1));
        Assert.Throws<InvalidOperationException>(() => lines.GetMemory(5000));
        Assert.Throws<ArgumentOutOfRangeException>(() => lines.GetMemory(-1));
        Assert.Throws<ArgumentOutOfRangeException>(() => lines.Advance(2));
        Assert.Throws<ArgumentOutOfRangeException>(() => lines.Advance(-1));
        Assert.Throws<ArgumentOutOfRangeException>(() => _ = new LineReader(0));
    }

    // ---- frames

    /// <summary>amy: header split anywhere, value split anywhere, several frames in one read, zero-length frames.</summary>
    [Test]
    public void Frames_SplitAtEveryPairOfPlaces_AreTheSame()
    {
        byte[][] expected = [[1, 2, 3], [], [], [4], [5, 6, 7, 8, 9, 10]];
        var input = Framed(expected);
        for (var a = 0; a <= input.Length; a++)
            for (var b = a; b <= input.Length; b++)
            {
                Assert.That(Frames(new FrameReader(6), input, [a, b]), Is.EqualTo(expected));
                var sequence = Segment.Split(input, a, b);
                var reader = new FrameReader(6);
                var frames = new List<byte[]>();
                while (reader.TryRead(ref sequence, out var frame)) frames.Add(frame.ToArray());
                Assert.That(frames, Is.EqualTo(expected));
                Assert.That(sequence.IsEmpty, Is.True);
            }
    }

    /// <summary>amy's fault mended: over the maximum is refused before anything is allocated.</summary>
    [TestCase(11u)]
    [TestCase(0x7FFFFFFFu)]
    [TestCase(0x80000000u)]
    [TestCase(0xFFFFFFFFu)]
    public void Frames_AnnouncedOverTheMaximum_AreRefusedWithoutAllocating(uint size)
    {
        var reader = new FrameReader(10);
        BinaryPrimitives.WriteUInt32BigEndian(reader.GetSpan(), size);
        reader.Advance(4);
        Assert.Throws<InvalidDataException>(() => reader.TryRead(out _)); // warms up
        var before = GC.GetAllocatedBytesForCurrentThread();
        try
        {
            reader.TryRead(out ReadOnlyMemory<byte> _);
            Assert.Fail("refused");
        }
        catch (InvalidDataException)
        {
            Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.LessThan(10_000), "the exception alone");
        }
        var sequence = new ReadOnlySequence<byte>(Framed([])[..0].Concat(new byte[] { 0xFF, 0xFF, 0xFF, 0xFF }).ToArray());
        Assert.Throws<InvalidDataException>(() => new FrameReader(10).TryRead(ref sequence, out _));
    }

    /// <summary>A large maximum is not a large allocation: room grows with what has arrived.</summary>
    [Test]
    public void Frames_LargeOneAnnouncedAndNeverSent_TakesNoRoom()
    {
        var reader = new FrameReader(1 << 30);
        BinaryPrimitives.WriteUInt32BigEndian(reader.GetSpan(), 1 << 30);
        reader.Advance(4);
        var before = GC.GetAllocatedBytesForCurrentThread();
        for (var i = 0; i < 100_000; i++)
        {
            if (reader.TryRead(out ReadOnlyMemory<byte> _)) Assert.Fail("not whole");
            reader.GetSpan()[0] = 1;
            reader.Advance(1);
        }
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.LessThan(300_000));
    }

    [Test]
    public void Frames_OfAMegabyte_ComeThrough()
    {
        var large = new byte[1 << 20];
        new Random(1).NextBytes(large);
        Assert.That(Frames(new FrameReader(1 << 20), Framed(large, [1], large), [5, 100_000]).Select(f => f.Length), Is.EqualTo(new[] { 1 << 20, 1, 1 << 20 }));
    }

    /// <summary>amy: a writer that fills exactly, continues, and resumes after would-block.</summary>
    [Test]
    public void FrameWriter_WrittenOutInPieces_GivesTheSameFrames()
    {
        byte[][] expected = [[1, 2, 3], [], [4, 5], new byte[500]];
        for (var piece = 1; piece < 520; piece++)
        {
            var writer = new FrameWriter(500);
            var output = new List<byte>();
            foreach (var frame in expected)
            {
                Assert.That(writer.TryWrite(frame), Is.True);
                var take = Math.Min(piece, writer.Unwritten.Length); // the socket takes a piece, the rest waits
                output.AddRange(writer.Unwritten.Span.Slice(0, take).ToArray());
                writer.Advance(take);
            }
            while (!writer.IsEmpty)
            {
                var take = Math.Min(piece, writer.Unwritten.Length);
                output.AddRange(writer.Unwritten.Span.Slice(0, take).ToArray());
                writer.Advance(take);
            }
            Assert.That(Frames(new FrameReader(500), [.. output], []), Is.EqualTo(expected));
        }
    }

    [Test]
    public void FrameWriter_Bounds()
    {
        var writer = new FrameWriter(10, 20);
        Assert.Throws<ArgumentException>(() => writer.TryWrite(new byte[11]));
        Assert.That(writer.TryWrite(new byte[10]), Is.True);
        Assert.That(writer.TryWrite(new byte[3]), Is.False, "14 wait, 7 more are over 20");
        Assert.That(writer.TryWrite(new byte[2]), Is.True, "exactly 20");
        writer.Advance(1);
        Assert.That(writer.TryWrite([]), Is.False);
        writer.Advance(3);
        Assert.That(writer.TryWrite([]), Is.True);
        Assert.Throws<ArgumentOutOfRangeException>(() => writer.Advance(21));
        Assert.Throws<ArgumentOutOfRangeException>(() => writer.Advance(-1));
        Assert.Throws<ArgumentOutOfRangeException>(() => _ = new FrameWriter(10, 13));
        Assert.Throws<ArgumentOutOfRangeException>(() => _ = new FrameWriter(-1));
        Assert.Throws<ArgumentOutOfRangeException>(() => _ = new FrameReader(-1));
    }

    [Test]
    public void Messages_AfterWarmUp_AllocateNothing()
    {
        var lines = new LineReader(100);
        var frames = new FrameReader(100);
        var writer = new FrameWriter(100);
        var line = Utf8("a line of some length\r\n");
        var frame = new byte[50];
        var count = 0;
        void Round()
        {
            for (var i = 0; i < 7; i++)
            {
                line.CopyTo(lines.GetSpan(line.Length));
                lines.Advance(line.Length);
                writer.TryWrite(frame);
            }
            while (lines.TryRead(out ReadOnlyMemory<byte> _)) count++;
            var bytes = writer.Unwritten.Span;
            bytes.CopyTo(frames.GetSpan(bytes.Length));
            frames.Advance(bytes.Length);
            writer.Advance(bytes.Length);
            while (frames.TryRead(out ReadOnlyMemory<byte> _)) count++;
        }
        for (var i = 0; i < 1000; i++) Round();
        var before = GC.GetAllocatedBytesForCurrentThread();
        for (var i = 0; i < 1000; i++) Round();
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.Zero);
        Assert.That(count, Is.EqualTo(2000 * 14));
    }

    // ---- pipes

    [Test]
    public async Task Pipe_LinesAndFrames_ByteByByte()
    {
        var pipe = new Pipe();
        var feed = Task.Run(async () =>
        {
            foreach (var b in Utf8("one\r\ntwo\nthree"))
            {
                await pipe.Writer.WriteAsync(new[] { b });
                await Task.Yield();
            }
            await pipe.Writer.CompleteAsync();
        });
        var lines = new List<string>();
        await foreach (var line in pipe.Reader.ReadLinesAsync()) lines.Add(line);
        Assert.That(lines, Is.EqualTo(new[] { "one", "two", "three" }));
        await feed;

        pipe = new Pipe();
        FrameWriter.Write(pipe.Writer, [1, 2]);
        FrameWriter.Write(pipe.Writer, []);
        await pipe.Writer.WriteAsync(new byte[] { 0, 0 });
        await pipe.Writer.CompleteAsync();
        var frames = new List<byte[]>();
        Assert.ThrowsAsync<EndOfStreamException>(async () =>
        {
            await foreach (var frame in pipe.Reader.ReadFramesAsync(10)) frames.Add(frame.ToArray());
        });
        Assert.That(frames, Is.EqualTo(new[] { new byte[] { 1, 2 }, [] }));
    }
}
