using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using System.Text;

namespace Amy.Async.Tests.Programs;

/// <summary>
/// The platform's own protocols over the loop's streams: between the kernel's event and the user's next line no thread of the
/// pool is touched, and every continuation is on the loop's thread.
/// </summary>
[TestFixture]
internal sealed class ThirdPartyAffinityTests
{
    private const int RoundTrips = 100;
    private const int Attempts = 200;

    private static readonly X509Certificate2 s_certificate = TlsTests.MakeCertificate("localhost");

    [OneTimeTearDown]
    public void Dispose() => s_certificate.Dispose();

    /// <summary>
    /// What the pool does during many round trips. One hop in each would be as many items; now and then the test host or a timer
    /// of the runtime has something of its own there (on a busy machine every tenth of a second), so that one undisturbed measurement of
    /// many short ones counts.
    /// </summary>
    private static async Task CountsNothing(Func<Task> roundTrip)
    {
        var thread = Environment.CurrentManagedThreadId;
        for (var i = 0; i < 50; i++) await roundTrip(); // warm
        var fewest = long.MaxValue;
        for (var attempt = 0; attempt < Attempts && fewest > 0; attempt++)
        {
            var before = ThreadPool.CompletedWorkItemCount;
            for (var i = 0; i < RoundTrips; i++)
            {
                await roundTrip();
                if (Environment.CurrentManagedThreadId != thread) Assert.Fail("another thread");
            }
            fewest = Math.Min(fewest, ThreadPool.CompletedWorkItemCount - before);
        }
        Assert.That(fewest, Is.Zero, $"items of the thread pool in {RoundTrips} round trips");
    }

    private static void CheckPlace(int thread) => Assert.That((Environment.CurrentManagedThreadId, Thread.CurrentThread.IsThreadPoolThread), Is.EqualTo((thread, false)));

    [Test]
    public void SslStream_BothEndsOnTheLoop([Values(SslProtocols.Tls12, SslProtocols.Tls13)] SslProtocols protocol, [Values] bool capture) => Run.OnLoop(async () =>
    {
        var thread = Environment.CurrentManagedThreadId;
        var (a, b) = await Pair.Async();
        await using var client = new SslStream(a.AsStream(), false, (_, certificate, _, _) => certificate?.GetCertHashString() == s_certificate.GetCertHashString());
        await using var server = new SslStream(b.AsStream());
        async Task Serve()
        {
            await server.AuthenticateAsServerAsync(new SslServerAuthenticationOptions { ServerCertificate = s_certificate, EnabledSslProtocols = protocol }).ConfigureAwait(capture);
            CheckPlace(thread);
            var buffer = new byte[20_000];
            while (await server.ReadAsync(buffer).ConfigureAwait(capture) is var n and > 0)
            {
                CheckPlace(thread);
                await server.WriteAsync(buffer.AsMemory(0, n)).ConfigureAwait(capture);
                CheckPlace(thread);
            }
        }
        var serving = Serve();
        await client.AuthenticateAsClientAsync(new SslClientAuthenticationOptions { TargetHost = "localhost", EnabledSslProtocols = protocol });
        Assert.That((client.SslProtocol, Environment.CurrentManagedThreadId), Is.EqualTo((protocol, thread)));
        var message = new byte[1000];
        await CountsNothing(async () =>
        {
            await client.WriteAsync(message).ConfigureAwait(capture);
            CheckPlace(thread);
            for (var n = 0; n < message.Length;)
            {
                n += await client.ReadAsync(message).ConfigureAwait(capture);
                CheckPlace(thread);
            }
        });
        await client.ShutdownAsync();
        await serving;
    });

    /// <summary>A server of HTTP/1.1 on a thread of its own, with blocking calls: it uses no pool. Ends when its peer does.</summary>
    private static (Socket Listener, Thread Thread) StartServer(bool tls)
    {
        var listener = Pair.ListenPlain();
        var answer = Encoding.ASCII.GetBytes("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Type: text/plain\r\n\r\nhello");
        var thread = Run.Waiter(() =>
        {
            try
            {
                using var socket = listener.Accept();
                socket.NoDelay = true;
                using Stream network = new NetworkStream(socket);
                using var stream = tls ? new SslStream(network) : network;
                if (stream is SslStream ssl) ssl.AuthenticateAsServer(s_certificate);
                var buffer = new byte[4096];
                var length = 0;
                while (stream.Read(buffer, length, buffer.Length - length) is var n and > 0)
                {
                    length += n;
                    if (!buffer.AsSpan(0, length).EndsWith("\r\n\r\n"u8)) continue; // requests have no body
                    length = 0;
                    stream.Write(answer);
                }
            }
            catch (Exception e) when (e is IOException or SocketException)
            {
            }
        });
        return (listener, thread);
    }

    [Test]
    public void HttpClient_WarmHttp11([Values] bool tls, [Values] bool capture)
    {
        var (listener, server) = StartServer(tls);
        using (listener)
        {
            Run.OnLoop(async () =>
            {
                var loop = EventLoop.Current!;
                var thread = Environment.CurrentManagedThreadId;
                var connections = 0;
                using var handler = new SocketsHttpHandler
                {
                    ConnectCallback = async (context, token) =>
                    {
                        connections++;
                        return (await AsyncSocket.ConnectAsync(listener.LocalEndPoint!, loop, token)).AsStream();
                    },
                    SslOptions = new SslClientAuthenticationOptions { RemoteCertificateValidationCallback = (_, certificate, _, _) => certificate?.GetCertHashString() == s_certificate.GetCertHashString() },
                    PooledConnectionLifetime = Timeout.InfiniteTimeSpan,
                };
                using var client = new HttpClient(handler);
                var url = new Uri($"{(tls ? "https" : "http")}://localhost:{((IPEndPoint)listener.LocalEndPoint!).Port}/");
                Assert.That(await client.GetStringAsync(url), Is.EqualTo("hello"));
                await CountsNothing(async () =>
                {
                    using var response = await client.GetAsync(url, HttpCompletionOption.ResponseHeadersRead).ConfigureAwait(capture);
                    CheckPlace(thread);
                    var text = await response.Content.ReadAsStringAsync().ConfigureAwait(capture);
                    CheckPlace(thread);
                    if (text != "hello") Assert.Fail(text);
                });
                Assert.That(connections, Is.EqualTo(1));
            });
        }
        Assert.That(server.Join(Run.Limit), Is.True);
    }
}
