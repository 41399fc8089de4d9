using System.Globalization;
using System.Net;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;

// dotnet run --project samples/Web -- --port 7013 [--inline]      then: curl http://127.0.0.1:7013/
if (args is not (["--port", _] or ["--port", _, "--inline"]) || !ushort.TryParse(args[1], NumberStyles.None, CultureInfo.InvariantCulture, out var port))
{
    Console.Error.WriteLine("usage: Web --port N [--inline]");
    return 2;
}
var builder = WebApplication.CreateBuilder();
builder.WebHost.UseAmyAsync(options => options.UnsafePreferInlineScheduling = args.Length > 2);
builder.WebHost.ConfigureKestrel(options => options.Listen(IPAddress.Loopback, port));
var app = builder.Build();
app.MapGet("/", () => "hello from the loop\n");
app.MapGet("/time", () => new { Utc = DateTime.UtcNow });
app.MapPost("/echo", (HttpRequest request, HttpResponse response) => request.Body.CopyToAsync(response.Body));
try
{
    await app.RunAsync();
    return 0;
}
catch (IOException e) when (e.InnerException is AddressInUseException)
{
    Console.Error.WriteLine(e.Message);
    return 1;
}
