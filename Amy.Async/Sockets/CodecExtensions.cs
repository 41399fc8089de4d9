using System.Buffers;
using System.IO.Pipelines;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Amy.Async;

/// <summary>Lines and frames of sockets and pipes, as asynchronous sequences, and sending what a <see cref="FrameWriter"/> holds.</summary>
/// <remarks>
/// A sequence waits only when no whole message is there; messages that arrived together cost nothing but the codec. On a
/// loop, a wait allocates nothing with <c>ConfigureAwait(false)</c>, and without it one small object and a turn of the loop:
/// the platform's asynchronous iterators post to a captured context. Where neither may be, use the readers directly. The
/// sequences take part in the reading direction: no other receive meanwhile.
/// </remarks>
public static class CodecExtensions
{
    private const int DefaultMaxLength = 64 * 1024;

    /// <summary>The lines that the peer sends, as UTF-8 text, until it ends the stream; the last one needs no end.</summary>
    /// <remarks>What came in behind the last line that was asked for is lost; to go on after a <c>break</c>, pass a reader.</remarks>
    /// <param name="socket">Where to receive.</param>
    /// <param name="maxLength">The most bytes of a line, without its end.</param>
    /// <param name="cancellationToken">Ends the sequence with an <see cref="OperationCanceledException"/>.</param>
    /// <exception cref="InvalidDataException">A line is too long, or not UTF-8.</exception>
    /// <exception cref="SocketException">The connection failed.</exception>
    public static IAsyncEnumerable<string> ReadLinesAsync(this AsyncSocket socket, int maxLength = DefaultMaxLength, CancellationToken cancellationToken = default) =>
        ReadLinesAsync(socket, new LineReader(maxLength), cancellationToken);

    /// <summary>Like <see cref="ReadLinesAsync(AsyncSocket, int, CancellationToken)"/>, beginning with what the reader holds, and
    /// leaving in it what came in behind the last line that was asked for.</summary>
    /// <exception cref="InvalidDataException">A line is too long, or not UTF-8.</exception>
    /// <exception cref="SocketException">The connection failed.</exception>
    public static IAsyncEnumerable<string> ReadLinesAsync(this AsyncSocket socket, LineReader reader, CancellationToken cancellationToken = default)
    {
        if (socket is null) throw new ArgumentNullException(nameof(socket));
        if (reader is null) throw new ArgumentNullException(nameof(reader));
        return Lines(socket, reader, cancellationToken);
    }

    private static async IAsyncEnumerable<string> Lines(AsyncSocket socket, LineReader reader, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        while (true)
        {
            while (reader.TryRead(out string? line)) yield return line!;
            var received = await socket.ReceiveAsync(reader.GetMemory(), cancellationToken).ConfigureAwait(false);
            if (received == 0) break;
            reader.Advance(received);
        }
        if (reader.TryReadRest(out var rest)) yield return LineReader.Decode(rest);
    }

    /// <summary>The frames that the peer sends, until it ends the stream. Each is valid until the next is asked for.</summary>
    /// <remarks>What came in behind the last frame that was asked for is lost; to go on after a <c>break</c>, pass a reader.</remarks>
    /// <param name="socket">Where to receive.</param>
    /// <param name="maxSize">The most bytes of a frame, without its header.</param>
    /// <param name="cancellationToken">Ends the sequence with an <see cref="OperationCanceledException"/>.</param>
    /// <exception cref="InvalidDataException">A frame is too large.</exception>
    /// <exception cref="EndOfStreamException">The stream ended within a frame.</exception>
    /// <exception cref="SocketException">The connection failed.</exception>
    public static IAsyncEnumerable<ReadOnlyMemory<byte>> ReadFramesAsync(this AsyncSocket socket, int maxSize, CancellationToken cancellationToken = default) =>
        ReadFramesAsync(socket, new FrameReader(maxSize), cancellationToken);

    /// <summary>Like <see cref="ReadFramesAsync(AsyncSocket, int, CancellationToken)"/>, beginning with what the reader holds, and
    /// leaving in it what came in behind the last frame that was asked for.</summary>
    /// <exception cref="InvalidDataException">A frame is too large.</exception>
    /// <exception cref="EndOfStreamException">The stream ended within a frame.</exception>
    /// <exception cref="SocketException">The connection failed.</exception>
    public static IAsyncEnumerable<ReadOnlyMemory<byte>> ReadFramesAsync(this AsyncSocket socket, FrameReader reader, CancellationToken cancellationToken = default)
    {
        if (socket is null) throw new ArgumentNullException(nameof(socket));
        if (reader is null) throw new ArgumentNullException(nameof(reader));
        return Frames(socket, reader, cancellationToken);
    }

    private static async IAsyncEnumerable<ReadOnlyMemory<byte>> Frames(AsyncSocket socket, FrameReader reader, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        while (true)
        {
            while (reader.TryRead(out ReadOnlyMemory<byte> frame)) yield return frame;
            var received = await socket.ReceiveAsync(reader.GetMemory(), cancellationToken).ConfigureAwait(false);
            if (received == 0) break;
            reader.Advance(received);
        }
        if (!reader.IsEmpty) throw CutOff();
    }

