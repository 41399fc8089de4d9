using System.Buffers;
using System.Globalization;
using System.IO.Pipelines;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Amy.Async.Samples;

/// <summary>
/// A small HTTP/1.1 server (RFC 9112) on pipes: a request with a body gets it back, one without a line that describes it.
/// Keep-alive, pipelining, Content-Length and chunked bodies, Expect: 100-continue; all sizes bounded.
/// </summary>
public sealed class HttpEchoServer(EndPoint endPoint) : IDisposable
{
    private const int MaxHead = 16 << 10;
    private const int MaxBody = 1 << 20;

    // A flush waits until the kernel has all, so nothing is left to be sent when a connection is forgotten here.
    private static readonly AsyncPipeOptions s_pipeOptions = new() { PauseWriterThreshold = 0, ResumeWriterThreshold = 0 };

    private readonly AsyncSocket _listener = AsyncSocket.Listen(endPoint);
    private readonly HashSet<AsyncSocket> _open = [];

    public EndPoint EndPoint => _listener.LocalEndPoint!;

    public int Connections => _open.Count;

    public async Task RunAsync()
    {
        try
        {
            while (true) _ = ServeAsync(await _listener.AcceptAsync());
        }
        catch (ObjectDisposedException)
        {
            // Disposed: that is how it ends.
        }
    }

    public void Dispose()
    {
        _listener.Dispose();
        foreach (var connection in _open.ToArray()) connection.Dispose();
    }

    private async Task ServeAsync(AsyncSocket connection)
    {
        _open.Add(connection);
        var pipe = connection.AsPipe(s_pipeOptions);
        try
        {
            while (await ServeOneAsync(pipe))
            {
            }
            await pipe.Output.FlushAsync();
        }
        catch (HttpError e)
        {
            Respond(pipe.Output, e.Status, "text/plain", Encoding.ASCII.GetBytes(e.Message + "\n"), isHead: false, close: true);
            await FlushQuietlyAsync(pipe.Output);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // The client has gone.
        }
        finally
        {
            pipe.Output.Complete();
            pipe.Input.Complete(); // both: the socket is disposed
            _open.Remove(connection);
        }
    }

    /// <summary>One request and its answer. False: the connection ends here.</summary>
    private static async Task<bool> ServeOneAsync(IDuplexPipe pipe)
    {
        if (await ReadHeadAsync(pipe.Input) is not { } head) return false;
        if (head.ExpectsContinue && (head.Length > 0 || head.IsChunked)) await pipe.Output.WriteAsync("HTTP/1.1 100 Continue\r\n\r\n"u8.ToArray());
        var body = head.IsChunked ? await ReadChunksAsync(pipe.Input) : await ReadAsync(pipe.Input, (int)head.Length);
        if (head.IsChunked || head.Length > 0) Respond(pipe.Output, "200 OK", head.ContentType ?? "application/octet-stream", body, head.Method == "HEAD", head.Closes);
        else Respond(pipe.Output, "200 OK", "text/plain", Encoding.UTF8.GetBytes($"{head.Method} {head.Target}\n"), head.Method == "HEAD", head.Closes);
        await pipe.Output.FlushAsync();
        return !head.Closes;
    }

    private sealed record Head(string Method, string Target, long Length, bool IsChunked, bool ExpectsContinue, bool Closes, string? ContentType);

    private sealed class HttpError(string status, string message) : Exception(message)
    {
        public string Status { get; } = status;
    }

    // null: the client has closed between two requests.
    private static async Task<Head?> ReadHeadAsync(PipeReader input)
    {
        while (true)
        {
            var result = await input.ReadAsync();
            var buffer = result.Buffer;
            if (TryFindEnd(buffer, out var head, out var next))
            {
                var text = Encoding.Latin1.GetString(head);
                input.AdvanceTo(next);
                return Parse(text);
            }
            var length = buffer.Length;
            input.AdvanceTo(buffer.Start, buffer.End);
            if (length > MaxHead) throw new HttpError("431 Request Header Fields Too Large", "The head is too large.");
            if (!result.IsCompleted) continue;
            if (length == 0) return null;
            throw new HttpError("400 Bad Request", "The head has no end.");
        }
    }

    private static bool TryFindEnd(ReadOnlySequence<byte> buffer, out ReadOnlySequence<byte> head, out SequencePosition next)
    {
        var reader = new SequenceReader<byte>(buffer);
        var found = reader.TryReadTo(out head, "\r\n\r\n"u8) && head.Length <= MaxHead;
        next = reader.Position;
        return found;
    }

