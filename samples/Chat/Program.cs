using System.Globalization;
using System.Net;
using Amy.Async;
using Amy.Async.Samples;

// dotnet run --project samples/Chat -- --port 7001      then, twice: nc 127.0.0.1 7001
if (args is not ["--port", var text] || !ushort.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var port))
{
    Console.Error.WriteLine("usage: Chat --port N");
    return 2;
}
EventLoop.Run(async () =>
{
    using var room = new ChatRoom(new IPEndPoint(IPAddress.Loopback, port));
    Console.WriteLine($"A room on {room.EndPoint}: the first line is your name. Ctrl-C ends.");
    await room.RunAsync();
});
return 0;
