using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async;
using Amy.Async.Samples;

// dotnet run -c Release --project samples/Resp -- --port 6379
// Then: redis-cli -p 6379, or redis-benchmark -p 6379 -t set,get -c 50
if (args is not ["--port", var text] || !ushort.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var port))
{
    Console.Error.WriteLine("usage: Resp --port N");
    return 2;
}
try
{
    EventLoop.Run(async () =>
    {
        using var signals = new SignalReceiver(PosixSignal.SIGINT, PosixSignal.SIGTERM);
        using var server = new RespServer(new IPEndPoint(IPAddress.Loopback, port));
        Console.WriteLine($"RESP on {server.EndPoint}");
        await await Task.WhenAny(server.RunAsync(), signals.ReceiveAsync().AsTask()); // the inner one: what has ended may have failed
    });
    return 0;
}
catch (SocketException e)
{
    Console.Error.WriteLine(e.Message); // the port is in use, say
    return 1;
}
