using System.Globalization;
using System.Net;
using Amy.Async;
using Amy.Async.Samples;

// dotnet run --project samples/HttpEcho -- --port 7006      then: curl -d hello http://127.0.0.1:7006/
if (args is not ["--port", var text] || !ushort.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var port))
{
    Console.Error.WriteLine("usage: HttpEcho --port N");
    return 2;
}
EventLoop.Run(async () =>
{
    using var server = new HttpEchoServer(new IPEndPoint(IPAddress.Loopback, port));
    Console.WriteLine($"http://{server.EndPoint}/ Ctrl-C ends.");
    await server.RunAsync();
});
return 0;
