using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Amy.Async.Samples;

/// <summary>What the client talks to: answers a frame with "re: " and its content; "sleep N" answers after N milliseconds.</summary>
public sealed class RequestServer(EndPoint endPoint) : IDisposable
{
    private const int MaxFrame = 1 << 20;

    private readonly AsyncSocket _listener = AsyncSocket.Listen(endPoint);
    private readonly HashSet<AsyncSocket> _open = [];

    public EndPoint EndPoint => _listener.LocalEndPoint!;

    public int Accepted { get; private set; }

    public async Task RunAsync()
    {
        try
        {
            while (true)
            {
                var connection = await _listener.AcceptAsync();
                Accepted++;
                _ = ServeAsync(connection);
            }
        }
        catch (ObjectDisposedException)
        {
            // Disposed: that is how it ends.
        }
    }

    /// <summary>Closes the connections, and goes on accepting others.</summary>
    public void Drop()
    {
        foreach (var connection in _open.ToArray()) connection.Dispose();
    }

    public void Dispose()
    {
        _listener.Dispose();
        Drop();
    }

    private async Task ServeAsync(AsyncSocket connection)
    {
        _open.Add(connection);
        var writer = new FrameWriter(MaxFrame);
        try
        {
            await foreach (var frame in connection.ReadFramesAsync(MaxFrame))
            {
                var text = Encoding.UTF8.GetString(frame.Span);
                if (text.StartsWith("sleep ", StringComparison.Ordinal) && int.TryParse(text.AsSpan(6), NumberStyles.None, CultureInfo.InvariantCulture, out var pause))
                    await connection.Loop.Delay(TimeSpan.FromMilliseconds(pause));
                if (!writer.TryWrite(Encoding.UTF8.GetBytes("re: " + text))) return;
                await connection.SendAsync(writer);
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException or InvalidDataException)
        {
            // Gone, dropped, or not understood.
        }
        finally
        {
            _open.Remove(connection);
            connection.Dispose();
        }
    }
}
