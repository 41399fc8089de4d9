using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Amy.Async.Tests.Programs;

/// <summary>HttpClient over a loop's sockets, against Kestrel in this process: HTTP/1.1 and 2, plain and with TLS.</summary>
[TestFixture]
internal sealed class HttpClientTests
{
    private sealed class Site : IAsyncDisposable
    {
        private readonly WebApplication _application;
        private readonly EventLoop _loop = EventLoop.Start();

        internal HttpClient Client { get; }

        internal string Url { get; }

        internal int Connections;

        private Site(WebApplication application, string url, Version version)
        {
            _application = application;
            Url = url;
            var handler = new SocketsHttpHandler
            {
                ConnectCallback = async (context, token) =>
                {
                    Interlocked.Increment(ref Connections);
                    return (await AsyncSocket.ConnectAsync(context.DnsEndPoint, _loop, token)).AsStream();
                },
                SslOptions = new SslClientAuthenticationOptions { RemoteCertificateValidationCallback = (_, certificate, _, _) => certificate?.Subject == "CN=localhost" },
                MaxConnectionsPerServer = 20,
            };
            Client = new HttpClient(handler) { DefaultRequestVersion = version, DefaultVersionPolicy = HttpVersionPolicy.RequestVersionExact };
        }

        internal static async Task<Site> StartAsync(int version, bool tls)
        {
            var builder = WebApplication.CreateSlimBuilder();
            builder.Logging.ClearProviders();
            builder.WebHost.UseKestrelCore();
            builder.WebHost.ConfigureKestrel(k =>
            {
                k.Limits.MaxRequestBodySize = null;
                k.Limits.MinRequestBodyDataRate = null; // the machine may be busy
                k.Listen(IPAddress.Loopback, 0, l =>
                {
                    l.Protocols = version == 1 ? HttpProtocols.Http1 : HttpProtocols.Http2;
                    if (tls) l.UseHttps(TlsTests.MakeCertificate("localhost"));
                });
            });
            var application = builder.Build();
            application.MapGet("/hello", () => "hello");
            application.MapGet("/bytes/{count:int}", (int count) => Results.Bytes([.. Enumerable.Range(0, count).Select(i => (byte)(i * 3))]));
            application.MapPost("/echo", async context =>
            {
                var all = new MemoryStream(); // all first: the client reads only when it has sent
                await context.Request.Body.CopyToAsync(all);
                await context.Response.Body.WriteAsync(all.ToArray());
            });
            application.MapGet("/never", async context => await Task.Delay(Timeout.Infinite, context.RequestAborted));
            application.MapGet("/abort", context =>
            {
                context.Abort();
                return Task.CompletedTask;
            });
            await application.StartAsync();
            var address = application.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.Single();
            return new Site(application, address.Replace("127.0.0.1", "localhost", StringComparison.Ordinal), version == 1 ? HttpVersion.Version11 : HttpVersion.Version20);
        }

        public async ValueTask DisposeAsync()
        {
            Client.Dispose();
            await _application.DisposeAsync();
            await _loop.DisposeAsync();
        }
    }

    [TestCase(1, false)]
    [TestCase(1, true)]
    [TestCase(2, false)]
    [TestCase(2, true)]
    public void Requests_OfEveryKind(int version, bool tls) => Run.Wait(Task.Run(async () =>
    {
        await using var site = await Site.StartAsync(version, tls);
        Assert.That(await site.Client.GetStringAsync($"{site.Url}/hello"), Is.EqualTo("hello"));
        for (var i = 0; i < 20; i++) await site.Client.GetStringAsync($"{site.Url}/hello");
        Assert.That(site.Connections, Is.EqualTo(1), "kept alive");

        var down = await site.Client.GetByteArrayAsync($"{site.Url}/bytes/3000000");
        Assert.That(down.AsSpan().SequenceEqual(Enumerable.Range(0, 3_000_000).Select(i => (byte)(i * 3)).ToArray()), Is.True);
        var up = new byte[3_000_000];
        new Random(2).NextBytes(up);
        using var content = new ByteArrayContent(up);
        using var answer = await site.Client.PostAsync($"{site.Url}/echo", content);
        Assert.That((await answer.Content.ReadAsByteArrayAsync()).AsSpan().SequenceEqual(up), Is.True);

        var many = await Task.WhenAll(Enumerable.Range(0, 100).Select(i => site.Client.GetByteArrayAsync($"{site.Url}/bytes/{i * 100}")));
        Assert.That(many.Select(b => b.Length), Is.EqualTo(Enumerable.Range(0, 100).Select(i => i * 100)));

        using var source = new CancellationTokenSource();
        var never = site.Client.GetStringAsync($"{site.Url}/never", source.Token);
        source.Cancel();
        await Expect.Throws<OperationCanceledException>(() => never);
        await Expect.Throws<HttpRequestException>(() => site.Client.GetStringAsync($"{site.Url}/abort"));
        Assert.That(await site.Client.GetStringAsync($"{site.Url}/hello"), Is.EqualTo("hello"));
    }));

    [Test]
    public void Refused_IsAnHttpRequestException() => Run.Wait(Task.Run(async () =>
    {
        await using var site = await Site.StartAsync(1, false);
        var error = await Expect.Throws<HttpRequestException>(() => site.Client.GetStringAsync($"http://localhost:{RealProgram.FreePort()}/"));
        Assert.That(error.InnerException, Is.InstanceOf<SocketException>().Or.InstanceOf<IOException>());
    }));
}
