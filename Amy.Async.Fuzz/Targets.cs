using System.Buffers;
using System.Net;
using System.Net.Sockets;
using Amy.Async.Compat;
using Amy.Async.Native;

namespace Amy.Async.Fuzz;

/// <summary>
/// What takes bytes that others chose. A target throws if one of the promises does not hold: the right messages, no exception
/// but those that are documented, an end, bounded memory.
/// </summary>
internal static class Targets
{
    /// <summary>The targets by name.</summary>
    internal static readonly IReadOnlyDictionary<string, Action<byte[]>> All = new Dictionary<string, Action<byte[]>>
    {
        ["lines"] = Lines,
        ["frames"] = Frames,
        ["writer"] = Writer,
        ["calls"] = Calls,
        ["addresses"] = Addresses,
        ["control"] = Control,
    };

    /// <summary>A maximum, how the rest is cut, and the rest.</summary>
    private static byte[] Split(byte[] input, int smallest, out int max, out int[] pieces)
    {
        max = smallest;
        pieces = [];
        if (input.Length < 3) return [];
        max = Math.Max(smallest, (input[0] & 0x7F) << (input[0] < 128 ? 0 : 7)); // 0 to 127, or to 16,256
        var count = Math.Min(input[1] & 7, input.Length - 2);
        pieces = new int[count];
        for (var i = 0; i < count; i++) pieces[i] = input[2 + i] < 128 ? input[2 + i] : (input[2 + i] - 127) * 64;
        pieces = Ways.Suited(pieces, input.Length);
        return input[(2 + count)..];
    }

    private static void Lines(byte[] input)
    {
        var bytes = Split(input, 1, out var max, out var pieces);
        var expected = Decoded.OfLines(bytes, max);
        Ways.Buffered(new LineReader(max), bytes, pieces).MustBe(expected, "buffered");
        Ways.Sequences(new LineReader(max), bytes, pieces).MustBe(expected, "sequences");
        Ways.PipeLines(bytes, max, pieces).GetAwaiter().GetResult().MustBe(expected.AsText(), "pipe");
        var reader = new LineReader(max);
        Ways.MustStayBounded(reader, () => { while (reader.TryRead(out ReadOnlyMemory<byte> _)) { } }, bytes, pieces, max + 2);
    }

    private static void Frames(byte[] input)
    {
        var bytes = Split(input, 0, out var max, out var pieces);
        var expected = Decoded.OfFrames(bytes, max);
        Ways.Buffered(new FrameReader(max), bytes, pieces).MustBe(expected, "buffered");
        Ways.Sequences(new FrameReader(max), bytes, pieces).MustBe(expected, "sequences");
        Ways.PipeFrames(bytes, max, pieces).GetAwaiter().GetResult().MustBe(expected, "pipe");
        var reader = new FrameReader(max);
        Ways.MustStayBounded(reader, () => { while (reader.TryRead(out ReadOnlyMemory<byte> _)) { } }, bytes, pieces, max + FrameReader.HeaderSize);
        var output = new ArrayBufferWriter<byte>();
        foreach (var frame in expected.Messages) FrameWriter.Write(output, frame);
        if (!bytes.AsSpan().StartsWith(output.WrittenSpan)) throw new BrokenPromiseException("What was read is not written as it was.");
    }

    /// <summary>Each byte puts a frame in or writes some out; a plain queue tells what must be there.</summary>
    private static void Writer(byte[] input)
    {
        if (input.Length < 2) return;
        var max = input[0] << 4;
        var most = max + FrameReader.HeaderSize + (input[1] << 3);
        var writer = new FrameWriter(max, most);
        var queue = new List<byte>();
        for (var i = 2; i < input.Length; i++)
        {
            var step = input[i];
            if (step >= 128)
            {
                var take = Math.Min((step - 127) * 16, queue.Count);
                writer.Advance(take);
                queue.RemoveRange(0, take);
            }
            else
            {
                var frame = new byte[step * 17];
                Array.Fill(frame, (byte)i);
                var output = new ArrayBufferWriter<byte>();
                FrameWriter.Write(output, frame);
                try
                {
                    var taken = writer.TryWrite(frame);
                    if (frame.Length > max) throw new BrokenPromiseException("A frame over the maximum was taken.");
                    if (taken != (queue.Count + output.WrittenCount <= most)) throw new BrokenPromiseException($"{frame.Length} bytes beside {queue.Count} of {most}: {taken}.");
                    if (taken) queue.AddRange(output.WrittenSpan);
                }
                catch (ArgumentException) when (frame.Length > max)
                {
                    // documented
                }
            }
            if (writer.IsEmpty != (queue.Count == 0) || !writer.Unwritten.Span.SequenceEqual(queue.ToArray()))
                throw new BrokenPromiseException("What waits is not what was put in.");
        }
    }

