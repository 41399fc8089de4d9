using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Amy.Async.Samples;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

// dotnet run --project samples/HostedService -- --port 7004
if (args is not ["--port", var text] || !ushort.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var port))
{
    Console.Error.WriteLine("usage: HostedService --port N");
    return 2;
}
var builder = Host.CreateApplicationBuilder();
builder.Services.AddSingleton(new EchoServiceOptions { EndPoint = new IPEndPoint(IPAddress.Loopback, port) });
builder.Services.AddHostedService<EchoService>();
try
{
    await builder.Build().RunAsync();
    return 0;
}
catch (SocketException e)
{
    Console.Error.WriteLine(e.Message); // the port is in use, say
    return 1;
}
