using System.Net;
using System.Net.Sockets;
using Amy.Async.Native;

namespace Amy.Async.Tests.Sockets;

[TestFixture]
internal class ConnectingTests
{
    private static readonly IPEndPoint s_any = new(IPAddress.Loopback, 0);

    [Test]
    public void ConnectAsync_NobodyListens_IsRefusedAndLeaksNothing() => Run.OnLoop(async () =>
    {
        EndPoint gone;
        using (var listener = AsyncSocket.Listen(s_any)) gone = listener.LocalEndPoint!;
        var before = Descriptors.Settle();
        for (var i = 0; i < 50; i++)
        {
            var e = await Expect.Throws<SocketException>(async () => await AsyncSocket.ConnectAsync(gone));
            Assert.That(e!.SocketErrorCode, Is.EqualTo(SocketError.ConnectionRefused));
        }
        var u = await Expect.Throws<SocketException>(async () => await AsyncSocket.ConnectAsync(new UnixDomainSocketEndPoint(Pair.TemporaryPath())));
        Assert.That(u!.SocketErrorCode, Is.EqualTo(SocketError.AddressNotAvailable));
        Assert.That(Descriptors.Settle(), Is.EqualTo(before));
        await EventLoop.Current!.Yield();
    });

    [Test]
    public void ConnectAsync_Cancelled_LeavesNothing() => Run.OnLoop(async () =>
    {
        using var cancelled = new CancellationTokenSource();
        cancelled.Cancel();
        using var listener = AsyncSocket.Listen(s_any);
        await Expect.Throws<OperationCanceledException>(async () => await AsyncSocket.ConnectAsync(listener.LocalEndPoint!, cancellationToken: cancelled.Token));

        // A backlog of 0 fills up, and further attempts stay in progress.
        using var full = AsyncSocket.Listen(s_any, new AsyncSocketOptions { Backlog = 0 });
        var before = Descriptors.Settle();
        var connecting = new List<Task<AsyncSocket>>();
        using var source = new CancellationTokenSource();
        for (var i = 0; i < 8; i++) connecting.Add(AsyncSocket.ConnectAsync(full.LocalEndPoint!, cancellationToken: source.Token).AsTask());
        await EventLoop.Current!.Delay(TimeSpan.FromMilliseconds(20));
        source.Cancel();
        var cancelledCount = 0;
        foreach (var task in connecting)
        {
            try
            {
                (await task).Dispose();
            }
            catch (OperationCanceledException)
            {
                cancelledCount++;
            }
        }
        Assert.That(cancelledCount, Is.Positive);
        Assert.That(Descriptors.Settle(), Is.EqualTo(before));
    });

    [Test]
    public void ConnectAsync_ByName_TriesTheAddresses() => Run.OnLoop(async () =>
    {
        using var listener = AsyncSocket.Listen(s_any);
        var port = ((IPEndPoint)listener.LocalEndPoint!).Port;
        using var client = await AsyncSocket.ConnectAsync(new DnsEndPoint("localhost", port));
        using var server = await listener.AcceptAsync();
        await client.SendAsync(new byte[1]);
        Assert.That(await server.ReceiveAsync(new byte[8]), Is.EqualTo(1));
    });

    [Test]
    public void ConnectAsync_Options_AreApplied() => Run.OnLoop(async () =>
    {
        using var listener = AsyncSocket.Listen(s_any);
        var options = new AsyncSocketOptions { LocalEndPoint = new IPEndPoint(IPAddress.Parse("127.0.0.2"), 0), SendBufferSize = 30_000, ReceiveBufferSize = 40_000, NoDelay = false };
        using var client = await AsyncSocket.ConnectAsync(listener.LocalEndPoint!, options);
        using var server = await listener.AcceptAsync();
        Assert.That(((IPEndPoint)client.LocalEndPoint!).Address, Is.EqualTo(IPAddress.Parse("127.0.0.2")));
        Assert.That(client.Socket.SendBufferSize, Is.EqualTo(60_000));
        Assert.That(client.Socket.ReceiveBufferSize, Is.EqualTo(80_000));
        Assert.That(client.Socket.NoDelay, Is.False);
        Assert.That(server.Socket.NoDelay, Is.True);
        Assert.That(server.Socket.Connected, Is.True);
        Assert.That(server.Socket.Blocking, Is.False);
        Assert.That(server.Handle, Is.SameAs(server.Socket.SafeHandle));
    });

