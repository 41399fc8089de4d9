using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async;
using Amy.Async.Samples;

// dotnet run --project samples/GracefulShutdown -- --port 7007      then end it with Ctrl-C or kill; once more, to wait for nobody
if (args is not ["--port", var text] || !ushort.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var port))
{
    Console.Error.WriteLine("usage: GracefulShutdown --port N");
    return 2;
}
try
{
    return EventLoop.Run(async () =>
    {
        using var signals = new SignalReceiver(PosixSignal.SIGINT, PosixSignal.SIGTERM);
        var server = new DrainingServer(new IPEndPoint(IPAddress.Loopback, port));
        _ = server.RunAsync();
        Console.WriteLine($"Echo on {server.EndPoint}");
        var signal = await signals.ReceiveAsync();
        Console.WriteLine($"{signal}: no more connections, {server.Connections} may end by themselves");
        var another = signals.ReceiveAsync().AsTask();
        var drained = await server.StopAsync(patience: Task.WhenAny(another, EventLoop.Current!.Delay(TimeSpan.FromSeconds(5)).AsTask()));
        Console.WriteLine(drained ? "All have ended." : $"{(another.IsCompleted ? "At once, then" : "Time is up")}: the rest is closed.");
        return drained ? 0 : 1;
    });
}
catch (SocketException e)
{
    Console.Error.WriteLine(e.Message); // the port is in use, say
    return 1;
}
