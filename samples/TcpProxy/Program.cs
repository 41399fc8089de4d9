using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async;
using Amy.Async.Samples;

// dotnet run --project samples/TcpProxy -- --port 7002 --to example.org:80
if (args is not ["--port", var text, "--to", var target] || !ushort.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var port)
    || target.LastIndexOf(':') is not (> 0 and var colon) || !ushort.TryParse(target[(colon + 1)..], NumberStyles.None, CultureInfo.InvariantCulture, out var targetPort))
{
    Console.Error.WriteLine("usage: TcpProxy --port N --to HOST:PORT");
    return 2;
}
try
{
    EventLoop.Run(async () =>
    {
        using var signals = new SignalReceiver(PosixSignal.SIGINT, PosixSignal.SIGTERM);
        using var proxy = new TcpProxyServer(new IPEndPoint(IPAddress.Loopback, port), new DnsEndPoint(target[..colon], targetPort));
        Console.WriteLine($"{proxy.EndPoint} stands for {target}. Ctrl-C ends.");
        await await Task.WhenAny(proxy.RunAsync(), signals.ReceiveAsync().AsTask()); // the inner one: what has ended may have failed
    });
    return 0;
}
catch (SocketException e)
{
    Console.Error.WriteLine(e.Message); // the port is in use, say
    return 1;
}
