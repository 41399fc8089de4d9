using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Samples;

/// <summary>
/// A small server of the Redis protocol (RESP2), all connections and the data on one loop: no locks. What arrives together is
/// answered with one send.
/// </summary>
public sealed class RespServer : IDisposable
{
    private readonly AsyncSocket _listener;
    private readonly HashSet<AsyncSocket> _connections = [];
    private readonly RespStore _store = new();

    /// <summary>Listens, on the current loop.</summary>
    public RespServer(EndPoint endPoint) => _listener = AsyncSocket.Listen(endPoint);

    public EndPoint EndPoint => _listener.LocalEndPoint!;

    public int Connections => _connections.Count;

    /// <summary>Accepts until disposed.</summary>
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
        foreach (var connection in _connections) connection.Dispose();
    }

    private async Task ServeAsync(AsyncSocket connection)
    {
        _connections.Add(connection);
        var reader = new RespReader();
        var reply = new RespWriter();
        try
        {
            while (true)
            {
                var open = true;
                while (open && reader.TryRead(reply))
                {
                    open = RespCommands.Execute(_store, reader, reply);
                    if (reply.IsLarge) await SendAsync(connection, reply);
                }
                open &= !reader.HasFailed; // a protocol error was answered, and nothing behind it can be understood
                await SendAsync(connection, reply);
                if (!open) break;
                var n = await connection.ReceiveAsync(reader.GetMemory());
                if (n == 0) break;
                reader.Advance(n);
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // The client has gone, or the server is being disposed.
        }
        finally
        {
            _connections.Remove(connection);
            connection.Dispose();
        }
    }

    private static async ValueTask SendAsync(AsyncSocket connection, RespWriter reply)
    {
        if (reply.Written.IsEmpty) return;
        await connection.SendAsync(reply.Written);
        reply.Clear();
    }
}
