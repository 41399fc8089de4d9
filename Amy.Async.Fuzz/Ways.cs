using System.Buffers;
using System.IO.Pipelines;
using System.Text;

namespace Amy.Async.Fuzz;

/// <summary>
/// The ways in which bytes come to a codec, in pieces: into its own buffer, as a sequence of segments, through a pipe. Each gives
/// what becomes of them. Whatever a codec throws that its documentation does not name goes through.
/// </summary>
internal static class Ways
{
    private const int MostPieces = 600;

    /// <summary>Lines out of the reader's own buffer.</summary>
    internal static Decoded Buffered(LineReader reader, byte[] input, int[] pieces)
    {
        var lines = new List<byte[]>();
        try
        {
            Feed(reader, input, pieces, () =>
            {
                while (reader.TryRead(out ReadOnlyMemory<byte> line)) lines.Add(line.ToArray());
            });
            if (reader.TryReadRest(out var rest)) lines.Add(rest.ToArray());
            return new(lines, reader.IsEmpty ? End.Whole : End.CutOff);
        }
        catch (InvalidDataException)
        {
            return new(lines, End.Refused);
        }
    }

    /// <summary>Frames out of the reader's own buffer.</summary>
    internal static Decoded Buffered(FrameReader reader, byte[] input, int[] pieces)
    {
        var frames = new List<byte[]>();
        try
        {
            Feed(reader, input, pieces, () =>
            {
                while (reader.TryRead(out ReadOnlyMemory<byte> frame)) frames.Add(frame.ToArray());
            });
            return new(frames, reader.IsEmpty ? End.Whole : End.CutOff);
        }
        catch (InvalidDataException)
        {
            return new(frames, End.Refused);
        }
    }

    /// <summary>
    /// What a reader allocates for an input that nobody keeps: arrays of at most twice what has arrived, never beyond the limit,
    /// each at most once; and at most one exception.
    /// </summary>
    internal static void MustStayBounded(IBufferWriter<byte> reader, Action takeAll, byte[] input, int[] pieces, int limit)
    {
        const int FirstSize = 4096, Exception = 64 * 1024;
        var before = GC.GetAllocatedBytesForCurrentThread();
        try
        {
            Feed(reader, input, pieces, takeAll);
        }
        catch (InvalidDataException)
        {
            // refused
        }
        var allocated = GC.GetAllocatedBytesForCurrentThread() - before;
        var most = 3L * Math.Min(Math.Max(limit, FirstSize), Math.Max(FirstSize, 2L * input.Length));
        if (allocated > most + Exception) throw new BrokenPromiseException($"{allocated} bytes were allocated for {input.Length}, with a limit of {limit}.");
    }

    private static void Feed(IBufferWriter<byte> reader, byte[] input, int[] pieces, Action takeAll)
    {
        var at = 0;
        foreach (var end in Ends(input.Length, pieces))
        {
            while (at < end)
            {
                var room = reader.GetSpan();
                if (room.IsEmpty) throw new BrokenPromiseException("There is no room, and that is not said.");
                var count = Math.Min(room.Length, end - at);
                input.AsSpan(at, count).CopyTo(room);
                reader.Advance(count);
                at += count;
                takeAll();
            }
        }
    }

    private delegate bool TakeOff(ref ReadOnlySequence<byte> sequence, out ReadOnlySequence<byte> message);

    /// <summary>Lines off sequences that grow, in segments.</summary>
    internal static Decoded Sequences(LineReader reader, byte[] input, int[] pieces)
    {
        var decoded = Sequences(reader.TryRead, input, pieces, out var left);
        if (decoded.End != End.CutOff) return decoded;
        try
        {
            decoded.Messages.Add(reader.Rest(left.ToArray()).ToArray());
            return decoded with { End = End.Whole };
        }
        catch (InvalidDataException)
        {
            return decoded with { End = End.Refused };
        }
    }

    /// <summary>Frames off sequences that grow, in segments.</summary>
    internal static Decoded Sequences(FrameReader reader, byte[] input, int[] pieces) => Sequences(reader.TryRead, input, pieces, out _);

