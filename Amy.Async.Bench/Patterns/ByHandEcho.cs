using System.Net;
using System.Net.Sockets;
using System.Runtime.CompilerServices;

namespace Amy.Async.Bench.Patterns;

/// <summary>
/// An echo server without the library: the C server's loop in C#, with no await at all, with the least that can be awaited
/// (<see cref="LeastAwaitable"/>), or with the least receive that returns a ValueTask (<see cref="LeastValueTask"/>). What is left
/// between this and C is the runtime's and the compiler's part of a request. A yardstick: it ends with the process.
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
    private readonly string _how;

    private ByHandEcho(int port, string how)
    {
        _how = how;
        _listener.Bind(new IPEndPoint(IPAddress.Loopback, port));
        _listener.Listen(Backlog);
        _listener.Blocking = false;
        RawEpoll.Watch(_epoll, _listener);
    }

    internal static int Run(int port, string how)
    {
        var server = new ByHandEcho(port, how);
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
            else if (connection.Receive is { } receive) receive.Resume();
            else if (connection.Readable is { } awaitable) awaitable.Resume();
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
            if (_how == "await") _ = AnswerReadableAsync(connection, connection.Readable = new LeastAwaitable());
            if (_how == "valuetask") _ = AnswerAsync(connection, connection.Receive = new LeastValueTask(connection.Descriptor, unix: false));
            RawEpoll.Watch(_epoll, socket);
        }
    }

    // Until a receive is short, as the C server. False: the peer has gone.
    private bool Answer(Connection connection)
    {
        int n;
        do n = RawEpoll.Receive(connection.Descriptor, _buffer);
        while (n > 0 && RawEpoll.Send(connection.Descriptor, _buffer.AsSpan(0, n)) && n == BufferSize);
        return n != 0;
    }

    private async Task AnswerReadableAsync(Connection connection, LeastAwaitable readable)
    {
        do await readable;
        while (Answer(connection));
        End(connection);
    }

    private async Task AnswerAsync(Connection connection, LeastValueTask receive)
    {
        while (await receive.ReceiveAsync(_buffer) is > 0 and var n && RawEpoll.Send(connection.Descriptor, _buffer.AsSpan(0, n)))
        {
        }
        End(connection);
    }

    private void End(Connection connection)
    {
        _connections.Remove(connection.Descriptor);
        connection.Socket.Dispose();
    }

    private sealed class Connection(Socket socket)
    {
        internal LeastAwaitable? Readable;
        internal LeastValueTask? Receive;
        internal readonly Socket Socket = socket;
        internal readonly int Descriptor = (int)socket.Handle;
    }
}
