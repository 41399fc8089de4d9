using System.Globalization;
using System.Net;
using Amy.Async;
using Amy.Async.Samples;

// dotnet run --project samples/FromSocketAsyncEventArgs -- before --port 7005      or: after --port 7005
if (args is not [("before" or "after") and var which, "--port", var text] || !ushort.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var port))
{
    Console.Error.WriteLine("usage: FromSocketAsyncEventArgs before|after --port N");
    return 2;
}
var endPoint = new IPEndPoint(IPAddress.Loopback, port);
if (which == "before")
{
    using var server = new Before(endPoint);
    Console.WriteLine($"SocketAsyncEventArgs on {server.EndPoint}. Ctrl-C ends.");
    await Task.Delay(Timeout.Infinite);
}
else
{
    EventLoop.Run(async () =>
    {
        using var server = new After(endPoint);
        Console.WriteLine($"AsyncSocket on {server.EndPoint}. Ctrl-C ends.");
        await server.RunAsync();
    });
}
return 0;
