using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async;
using Amy.Async.Samples;

// dotnet run --project samples/Echo -- --port 7000      or: --unix /tmp/echo.sock
EndPoint? endPoint = args switch
{
    ["--port", var text] when ushort.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var port) => new IPEndPoint(IPAddress.Loopback, port),
    ["--unix", { Length: > 0 and < 100 } path] => new UnixDomainSocketEndPoint(path),
    _ => null,
};
if (endPoint is null)
{
    Console.Error.WriteLine("usage: Echo --port N | --unix PATH");
    return 2;
}
try
{
    EventLoop.Run(async () =>
    {
        using var signals = new SignalReceiver(PosixSignal.SIGINT, PosixSignal.SIGTERM);
        using var listener = AsyncSocket.Listen(endPoint);
        Console.WriteLine($"What is sent to {listener.LocalEndPoint} comes back. Ctrl-C ends.");
        await await Task.WhenAny(EchoServer.RunAsync(listener), signals.ReceiveAsync().AsTask()); // the inner one: what has ended may have failed
    });
    return 0;
}
catch (SocketException e)
{
    Console.Error.WriteLine(e.Message); // the address is in use, say
    return 1;
}
