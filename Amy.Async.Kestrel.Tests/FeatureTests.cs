using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Net.WebSockets;
using System.Runtime.InteropServices;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using Amy.Async.Kestrel.Tests.Protos;
using Grpc.Core;
using Grpc.Net.Client;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.AspNetCore.SignalR;
using Microsoft.AspNetCore.SignalR.Client;
using Microsoft.Extensions.DependencyInjection;

namespace Amy.Async.Kestrel.Tests;

/// <summary>What Kestrel offers, over this transport, with the clients that people use.</summary>
[TestFixture(false)]
[TestFixture(true)]
internal sealed class FeatureTests(bool inline)
{
    [Test]
    public async Task Https_WithSni_GivesEachNameItsCertificate_AndSpeaksBothVersions()
    {
        using var one = Certificates.Of("one.test");
        using var two = Certificates.Of("two.test");
        await using var server = await Server.Start(inline, application => application.MapGet("/", (HttpContext context) => context.Request.Protocol),
            listen => listen.UseHttps(https => https.ServerCertificateSelector = (_, name) => name == "two.test" ? two : one));
        foreach (var (name, version) in new[] { ("one.test", HttpVersion.Version11), ("two.test", HttpVersion.Version20) })
        {
            string? subject = null;
            using var handler = new SocketsHttpHandler
            {
                ConnectCallback = async (_, token) =>
                {
                    var socket = new Socket(SocketType.Stream, ProtocolType.Tcp);
                    await socket.ConnectAsync(server.EndPoint, token);
                    return new NetworkStream(socket, ownsSocket: true);
                },
                SslOptions = new SslClientAuthenticationOptions
                {
                    RemoteCertificateValidationCallback = (_, certificate, _, _) =>
                    {
                        subject = certificate!.Subject;
                        return subject.EndsWith(".test", StringComparison.Ordinal); // made by this test, and signed by itself
                    },
                },
            };
            using var client = new HttpClient(handler) { DefaultRequestVersion = version, DefaultVersionPolicy = HttpVersionPolicy.RequestVersionExact };
            Assert.That(await client.GetStringAsync(new Uri($"https://{name}/")).Within(), Is.EqualTo("HTTP/" + (version.Major == 2 ? "2" : "1.1")));
            Assert.That(subject, Is.EqualTo("CN=" + name));
        }
        Assert.That(server.Log.Faults, Is.Empty);
    }

    [Test]
    public async Task WebSocket_Echoes()
    {
        await using var server = await Server.Start(inline, application =>
        {
            application.UseWebSockets();
            application.Map("/ws", async (HttpContext context) =>
            {
                using var socket = await context.WebSockets.AcceptWebSocketAsync();
                var buffer = new byte[65536];
                while (true)
                {
                    var got = await socket.ReceiveAsync(buffer.AsMemory(), default);
                    if (got.MessageType == WebSocketMessageType.Close) break;
                    await socket.SendAsync(buffer.AsMemory(0, got.Count), got.MessageType, got.EndOfMessage, default);
                }
                await socket.CloseAsync(WebSocketCloseStatus.NormalClosure, null, default);
            });
        });
        using var client = new ClientWebSocket();
        await client.ConnectAsync(server.Address("/ws", "ws"), default).Within();
        var answer = new byte[100_000];
        foreach (var size in new[] { 1, 100, 5000, 60_000 })
        {
            var message = new byte[size];
            Random.Shared.NextBytes(message);
            await client.SendAsync(message, WebSocketMessageType.Binary, true, default).Within();
            var count = 0;
            ValueWebSocketReceiveResult got;
            do count += (got = await client.ReceiveAsync(answer.AsMemory(count), default).AsTask().Within()).Count;
            while (!got.EndOfMessage);
            Assert.That(answer.AsSpan(0, count).SequenceEqual(message));
        }
        await client.CloseAsync(WebSocketCloseStatus.NormalClosure, null, default).Within();
    }

    private sealed class EchoService : Echo.EchoBase
    {
        public override Task<EchoMessage> Once(EchoMessage request, ServerCallContext context) => Task.FromResult(request);

        public override async Task Both(IAsyncStreamReader<EchoMessage> requestStream, IServerStreamWriter<EchoMessage> responseStream, ServerCallContext context)
        {
            await foreach (var message in requestStream.ReadAllAsync()) await responseStream.WriteAsync(message);
        }
    }

    [Test]
    public async Task Grpc_CallsAndStreams_AreAnswered()
    {
        await using var server = await Server.Start(inline, application => application.MapGrpcService<EchoService>(), listen => listen.Protocols = HttpProtocols.Http2,
            build: builder => builder.Services.AddGrpc());
        using var channel = GrpcChannel.ForAddress(server.Address());
        var client = new Echo.EchoClient(channel);
        Assert.That((await client.OnceAsync(new EchoMessage { Text = "hello" }).ResponseAsync.Within()).Text, Is.EqualTo("hello"));
        using var both = client.Both();
        for (var i = 0; i < 50; i++)
        {
            await both.RequestStream.WriteAsync(new EchoMessage { Text = i.ToString(System.Globalization.CultureInfo.InvariantCulture) }).Within();
            Assert.That(await both.ResponseStream.MoveNext(default).Within());
            Assert.That(both.ResponseStream.Current.Text, Is.EqualTo(i.ToString(System.Globalization.CultureInfo.InvariantCulture)));
        }
        await both.RequestStream.CompleteAsync().Within();
        Assert.That(await both.ResponseStream.MoveNext(default).Within(), Is.False);
    }

