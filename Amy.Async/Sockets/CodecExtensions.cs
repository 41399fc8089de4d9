using System.Buffers;
using System.IO.Pipelines;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Amy.Async;

/// <summary>Lines and frames of sockets and pipes, as asynchronous sequences, and sending what a <see cref="FrameWriter"/> holds.</summary>
/// <remarks>
/// A sequence waits only when no whole message is there; messages that arrived together cost nothing but the codec, and a
/// wait costs one small object. Enumerate on the socket's loop, or anywhere else: where an await goes on is decided as for
/// any await. The sequences take part in the reading direction: no other receive meanwhile.
/// </remarks>
public static class CodecExtensions
{
    private const int DefaultMaxLength = 64 * 1024;

    /// <summary>The lines that the peer sends, as UTF-8 text, until it ends the stream; the last one needs no end.</summary>
    /// <param name="socket">Where to receive.</param>
    /// <param name="maxLength">The most bytes of a line, without its end.</param>
    /// <param name="cancellationToken">Ends the sequence with an <see cref="OperationCanceledException"/>.</param>
    /// <exception cref="InvalidDataException">A line is too long, or not UTF-8.</exception>
    /// <exception cref="SocketException">The connection failed.</exception>
    public static async IAsyncEnumerable<string> ReadLinesAsync(this AsyncSocket socket, int maxLength = DefaultMaxLength, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        if (socket is null) throw new ArgumentNullException(nameof(socket));
        var reader = new LineReader(maxLength);
        do
        {
            while (reader.TryRead(out string? line)) yield return line!;
        }
        while (await Fill(socket, reader, cancellationToken).ConfigureAwait(false));
        if (reader.TryReadRest(out var rest)) yield return LineReader.Decode(rest);
    }

    /// <summary>The frames that the peer sends, until it ends the stream. Each is valid until the next is asked for.</summary>
    /// <param name="socket">Where to receive.</param>
    /// <param name="maxSize">The most bytes of a frame, without its header.</param>
    /// <param name="cancellationToken">Ends the sequence with an <see cref="OperationCanceledException"/>.</param>
    /// <exception cref="InvalidDataException">A frame is too large.</exception>
    /// <exception cref="EndOfStreamException">The stream ended within a frame.</exception>
    /// <exception cref="SocketException">The connection failed.</exception>
    public static async IAsyncEnumerable<ReadOnlyMemory<byte>> ReadFramesAsync(this AsyncSocket socket, int maxSize, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        if (socket is null) throw new ArgumentNullException(nameof(socket));
        var reader = new FrameReader(maxSize);
        do
        {
            while (reader.TryRead(out ReadOnlyMemory<byte> frame)) yield return frame;
        }
        while (await Fill(socket, reader, cancellationToken).ConfigureAwait(false));
        if (!reader.IsEmpty) throw CutOff();
    }

    /// <summary>The lines in a pipe, as UTF-8 text, until its writer completes; the last one needs no end.</summary>
    /// <exception cref="InvalidDataException">A line is too long, or not UTF-8.</exception>
    public static async IAsyncEnumerable<string> ReadLinesAsync(this PipeReader pipe, int maxLength = DefaultMaxLength, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        if (pipe is null) throw new ArgumentNullException(nameof(pipe));
        var reader = new LineReader(maxLength);
        while (true)
        {
            var result = await pipe.ReadAsync(cancellationToken).ConfigureAwait(false);
            if (result.IsCanceled) throw new OperationCanceledException();
            var buffer = result.Buffer;
            while (reader.TryRead(ref buffer, out var line)) yield return LineReader.Decode(Contiguous(line));
            if (result.IsCompleted)
            {
                if (buffer.Length > 0) yield return LineReader.Decode(Contiguous(buffer));
                pipe.AdvanceTo(buffer.End);
                yield break;
            }
            pipe.AdvanceTo(buffer.Start, buffer.End);
        }
    }

    /// <summary>The frames in a pipe, until its writer completes. Each is valid until the next is asked for.</summary>
    /// <exception cref="InvalidDataException">A frame is too large.</exception>
    /// <exception cref="EndOfStreamException">The writer completed within a frame.</exception>
    public static async IAsyncEnumerable<ReadOnlySequence<byte>> ReadFramesAsync(this PipeReader pipe, int maxSize, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        if (pipe is null) throw new ArgumentNullException(nameof(pipe));
        var reader = new FrameReader(maxSize);
        while (true)
        {
            var result = await pipe.ReadAsync(cancellationToken).ConfigureAwait(false);
            if (result.IsCanceled) throw new OperationCanceledException();
            var buffer = result.Buffer;
            while (reader.TryRead(ref buffer, out var frame)) yield return frame;
            if (result.IsCompleted && buffer.Length > 0) throw CutOff();
            pipe.AdvanceTo(buffer.Start, buffer.End);
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

    /// <summary>Receives once. False: the end of the stream.</summary>
    private static async ValueTask<bool> Fill(AsyncSocket socket, IBufferWriter<byte> into, CancellationToken cancellationToken)
    {
        var received = await socket.ReceiveAsync(into.GetMemory(), cancellationToken).ConfigureAwait(false);
        into.Advance(received);
        return received > 0;
    }

    private static ReadOnlyMemory<byte> Contiguous(ReadOnlySequence<byte> bytes) => bytes.IsSingleSegment ? bytes.First : bytes.ToArray();

    private static EndOfStreamException CutOff() => new("The stream ended within a frame.");
}
