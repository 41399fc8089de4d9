using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;

namespace Amy.Async.Kestrel.Tests;

/// <summary>HTTP/1.1 and HTTP/2 with HttpClient, and by hand where a client would not do it.</summary>
[TestFixture(false)]
[TestFixture(true)]
internal sealed class HttpTests(bool inline)
{
    private sealed record Message(string Text);

    private static void Map(WebApplication application)
    {
        application.MapGet("/", () => "hello");
        application.MapGet("/json", () => new Message("hello"));
        application.MapPost("/sum", async (HttpRequest request) =>
        {
            using var sha = SHA256.Create();
            return Convert.ToHexString(await sha.ComputeHashAsync(request.Body));
        });
        application.MapGet("/bytes/{count:long}", async (HttpResponse response, long count) =>
        {
            response.ContentLength = count;
            for (var sent = 0L; sent < count;)
            {
                var memory = response.BodyWriter.GetMemory(4096);
                var n = (int)Math.Min(memory.Length, count - sent);
                memory.Span[..n].Fill((byte)'x');
                response.BodyWriter.Advance(n);
                sent += n;
                if (sent % 65536 < 4096) await response.BodyWriter.FlushAsync();
            }
            await response.BodyWriter.FlushAsync();
        });
        application.MapPost("/echo", async (HttpRequest request, HttpResponse response) => await request.Body.CopyToAsync(response.Body));
    }

    private Task<Server> Start(HttpProtocols protocols = HttpProtocols.Http1) => Server.Start(inline, Map, listen => listen.Protocols = protocols);

    private static HttpClient Client(HttpProtocols protocols) => new()
    {
        DefaultRequestVersion = protocols == HttpProtocols.Http2 ? HttpVersion.Version20 : HttpVersion.Version11,
        DefaultVersionPolicy = HttpVersionPolicy.RequestVersionExact,
        Timeout = Limits.Limit,
    };

    [TestCase(HttpProtocols.Http1)]
    [TestCase(HttpProtocols.Http2)]
    public async Task Requests_OneAfterTheOther_AreAnswered(HttpProtocols protocols)
    {
        await using var server = await Start(protocols);
        using var client = Client(protocols);
        for (var i = 0; i < 50; i++) Assert.That(await client.GetStringAsync(server.Address()).Within(), Is.EqualTo("hello"));
        Assert.That(await client.GetFromJsonAsync<Message>(server.Address("/json")).Within(), Is.EqualTo(new Message("hello")));
        Assert.That(server.Log.Faults, Is.Empty);
    }

    [TestCase(HttpProtocols.Http1)]
    [TestCase(HttpProtocols.Http2)]
    public async Task Requests_SideBySide_AreAnswered(HttpProtocols protocols)
    {
        await using var server = await Start(protocols);
        using var client = Client(protocols);
        var answers = await Task.WhenAll(Enumerable.Range(0, 200).Select(_ => client.GetStringAsync(server.Address()))).Within();
        Assert.That(answers, Is.All.EqualTo("hello"));
    }

    [TestCase(HttpProtocols.Http1)]
    [TestCase(HttpProtocols.Http2)]
    public async Task LargeUpload_ArrivesAsItWasSent(HttpProtocols protocols)
    {
        await using var server = await Start(protocols);
        using var client = Client(protocols);
        var data = new byte[20_000_000];
        new Random(1).NextBytes(data);
        using var answer = await client.PostAsync(server.Address("/sum"), new ByteArrayContent(data)).Within();
        Assert.That(await answer.Content.ReadAsStringAsync(), Is.EqualTo(Convert.ToHexString(SHA256.HashData(data))));
    }

    [TestCase(HttpProtocols.Http1)]
    [TestCase(HttpProtocols.Http2)]
    public async Task LargeDownload_ArrivesWhole(HttpProtocols protocols)
    {
        await using var server = await Start(protocols);
        using var client = Client(protocols);
        var data = await client.GetByteArrayAsync(server.Address("/bytes/30000000")).Within();
        Assert.That(data, Has.Length.EqualTo(30_000_000));
        Assert.That(data.AsSpan().IndexOfAnyExcept((byte)'x'), Is.EqualTo(-1));
    }