    [TestCase(true)]
    [TestCase(false)]
    public void Accepting_TakesTwoSystemCalls_AndInheritsTheListenersNoDelay(bool noDelay)
    {
        var calls = new CountingCalls();
        Run.OnLoop(async () =>
        {
            using var listener = AsyncSocket.Listen(s_any, new AsyncSocketOptions { NoDelay = noDelay });
            using var plain = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            plain.Connect(listener.LocalEndPoint!);
            await listener.ReadableAsync();
            var (accepts, controls, options) = (calls.Accepts, calls.Controls, calls.Options);
            using var accepted = await listener.AcceptAsync();
            Assert.That((calls.Accepts - accepts, calls.Controls - controls, calls.Options - options), Is.EqualTo((1, 1, 0)));
            Assert.That(accepted.Socket.NoDelay, Is.EqualTo(noDelay));
        }, new EventLoopOptions { SystemCalls = calls, SpinDuration = TimeSpan.Zero });
    }

    [Test]
    public void Listen_AddressInUse_Throws() => Run.OnLoop(() =>
    {
        using var listener = AsyncSocket.Listen(s_any);
        var e = Assert.Throws<SocketException>(() => AsyncSocket.Listen(listener.LocalEndPoint!));
        Assert.That(e!.SocketErrorCode, Is.EqualTo(SocketError.AddressAlreadyInUse));
        return Task.CompletedTask;
    });

    [Test]
    public void Listen_ReusePort_LetsSeveralListen() => Run.OnLoop(() =>
    {
        var options = new AsyncSocketOptions { ReusePort = true };
        using var one = AsyncSocket.Listen(s_any, options);
        using var two = AsyncSocket.Listen(one.LocalEndPoint!, options);
        return Task.CompletedTask;
    });

    [Test]
    public void Listen_DualMode_ServesIPv4() => Run.OnLoop(async () =>
    {
        using var listener = AsyncSocket.Listen(new IPEndPoint(IPAddress.IPv6Any, 0), new AsyncSocketOptions { DualMode = true });
        using var client = await AsyncSocket.ConnectAsync(new IPEndPoint(IPAddress.Loopback, ((IPEndPoint)listener.LocalEndPoint!).Port));
        using var server = await listener.AcceptAsync();
        Assert.That(((IPEndPoint)server.RemoteEndPoint!).Address.IsIPv4MappedToIPv6, Is.True);
    });

