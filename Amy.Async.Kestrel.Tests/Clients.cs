using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Amy.Async.Kestrel.Tests;

/// <summary>
/// Very many clients, as a program: each asks twice over a connection that it keeps, all of them at once, and they say how
/// many answers there were.
/// </summary>
internal static class Clients
{
    internal static readonly TimeSpan Limit = TimeSpan.FromSeconds(100);

    private static int Main(string[] args)
    {
        var sockets = new Socket[int.Parse(args[1], CultureInfo.InvariantCulture)];
        var endPoint = new IPEndPoint(IPAddress.Loopback, int.Parse(args[0], CultureInfo.InvariantCulture));
        var buffer = new byte[1024];
        var answers = 0;
        for (var i = 0; i < sockets.Length; i++)
        {
            sockets[i] = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true, ReceiveTimeout = (int)Limit.TotalMilliseconds };
            sockets[i].Connect(endPoint);
        }
        for (var round = 0; round < 2; round++)
        {
            foreach (var socket in sockets) socket.Send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"u8);
            foreach (var socket in sockets)
            {
                var text = "";
                for (int n; !text.EndsWith("0\r\n\r\n", StringComparison.Ordinal) && (n = socket.Receive(buffer)) > 0;) text += Encoding.ASCII.GetString(buffer, 0, n); // chunked
                if (text.StartsWith("HTTP/1.1 200", StringComparison.Ordinal) && text.EndsWith("0\r\n\r\n", StringComparison.Ordinal)) answers++;
            }
        }
        foreach (var socket in sockets) socket.Dispose();
        Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{answers} answers"));
        return 0;
    }
}
