using System.Buffers;
using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Samples;

/// <summary>
/// Carries bytes between its clients and one target, two copy loops a connection. The end of either direction is passed on as
/// such while the other goes on; a reset is passed on as a reset. A buffer is rented only while there is something in it, so
/// idle connections cost none.
/// </summary>
public sealed class TcpProxyServer : IDisposable
{
    private const int BufferSize = 32 << 10;

    private readonly AsyncSocket _listener;
    private readonly EndPoint _target;
    private readonly HashSet<AsyncSocket> _open = [];

    /// <summary>Listens, on the current loop.</summary>
    public TcpProxyServer(EndPoint endPoint, EndPoint target)
    {
        _target = target;
        _listener = AsyncSocket.Listen(endPoint);
    }

    public EndPoint EndPoint => _listener.LocalEndPoint!;

    public int Connections => _open.Count;

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
        foreach (var socket in _open.ToArray()) socket.Dispose();
    }

    private async Task ServeAsync(AsyncSocket client)
    {
        _open.Add(client);
        AsyncSocket? target = null;
        try
        {
            target = await AsyncSocket.ConnectAsync(_target, client.Loop);
            _open.Add(target);
            await Task.WhenAll(CopyAsync(client, target), CopyAsync(target, client));
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // One side is broken, or the target cannot be reached: both learn it as an error, not as a clean end.
            client.Abort();
            target?.Abort();
        }
        finally
        {
            _open.Remove(client);
            client.Dispose();
            if (target is not null)
            {
                _open.Remove(target);
                target.Dispose();
            }
        }
    }

    private static async Task CopyAsync(AsyncSocket from, AsyncSocket to)
    {
        try
        {
            while (true)
            {
                await from.ReceiveAsync(Memory<byte>.Empty); // waits for data, without a buffer
                var buffer = ArrayPool<byte>.Shared.Rent(BufferSize);
                try
                {
                    while (from.TryReceive(buffer, out var n))
                    {
                        if (n == 0)
                        {
                            to.Shutdown(SocketShutdown.Send); // the other direction goes on
                            return;
                        }
                        await to.SendAsync(buffer.AsMemory(0, n));
                    }
                }
                finally
                {
                    ArrayPool<byte>.Shared.Return(buffer);
                }
            }
        }
        catch
        {
            from.Abort(); // ends the other loop, too
            to.Abort();
            throw;
        }
    }
}