    private static Head Parse(string text)
    {
        var lines = text.TrimStart('\r', '\n').Split("\r\n");
        var request = lines[0].Split(' ');
        if (request.Length != 3 || !request[2].StartsWith("HTTP/1.", StringComparison.Ordinal)) throw new HttpError("400 Bad Request", "The request line is malformed.");
        if (lines.Any(static line => line.Any(static c => c is < ' ' and not '\t' or '\x7F'))) throw new HttpError("400 Bad Request", "A control character."); // might end a line for somebody else
        long? length = null;
        var old = request[2] == "HTTP/1.0";
        var (hosts, chunked, expects, closes, keeps) = (0, false, false, false, !old);
        string? type = null;
        foreach (var line in lines.AsSpan(1))
        {
            var colon = line.IndexOf(':', StringComparison.Ordinal);
            if (colon <= 0 || line[colon - 1] is ' ' or '\t') throw new HttpError("400 Bad Request", "A header is malformed.");
            var value = line[(colon + 1)..].Trim();
            switch (line[..colon].ToLowerInvariant())
            {
                case "content-length":
                    if (length is not null || !long.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out var number)) throw new HttpError("400 Bad Request", "The length is malformed.");
                    length = number;
                    break;
                case "transfer-encoding":
                    if (!value.Equals("chunked", StringComparison.OrdinalIgnoreCase)) throw new HttpError("501 Not Implemented", "Of the transfer encodings only chunked is known.");
                    chunked = true;
                    break;
                case "expect":
                    expects = value.Equals("100-continue", StringComparison.OrdinalIgnoreCase);
                    break;
                case "connection":
                    var tokens = value.Split(',', StringSplitOptions.TrimEntries);
                    closes |= tokens.Contains("close", StringComparer.OrdinalIgnoreCase);
                    keeps |= tokens.Contains("keep-alive", StringComparer.OrdinalIgnoreCase);
                    break;
                case "host":
                    hosts++;
                    break;
                case "content-type":
                    type = value;
                    break;
            }
        }
        if (hosts > 1 || hosts == 0 && !old) throw new HttpError("400 Bad Request", "One host is needed.");
        if (chunked && length is not null) throw new HttpError("400 Bad Request", "A length and chunks at once."); // how requests are smuggled
        if (length > MaxBody) throw new HttpError("413 Content Too Large", "The body is too large.");
        return new Head(request[0], request[1], length ?? 0, chunked, expects, closes || !keeps, type);
    }

    private static async Task<byte[]> ReadAsync(PipeReader input, int length)
    {
        if (length == 0) return [];
        var result = await input.ReadAtLeastAsync(length);
        if (result.Buffer.Length < length) throw new HttpError("400 Bad Request", "The body has no end.");
        var body = result.Buffer.Slice(0, length);
        var bytes = body.ToArray();
        input.AdvanceTo(body.End);
        return bytes;
    }

    private static async Task<byte[]> ReadChunksAsync(PipeReader input)
    {
        var body = new MemoryStream();
        while (true)
        {
            var line = await ReadLineAsync(input);
            var size = line.Split(';')[0].Trim();
            if (!int.TryParse(size, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var length) || length < 0) throw new HttpError("400 Bad Request", "A chunk is malformed.");
            if (body.Length + length > MaxBody) throw new HttpError("413 Content Too Large", "The body is too large.");
            if (length == 0) break;
            body.Write(await ReadAsync(input, length));
            if (await ReadLineAsync(input) != "") throw new HttpError("400 Bad Request", "A chunk has no end.");
        }
        for (var trailers = 0; await ReadLineAsync(input) != "";)
            if (++trailers > 100) throw new HttpError("431 Request Header Fields Too Large", "Too many trailers.");
        return body.ToArray();
    }

    private static async Task<string> ReadLineAsync(PipeReader input)
    {
        while (true)
        {
            var result = await input.ReadAsync();
            var buffer = result.Buffer;
            if (buffer.PositionOf((byte)'\n') is { } end)
            {
                var line = Encoding.Latin1.GetString(buffer.Slice(0, end)).TrimEnd('\r');
                input.AdvanceTo(buffer.GetPosition(1, end));
                return line;
            }
            var length = buffer.Length;
            input.AdvanceTo(buffer.Start, buffer.End);
            if (length > MaxHead || result.IsCompleted) throw new HttpError("400 Bad Request", "A line has no end.");
        }
    }

    private static void Respond(PipeWriter output, string status, string type, byte[] body, bool isHead, bool close)
    {
        output.Write(Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture,
            $"HTTP/1.1 {status}\r\nContent-Type: {type}\r\nContent-Length: {body.Length}\r\n{(close ? "Connection: close\r\n" : "")}\r\n")));
        if (!isHead) output.Write(body);
    }

    private static async Task FlushQuietlyAsync(PipeWriter output)
    {
        try
        {
            await output.FlushAsync();
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // Nobody is there to be told.
        }
    }
}
