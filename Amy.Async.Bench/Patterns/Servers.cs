using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Bench.Patterns;

/// <summary>An echo server in each way of awaiting, on a port of its own choice.</summary>
internal static class Servers
{
    private const int Buffer = 1 << 16;

    /// <summary>Starts it; the port.</summary>
    internal static int Start(string pattern)
    {
        switch (pattern)
        {
            case "amy":
                var loop = EventLoop.Start();
                var listener = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0), loop: loop);
                loop.Post(() => _ = Accept(listener));
                return ((IPEndPoint)listener.LocalEndPoint!).Port;
            case "amy-readable":
                var readable = Listen();
                EventLoop.Start().Post(() => _ = AcceptReadable(readable));
                return Port(readable);
            case "saea" or "socket":
                var plain = Listen();
                _ = Task.Run(() => AcceptPlain(plain, pattern == "saea"));
                return Port(plain);
            default:
                throw new ArgumentException($"Unknown pattern '{pattern}'.");
        }
    }

    private static async Task Accept(AsyncSocket listener)
    {
        while (true) _ = Echo.Run(await listener.AcceptAsync(), Buffer);
    }

    private static async Task AcceptReadable(Socket listener)
    {
        while (true)
        {
            await listener.ReadableAsync();
            Socket socket;
            try
            {
                socket = listener.Accept();
            }
            catch (SocketException e) when (e.SocketErrorCode == SocketError.WouldBlock)
            {
                continue;
            }
            socket.NoDelay = true;
            socket.Blocking = false;
            _ = Echo.RunReadable(socket, Buffer);
        }
    }

    private static async Task AcceptPlain(Socket listener, bool args)
    {
        while (true)
        {
            var socket = await listener.AcceptAsync();
            socket.NoDelay = true;
            if (args) new ArgsEcho(socket, Buffer).Start();
            else _ = Echo.Run(socket, Buffer);
        }
    }

    private static Socket Listen()
    {
        var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen(512);
        return listener;
    }

    private static int Port(Socket socket) => ((IPEndPoint)socket.LocalEndPoint!).Port;
}
