using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async;
using Amy.Async.Samples;

// dotnet run --project samples/FromSocketAsyncEventArgs -- before --port 7005      or: after --port 7005
if (args is not [("before" or "after") and var which, "--port", var text] || !ushort.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var port))
{
    Console.Error.WriteLine("usage: FromSocketAsyncEventArgs before|after --port N");
    return 2;
}
var endPoint = new IPEndPoint(IPAddress.Loopback, port);
try
{
    EventLoop.Run(async () =>
    {
        using var signals = new SignalReceiver(PosixSignal.SIGINT, PosixSignal.SIGTERM);
        var signal = signals.ReceiveAsync().AsTask();
        if (which == "before")
        {
            using var server = new Before(endPoint); // on the thread pool
            Console.WriteLine($"SocketAsyncEventArgs on {server.EndPoint}. Ctrl-C ends.");
            await signal;
        }
        else
        {
            using var server = new After(endPoint);
            Console.WriteLine($"AsyncSocket on {server.EndPoint}. Ctrl-C ends.");
            await await Task.WhenAny(server.RunAsync(), signal); // the inner one: what has ended may have failed
        }
    });
    return 0;
}
catch (SocketException e)
{
    Console.Error.WriteLine(e.Message); // the port is in use, say
    return 1;
}