    /// <summary>The lines in a pipe, as UTF-8 text, until its writer completes; the last one needs no end. After a
    /// <c>break</c> the pipe goes on behind the last line.</summary>
    /// <exception cref="InvalidDataException">A line is too long, or not UTF-8.</exception>
    public static IAsyncEnumerable<string> ReadLinesAsync(this PipeReader pipe, int maxLength = DefaultMaxLength, CancellationToken cancellationToken = default) =>
        pipe is null ? throw new ArgumentNullException(nameof(pipe)) : Lines(pipe, new LineReader(maxLength), cancellationToken);

    private static async IAsyncEnumerable<string> Lines(PipeReader pipe, LineReader reader, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        while (true)
        {
            var result = await pipe.ReadAsync(cancellationToken).ConfigureAwait(false);
            var buffer = result.Buffer;
            var examined = buffer.Start;
            try
            {
                if (result.IsCanceled) throw new OperationCanceledException();
                while (reader.TryRead(ref buffer, out var line))
                {
                    examined = buffer.Start;
                    yield return LineReader.Decode(Contiguous(line));
                }
                examined = buffer.End;
                if (result.IsCompleted && buffer.Length > 0)
                {
                    var rest = LineReader.Decode(reader.Rest(Contiguous(buffer)));
                    buffer = buffer.Slice(buffer.End);
                    yield return rest;
                }
            }
            finally
            {
                pipe.AdvanceTo(buffer.Start, examined);
            }
            if (result.IsCompleted) yield break;
        }
    }

    /// <summary>The frames in a pipe, until its writer completes. Each is valid until the next is asked for. After a
    /// <c>break</c> the pipe goes on behind the last frame.</summary>
    /// <exception cref="InvalidDataException">A frame is too large.</exception>
    /// <exception cref="EndOfStreamException">The writer completed within a frame.</exception>
    public static IAsyncEnumerable<ReadOnlySequence<byte>> ReadFramesAsync(this PipeReader pipe, int maxSize, CancellationToken cancellationToken = default) =>
        pipe is null ? throw new ArgumentNullException(nameof(pipe)) : Frames(pipe, new FrameReader(maxSize), cancellationToken);

    private static async IAsyncEnumerable<ReadOnlySequence<byte>> Frames(PipeReader pipe, FrameReader reader, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        while (true)
        {
            var result = await pipe.ReadAsync(cancellationToken).ConfigureAwait(false);
            var buffer = result.Buffer;
            var examined = buffer.Start;
            try
            {
                if (result.IsCanceled) throw new OperationCanceledException();
                while (reader.TryRead(ref buffer, out var frame))
                {
                    examined = buffer.Start;
                    yield return frame;
                }
                examined = buffer.End;
                if (result.IsCompleted && buffer.Length > 0) throw CutOff();
            }
            finally
            {
                pipe.AdvanceTo(buffer.Start, examined);
            }
            if (result.IsCompleted) yield break;
        }
    }

    /// <summary>Sends what waits in the writer, as much as the kernel takes.</summary>
    /// <returns>True: everything is sent. False: the rest must wait until the socket is writable.</returns>
    /// <exception cref="SocketException">The connection failed.</exception>
    public static bool TrySend(this AsyncSocket socket, FrameWriter writer)
    {
        if (socket is null) throw new ArgumentNullException(nameof(socket));
        if (writer is null) throw new ArgumentNullException(nameof(writer));
        while (!writer.IsEmpty)
        {
            if (!socket.TrySend(writer.Unwritten.Span, out var sent)) return false;
            writer.Advance(sent);
        }
        return true;
    }

    /// <summary>Sends what waits in the writer, as much as the kernel takes. The socket must be non-blocking.</summary>
    /// <returns>True: everything is sent. False: the rest must wait until the socket is writable.</returns>
    /// <exception cref="SocketException">The connection failed.</exception>
    public static bool TrySend(this Socket socket, FrameWriter writer)
    {
        if (socket is null) throw new ArgumentNullException(nameof(socket));
        if (writer is null) throw new ArgumentNullException(nameof(writer));
        while (!writer.IsEmpty)
        {
            var segment = MemoryMarshal.TryGetArray(writer.Unwritten, out var array) ? array : throw new InvalidOperationException();
            var sent = socket.Send(segment.Array!, segment.Offset, segment.Count, SocketFlags.None, out var error);
            if (error == SocketError.WouldBlock) return false;
            if (error != SocketError.Success) throw new SocketException((int)error);
            writer.Advance(sent);
        }
        return true;
    }

    /// <summary>Sends all that waits in the writer. Put no more in before it has ended.</summary>
    /// <exception cref="OperationCanceledException">Cancelled; a part may have been sent, and the stream is broken then.</exception>
    /// <exception cref="SocketException">The connection failed.</exception>
    public static ValueTask SendAsync(this AsyncSocket socket, FrameWriter writer, CancellationToken cancellationToken = default)
    {
        if (socket is null) throw new ArgumentNullException(nameof(socket));
        if (writer is null) throw new ArgumentNullException(nameof(writer));
        if (writer.IsEmpty) return default;
        var send = socket.SendAsync(writer.Unwritten, cancellationToken);
        if (!send.IsCompletedSuccessfully) return Finish(send, writer);
        writer.Advance(send.Result);
        return default;

        static async ValueTask Finish(ValueTask<int> send, FrameWriter writer) => writer.Advance(await send.ConfigureAwait(false));
    }

    private static ReadOnlyMemory<byte> Contiguous(ReadOnlySequence<byte> bytes) => bytes.IsSingleSegment ? bytes.First : bytes.ToArray();

    private static EndOfStreamException CutOff() => new("The stream ended within a frame.");
}
