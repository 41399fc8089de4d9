using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Bench;

/// <summary>A blocking client of one connection, the same for every server.</summary>
internal sealed class Client : IDisposable
{
    private const int Limit = 10_000; // ms: a server that lost a message is an error, not a hang

    private readonly Socket _socket = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp)
    {
        NoDelay = true,
        ReceiveTimeout = Limit,
        SendTimeout = Limit,
    };

    private readonly RoundClock _clock = new();
    private readonly Child _server;

    internal Client(Child server, int port)
    {
        _server = server;
        _socket.Connect(IPAddress.Loopback, port);
    }

    /// <summary>One round; CPU time and bytes are the server's.</summary>
    internal Round Run(int size, int milliseconds)
    {
        var message = new Message(size);
        var (cpu, bytes) = Mark();
        _clock.Start(timed: true, milliseconds);
        do
        {
            message.Change();
            for (var sent = 0; sent < size;) sent += _socket.Send(message.Table, message.Offset + sent, size - sent, SocketFlags.None);
            for (var got = 0; got < size;)
            {
                var n = _socket.Receive(message.Back, got, size - got, SocketFlags.None);
                if (n == 0) throw new EndOfStreamException($"{_server.Name} closed the connection.");
                got += n;
            }
            message.Verify();
        }
        while (_clock.Next());
        var round = _clock.Result(default, 0);
        var (cpuAfter, bytesAfter) = Mark();
        return round with { Cpu = cpuAfter - cpu, Bytes = bytesAfter - bytes };
    }

    private (long Cpu, long Bytes) Mark()
    {
        var parts = _server.Ask("mark").Split(' ');
        return (long.Parse(parts[0], CultureInfo.InvariantCulture), long.Parse(parts[1], CultureInfo.InvariantCulture));
    }

    public void Dispose() => _socket.Dispose();
}
