using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async;
using Amy.Async.Samples;

// dotnet run --project samples/Chat -- --port 7001      then, twice: nc 127.0.0.1 7001
if (args is not ["--port", var text] || !ushort.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var port))
{
    Console.Error.WriteLine("usage: Chat --port N");
    return 2;
}
try
{
    EventLoop.Run(async () =>
    {
        using var signals = new SignalReceiver(PosixSignal.SIGINT, PosixSignal.SIGTERM);
        using var room = new ChatRoom(new IPEndPoint(IPAddress.Loopback, port));
        Console.WriteLine($"A room on {room.EndPoint}: the first line is your name. Ctrl-C ends.");
        await await Task.WhenAny(room.RunAsync(), signals.ReceiveAsync().AsTask()); // the inner one: what has ended may have failed
    });
    return 0;
}
catch (SocketException e)
{
    Console.Error.WriteLine(e.Message); // the port is in use, say
    return 1;
}
