using System.Globalization;
using System.Net;
using System.Runtime.InteropServices;
using Amy.Async;
using Amy.Async.Samples;

// dotnet run --project samples/GracefulShutdown -- --port 7007      then end it with Ctrl-C or kill
if (args is not ["--port", var text] || !ushort.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var port))
{
    Console.Error.WriteLine("usage: GracefulShutdown --port N");
    return 2;
}
return EventLoop.Run(async () =>
{
    using var signals = new SignalReceiver(PosixSignal.SIGTERM, PosixSignal.SIGINT);
    var server = new DrainingServer(new IPEndPoint(IPAddress.Loopback, port));
    _ = server.RunAsync();
    Console.WriteLine($"Echo on {server.EndPoint}");
    var signal = await signals.ReceiveAsync();
    Console.WriteLine($"{signal}: no more connections, {server.Connections} may end by themselves");
    var drained = await server.StopAsync(TimeSpan.FromSeconds(5));
    Console.WriteLine(drained ? "All have ended." : "Time is up: the rest is closed.");
    return drained ? 0 : 1;
});