    /// <summary>Members in any order, with any arguments: only what is documented is thrown, and nothing runs away.</summary>
    private static void Calls(byte[] input)
    {
        if (input.Length < 2) return;
        var max = Math.Max(1, input[0] << 5);
        var lines = new LineReader(max);
        var frames = new FrameReader(max);
        var before = GC.GetAllocatedBytesForCurrentThread();
        for (var i = 1; i < input.Length; i++)
        {
            var argument = i + 1 < input.Length ? input[i + 1] : 0;
            try
            {
                Call(lines, () => lines.TryRead(out ReadOnlyMemory<byte> _), () => lines.TryReadRest(out _), input[i], argument);
                Call(frames, () => frames.TryRead(out ReadOnlyMemory<byte> _), () => frames.IsEmpty, input[i], argument);
            }
            catch (Exception e) when (e is InvalidDataException or InvalidOperationException or ArgumentOutOfRangeException)
            {
                // documented
            }
        }
        var most = input.Length * 32L * 1024 + 8 * Math.Max(4096, max); // an exception each at worst
        if (GC.GetAllocatedBytesForCurrentThread() - before > most) throw new BrokenPromiseException("That is more than arrays and exceptions.");
    }

    private static void Call(IBufferWriter<byte> reader, Func<bool> read, Func<bool> rest, byte step, int argument)
    {
        switch (step & 7)
        {
            case 0:
                read();
                break;
            case 1:
                rest();
                break;
            case 2:
                reader.Advance((argument - 8) * 32);
                break;
            case 3:
                if (reader.GetMemory((argument - 8) * 64).Length < (argument - 8) * 64) throw new BrokenPromiseException("Less room than was asked for.");
                break;
            default:
                var room = reader.GetSpan(step >> 3);
                room[0] = (byte)argument;
                room[Math.Min(argument, room.Length - 1)] = (byte)'\n';
                reader.Advance(Math.Min(argument, room.Length));
                break;
        }
    }

    /// <summary>Any bytes as the kernel's <c>struct sockaddr</c>.</summary>
    private static void Addresses(byte[] input)
    {
        if (input.Length < 1) return;
        var family = (input[0] & 3) switch { 0 => AddressFamily.InterNetwork, 1 => AddressFamily.InterNetworkV6, _ => AddressFamily.Unix };
        var bytes = input.AsSpan(1, Math.Min(input.Length - 1, SocketConstants.AddressCapacity)); // no call of ours gets more
        Span<byte> buffer = stackalloc byte[SocketConstants.AddressCapacity];
        if (Address.Read(bytes, Address.Prototype(family)) is { } endPoint)
        {
            if (endPoint.AddressFamily != family || endPoint.ToString() is null) throw new BrokenPromiseException("That is another address.");
            var written = Address.Write(endPoint, buffer);
            var again = Address.Read(written, Address.Prototype(family)) ?? throw new BrokenPromiseException($"{endPoint} is not read again.");
            if (!again.Equals(endPoint) || again.ToString() != endPoint.ToString()) throw new BrokenPromiseException($"{endPoint} became {again}.");
            _ = SocketInterop.UnixPath(endPoint);
        }

        // The platform's own type, of any size, as a user hands it over and gets it back.
        var address = new SocketAddress(family, Math.Max(2, (int)input[0]));
        for (var i = 2; i < Math.Min(address.Size, input.Length); i++) address[i] = input[i];
        try
        {
            SocketInterop.CopyTo(address, buffer);
            if (address.Size > buffer.Length) throw new BrokenPromiseException("It does not fit, and that is not said.");
        }
        catch (ArgumentException)
        {
            // documented
        }
        try
        {
            SocketInterop.Assign(address, bytes);
            for (var i = 0; i < bytes.Length; i++)
                if (address[i] != bytes[i]) throw new BrokenPromiseException("Not what was assigned.");
        }
        catch (ArgumentException) when (bytes.Length > input[0])
        {
            // documented
        }
    }

    /// <summary>Any bytes as control messages (<c>cmsg(3)</c>), in Linux's layout and in those that are translated.</summary>
    private static void Control(byte[] input)
    {
        var count = 0;
        var length = 0L;
        foreach (var message in new ControlMessages(input))
        {
            count++;
            length += message.Data.Length + ControlMessage.HeaderSize;
        }
        if (length > input.Length) throw new BrokenPromiseException($"{count} messages of {length} bytes in {input.Length}.");
        var received = new ReceivedMessage(0, 0, input, []);
        _ = (received.Timestamp, received.PacketInformation, received.Drops);
        var room = new byte[input.Length / 2 + 8];
        foreach (var numbers in new[] { PlatformNumbers.MacOS, PlatformNumbers.FreeBsd })
        {
            var writer = new ControlWriter(room);
            foreach (var message in new NativeControlMessages(input, numbers)) ControlTranslation.Write(message, input, numbers, ref writer);
            if (writer.Length > room.Length) throw new BrokenPromiseException("More than there is room for.");
            foreach (var message in new ControlMessages(room.AsSpan(0, writer.Length))) _ = message.Data.Length;
            if (ControlTranslation.ToNative(input, room, numbers) > room.Length) throw new BrokenPromiseException("More than there is room for.");
        }
    }
}
