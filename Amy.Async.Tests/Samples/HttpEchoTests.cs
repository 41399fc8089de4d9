using System.Net;
using System.Net.Http.Headers;
using System.Net.Sockets;
using System.Text;
using Amy.Async.Samples;

namespace Amy.Async.Tests.Samples;

/// <summary>The HTTP sample with curl, with HttpClient and with bad input.</summary>
[TestFixture]
internal sealed class HttpEchoTests
{
    private static void WithServer(Func<HttpEchoServer, string, Task> test) => Run.OnLoop(async () =>
    {
        using var server = new HttpEchoServer(new IPEndPoint(IPAddress.Loopback, 0));
        var running = server.RunAsync();
        await test(server, $"http://{server.EndPoint}/");
        server.Dispose();
        await running;
    });

    [Test]
    public void Curl_GetsPostsAndUploads() => WithServer(async (_, url) =>
    {
        Assert.That(await RealProgram.RunAsync("curl", null, "-sS", url + "some/path?q=1"), Is.EqualTo((0, "GET /some/path?q=1\n")));
        Assert.That(await RealProgram.RunAsync("curl", null, "-sS", "-d", "hello", url), Is.EqualTo((0, "hello")));
        var (code, head) = await RealProgram.RunAsync("curl", null, "-sS", "-I", url);
        Assert.That(code, Is.Zero);
        Assert.That(head, Does.StartWith("HTTP/1.1 200 OK\r\n"));
        // Chunked, from standard input; a body over 1 kB is announced with Expect: 100-continue.
        var body = string.Concat(Enumerable.Range(0, 20_000).Select(i => i % 10));
        Assert.That(await RealProgram.RunAsync("curl", body, "-sS", "-T", "-", url), Is.EqualTo((0, body)));
        Assert.That(await RealProgram.RunAsync("curl", body, "-sS", "--data-binary", "@-", "-H", "Expect: 100-continue", url), Is.EqualTo((0, body)));
        // Two requests on one connection.
        var (_, twice) = await RealProgram.RunAsync("curl", null, "-sS", "-w", "%{num_connects}\n", url + "a", url + "b");
        Assert.That(twice, Is.EqualTo("GET /a\n1\nGET /b\n0\n"));
        var (_, large) = await RealProgram.RunAsync("curl", new string('x', 2_000_000), "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--data-binary", "@-", url);
        Assert.That(large, Does.StartWith("413"));
    });

    [Test]
    public void HttpClient_ManyAtOnce() => WithServer(async (_, url) =>
    {
        using var client = new HttpClient();
        var answers = await Task.WhenAll(Enumerable.Range(0, 50).Select(async i =>
        {
            using var content = new ByteArrayContent([.. Enumerable.Range(0, i * 2000).Select(j => (byte)(i + j))]);
            content.Headers.ContentType = new MediaTypeHeaderValue("application/x-test");
            using var answer = await client.PostAsync(url, content);
            return (answer.StatusCode, Type: answer.Content.Headers.ContentType?.MediaType, Body: await answer.Content.ReadAsByteArrayAsync());
        }));
        for (var i = 1; i < answers.Length; i++)
        {
            Assert.That(answers[i].StatusCode, Is.EqualTo(HttpStatusCode.OK));
            Assert.That(answers[i].Type, Is.EqualTo("application/x-test"));
            Assert.That(answers[i].Body, Is.EqualTo(Enumerable.Range(0, i * 2000).Select(j => (byte)(i + j))));
        }
    });

    [TestCase("GET / HTTP/1.1\r\nHost: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "GET /\n|GET /2\n", TestName = "Pipelined")]
    [TestCase("nonsense\r\n\r\n", "400", TestName = "NoRequest")]
    [TestCase("GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", "400", TestName = "NoHeader")]
    [TestCase("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", "400", TestName = "NoLength")]
    [TestCase("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "400", TestName = "Smuggled")]
    [TestCase("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", "501", TestName = "UnknownEncoding")]
    [TestCase("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "400", TestName = "BadChunk")]
    [TestCase("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabX\r\n", "400", TestName = "ChunkWithoutEnd")]
    [TestCase("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n", "413", TestName = "TooLarge")]
    [TestCase("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nab", "400", TestName = "BodyWithoutEnd")]
    [TestCase("GET / HTTP/1.0\r\n\r\n", "Connection: close", TestName = "Old")]
    [TestCase("GET / HTTP/1.1\r\n\r\n", "400", TestName = "NoHost")]
    [TestCase("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "400", TestName = "TwoHosts")]
    [TestCase("POST / HTTP/1.1\r\nHost: x\r\nContent-Type: a\nInjected: 1\r\nContent-Length: 1\r\n\r\nx", "400", TestName = "BareLineFeed")]
    public void Wire(string request, string expected) => WithServer(async (server, _) =>
    {
        using var client = await AsyncSocket.ConnectAsync(server.EndPoint);
        foreach (var part in request.Chunk(7)) await client.SendAsync(Encoding.ASCII.GetBytes(part));
        client.Shutdown(SocketShutdown.Send);
        using var reader = new StreamReader(client.AsStream());
        var answer = await reader.ReadToEndAsync();
        foreach (var part in expected.Split('|')) Assert.That(answer, Does.Contain(part));
    });

    [Test]
    public void ConnectionWithCloseAmongOthers_EndsThere() => WithServer(async (server, _) =>
    {
        using var client = await AsyncSocket.ConnectAsync(server.EndPoint);
        await client.SendAsync("GET /1 HTTP/1.1\r\nHost: x\r\nConnection: TE, Close\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n"u8.ToArray());
        using var reader = new StreamReader(client.AsStream());
        Assert.That(await reader.ReadToEndAsync(), Does.Contain("GET /1").And.Contain("Connection: close").And.Not.Contain("GET /2"));
    });

    [Test]
    public void HugeHead_Is431_AndBounded() => WithServer(async (server, _) =>
    {
        using var client = await AsyncSocket.ConnectAsync(server.EndPoint);
        await client.SendAsync(Encoding.ASCII.GetBytes("GET / HTTP/1.1\r\nX: " + new string('x', 17_000))); // it may have no end
        using var reader = new StreamReader(client.AsStream());
        Assert.That(await reader.ReadToEndAsync(), Does.StartWith("HTTP/1.1 431 "));
    });

    /// <summary>A connection that is left counts until all is sent; else Dispose would not find it.</summary>
    [Test]
    public void LastAnswer_NotSentYet_KeepsTheConnection() => WithServer(async (server, _) =>
    {
        var before = Descriptors.Settle();
        using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { ReceiveBufferSize = 4096, Blocking = false };
        try
        {
            client.Connect(server.EndPoint);
        }
        catch (SocketException e) when (e.SocketErrorCode is SocketError.WouldBlock or SocketError.InProgress)
        {
            await client.WritableAsync();
        }
        var request = Encoding.ASCII.GetBytes("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1000000\r\n\r\n" + new string('x', 1_000_000));
        for (var sent = 0; sent < request.Length;)
        {
            await client.WritableAsync();
            var n = client.Send(request.AsSpan(sent), SocketFlags.None, out var error);
            if (error == SocketError.Success) sent += n;
        }
        var buffer = new byte[4096];
        do // slowly, until the server is done with it
        {
            await client.ReadableAsync();
            client.Receive(buffer, 0, buffer.Length, SocketFlags.None, out var ignored);
            await EventLoop.Current!.Yield();
        }
        while (server.Connections > 0);
        Assert.That(Descriptors.Settle(), Is.EqualTo(before + 1), "closed as well: only the client's is left");
    });
}
