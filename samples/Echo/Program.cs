using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Amy.Async;
using Amy.Async.Samples;

// dotnet run --project samples/Echo -- --port 7000      or: --unix /tmp/echo.sock
EndPoint? endPoint = args switch
{
    ["--port", var text] when ushort.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var port) => new IPEndPoint(IPAddress.Loopback, port),
    ["--unix", var path] => new UnixDomainSocketEndPoint(path),
    _ => null,
};
if (endPoint is null)
{
    Console.Error.WriteLine("usage: Echo --port N | --unix PATH");
    return 2;
}
EventLoop.Run(async () =>
{
    using var listener = AsyncSocket.Listen(endPoint);
    Console.WriteLine($"What is sent to {listener.LocalEndPoint} comes back. Ctrl-C ends.");
    await EchoServer.RunAsync(listener);
});
return 0;
