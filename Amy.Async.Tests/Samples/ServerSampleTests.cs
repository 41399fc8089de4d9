using System.Net;
using System.Net.Sockets;
using System.Text;
using Amy.Async.Samples;
using Microsoft.Extensions.Logging.Abstractions;

namespace Amy.Async.Tests.Samples;

/// <summary>The samples that serve, themselves, with real clients.</summary>
[TestFixture]
internal sealed class ServerSampleTests
{
    private static readonly IPEndPoint s_any = new(IPAddress.Loopback, 0);

    private static async Task<byte[]> Exchange(EndPoint server, byte[] data)
    {
        using var client = await AsyncSocket.ConnectAsync(server);
        var sending = client.SendAsync(data).AsTask();
        var all = new byte[data.Length];
        await client.AsStream(ownsSocket: false).ReadExactlyAsync(all);
        await sending;
        client.Shutdown(SocketShutdown.Send);
        Assert.That(await client.ReceiveAsync(new byte[1]), Is.Zero);
        return all;
    }

    private static byte[] Data(int length) => [.. Enumerable.Range(0, length).Select(i => (byte)(i * 23 + i / 249))];

    [Test]
    public void Echo_ManyClients_AndOneThatVanishes() => Run.OnLoop(async () =>
    {
        using var listener = AsyncSocket.Listen(s_any);
        var serving = EchoServer.RunAsync(listener);
        (await AsyncSocket.ConnectAsync(listener.LocalEndPoint!)).Abort();
        foreach (var back in await Task.WhenAll(Enumerable.Range(1, 30).Select(i => Exchange(listener.LocalEndPoint!, Data(i * 3000))))) Assert.That(back, Is.EqualTo(Data(back.Length)));
        listener.Dispose();
        await serving;
    });

    [Test]
    public void SocketAsyncEventArgs_BeforeAndAfter_DoTheSame() => Run.OnLoop(async () =>
    {
        using var before = new Before(s_any);
        using var after = new After(s_any);
        var serving = after.RunAsync();
        foreach (var (endPoint, server) in new (EndPoint, IDisposable)[] { (before.EndPoint, before), (after.EndPoint, after) })
        {
            (await AsyncSocket.ConnectAsync(endPoint)).Abort();
            foreach (var back in await Task.WhenAll(Enumerable.Range(1, 20).Select(i => Exchange(endPoint, Data(i * 5000))))) Assert.That(back, Is.EqualTo(Data(back.Length)));
            using var open = await AsyncSocket.ConnectAsync(endPoint);
            await open.SendAsync(new byte[1]);
            Assert.That(await open.ReceiveAsync(new byte[1]), Is.EqualTo(1));
            server.Dispose();
            try
            {
                Assert.That(await open.ReceiveAsync(new byte[1]), Is.Zero);
            }
            catch (SocketException)
            {
            }
        }
        await serving;
    });

    private sealed class Guest(AsyncSocket socket) : IAsyncDisposable
    {
        private readonly IAsyncEnumerator<string> _lines = socket.ReadLinesAsync().GetAsyncEnumerator();

        internal AsyncSocket Socket => socket;

        internal static async Task<Guest> Enter(ChatRoom room, string name)
        {
            var guest = new Guest(await AsyncSocket.ConnectAsync(room.EndPoint));
            await guest.Say(name);
            Assert.That(await guest.Hear(), Is.EqualTo($"* {name} has come"));
            return guest;
        }

        internal async Task Say(string line) => await socket.SendAsync(Encoding.UTF8.GetBytes(line + "\n"));

        internal async Task<string> Hear() => await _lines.MoveNextAsync() ? _lines.Current : throw new AssertionException("The room has closed the connection.");

        public ValueTask DisposeAsync()
        {
            socket.Dispose();
            return default;
        }
    }