    [TestCase(HttpProtocols.Http1)]
    [TestCase(HttpProtocols.Http2)]
    public async Task FilesOverTls_ArriveWhole_BothWays(HttpProtocols protocols)
    {
        using var certificate = Certificates.Of("one.test");
        await using var server = await Server.Start(inline, Map, listen =>
        {
            listen.Protocols = protocols;
            listen.UseHttps(certificate);
        }, kestrel: options => options.Limits.MaxRequestBodySize = 100_000_000);
        using var handler = new SocketsHttpHandler { SslOptions = { RemoteCertificateValidationCallback = (_, given, _, _) => given!.Subject == "CN=one.test" } };
        using var client = new HttpClient(handler)
        {
            DefaultRequestVersion = protocols == HttpProtocols.Http2 ? HttpVersion.Version20 : HttpVersion.Version11,
            DefaultVersionPolicy = HttpVersionPolicy.RequestVersionExact,
            Timeout = Limits.Limit,
        };
        var data = new byte[40_000_000];
        new Random(3).NextBytes(data);
        using var upload = client.PostAsync(server.Address("/sum", "https"), new ByteArrayContent(data));
        using var download = client.GetByteArrayAsync(server.Address("/bytes/40000000", "https"));
        await Task.WhenAll(upload, download).Within();
        Assert.That(await upload.Result.Content.ReadAsStringAsync(), Is.EqualTo(Convert.ToHexString(SHA256.HashData(data))));
        Assert.That(download.Result, Has.Length.EqualTo(40_000_000));
        Assert.That(download.Result.AsSpan().IndexOfAnyExcept((byte)'x'), Is.EqualTo(-1));
        Assert.That(server.Log.Faults, Is.Empty);
    }

    [Test]
    public async Task BothWaysAtOnce_WithBackPressure_LosesNothing()
    {
        await using var server = await Start();
        using var client = Client(HttpProtocols.Http1);
        var data = new byte[4_000_000];
        new Random(2).NextBytes(data);
        using var request = new HttpRequestMessage(HttpMethod.Post, server.Address("/echo")) { Content = new ByteArrayContent(data), Version = client.DefaultRequestVersion, VersionPolicy = HttpVersionPolicy.RequestVersionExact };
        using var answer = await client.SendAsync(request, HttpCompletionOption.ResponseHeadersRead).Within();
        Assert.That((await answer.Content.ReadAsByteArrayAsync().Within()).AsSpan().SequenceEqual(data));
    }

    [Test]
    public async Task Pipelined_AreAnsweredInOrder()
    {
        await using var server = await Start();
        using var socket = await server.Connect();
        var requests = new StringBuilder();
        for (var i = 1; i <= 100; i++) requests.Append(System.Globalization.CultureInfo.InvariantCulture, $"GET /bytes/{i} HTTP/1.1\r\nHost: a\r\n\r\n");
        await socket.SendAsync(Encoding.ASCII.GetBytes(requests.ToString()));
        using var reader = new StreamReader(new NetworkStream(socket), Encoding.ASCII);
        for (var i = 1; i <= 100; i++)
        {
            var length = -1;
            for (string? line; !string.IsNullOrEmpty(line = await reader.ReadLineAsync().Within());)
                if (line.StartsWith("Content-Length: ", StringComparison.Ordinal)) length = int.Parse(line["Content-Length: ".Length..], System.Globalization.CultureInfo.InvariantCulture);
            Assert.That(length, Is.EqualTo(i));
            var body = new char[i];
            Assert.That(await reader.ReadBlockAsync(body).AsTask().Within(), Is.EqualTo(i));
        }
    }

    [Test]
    public async Task RequestInPieces_IsAnswered()
    {
        await using var server = await Start();
        using var socket = await server.Connect();
        foreach (var c in "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n") await socket.SendAsync(new[] { (byte)c });
        using var reader = new StreamReader(new NetworkStream(socket), Encoding.ASCII);
        Assert.That(await reader.ReadToEndAsync().Within(), Does.StartWith("HTTP/1.1 200").And.Contain("hello"));
    }
}
