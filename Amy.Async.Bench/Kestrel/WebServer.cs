using System.Globalization;
using System.Net;
using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;

namespace Amy.Async.Bench.Kestrel;

/// <summary>The same three applications over one transport or another: plain text and JSON over HTTP, and a raw echo.</summary>
internal static partial class WebServer
{
    private static readonly byte[] s_text = "Hello, World!"u8.ToArray();

    private readonly record struct Message(string Text);

    [JsonSerializable(typeof(Message))]
    private sealed partial class Json : JsonSerializerContext;

    /// <summary>Prints its ports (HTTP/1.1, HTTP/2 without TLS, raw) and answers each line with "CPU_NS RESIDENT_BYTES", until the end of standard input.</summary>
    internal static async Task<int> Run(string transport, bool inline)
    {
        var builder = WebApplication.CreateEmptyBuilder(new WebApplicationOptions());
        builder.WebHost.UseKestrelCore().ConfigureKestrel(options =>
        {
            options.AddServerHeader = false;
            options.Listen(IPAddress.Loopback, 0, listen => listen.Protocols = HttpProtocols.Http1);
            options.Listen(IPAddress.Loopback, 0, listen => listen.Protocols = HttpProtocols.Http2);
            options.Listen(IPAddress.Loopback, 0, listen => ConnectionBuilderExtensions.Run(listen, Echo));
        });
        if (transport == "amy") builder.WebHost.UseAmyAsync(options => { options.UnsafePreferInlineScheduling = inline; options.Backlog = 4096; });
        else builder.WebHost.UseSockets(options => { options.UnsafePreferInlineScheduling = inline; options.Backlog = 4096; });
        var application = builder.Build();
        application.Run(Answer);
        await application.StartAsync();
        var addresses = application.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses;
        Console.WriteLine(string.Join(' ', addresses.Select(a => new Uri(a).Port)));
        while (Console.ReadLine() is not null)
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{(long)Environment.CpuUsage.TotalTime.TotalNanoseconds} {Environment.WorkingSet}"));
        Environment.Exit(0); // clients may hold connections
        return 0;
    }

    private static Task Answer(HttpContext context)
    {
        var response = context.Response;
        if (context.Request.Path == "/json")
        {
            var body = JsonSerializer.SerializeToUtf8Bytes(new Message("Hello, World!"), Json.Default.Message);
            response.ContentType = "application/json";
            response.ContentLength = body.Length;
            return response.Body.WriteAsync(body).AsTask();
        }
        response.ContentType = "text/plain";
        response.ContentLength = s_text.Length;
        return response.Body.WriteAsync(s_text).AsTask();
    }

    private static async Task Echo(ConnectionContext connection)
    {
        var (input, output) = (connection.Transport.Input, connection.Transport.Output);
        while (true)
        {
            var read = await input.ReadAsync();
            if (read.Buffer.IsSingleSegment) await output.WriteAsync(read.Buffer.First);
            else foreach (var part in read.Buffer) await output.WriteAsync(part);
            input.AdvanceTo(read.Buffer.End);
            if (read.IsCompleted) return;
        }
    }
}