    [Test]
    public void AcceptAsync_NotListening_Throws() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var e = await Expect.Throws<SocketException>(async () => await a.AcceptAsync());
            Assert.That(e!.SocketErrorCode, Is.EqualTo(SocketError.InvalidArgument));
            await b.SendAsync(new byte[1]);
            Assert.That(await a.ReceiveAsync(new byte[8]), Is.EqualTo(1), "the direction is as before");
        }
    });

    [Test]
    public void AcceptAsync_OtherLoop_AttachesThere()
    {
        using var one = EventLoop.Start();
        using var two = EventLoop.Start();
        using var listener = AsyncSocket.Listen(s_any, loop: one);
        var accepting = Task.Run(async () => await listener.AcceptAsync(two));
        using var client = Run.Wait(AsyncSocket.ConnectAsync(listener.LocalEndPoint!, one).AsTask());
        using var server = Run.Wait(accepting);
        Assert.That(server.Loop, Is.SameAs(two));
        Run.Wait(client.SendAsync(new byte[2]).AsTask());
        Assert.That(Run.Wait(server.ReceiveAsync(new byte[8]).AsTask()), Is.EqualTo(2));
    }

    [Test]
    public void AcceptAsync_TargetLoopStopped_Throws() => Run.OnLoop(async () =>
    {
        var stopped = EventLoop.Start();
        stopped.Dispose();
        using var listener = AsyncSocket.Listen(s_any);
        using var client = await AsyncSocket.ConnectAsync(listener.LocalEndPoint!);
        await Expect.Throws<ObjectDisposedException>(async () => await listener.AcceptAsync(stopped));
        Assert.That(await client.ReceiveAsync(new byte[8]), Is.Zero, "the connection was closed, not leaked");
    });

    [Test]
    public void AcceptAsync_ForeignListener_Works() => Run.OnLoop(async () =>
    {
        using var plain = Pair.ListenPlain();
        using var listener = new AsyncSocket(plain, ownsSocket: false);
        var accepting = listener.AcceptAsync();
        using var client = await AsyncSocket.ConnectAsync(plain.LocalEndPoint!);
        using var server = await accepting;
        await server.SendAsync(new byte[3]);
        Assert.That(await client.ReceiveAsync(new byte[8]), Is.EqualTo(3));
    });

    [Test]
    public void AcceptAsync_CostsThreeSystemCalls()
    {
        var calls = new CountingCalls();
        Run.OnLoop(async () =>
        {
            using var listener = AsyncSocket.Listen(s_any);
            using var client = Pair.ListenPlain();
            var clients = new List<Socket>();
            for (var i = 0; i < 5; i++)
            {
                var c = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
                c.Connect(listener.LocalEndPoint!);
                clients.Add(c);
            }
            var (accepts, controls) = (calls.Accepts, calls.Controls);
            for (var i = 0; i < 5; i++) (await listener.AcceptAsync()).Dispose();
            Assert.That(calls.Accepts - accepts, Is.EqualTo(5));
            Assert.That(calls.Controls - controls, Is.EqualTo(10), "one to register, one to remove");
            foreach (var c in clients) c.Dispose();
        }, new EventLoopOptions { SystemCalls = calls, SpinDuration = TimeSpan.Zero });
    }

    [TestCase(Errno.EMFILE)]
    [TestCase(Errno.ENFILE)]
    [TestCase(Errno.ENOBUFS)]
    [TestCase(Errno.ENOMEM)]
    public void AcceptAsync_Exhausted_BacksOffServesTheOthersAndGoesOn(int errno)
    {
        var calls = new CountingCalls();
        Run.OnLoop(async () =>
        {
            var loop = EventLoop.Current!;
            var (a, b) = await Pair.Async();
            using (a)
            using (b)
            using (var listener = AsyncSocket.Listen(s_any))
            {
                var exhausted = true;
                calls.OnAccept = _ => exhausted ? -errno : null;
                var accepting = listener.AcceptAsync().AsTask();
                using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
                client.Connect(listener.LocalEndPoint!);
                await loop.Delay(TimeSpan.FromMilliseconds(40));
                Assert.That(accepting.IsCompleted, Is.False);
                Assert.That(calls.Accepts, Is.LessThan(15), "no hot loop");
                Assert.That(loop.Statistics.AcceptBackoffs, Is.InRange(2, 12));
                await a.SendAsync(new byte[4]);
                Assert.That(await b.ReceiveAsync(new byte[8]), Is.EqualTo(4), "the others are served");
                exhausted = false;
                (await accepting).Dispose();
            }
        }, new EventLoopOptions { SystemCalls = calls, SpinDuration = TimeSpan.Zero });
    }

    [Test]
    public void AcceptAsync_ExhaustedOnAnotherThread_GoesOnByItself()
    {
        var calls = new CountingCalls();
        using var loop = EventLoop.Start(new EventLoopOptions { SystemCalls = calls });
        using var listener = AsyncSocket.Listen(s_any, loop: loop);
        using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        client.Connect(listener.LocalEndPoint!);
        calls.OnAccept = n => n < 4 ? -Errno.EMFILE : null;
        Run.Wait(Task.Run(async () => await listener.AcceptAsync())).Dispose();
    }

    [Test]
    public void AcceptAsync_RealDescriptorLimit_RecoversWhenDescriptorsComeBack() => Run.OnLoop(async () =>
    {
        using var listener = AsyncSocket.Listen(s_any);
        var calls = EventLoop.Current!.Statistics;
        var clients = Enumerable.Range(0, 4).Select(_ => new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp)).ToArray();
        foreach (var c in clients) c.Connect(listener.LocalEndPoint!);
        var hogs = new List<Socket>();
        try
        {
            while (true) hogs.Add(new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp));
        }
        catch (SocketException)
        {
            // the limit is reached
        }
        var accepting = listener.AcceptAsync().AsTask();
        await EventLoop.Current.Delay(TimeSpan.FromMilliseconds(20));
        Assert.That(accepting.IsCompleted, Is.False);
        Assert.That(EventLoop.Current.Statistics.AcceptBackoffs, Is.Positive);
        foreach (var h in hogs) h.Dispose();
        (await accepting).Dispose();
        for (var i = 1; i < clients.Length; i++) (await listener.AcceptAsync()).Dispose();
        foreach (var c in clients) c.Dispose();
    });

    [Test]
    public void AcceptAsync_AbortedConnection_IsSkipped()
    {
        var calls = new CountingCalls { OnAccept = n => n <= 3 ? -Errno.ECONNABORTED : null };
        Run.OnLoop(async () =>
        {
            using var listener = AsyncSocket.Listen(s_any);
            using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            client.Connect(listener.LocalEndPoint!);
            (await listener.AcceptAsync()).Dispose();
            Assert.That(calls.Accepts, Is.EqualTo(4));
        }, new EventLoopOptions { SystemCalls = calls });
    }

    [Test]
    public void Descriptors_AreCloseOnExec() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var start = new System.Diagnostics.ProcessStartInfo("/bin/ls", "-l /proc/self/fd") { RedirectStandardOutput = true };
            using var child = System.Diagnostics.Process.Start(start)!;
            var text = await child.StandardOutput.ReadToEndAsync();
            await child.WaitForExitAsync();
            Assert.That(text, Does.Not.Contain("socket:").And.Not.Contain("eventpoll").And.Not.Contain("eventfd"));
        }
    });
}