    private static Decoded Sequences(TakeOff tryRead, byte[] input, int[] pieces, out ReadOnlySequence<byte> left)
    {
        var messages = new List<byte[]>();
        var consumed = 0;
        left = default;
        try
        {
            foreach (var end in Ends(input.Length, pieces))
            {
                var sequence = Segment.Of(input, consumed, end, pieces);
                while (true)
                {
                    var before = sequence.Length;
                    if (!tryRead(ref sequence, out var message))
                    {
                        if (sequence.Length != before) throw new BrokenPromiseException("Nothing was read, but something was taken off.");
                        break;
                    }
                    if (sequence.Length >= before) throw new BrokenPromiseException("A message was read, but nothing was taken off.");
                    messages.Add(message.ToArray());
                }
                consumed = end - (int)sequence.Length;
                left = sequence;
            }
            return new(messages, left.IsEmpty ? End.Whole : End.CutOff);
        }
        catch (InvalidDataException)
        {
            return new(messages, End.Refused);
        }
    }

    /// <summary>Lines as text, through a pipe.</summary>
    internal static Task<Decoded> PipeLines(byte[] input, int maxLength, int[] pieces) =>
        ThroughPipe(input, pieces, async (reader, lines) =>
        {
            await foreach (var line in reader.ReadLinesAsync(maxLength).ConfigureAwait(false)) lines.Add(Encoding.UTF8.GetBytes(line));
        });

    /// <summary>Frames, through a pipe.</summary>
    internal static Task<Decoded> PipeFrames(byte[] input, int maxSize, int[] pieces) =>
        ThroughPipe(input, pieces, async (reader, frames) =>
        {
            await foreach (var frame in reader.ReadFramesAsync(maxSize).ConfigureAwait(false)) frames.Add(frame.ToArray());
        });

    private static async Task<Decoded> ThroughPipe(byte[] input, int[] pieces, Func<PipeReader, List<byte[]>, Task> read)
    {
        // Everything runs on this thread, in the writer's flushes.
        var pipe = new Pipe(new PipeOptions(readerScheduler: PipeScheduler.Inline, writerScheduler: PipeScheduler.Inline, pauseWriterThreshold: 0, minimumSegmentSize: 16, useSynchronizationContext: false));
        var reading = DecodedOf(messages => read(pipe.Reader, messages));
        var at = 0;
        foreach (var end in Ends(input.Length, pieces))
        {
            await pipe.Writer.WriteAsync(input.AsMemory(at, end - at)).ConfigureAwait(false);
            at = end;
            if (reading.IsCompleted) break;
        }
        await pipe.Writer.CompleteAsync().ConfigureAwait(false);
        return await reading.ConfigureAwait(false);
    }

    /// <summary>What an asynchronous sequence gives, and how it ends.</summary>
    internal static async Task<Decoded> DecodedOf(Func<List<byte[]>, Task> read)
    {
        var messages = new List<byte[]>();
        try
        {
            await read(messages).ConfigureAwait(false);
            return new(messages, End.Whole);
        }
        catch (InvalidDataException)
        {
            return new(messages, End.Refused);
        }
        catch (EndOfStreamException)
        {
            return new(messages, End.CutOff);
        }
    }

    /// <summary>The lengths of pieces for so many bytes: not so small ones that cutting a long stream takes all the time.</summary>
    internal static int[] Suited(int[] pieces, int length) =>
        length <= MostPieces ? pieces : [.. pieces.Select(p => p == 0 ? 0 : Math.Max(p, length / MostPieces))];

    /// <summary>Where pieces of these lengths end, again and again from the first; none: all at once.</summary>
    internal static IEnumerable<int> Ends(int length, int[] pieces)
    {
        var at = 0;
        for (var i = 0; pieces.Length > 0 && at < length; i++)
        {
            at = Math.Min(length, at + Math.Max(Math.Max(1, length / MostPieces), pieces[i % pieces.Length]));
            if (at < length) yield return at;
        }
        if (length > 0) yield return length;
    }

    private sealed class Segment : ReadOnlySequenceSegment<byte>
    {
        /// <summary>A part of the bytes in segments of these lengths; 0 is an empty one.</summary>
        internal static ReadOnlySequence<byte> Of(byte[] bytes, int start, int end, int[] lengths)
        {
            if (lengths.Length == 0) return new(bytes, start, end - start);
            Segment? first = null, last = null;
            for (int i = 0, at = start; ; i++)
            {
                // Empty ones are as many as there are lengths of zero, not without end.
                var count = Math.Min(end - at, lengths[i % lengths.Length] is 0 && i < lengths.Length ? 0 : Math.Max(1, lengths[i % lengths.Length]));
                var next = new Segment { Memory = bytes.AsMemory(at, count), RunningIndex = at - start };
                if (last is null) first = next;
                else last.Next = next;
                last = next;
                at += count;
                if (at == end) return new(first!, 0, last, last.Memory.Length);
            }
        }
    }
}
