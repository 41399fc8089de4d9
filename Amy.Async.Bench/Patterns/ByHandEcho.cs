using System.Net;
using System.Net.Sockets;
using System.Runtime.CompilerServices;

namespace Amy.Async.Bench.Patterns;

/// <summary>
/// An echo server without the library: the C server's loop in C#, with the least that can be awaited (see
/// <see cref="AwaitedByHandPingPong"/>) or with no await at all. What is left between this and C is the runtime's and the
/// compiler's part of a request. A yardstick: it ends with the process.
/// </summary>
internal sealed class ByHandEcho
{
    private const int Events = 512;
    private const int BufferSize = 4096;
    private const int Backlog = 4096;
    private const int ForEver = -1;

    private readonly byte[] _buffer = new byte[BufferSize]; // of whoever answers at the moment
    private readonly Dictionary<int, Connection> _connections = [];
    private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
    private readonly int _epoll = RawEpoll.Create();
    private readonly bool _awaits;

    private ByHandEcho(int port, bool awaits)
    {
        _awaits = awaits;
        _listener.Bind(new IPEndPoint(IPAddress.Loopback, port));
        _listener.Listen(Backlog);
        _listener.Blocking = false;
        RawEpoll.Watch(_epoll, _listener);
    }

    internal static int Run(int port, bool awaits)
    {
        var server = new ByHandEcho(port, awaits);
        Console.WriteLine($"listening on {server._listener.LocalEndPoint}");
        while (true) server.Turn();
    }

    // Not inlined into the endless loop around it, which would never be compiled again.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private unsafe void Turn()
    {
        var events = stackalloc byte[Events * RawEpoll.EventSize];
        var n = RawEpoll.Wait(_epoll, events, Events, ForEver);
        for (var i = 0; i < n; i++)
        {
            var descriptor = RawEpoll.Descriptor(events, i, out var readable);
            if (!readable) continue;
            if (!_connections.TryGetValue(descriptor, out var connection)) Accept();
            else if (_awaits) connection.Resume();
            else if (!Answer(connection)) End(connection);
        }
    }

    private void Accept()
    {
        while (_listener.Poll(0, SelectMode.SelectRead))
        {
            var socket = _listener.Accept();
            socket.NoDelay = true;
            socket.Blocking = false;
            var connection = new Connection(socket);
            _connections.Add(connection.Descriptor, connection);
            if (_awaits) _ = AnswerAsync(connection);
            RawEpoll.Watch(_epoll, socket);
        }
    }

    // False: the peer has gone.
    private bool Answer(Connection connection)
    {
        var n = RawEpoll.Receive(connection.Descriptor, _buffer);
        return n < 0 || n > 0 && RawEpoll.Send(connection.Descriptor, _buffer.AsSpan(0, n));
    }

    private async Task AnswerAsync(Connection connection)
    {
        do await connection;
        while (Answer(connection));
        End(connection);
    }

    private void End(Connection connection)
    {
        _connections.Remove(connection.Descriptor);
        connection.Socket.Dispose();
    }

    private sealed class Connection(Socket socket) : LeastAwaitable
    {
        internal readonly Socket Socket = socket;
        internal readonly int Descriptor = (int)socket.Handle;
    }
}