    private sealed class EchoHub : Hub
    {
        public string Echo(string text) => text;

        public Task Shout(string text) => Clients.All.SendAsync("heard", text);
    }

    [Test]
    public async Task SignalR_InvokesAndBroadcasts()
    {
        await using var server = await Server.Start(inline, application => application.MapHub<EchoHub>("/hub"), build: builder => builder.Services.AddSignalR());
        await using var client = new HubConnectionBuilder().WithUrl(server.Address("/hub")).Build();
        var heard = new TaskCompletionSource<string>();
        client.On<string>("heard", heard.SetResult);
        await client.StartAsync().Within();
        Assert.That(await client.InvokeAsync<string>("Echo", "hello").Within(), Is.EqualTo("hello"));
        await client.InvokeAsync("Shout", "all").Within();
        Assert.That(await heard.Task.Within(), Is.EqualTo("all"));
    }

    [Test]
    public async Task ConnectionMiddleware_SeesEveryConnection()
    {
        var seen = 0;
        await using var server = await Server.Start(inline, application => application.MapGet("/", () => "hello"), listen => listen.Use(next => async connection =>
        {
            Interlocked.Increment(ref seen);
            Assert.That(connection.Features.Get<IConnectionSocketFeature>(), Is.Not.Null);
            await next(connection);
        }));
        for (var i = 0; i < 3; i++)
        {
            using var client = new HttpClient();
            Assert.That(await client.GetStringAsync(server.Address()).Within(), Is.EqualTo("hello"));
        }
        Assert.That(seen, Is.EqualTo(3));
    }

