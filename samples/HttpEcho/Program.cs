using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async;
using Amy.Async.Samples;

// dotnet run --project samples/HttpEcho -- --port 7006      then: curl -d hello http://127.0.0.1:7006/
if (args is not ["--port", var text] || !ushort.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var port))
{
    Console.Error.WriteLine("usage: HttpEcho --port N");
    return 2;
}
try
{
    EventLoop.Run(async () =>
    {
        using var signals = new SignalReceiver(PosixSignal.SIGINT, PosixSignal.SIGTERM);
        using var server = new HttpEchoServer(new IPEndPoint(IPAddress.Loopback, port));
        Console.WriteLine($"http://{server.EndPoint}/ Ctrl-C ends.");
        await await Task.WhenAny(server.RunAsync(), signals.ReceiveAsync().AsTask()); // the inner one: what has ended may have failed
    });
    return 0;
}
catch (SocketException e)
{
    Console.Error.WriteLine(e.Message); // the port is in use, say
    return 1;
}
