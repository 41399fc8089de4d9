using System.Diagnostics.CodeAnalysis;
using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Bench.Patterns;

/// <summary>
/// Servers that answer nothing: they count what reaches them. Accepting and closing, keeping idle connections, receiving
/// datagrams, each in several ways.
/// </summary>
[SuppressMessage("Reliability", "CA2012", Justification = "Idle receives are left pending: that is what is measured.")]
internal static class Sinks
{
    private const int DatagramSize = 64;
    private const int BatchSize = 64;

    private static readonly List<object> s_kept = []; // idle connections
    private static long s_count;

    /// <summary>Connections accepted or datagrams received.</summary>
    internal static long Count => Volatile.Read(ref s_count);

    /// <summary>Starts it; the port, or null: no such pattern.</summary>
    internal static int? Start(string pattern) => pattern switch
    {
        "accept-amy" => OnLoop(static listener => Accept(listener, static connection => connection.Dispose())),
        "accept-amy-no-spin" => OnLoop(static listener => Accept(listener, static connection => connection.Dispose()), TimeSpan.Zero),
        "accept-socket" => OnPool(static (socket, _) => socket.Dispose()),
        "idle-amy" => OnLoop(static listener => Accept(listener, Wait)),
        "idle-pipe" => OnLoop(static listener => Accept(listener, static connection => Keep(connection.AsPipe(), static pipe => _ = pipe.Input.ReadAsync()))),
        "idle-socket" => OnPool(static (socket, buffer) => Keep(socket, s => _ = s.ReceiveAsync(buffer.AsMemory(), SocketFlags.None))),
        "udp-batch" => Datagrams(ReceiveBatches),
        "udp-amy" => Datagrams(ReceiveOneByOne),
        "udp-socket" => PlainDatagrams(),
        _ => null,
    };

    private static readonly byte[] s_buffer = new byte[1];

#pragma warning disable AMY002 // Left pending on purpose, and without a Task: what it costs is what is measured.
    private static void Wait(AsyncSocket connection) => Keep(connection, static c => _ = c.ReceiveAsync(s_buffer));
#pragma warning restore AMY002

    private static void Keep<T>(T connection, Action<T> begin) where T : class
    {
        begin(connection);
        s_kept.Add(connection);
    }

    private static int OnLoop(Func<AsyncSocket, Task> accept, TimeSpan? spin = null)
    {
        var loop = EventLoop.Start(spin is { } bound ? new EventLoopOptions { SpinDuration = bound } : null);
        var listener = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0), new AsyncSocketOptions { Backlog = 4096 }, loop);
        loop.Post(() => _ = accept(listener));
        return ((IPEndPoint)listener.LocalEndPoint!).Port;
    }

    private static async Task Accept(AsyncSocket listener, Action<AsyncSocket> then)
    {
        while (true)
        {
            then(await listener.AcceptAsync());
            Interlocked.Increment(ref s_count);
        }
    }

    private static int OnPool(Action<Socket, byte[]> then)
    {
        var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen(4096);
        _ = Task.Run(async () =>
        {
            while (true)
            {
                var socket = await listener.AcceptAsync();
                socket.NoDelay = true; // as AsyncSocket's are
                then(socket, s_buffer);
                Interlocked.Increment(ref s_count);
            }
        });
        return ((IPEndPoint)listener.LocalEndPoint!).Port;
    }

    private static int Datagrams(Func<AsyncSocket, Task> receive)
    {
        var loop = EventLoop.Start();
        var socket = AsyncSocket.BindDatagram(new IPEndPoint(IPAddress.Loopback, 0), loop: loop);
        loop.Post(() => _ = receive(socket));
        return ((IPEndPoint)socket.LocalEndPoint!).Port;
    }

    private static async Task ReceiveBatches(AsyncSocket socket)
    {
        var batch = new DatagramBatch(BatchSize, DatagramSize);
        while (true) Interlocked.Add(ref s_count, await socket.ReceiveAsync(batch));
    }

    private static async Task ReceiveOneByOne(AsyncSocket socket)
    {
        var (buffer, remote) = (new byte[DatagramSize], new SocketAddress(AddressFamily.InterNetwork));
        while (true)
        {
            await socket.ReceiveFromAsync(buffer, remote);
            Interlocked.Increment(ref s_count);
        }
    }

    private static int PlainDatagrams()
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        socket.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        _ = Task.Run(async () =>
        {
            var (buffer, remote) = (new byte[DatagramSize], new SocketAddress(AddressFamily.InterNetwork));
            while (true)
            {
                await socket.ReceiveFromAsync(buffer, SocketFlags.None, remote);
                Interlocked.Increment(ref s_count);
            }
        });
        return ((IPEndPoint)socket.LocalEndPoint!).Port;
    }
}