    [Test]
    public void Chat_AllOthersHear_AndAnAbsentOneIsDropped() => Run.OnLoop(async () =>
    {
        using var room = new ChatRoom(s_any);
        var running = room.RunAsync();
        await using var ann = await Guest.Enter(room, "Ann");
        await using var bob = await Guest.Enter(room, "Bob");
        Assert.That(await ann.Hear(), Is.EqualTo("* Bob has come"));
        await ann.Say("Grüße");
        Assert.That(await bob.Hear(), Is.EqualTo("Ann: Grüße"));
        await bob.Say("and back");
        Assert.That(await ann.Hear(), Is.EqualTo("Bob: and back"));

        await using var deaf = await Guest.Enter(room, "Deaf"); // never reads again
        Assert.That(await ann.Hear(), Is.EqualTo("* Deaf has come"));
        Assert.That(await bob.Hear(), Is.EqualTo("* Deaf has come"));
        var heard = 0;
        var gone = false;
        var long1 = new string('x', 900);
        for (var i = 0; i < 30_000 && !gone; i++)
        {
            await bob.Say(long1);
            var line = await ann.Hear();
            if (line == "* Deaf has gone") gone = true;
            else heard++;
        }
        Assert.That(gone, Is.True, "who does not read is dropped");
        Assert.That(heard, Is.Positive, "and the others heard all the time");
        await bob.Say(new string('y', 2000)); // too long: the end of Bob
        string last;
        do last = await ann.Hear();
        while (last != "* Bob has gone");
        Assert.That(room.Members, Is.EqualTo(1));
        room.Dispose();
        await running;
    });

    [Test]
    public void Chat_ManyLinesAtOnce_DropNobodyWhoReads() => Run.OnLoop(async () =>
    {
        using var room = new ChatRoom(s_any);
        _ = room.RunAsync();
        await using var ann = await Guest.Enter(room, "Ann");
        await using var bob = await Guest.Enter(room, "Bob");
        Assert.That(await ann.Hear(), Is.EqualTo("* Bob has come"));
        var saying = bob.Socket.SendAsync(Encoding.ASCII.GetBytes(string.Concat(Enumerable.Range(0, 20_000).Select(i => $"{i % 10}\n")))).AsTask();
        for (var i = 0; i < 20_000; i++) Assert.That(await ann.Hear(), Is.EqualTo($"Bob: {i % 10}"));
        await saying;
    });

    [Test]
    public void Chat_Disposed_ClosesThoseWithoutANameToo() => Run.OnLoop(async () =>
    {
        var room = new ChatRoom(s_any);
        var running = room.RunAsync();
        using var unnamed = await AsyncSocket.ConnectAsync(room.EndPoint);
        await using var ann = await Guest.Enter(room, "Ann"); // accepted after the other
        room.Dispose();
        await running;
        Assert.That(await unnamed.ReceiveAsync(new byte[1]), Is.Zero);
        Assert.That(await ann.Socket.ReceiveAsync(new byte[1]), Is.Zero);
    });

    [Test]
    public void Proxy_CarriesBothWays_AndEachEndOnItsOwn() => Run.OnLoop(async () =>
    {
        using var target = AsyncSocket.Listen(s_any);
        using var proxy = new TcpProxyServer(s_any, target.LocalEndPoint!);
        var running = proxy.RunAsync();
        using var client = await AsyncSocket.ConnectAsync(proxy.EndPoint);
        using var served = await target.AcceptAsync();
        var data = Data(2_000_000);
        var (there, back) = (new byte[data.Length], new byte[data.Length]);
        var sends = new[] { client.SendAsync(data).AsTask(), served.SendAsync(data).AsTask() };
        await Task.WhenAll(served.AsStream(false).ReadExactlyAsync(there).AsTask(), client.AsStream(false).ReadExactlyAsync(back).AsTask());
        await Task.WhenAll(sends);
        Assert.That(there.AsSpan().SequenceEqual(data) && back.AsSpan().SequenceEqual(data), Is.True);
        client.Shutdown(SocketShutdown.Send);
        Assert.That(await served.ReceiveAsync(new byte[1]), Is.Zero, "this end is passed on");
        await served.SendAsync("still"u8.ToArray());
        Assert.That(await client.ReceiveAsync(new byte[10]), Is.EqualTo(5), "and the other direction goes on");
        served.Shutdown(SocketShutdown.Send);
        Assert.That(await client.ReceiveAsync(new byte[1]), Is.Zero);
        while (proxy.Connections > 0) await EventLoop.Current!.Yield();
        proxy.Dispose();
        await running;
    });

