using System.Globalization;
using System.Net;
using Amy.Async;
using Amy.Async.Samples;

// dotnet run --project samples/TcpProxy -- --port 7002 --to example.org:80
if (args is not ["--port", var text, "--to", var target] || !ushort.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var port)
    || target.LastIndexOf(':') is not (> 0 and var colon) || !ushort.TryParse(target[(colon + 1)..], NumberStyles.None, CultureInfo.InvariantCulture, out var targetPort))
{
    Console.Error.WriteLine("usage: TcpProxy --port N --to HOST:PORT");
    return 2;
}
EventLoop.Run(async () =>
{
    using var proxy = new TcpProxyServer(new IPEndPoint(IPAddress.Loopback, port), new DnsEndPoint(target[..colon], targetPort));
    Console.WriteLine($"{proxy.EndPoint} stands for {target}. Ctrl-C ends.");
    await proxy.RunAsync();
});
return 0;
