using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Bench;

/// <summary>Connects many times and never says a word, in a process of its own: the server under test has its descriptors for itself.</summary>
internal static class SilentPeers
{
    /// <summary>Prints "connected" when all are, and ends with standard input.</summary>
    internal static int Hold(int port, int connections)
    {
        var end = new IPEndPoint(IPAddress.Loopback, port);
        var sockets = new List<Socket>(connections);
        for (var i = 0; i < connections; i++)
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            socket.Connect(end);
            sockets.Add(socket);
        }
        Console.WriteLine("connected");
        while (Console.Read() >= 0)
        {
        }
        foreach (var socket in sockets)
        {
            socket.LingerState = new LingerOption(true, 0); // a reset leaves no port waiting for its time
            socket.Dispose();
        }
        return 0;
    }
}
