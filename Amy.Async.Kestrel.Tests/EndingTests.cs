using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;

namespace Amy.Async.Kestrel.Tests;

/// <summary>Clients that misbehave, very many of them, and the end of the server.</summary>
[TestFixture(false)]
[TestFixture(true)]
internal sealed class EndingTests(bool inline)
{
    private static readonly byte[] s_request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"u8.ToArray();

    private int _unobserved;

    private void OnUnobserved(object? sender, UnobservedTaskExceptionEventArgs e) => Interlocked.Increment(ref _unobserved);

    [SetUp]
    public void Watch()
    {
        Settle();
        _unobserved = 0;
        TaskScheduler.UnobservedTaskException += OnUnobserved;
    }

    [TearDown]
    public void Look()
    {
        Settle();
        TaskScheduler.UnobservedTaskException -= OnUnobserved;
        Assert.That(_unobserved, Is.Zero, "unobserved exceptions");
    }

    private static void Settle()
    {
        for (var i = 0; i < 3; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
    }

    private static int Sockets() => Directory.GetFileSystemEntries("/proc/self/fd").Count(f => new FileInfo(f).LinkTarget?.StartsWith("socket:", StringComparison.Ordinal) == true);

    [Test]
    public async Task ClientGoes_InMidRequest_RequestIsAborted()
    {
        var aborted = new TaskCompletionSource();
        var entered = new TaskCompletionSource();
        await using var server = await Server.Start(inline, application => application.MapGet("/", async (HttpContext context) =>
        {
            using var registration = context.RequestAborted.Register(aborted.SetResult);
            entered.SetResult();
            await aborted.Task;
        }));
        using (var socket = await server.Connect())
        {
            await socket.SendAsync(s_request);
            await entered.Task.Within();
        }
        await aborted.Task.Within();
    }

    [Test]
    public async Task Http2_ClientCancelsARequest_OnlyThatOneIsAborted()
    {
        var aborted = new TaskCompletionSource();
        var entered = new TaskCompletionSource();
        var connections = new System.Collections.Concurrent.ConcurrentDictionary<string, int>();
        await using var server = await Server.Start(inline, application =>
        {
            application.MapGet("/hang", async (HttpContext context) =>
            {
                connections[context.Connection.Id] = 1;
                using var registration = context.RequestAborted.Register(aborted.SetResult);
                entered.SetResult();
                await aborted.Task;
            });
            application.MapGet("/", (HttpContext context) =>
            {
                connections[context.Connection.Id] = 1;
                return "hello";
            });
        }, listen => listen.Protocols = HttpProtocols.Http2);
        using var client = new HttpClient { DefaultRequestVersion = HttpVersion.Version20, DefaultVersionPolicy = HttpVersionPolicy.RequestVersionExact };
        using var cancel = new CancellationTokenSource();
        var hanging = client.GetStringAsync(server.Address("/hang"), cancel.Token);
        await entered.Task.Within();
        Assert.That(await client.GetStringAsync(server.Address()).Within(), Is.EqualTo("hello"), "beside it");
        await cancel.CancelAsync();
        Assert.That(async () => await hanging.Within(), Throws.InstanceOf<OperationCanceledException>());
        await aborted.Task.Within();
        for (var i = 0; i < 20; i++) Assert.That(await client.GetStringAsync(server.Address()).Within(), Is.EqualTo("hello"), "after it");
        Assert.That(connections, Has.Count.EqualTo(1), "all on one connection, which outlives the request");
        Assert.That(server.Log.Faults, Is.Empty);
    }

    [Test]
    public async Task Http2_ClientGoes_AllItsRequestsAreAborted()
    {
        const int Requests = 20;
        using var entered = new CountdownEvent(Requests);
        using var aborted = new CountdownEvent(Requests);
        await using var server = await Server.Start(inline, application => application.MapGet("/", async (HttpContext context) =>
        {
            var ended = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            using var registration = context.RequestAborted.Register(ended.SetResult);
            entered.Signal();
            await ended.Task;
            aborted.Signal();
        }), listen => listen.Protocols = HttpProtocols.Http2);
        using (var client = new HttpClient { DefaultRequestVersion = HttpVersion.Version20, DefaultVersionPolicy = HttpVersionPolicy.RequestVersionExact })
        {
            var hanging = Enumerable.Range(0, Requests).Select(_ => client.GetStringAsync(server.Address())).ToArray();
            Limits.Until(() => entered.IsSet, "all requests are there");
            client.CancelPendingRequests();
            foreach (var request in hanging) Assert.That(async () => await request.Within(), Throws.InstanceOf<OperationCanceledException>());
        }
        Limits.Until(() => aborted.IsSet, "all requests are aborted");
        Assert.That(server.Log.Faults, Is.Empty);
    }

    [Test]
    public async Task ClientResets_InMidResponse_EndsTheResponseAndNothingElse()
    {
        var ended = new TaskCompletionSource();
        await using var server = await Server.Start(inline, application =>
        {
            application.MapGet("/endless", async (HttpContext context) =>
            {
                var chunk = new byte[10_000];
                while (!context.RequestAborted.IsCancellationRequested) await context.Response.Body.WriteAsync(chunk);
                ended.TrySetResult();
            });
            application.MapGet("/", () => "hello");
        });
        using (var socket = await server.Connect())
        {
            await socket.SendAsync("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n"u8.ToArray());
            var buffer = new byte[65536];
            for (var got = 0; got < 300_000;) got += await socket.ReceiveAsync(buffer).Within();
            socket.LingerState = new LingerOption(true, 0);
        }
        await ended.Task.Within();
        using var client = new HttpClient();
        Assert.That(await client.GetStringAsync(server.Address()).Within(), Is.EqualTo("hello"));
        Assert.That(server.Log.Faults, Is.Empty);
    }

    [Test]
    public async Task SlowLoris_IsSentAway_AndOthersAreServed()
    {
        await using var server = await Server.Start(inline, application => application.MapGet("/", () => "hello"),
            kestrel: options => options.Limits.RequestHeadersTimeout = TimeSpan.FromSeconds(1));
        using var loris = await server.Connect();
        await loris.SendAsync("GET / HTTP/1.1\r\nHost"u8.ToArray());
        using var client = new HttpClient();
        for (var i = 0; i < 20; i++) Assert.That(await client.GetStringAsync(server.Address()).Within(), Is.EqualTo("hello"));
        using var reader = new StreamReader(new NetworkStream(loris));
        Assert.That(await reader.ReadToEndAsync().Within(), Does.StartWith("HTTP/1.1 408"));
    }

    [Test]
    public async Task TenThousandConnections_KeptAlive_AreAllServed_AndNoneIsLeft()
    {
        const int Connections = 10_000;
        var before = Sockets();
        await using (var server = await Server.Start(inline, application => application.MapGet("/", () => "hello"), transport: options => options.Backlog = 4096))
        {
            // In a process of their own: a usual limit of 20,000 descriptors is not enough for both ends.
            using var clients = Process.Start(new ProcessStartInfo("dotnet", [typeof(Clients).Assembly.Location, $"{server.Port}", $"{Connections}"]) { RedirectStandardOutput = true, RedirectStandardError = true })!;
            var errors = clients.StandardError.ReadToEndAsync();
            try
            {
                Assert.That(await clients.StandardOutput.ReadToEndAsync().WaitAsync(Clients.Limit), Is.EqualTo($"{2 * Connections} answers\n"), await errors);
            }
            finally
            {
                if (!clients.HasExited) clients.Kill();
            }
        }
        Settle();
        Assert.That(Sockets(), Is.LessThanOrEqualTo(before));
    }

    [Test]
    public async Task Stop_UnderLoad_AnswersWhatItAccepted()
    {
        var entered = 0;
        var before = Sockets();
        await using (var server = await Server.Start(inline, application => application.MapGet("/", async () =>
        {
            Interlocked.Increment(ref entered);
            await Task.Yield();
            return "hello";
        })))
        {
            var halted = false;
            var answered = 0;
            var clients = Enumerable.Range(0, 16).Select(_ => Task.Run(async () =>
            {
                var buffer = new byte[1024];
                while (true)
                {
                    using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
                    try
                    {
                        await socket.ConnectAsync(server.EndPoint);
                    }
                    catch (SocketException)
                    {
                        return; // nobody listens any more
                    }
                    for (var i = 0; i < 50; i++)
                    {
                        var text = "";
                        try
                        {
                            await socket.SendAsync(s_request);
                            for (int n; !text.EndsWith("0\r\n\r\n", StringComparison.Ordinal) && (n = await socket.ReceiveAsync(buffer)) > 0;) text += Encoding.ASCII.GetString(buffer, 0, n);
                        }
                        catch (SocketException)
                        {
                            // a request that crossed the end of a connection that was kept alive
                        }
                        if (text.Length == 0)
                        {
                            Assert.That(Volatile.Read(ref halted), "only a server that stops closes a connection");
                            return;
                        }
                        Assert.That(text, Does.StartWith("HTTP/1.1 200").And.EndsWith("0\r\n\r\n"), "an answer is whole");
                        Interlocked.Increment(ref answered);
                        if (text.Contains("Connection: close", StringComparison.Ordinal)) break;
                    }
                }
            })).ToArray();
            Limits.Until(() => Volatile.Read(ref answered) > 500, "there is load");
            Volatile.Write(ref halted, true);
            await server.StopAsync().Within();
            await Task.WhenAll(clients).Within();
            Assert.That(answered, Is.EqualTo(entered), "each request that reached the application was answered");
            Assert.That(server.Log.Faults, Is.Empty);
        }
        Settle();
        Assert.That(Sockets(), Is.LessThanOrEqualTo(before));
    }

    [Test]
    public async Task Stop_WithARequestThatDoesNotEnd_AbortsItAfterTheTimeout()
    {
        var entered = new TaskCompletionSource();
        var aborted = new TaskCompletionSource();
        await using var server = await Server.Start(inline, application => application.MapGet("/", async (HttpContext context) =>
        {
            using var registration = context.RequestAborted.Register(aborted.SetResult);
            entered.SetResult();
            await aborted.Task;
        }));
        using var socket = await server.Connect();
        await socket.SendAsync(s_request);
        await entered.Task.Within();
        using var timeout = new CancellationTokenSource(TimeSpan.FromMilliseconds(300));
        await server.StopAsync(timeout.Token).Within();
        await aborted.Task.Within();
    }

    [Test]
    public async Task BlockedHandler_OnTheThreadPool_HurtsNobody()
    {
        if (inline) Assert.Ignore("Inline it does: that is what the option's name says.");
        using var release = new ManualResetEventSlim();
        await using var server = await Server.Start(inline, application =>
        {
            application.MapGet("/block", () =>
            {
                release.Wait();
                return "blocked";
            });
            application.MapGet("/", () => "hello");
        }, transport: options => options.LoopCount = 1);
        using var client = new HttpClient();
        var blocked = client.GetStringAsync(server.Address("/block"));
        for (var i = 0; i < 20; i++) Assert.That(await client.GetStringAsync(server.Address()).Within(), Is.EqualTo("hello"));
        release.Set();
        Assert.That(await blocked.Within(), Is.EqualTo("blocked"));
    }

    [Test]
    public async Task BlockedLoop_IsToldInTheLog()
    {
        if (!inline) Assert.Ignore("The application is not on the loop.");
        var blocked = false;
        await using var server = await Server.Start(inline, application => application.MapGet("/", () =>
        {
            if (EventLoop.Current is null) return "hello"; // the request was there before the read: still on the thread pool
            Volatile.Write(ref blocked, true);
            Thread.Sleep(500); // what a handler must not do
            return "hello";
        }), transport: options => options.Loop = new EventLoopOptions { BlockedThreshold = TimeSpan.FromMilliseconds(50) });
        using var socket = await server.Connect();
        for (var i = 0; i < 500 && !Volatile.Read(ref blocked); i++)
        {
            await Task.Delay(10); // so that the read waits, sooner or later
            await socket.SendAsync(s_request);
            await socket.ReceiveAsync(new byte[1024]).Within();
        }
        Assert.That(blocked, Is.True, "no request was served on the loop");
        // The watchdog has a thread of its own, which may come late.
        for (var i = 0; i < 1000 && !server.Log.Entries.Any(e => e.Id.Id == 8); i++) await Task.Delay(10);
        Assert.That(server.Log.Entries.Where(e => e.Id.Id == 8), Is.Not.Empty);
    }

    [Test]
    public async Task Curl_GetsAndPosts()
    {
        if (!File.Exists("/usr/bin/curl")) Assert.Ignore("curl is missing");
        await using var server = await Server.Start(inline, application =>
        {
            application.MapGet("/", () => "hello");
            application.MapPost("/", async (HttpRequest request) => await new StreamReader(request.Body).ReadToEndAsync());
        });
        Assert.That(await Curl("-sS", server.Address().ToString()), Is.EqualTo("hello"));
        Assert.That(await Curl("-sS", "-d", "some data", server.Address().ToString()), Is.EqualTo("some data"));
        Assert.That(await Curl("-sS", "-H", "Connection: close", server.Address().ToString(), server.Address().ToString()), Is.EqualTo("hellohello"));
    }

    private static async Task<string> Curl(params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo("curl", arguments) { RedirectStandardOutput = true })!;
        var output = await process.StandardOutput.ReadToEndAsync().Within();
        await process.WaitForExitAsync().Within();
        return output;
    }
}