    [Test]
    public async Task UnixSocket_IsServed_AndItsFileRemoved()
    {
        var path = Path.Combine(Path.GetTempPath(), "amy-" + Guid.NewGuid().ToString("N")[..12]);
        await using (await Server.Start(inline, application => application.MapGet("/", () => "hello"), kestrel: options => options.ListenUnixSocket(path)))
        {
            using var handler = new SocketsHttpHandler
            {
                ConnectCallback = async (_, token) =>
                {
                    var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                    await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), token);
                    return new NetworkStream(socket, ownsSocket: true);
                },
            };
            using var client = new HttpClient(handler);
            Assert.That(await client.GetStringAsync(new Uri("http://localhost/")).Within(), Is.EqualTo("hello"));
        }
        Assert.That(File.Exists(path), Is.False);
    }

    [Test]
    public async Task InheritedDescriptor_IsServed()
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0)); // and not listening yet
        var port = ((IPEndPoint)listener.LocalEndPoint!).Port;
        var descriptor = dup((int)listener.SafeHandle.DangerousGetHandle()); // the server's own, as an inherited one is
        Assert.That(descriptor, Is.GreaterThanOrEqualTo(0));
        await using var server = await Server.Start(inline, application => application.MapGet("/", () => "hello"), kestrel: options => options.ListenHandle((ulong)descriptor));
        using var client = new HttpClient();
        Assert.That(await client.GetStringAsync(new Uri($"http://127.0.0.1:{port}/")).Within(), Is.EqualTo("hello"));
    }

    [DllImport("libc")]
    private static extern int dup(int descriptor);

    [Test]
    public async Task NoDelay_IsThatOfTheOptions_WhoeverMadeTheListener([Values] bool noDelay, [Values] bool ofTheApplications)
    {
        var set = new TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var server = await Server.Raw(inline, connection =>
        {
            set.TrySetResult(connection.Features.Get<IConnectionSocketFeature>()!.Socket.NoDelay);
            return Task.CompletedTask;
        }, options =>
        {
            options.NoDelay = noDelay;
            if (ofTheApplications) options.CreateBoundListenSocket = Bound;
        });
        using var socket = await server.Connect();
        Assert.That(await set.Task.Within(), Is.EqualTo(noDelay));
    }

    [Test]
    public async Task CreateBoundListenSocket_MakesTheSocketOfAnEndPoint()
    {
        var made = new List<(EndPoint EndPoint, Socket Socket)>();
        Socket? accepting;
        await using (var server = await Server.Start(inline, application => application.MapGet("/", () => "hello"), transport: options =>
        {
            options.ReusePort = true; // and yet one
            options.CreateBoundListenSocket = endPoint =>
            {
                var socket = Bound(endPoint);
                socket.SetSocketOption(SocketOptionLevel.Socket, SocketOptionName.ReceiveBuffer, 12_345);
                made.Add((endPoint, socket));
                return socket;
            };
        }))
        {
            Assert.That(made, Has.Count.EqualTo(1));
            Assert.That(made[0].EndPoint, Is.EqualTo(new IPEndPoint(IPAddress.Loopback, 0)));
            accepting = made[0].Socket;
            Assert.That(((IPEndPoint)accepting.LocalEndPoint!).Port, Is.EqualTo(server.Port));
            using var client = new HttpClient();
            Assert.That(await client.GetStringAsync(server.Address()).Within(), Is.EqualTo("hello"));
        }
        Assert.That(accepting.SafeHandle.IsClosed, Is.True, "it is the transport's");
    }

    [Test]
    public async Task CreateBoundListenSocket_ThatFails_FailsTheStart()
    {
        var failure = await Limits.Throws<IOException>(() => Server.Start(inline, _ => { }, transport: options =>
            options.CreateBoundListenSocket = _ => throw new SocketException((int)SocketError.AddressAlreadyInUse)));
        Assert.That(failure.InnerException, Is.InstanceOf<AddressInUseException>());
        var odd = await Limits.Throws<InvalidOperationException>(() => Server.Start(inline, _ => { }, transport: options =>
            options.CreateBoundListenSocket = _ => null!));
        Assert.That(odd.Message, Does.Contain("CreateBoundListenSocket"));
    }

    private static Socket Bound(EndPoint endPoint)
    {
        var socket = new Socket(endPoint.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        socket.Bind(endPoint);
        return socket;
    }

    [Test]
    public async Task AddressInUse_IsToldAsKestrelTellsIt([Values] bool reusePort)
    {
        await using var server = await Server.Start(inline, _ => { });
        var failure = await Limits.Throws<IOException>(() => Server.Start(inline, _ => { }, transport: options => options.ReusePort = reusePort,
            kestrel: options => options.Listen(server.EndPoint)));
        Assert.That(failure.InnerException, Is.InstanceOf<AddressInUseException>());
    }

    [Test]
    public async Task AnyAddress_IsServedOverBothVersionsOfIP([Values] bool reusePort)
    {
        if (!Socket.OSSupportsIPv6) Assert.Ignore("There is no IPv6 here.");
        await using var server = await Server.Start(inline, application => application.MapGet("/", (HttpContext context) => context.Connection.RemoteIpAddress!.ToString()),
            transport: options => options.ReusePort = reusePort, kestrel: options => options.ListenAnyIP(0));
        var any = server.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses.Single(address => address.Contains("[::]", StringComparison.Ordinal));
        var port = new Uri(any).Port;
        Assert.That(port, Is.Not.Zero);
        using var client = new HttpClient();
        Assert.That(await client.GetStringAsync(new Uri($"http://127.0.0.1:{port}/")).Within(), Is.EqualTo("::ffff:127.0.0.1"));
        Assert.That(await client.GetStringAsync(new Uri($"http://[::1]:{port}/")).Within(), Is.EqualTo("::1"));
    }

    [Test]
    public async Task ReusePort_ServesOnEveryLoop()
    {
        var loops = new System.Collections.Concurrent.ConcurrentDictionary<EventLoop, int>();
        await using var server = await Server.Raw(inline: true, async connection =>
        {
            // Handlers start on the thread pool. What is awaited before it is there resumes on the connection's loop, so the client
            // speaks only when the read waits.
            var reading = connection.Transport.Input.ReadAsync();
            await connection.Transport.Output.WriteAsync(new byte[1]);
            var read = await reading;
            if (EventLoop.Current is { } loop) loops[loop] = 1;
            connection.Transport.Input.AdvanceTo(read.Buffer.End);
            await connection.Transport.Output.WriteAsync(new byte[1]);
        }, options => options.ReusePort = true);
        for (var i = 0; i < 1000 && loops.Count < 2; i++) // by a hash: sooner or later
        {
            using var socket = await server.Connect();
            Assert.That(await socket.ReceiveAsync(new byte[1]).Within(), Is.EqualTo(1), "the greeting");
            await socket.SendAsync(new byte[1]);
            Assert.That(await socket.ReceiveAsync(new byte[1]).Within(), Is.EqualTo(1), "the answer");
        }
        Assert.That(loops, Has.Count.EqualTo(2));
    }

    [Test]
    public async Task ConnectionFactory_ConnectsFromTheSameLoops()
    {
        await using var server = await Server.Raw(inline, RawTests.Echo);
        var factory = server.Services.GetRequiredService<IConnectionFactory>();
        await using var connection = await factory.ConnectAsync(server.EndPoint);
        await connection.Transport.Output.WriteAsync(Encoding.ASCII.GetBytes("hello"));
        var read = await connection.Transport.Input.ReadAtLeastAsync(5).AsTask().Within();
        Assert.That(Encoding.ASCII.GetString(read.Buffer), Is.EqualTo("hello"));
        connection.Transport.Input.AdvanceTo(read.Buffer.End);
        var failure = await Limits.Throws<SocketException>(async () => await factory.ConnectAsync(new IPEndPoint(IPAddress.Loopback, 1)));
        Assert.That(failure.SocketErrorCode, Is.EqualTo(SocketError.ConnectionRefused));
    }
}
