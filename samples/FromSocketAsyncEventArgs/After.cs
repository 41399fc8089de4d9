using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Samples;

/// <summary>The same server on AsyncSocket.</summary>
public sealed class After(EndPoint endPoint) : IDisposable
{
    private const int BufferSize = 4096;

    private readonly AsyncSocket _listener = AsyncSocket.Listen(endPoint);
    private readonly HashSet<AsyncSocket> _open = []; // of the loop's thread, like everything here

    public EndPoint EndPoint => _listener.LocalEndPoint!;

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

    private async Task ServeAsync(AsyncSocket connection)
    {
        _open.Add(connection);
        var buffer = new byte[BufferSize];
        try
        {
            for (int n; (n = await connection.ReceiveAsync(buffer)) > 0;) await connection.SendAsync(buffer.AsMemory(0, n));
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // The client has gone, or the server is being disposed.
        }
        finally
        {
            _open.Remove(connection);
            connection.Dispose();
        }
    }

    public void Dispose()
    {
        _listener.Dispose();
        foreach (var connection in _open) connection.Dispose(); // their methods go on later, through the loop's queue
    }
}