    [Test]
    public void Proxy_PassesAResetOn_AndRefusesWhenTheTargetDoes() => Run.OnLoop(async () =>
    {
        TestPoller.SkipOnLibkqueue("it takes the error of a connection away (SO_ERROR) before a call can tell it");
        var target = AsyncSocket.Listen(s_any);
        using var proxy = new TcpProxyServer(s_any, target.LocalEndPoint!);
        _ = proxy.RunAsync();
        using (var client = await AsyncSocket.ConnectAsync(proxy.EndPoint))
        {
            var served = await target.AcceptAsync();
            var receiving = client.ReceiveAsync(new byte[1]).AsTask();
            served.Abort();
            Assert.That((await Expect.Throws<SocketException>(() => receiving)).SocketErrorCode, Is.EqualTo(SocketError.ConnectionReset));
        }
        target.Dispose();
        using var refused = await AsyncSocket.ConnectAsync(proxy.EndPoint);
        Assert.That((await Expect.Throws<SocketException>(async () => await refused.ReceiveAsync(new byte[1]))).SocketErrorCode, Is.EqualTo(SocketError.ConnectionReset));
        while (proxy.Connections > 0) await EventLoop.Current!.Yield();
    });

    [Test]
    public void Pool_AnswersAll_OverFewConnections() => Run.OnLoop(async () =>
    {
        using var server = new RequestServer(s_any);
        _ = server.RunAsync();
        using var pool = new RequestPool(server.EndPoint, maxConnections: 4);
        for (var round = 0; round < 3; round++)
        {
            var answers = await Task.WhenAll(Enumerable.Range(0, 100).Select(i => pool.AskAsync(Encoding.UTF8.GetBytes($"{round}/{i}"), Run.Limit)));
            Assert.That(answers.Select(Encoding.UTF8.GetString), Is.EqualTo(Enumerable.Range(0, 100).Select(i => $"re: {round}/{i}")));
        }
        Assert.That(server.Accepted, Is.EqualTo(4));
        Assert.That(pool.Connections, Is.EqualTo(4));
    });

    [Test]
    public void Pool_PastItsDeadline_TheRequestThrows_AndItsConnectionIsGivenUp() => Run.OnLoop(async () =>
    {
        using var server = new RequestServer(s_any);
        _ = server.RunAsync();
        using var pool = new RequestPool(server.EndPoint, maxConnections: 1);
        var slow = pool.AskAsync("sleep 100000"u8.ToArray(), TimeSpan.FromMilliseconds(50));
        var waiting = pool.AskAsync("next"u8.ToArray(), Run.Limit);
        var tooLate = pool.AskAsync("never"u8.ToArray(), TimeSpan.FromMilliseconds(10)); // has no connection before its deadline
        await Expect.Throws<TimeoutException>(() => tooLate);
        await Expect.Throws<TimeoutException>(() => slow);
        Assert.That(Encoding.UTF8.GetString(await waiting), Is.EqualTo("re: next"), "not the late answer");
        Assert.That(server.Accepted, Is.EqualTo(2));
        Assert.That(pool.Connections, Is.EqualTo(1));
    });

    [Test]
    public void Pool_FindsStaleConnections_AndTellsOfRefusal() => Run.OnLoop(async () =>
    {
        var server = new RequestServer(s_any);
        _ = server.RunAsync();
        using var pool = new RequestPool(server.EndPoint, maxConnections: 2);
        Assert.That(Encoding.UTF8.GetString(await pool.AskAsync("a"u8.ToArray(), Run.Limit)), Is.EqualTo("re: a"));
        server.Drop(); // the idle connection ends; the pool is not told
        Assert.That(Encoding.UTF8.GetString(await pool.AskAsync("b"u8.ToArray(), Run.Limit)), Is.EqualTo("re: b"));
        server.Dispose();
        await Expect.Throws<SocketException>(() => pool.AskAsync("c"u8.ToArray(), Run.Limit));
        await Expect.Throws<SocketException>(() => pool.AskAsync("d"u8.ToArray(), Run.Limit));
        pool.Dispose();
        await Expect.Throws<ObjectDisposedException>(() => pool.AskAsync("e"u8.ToArray(), Run.Limit));
    });

