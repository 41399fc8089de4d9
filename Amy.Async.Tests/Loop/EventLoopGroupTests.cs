using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Amy.Async.Tests.Loop;

/// <summary>Several loops: their listeners, the connections that are handed between them, and the cores they run on.</summary>
[TestFixture]
internal sealed class EventLoopGroupTests
{
    private static readonly EventLoopOptions s_quiet = new() { SpinDuration = TimeSpan.Zero, ThreadName = "group" };

    private static void WithGroup(int count, Func<EventLoopGroup, Task> test, EventLoopOptions? options = null) => Run.OnThread(() =>
    {
        var group = new EventLoopGroup(count, options ?? s_quiet);
        Run.Wait(Task.Run(() => test(group)));
        Run.Wait(group.DisposeAsync().AsTask());
        Run.Wait(group.DisposeAsync().AsTask());
        foreach (var loop in group.Loops) Assert.That(() => loop.Post(() => { }), Throws.TypeOf<ObjectDisposedException>());
    });

    [Test]
    public void Group_HasItsLoops_AndGivesThemInTurn() => WithGroup(3, async group =>
    {
        Assert.That(group.Loops, Is.Unique.And.Count.EqualTo(3));
        for (var round = 0; round < 2; round++)
            foreach (var loop in group.Loops) Assert.That(group.Next(), Is.SameAs(loop));
        for (var i = 0; i < 3; i++)
            Assert.That(await group.Loops[i].InvokeAsync(() => Thread.CurrentThread.Name), Is.EqualTo($"group {i}"));
    });

    [Test]
    public void BadInput_IsRefused_AndLeavesNoLoop()
    {
        Assert.That(() => new EventLoopGroup(0), Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new EventLoopGroup(2, new EventLoopOptions { Processor = 100_000 }), Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new EventLoopGroup(2, new EventLoopOptions { Processor = -1 }), Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => EventLoop.Start(new EventLoopOptions { Processor = 7777 }), Throws.TypeOf<ArgumentOutOfRangeException>());
        WithGroup(1, group =>
        {
            Assert.That(() => AsyncSocket.ListenOnEach(null!, group), Throws.ArgumentNullException);
            Assert.That(() => AsyncSocket.ListenOnEach(new IPEndPoint(IPAddress.Loopback, 0), null!), Throws.ArgumentNullException);
            Assert.That(() => AsyncSocket.ListenOnEach(new UnixDomainSocketEndPoint("/tmp/x"), group), Throws.TypeOf<NotSupportedException>());
            return Task.CompletedTask;
        });
    }

    // ---- pinning

    private static string AllowedOf(string thread) => File.ReadLines($"/proc/{thread}/status").First(l => l.StartsWith("Cpus_allowed_list", StringComparison.Ordinal)).Split('\t')[1];

    private static int[] Processors()
    {
        var list = AllowedOf("thread-self").Split(',');
        return [.. list.SelectMany(range => range.Split('-') is [var a, var b] ? Enumerable.Range(Number(a), Number(b) - Number(a) + 1) : [Number(range)])];
    }

    private static int Number(string text) => int.Parse(text, System.Globalization.CultureInfo.InvariantCulture);

    [Test]
    public void Processor_PinsEachLoopOfAGroup()
    {
        var all = Processors();
        WithGroup(all.Length + 1, async group =>
        {
            for (var i = 0; i <= all.Length; i++)
                Assert.That(await group.Loops[i].InvokeAsync(() => AllowedOf("thread-self")), Is.EqualTo($"{all[(i + all.Length - 1) % all.Length]}"));
        }, new EventLoopOptions { Processor = all[^1] });
    }

    // On Linux a new thread inherits the processors of the one that starts it; the runtime gives it those of the main thread.
    [Test]
    public void Processor_DoesNotConfineTheThreadsThatCodeOnTheLoopStarts() => WithGroup(1, group => group.Loops[0].InvokeAsync(() =>
    {
        Assert.That(AllowedOf("thread-self"), Is.EqualTo($"{Processors()[0]}"));
        var allowed = "";
        var thread = new Thread(() => allowed = AllowedOf("thread-self"));
        thread.Start();
        Assert.That(thread.Join(Run.Limit), Is.True);
        Assert.That(allowed, Is.EqualTo(AllowedOf("self")));
    }), new EventLoopOptions { Processor = Processors()[0] });

    [Test]
    public void Run_OnAPinnedThread_GivesItsProcessorsBack() => Run.OnThread(() =>
    {
        var before = AllowedOf("thread-self");
        var during = EventLoop.Run(() => Task.FromResult(AllowedOf("thread-self")), new EventLoopOptions { Processor = Processors()[0] });
        Assert.That(during, Is.EqualTo($"{Processors()[0]}"));
        Assert.That(AllowedOf("thread-self"), Is.EqualTo(before));
        Assert.That(() => EventLoop.Run(() => throw new InvalidDataException(), new EventLoopOptions { Processor = Processors()[0] }), Throws.TypeOf<InvalidDataException>());
        Assert.That(AllowedOf("thread-self"), Is.EqualTo(before));
    });

