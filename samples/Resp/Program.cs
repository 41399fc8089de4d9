using System.Globalization;
using System.Net;
using Amy.Async;
using Amy.Async.Samples;

// dotnet run -c Release --project samples/Resp -- --port 6379
// Then: redis-cli -p 6379, or redis-benchmark -p 6379 -t set,get -c 50
if (args is not ["--port", var text] || !int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var port) || port > 65535)
{
    Console.Error.WriteLine("usage: Resp --port N");
    return 2;
}
EventLoop.Run(async () =>
{
    using var server = new RespServer(new IPEndPoint(IPAddress.Loopback, port));
    using var signals = new SignalReceiver(System.Runtime.InteropServices.PosixSignal.SIGINT, System.Runtime.InteropServices.PosixSignal.SIGTERM);
    _ = server.RunAsync();
    Console.WriteLine($"RESP on {server.EndPoint}");
    await signals.ReceiveAsync();
});
return 0;