    [Test]
    public void Pool_WhenAConnectFails_TheNextOneTries() => Run.OnLoop(async () =>
    {
        using var pool = new RequestPool(new DnsEndPoint("localhost", RealProgram.FreePort()), maxConnections: 1);
        var asking = Enumerable.Range(0, 3).Select(_ => pool.AskAsync("x"u8.ToArray(), Run.Limit)).ToList(); // one connects, two wait
        foreach (var one in asking) await Expect.Throws<SocketException>(() => one);
    });

    [Test]
    public void Pool_AnAnswerThatNobodyAskedFor_IsNobodys() => Run.OnLoop(async () =>
    {
        using var listener = AsyncSocket.Listen(s_any);
        async Task ServeAsync()
        {
            while (true)
            {
                using var connection = await listener.AcceptAsync();
                var writer = new FrameWriter(1000);
                await foreach (var frame in connection.ReadFramesAsync(1000))
                {
                    writer.TryWrite(frame.Span);
                    writer.TryWrite("unasked"u8); // with the answer, in one segment
                    await connection.SendAsync(writer);
                }
            }
        }
        _ = ServeAsync();
        using var pool = new RequestPool(listener.LocalEndPoint!, maxConnections: 1);
        for (var i = 0; i < 3; i++) Assert.That(Encoding.UTF8.GetString(await pool.AskAsync(Encoding.UTF8.GetBytes($"{i}"), Run.Limit)), Is.EqualTo($"{i}"));
        var waiting = Enumerable.Range(0, 3).Select(i => pool.AskAsync(Encoding.UTF8.GetBytes($"{i}"), Run.Limit)).ToList(); // handed on from one to the next
        for (var i = 0; i < 3; i++) Assert.That(Encoding.UTF8.GetString(await waiting[i]), Is.EqualTo($"{i}"));
    });

    [Test]
    public void RequestServer_ANumberTooLarge_IsAQuestionLikeOthers() => Run.OnLoop(async () =>
    {
        using var server = new RequestServer(s_any);
        _ = server.RunAsync();
        using var pool = new RequestPool(server.EndPoint, maxConnections: 1);
        Assert.That(Encoding.UTF8.GetString(await pool.AskAsync("sleep 99999999999"u8.ToArray(), Run.Limit)), Is.EqualTo("re: sleep 99999999999"));
    });

    [Test]
    public void HostedService_WhoseAddressIsInUse_FailsToStart_AndLeavesNothing() => Run.OnThread(() => Run.Wait(Task.Run(async () =>
    {
        using var taken = Pair.ListenPlain();
        var service = new EchoService(new EchoServiceOptions { EndPoint = taken.LocalEndPoint! }, NullLogger<EchoService>.Instance);
        var before = Descriptors.Settle();
        await Expect.Throws<SocketException>(() => service.StartAsync(default));
        await service.StopAsync(default);
        Assert.That(Descriptors.Settle(), Is.EqualTo(before), Descriptors.List());
    })));

    [TestCase(true)]
    [TestCase(false)]
    public void HostedService_StopsGracefully(bool inTime) => Run.OnThread(() => Run.Wait(Task.Run(async () =>
    {
        var service = new EchoService(new EchoServiceOptions { EndPoint = s_any, DrainTime = inTime ? Run.Limit : TimeSpan.FromMilliseconds(50) }, NullLogger<EchoService>.Instance);
        await service.StartAsync(default);
        var endPoint = service.EndPoint!;
        using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        await client.ConnectAsync(endPoint);
        var buffer = new byte[10];
        async Task Trip()
        {
            await client.SendAsync("abc"u8.ToArray());
            Assert.That(await client.ReceiveAsync(buffer), Is.EqualTo(3));
        }
        await Trip();
        var stopping = service.StopAsync(default);
        if (inTime)
        {
            await Trip(); // who is connected goes on
            Assert.That(stopping.IsCompleted, Is.False);
            client.Shutdown(SocketShutdown.Send);
        }
        await stopping;
        Assert.That(await client.ReceiveAsync(buffer), Is.Zero);
        using var another = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        Assert.That(() => another.Connect(endPoint), Throws.TypeOf<SocketException>());
        await service.StopAsync(default); // twice is no harm
    })));
}