    // ---- listeners

    [Test]
    public void ListenOnEach_SharesOnePort_AndServesEveryConnection() => WithGroup(3, async group =>
    {
        var listeners = AsyncSocket.ListenOnEach(new IPEndPoint(IPAddress.Loopback, 0), group);
        Assert.That(listeners.Select(l => l.Loop), Is.EqualTo(group.Loops));
        Assert.That(listeners.Select(l => l.LocalEndPoint).Distinct().Count(), Is.EqualTo(1));
        var served = new int[3];
        var accepting = listeners.Select((listener, i) => listener.Loop.InvokeAsync(async () =>
        {
            try
            {
                while (true)
                {
                    var conn = await listener.AcceptAsync();
                    Assert.That(conn.Loop, Is.SameAs(listener.Loop));
                    served[i]++;
                    await conn.SendAsync(new[] { (byte)i });
                    conn.Dispose();
                }
            }
            catch (ObjectDisposedException)
            {
                // the listener is closed
            }
        })).ToArray();
        for (var i = 0; i < 120; i++)
        {
            using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            await client.ConnectAsync(listeners[0].LocalEndPoint!);
            Assert.That(await client.ReceiveAsync(new byte[1], SocketFlags.None), Is.EqualTo(1));
        }
        foreach (var listener in listeners) listener.Dispose();
        await Task.WhenAll(accepting);
        Assert.That(served.Sum(), Is.EqualTo(120));
        Assert.That(served.Count(n => n > 0), Is.GreaterThan(1), "a hash of 120 ports hits more than one");
    });

