using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Samples;

/// <summary>An echo server that can stop without cutting anybody off: whoever is connected goes on, nobody new comes.</summary>
public sealed class DrainingServer(EndPoint endPoint)
{
    private readonly AsyncSocket _listener = AsyncSocket.Listen(endPoint);
    private readonly HashSet<AsyncSocket> _open = [];
    private TaskCompletionSource? _drained;

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
            // It stops.
        }
    }

    /// <summary>Stops accepting and waits for the connections to end, as long as the patience lasts; the rest is closed. False: some were.</summary>
    public async Task<bool> StopAsync(Task patience)
    {
        _listener.Dispose();
        if (_open.Count == 0) return true;
        _drained = new TaskCompletionSource();
        await Task.WhenAny(_drained.Task, patience);
        var all = _open.Count == 0;
        foreach (var connection in _open.ToArray()) connection.Dispose();
        return all;
    }

    private async Task ServeAsync(AsyncSocket connection)
    {
        _open.Add(connection);
        try
        {
            var buffer = new byte[4096];
            for (int n; (n = await connection.ReceiveAsync(buffer)) > 0;) await connection.SendAsync(buffer.AsMemory(0, n));
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // The client has gone, or its time was up.
        }
        finally
        {
            _open.Remove(connection);
            connection.Dispose();
            if (_open.Count == 0) _drained?.TrySetResult();
        }
    }
}