    [Test]
    public void OneAcceptor_HandsConnectionsInTurn() => WithGroup(3, async group =>
    {
        using var listener = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0), loop: group.Loops[0]);
        for (var i = 0; i < 9; i++)
        {
            using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            await client.ConnectAsync(listener.LocalEndPoint!);
            var loop = group.Next();
            using var conn = await listener.AcceptAsync(loop);
            Assert.That(conn.Loop, Is.SameAs(loop));
            await client.SendAsync(new byte[] { (byte)i });
            var buffer = new byte[4];
            Assert.That(await conn.ReceiveAsync(buffer), Is.EqualTo(1));
            Assert.That(buffer[0], Is.EqualTo(i));
        }
    });

    [Test]
    public void SwitchTo_GoesFromLoopToLoop() => WithGroup(2, group => group.Loops[0].InvokeAsync(async () =>
    {
        for (var i = 0; i < 50; i++)
        {
            var loop = group.Loops[i % 2];
            await loop.SwitchTo();
            Assert.That((EventLoop.Current, SynchronizationContext.Current), Is.EqualTo((loop, loop.SynchronizationContext)));
            await loop.Yield();
            Assert.That(EventLoop.Current, Is.SameAs(loop));
        }
    }));

    // ---- moving

    [TestCase(false)]
    [TestCase(true)]
    public void Move_WithDataThere_ComingAndToCome_LosesNothing(bool withSocket) => WithGroup(2, async group =>
    {
        var (from, to) = (group.Loops[0], group.Loops[1]);
        var (client, server) = await Pair.Async(from);
        using (client)
        {
            if (withSocket) Assert.That(server.Socket.Connected, Is.True); // there is a Socket, which goes along
            server.ReceiveTimeout = TimeSpan.FromSeconds(77);
            await client.SendAsync(Encoding.ASCII.GetBytes("first"));
            var buffer = new byte[64];
            Assert.That(await server.ReceiveAsync(buffer.AsMemory(0, 2)), Is.EqualTo(2));
            var moved = await server.MoveToAsync(to);
            Assert.That((moved.Loop, moved.BytesReceived, moved.ReceiveTimeout), Is.EqualTo((to, 2L, TimeSpan.FromSeconds(77))));
            Assert.That(() => server.ReceiveAsync(buffer), Throws.TypeOf<ObjectDisposedException>());
            server.Dispose(); // does nothing to the connection
            await to.InvokeAsync(async () =>
            {
                Assert.That(await moved.ReceiveAsync(buffer), Is.EqualTo(3), "what was there");
                Assert.That(EventLoop.Current, Is.SameAs(to));
                var next = moved.ReceiveAsync(buffer);
                await client.SendAsync(new byte[] { 9 });
                Assert.That(await next, Is.EqualTo(1), "what comes later");
                Assert.That(EventLoop.Current, Is.SameAs(to));
                await moved.SendAsync(new byte[] { 1, 2 });
            });
            Assert.That(await client.ReceiveAsync(buffer), Is.EqualTo(2));
            moved.Dispose();
            Assert.That(await client.ReceiveAsync(buffer), Is.Zero, "closed by the new one");
        }
        Assert.That(from.Statistics.Registrations + to.Statistics.Registrations, Is.Zero);
    });

    [Test]
    public void Move_ToTheSameLoop_IsNothing() => WithGroup(1, async group =>
    {
        var (client, server) = await Pair.Async(group.Loops[0]);
        using (client)
        using (server) Assert.That(await server.MoveToAsync(group.Loops[0]), Is.SameAs(server));
    });

    [Test]
    public void Move_UnderAPendingOperation_OrToAStoppedLoop_IsRefusedAndChangesNothing() => WithGroup(2, async group =>
    {
        var stopped = EventLoop.Start();
        await stopped.StopAsync();
        var (client, server) = await Pair.Async(group.Loops[0]);
        using (client)
        using (server)
        {
            var buffer = new byte[8];
            var receiving = server.ReceiveAsync(buffer);
            Assert.That(() => server.MoveToAsync(group.Loops[1]), Throws.InvalidOperationException.With.Message.Contains("reading direction"));
            await client.SendAsync(new byte[] { 1 });
            Assert.That(await receiving, Is.EqualTo(1));
            Assert.That(() => server.MoveToAsync(stopped), Throws.TypeOf<ObjectDisposedException>());
            Assert.That(() => server.MoveToAsync(null!), Throws.ArgumentNullException);
            await client.SendAsync(new byte[] { 1, 2 });
            Assert.That(await server.ReceiveAsync(buffer), Is.EqualTo(2), "still served here");
            Assert.That(group.Loops[0].Statistics.Registrations, Is.EqualTo(2));
        }
        Assert.That(() => server.MoveToAsync(group.Loops[1]), Throws.TypeOf<ObjectDisposedException>());
    });

    [Test]
    public void Move_EndsTheWaitForTheHangUp() => WithGroup(2, async group =>
    {
        var (client, server) = await Pair.Async(group.Loops[0]);
        using (client)
        {
            var closed = server.ClosedAsync().AsTask();
            var moved = await server.MoveToAsync(group.Loops[1]);
            await Expect.Throws<ObjectDisposedException>(() => closed);
            var again = moved.ClosedAsync().AsTask();
            client.Dispose();
            await again;
            moved.Dispose();
        }
    });

    // A connection that travels between the loops at every message, with the sender never waiting: every byte arrives once,
    // in order, and no edge is lost (else it would hang).
    [TestCase(false)]
    [TestCase(true)]
    public void Move_UnderLoad_LosesNoByteAndNoEdge(bool unix) => WithGroup(2, async group =>
    {
        const int Total = 400_000;
        var (x, y) = Pair.Of(unix ? "unix" : "tcp");
        using var client = new AsyncSocket(x, group.Loops[0]);
        var server = new AsyncSocket(y, group.Loops[0]);
        var sending = group.Loops[0].InvokeAsync(async () =>
        {
            var buffer = new byte[777];
            var sent = 0;
            while (sent < Total)
            {
                var n = Math.Min(1 + sent % buffer.Length, Total - sent);
                for (var i = 0; i < n; i++) buffer[i] = (byte)((sent + i) * 7);
                await client.SendAsync(buffer.AsMemory(0, n));
                sent += n;
                if (sent % 3 == 0) await EventLoop.Current!.Yield();
            }
            client.Shutdown(SocketShutdown.Send);
        });
        var (received, moves) = (0, 0);
        var target = new byte[512];
        await group.Loops[0].SwitchTo();
        while (true)
        {
            var n = await server.ReceiveAsync(target);
            if (n == 0) break;
            for (var i = 0; i < n; i++)
                if (target[i] != (byte)((received + i) * 7)) Assert.Fail($"byte {received + i} is wrong");
            received += n;
            var next = group.Loops[++moves % 2];
            server = await server.MoveToAsync(next);
            await next.SwitchTo();
        }
        server.Dispose();
        await sending;
        Assert.That((received, moves > 500), Is.EqualTo((Total, true)));
    });

    // Who comes first, wins; the descriptor is closed exactly once in any case.
    [Test]
    public void Move_RacingWithDispose_ClosesOnce() => Run.OnThread(() =>
    {
        using var first = EventLoop.Start(s_quiet);
        using var second = EventLoop.Start(s_quiet);
        var before = Descriptors.Settle();
        for (var i = 0; i < 500; i++)
        {
            var (x, y) = Pair.Unix();
            using var client = new AsyncSocket(x, first);
            var server = new AsyncSocket(y, first);
            using var go = new Barrier(2);
            var disposing = Task.Run(() =>
            {
                go.SignalAndWait();
                server.Dispose();
            });
            go.SignalAndWait();
            AsyncSocket? moved = null;
            try
            {
                moved = Run.Wait(server.MoveToAsync(second).AsTask());
            }
            catch (ObjectDisposedException)
            {
                // the other thread was first
            }
            Run.Wait(disposing);
            moved?.Dispose();
            var buffer = new byte[1];
            Assert.That(Run.Wait(client.ReceiveAsync(buffer).AsTask()), Is.Zero, "the connection is closed");
        }
        Assert.That(Descriptors.Settle(), Is.LessThanOrEqualTo(before), Descriptors.List());
    });
}
