using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;

namespace Amy.Async.Tests.Sockets;

[TestFixture]
internal class AsyncSocketTests
{
    private static EndPoint Local(string family) => family switch
    {
        "IPv4" => new IPEndPoint(IPAddress.Loopback, 0),
        "IPv6" => new IPEndPoint(IPAddress.IPv6Loopback, 0),
        _ => new UnixDomainSocketEndPoint(Pair.TemporaryPath()),
    };

    private static async Task Echo(AsyncSocket socket, int size)
    {
        using (socket)
        {
            var buffer = new byte[size];
            int n;
            while ((n = await socket.ReceiveAsync(buffer)) > 0) await socket.SendAsync(buffer.AsMemory(0, n));
        }
    }

    [TestCase("IPv4")]
    [TestCase("IPv6")]
    [TestCase("Unix")]
    public void Echo_EveryByteComesBack(string family) => Run.OnLoop(async () =>
    {
        var endPoint = Local(family);
        using var listener = AsyncSocket.Listen(endPoint);
        var address = listener.LocalEndPoint!;
        using var client = await AsyncSocket.ConnectAsync(address);
        var server = await listener.AcceptAsync();
        Assert.That(client.RemoteEndPoint, Is.EqualTo(address));
        if (family != "Unix") Assert.That(server.RemoteEndPoint, Is.EqualTo(client.LocalEndPoint));
        var echo = Echo(server, 1000);
        var random = new Random(1);
        for (var i = 0; i < 200; i++)
        {
            var message = new byte[random.Next(1, 5000)];
            random.NextBytes(message);
            var sending = client.SendAsync(message).AsTask();
            var back = new byte[message.Length];
            for (var got = 0; got < back.Length;)
            {
                var n = await client.ReceiveAsync(back.AsMemory(got));
                Assert.That(n, Is.Positive);
                got += n;
            }
            Assert.That(await sending, Is.EqualTo(message.Length));
            Assert.That(back, Is.EqualTo(message));
        }
        Assert.That(client.BytesSent, Is.EqualTo(client.BytesReceived));
        client.Shutdown(SocketShutdown.Send);
        Assert.That(await client.ReceiveAsync(new byte[8]), Is.Zero);
        Assert.That(await client.ReceiveAsync(new byte[8]), Is.Zero, "the end stays");
        await echo;
        if (family == "Unix")
        {
            var path = endPoint.ToString()!;
            Assert.That(File.Exists(path), Is.True);
            listener.Dispose();
            Assert.That(File.Exists(path), Is.False, "removed with the listener");
        }
    });

    [TestCase("tcp")]
    [TestCase("unix")]
    public void SendAsync_MoreThanTheKernelTakes_SendsAllOfIt(string kind) => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Of(kind);
        using var a = new AsyncSocket(x);
        using var b = new AsyncSocket(y);
        var data = RandomNumberGenerator.GetBytes(20_000_000);
        var sending = a.SendAsync(data).AsTask();
        Assert.That(sending.IsCompleted, Is.False);
        var received = new byte[data.Length];
        var got = 0;
        while (got < received.Length)
        {
            var n = await b.ReceiveAsync(received.AsMemory(got, Math.Min(100_000, received.Length - got)));
            Assert.That(n, Is.Positive);
            got += n;
        }
        Assert.That(await sending, Is.EqualTo(data.Length));
        Assert.That(received.AsSpan().SequenceEqual(data), Is.True);
    });

    [TestCase("tcp")]
    [TestCase("unix")]
    public void BothDirectionsAtOnceFromOtherThreads_LoseNothing(string kind)
    {
        using var loop = EventLoop.Start();
        var (x, y) = Pair.Of(kind);
        using var a = new AsyncSocket(x, loop);
        using var b = new AsyncSocket(y, loop);
        const int total = 3_000_000;
        async Task Send(AsyncSocket s, int seed)
        {
            await Task.Yield();
            var random = new Random(seed);
            var i = 0;
            while (i < total)
            {
                var chunk = new byte[Math.Min(random.Next(1, 10_000), total - i)];
                for (var k = 0; k < chunk.Length; k++) chunk[k] = (byte)((i + k) * 31 >> 3);
                await s.SendAsync(chunk);
                i += chunk.Length;
            }
        }
        async Task Receive(AsyncSocket s)
        {
            await Task.Yield();
            var buffer = new byte[7000];
            var i = 0;
            while (i < total)
            {
                var n = await s.ReceiveAsync(buffer);
                if (n == 0) throw new EndOfStreamException();
                for (var k = 0; k < n; k++)
                    if (buffer[k] != (byte)((i + k) * 31 >> 3)) throw new InvalidDataException($"byte {i + k}");
                i += n;
            }
        }
        Run.Wait(Task.WhenAll(Task.Run(() => Send(a, 1)), Task.Run(() => Send(b, 2)), Task.Run(() => Receive(a)), Task.Run(() => Receive(b))));
    }

    [Test]
    public void ReceiveAsync_EmptyBuffer_WaitsAndTakesNothing() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var waiting = a.ReceiveAsync(Memory<byte>.Empty).AsTask();
            await a.Loop.Delay(TimeSpan.FromMilliseconds(5));
            Assert.That(waiting.IsCompleted, Is.False);
            await b.SendAsync(new byte[] { 1, 2, 3 });
            Assert.That(await waiting, Is.Zero);
            Assert.That(await a.ReceiveAsync(Memory<byte>.Empty), Is.Zero, "still there");
            Assert.That(await a.ReceiveAsync(new byte[8]), Is.EqualTo(3));
            Assert.That(await b.SendAsync(ReadOnlyMemory<byte>.Empty), Is.Zero);
        }
    });

    [Test]
    public void ReadableAsync_PartialReceiveThroughTheSocket_DoesNotHang() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            for (var i = 0; i < 20; i++)
            {
                var readable = a.ReadableAsync();
                await b.SendAsync(new byte[10]);
                Assert.That((await readable).HasFlag(Readiness.Readable), Is.True);
                Assert.That(a.Socket.Receive(new byte[4]), Is.EqualTo(4));
                Assert.That(await a.ReceiveAsync(new byte[100]), Is.EqualTo(6));
                Assert.That(a.TryReceive(new byte[1], out _), Is.False);
            }
            Assert.That((await a.WritableAsync()).HasFlag(Readiness.Writable), Is.True);
        }
    });

    [Test]
    public void TryReceiveAndTrySend_NeverWait() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            Assert.That(a.TryReceive(new byte[8], out var n), Is.False);
            var pending = a.ReceiveAsync(new byte[8]);
            Assert.Throws<InvalidOperationException>(() => a.TryReceive(new byte[8], out _));
            Assert.That(b.TrySend([1, 2], out n), Is.True);
            Assert.That(n, Is.EqualTo(2));
            Assert.That(await pending, Is.EqualTo(2));
            var chunk = new byte[1 << 16];
            var sent = 0L;
            while (b.TrySend(chunk, out n)) sent += n;
            Assert.That(b.TrySend(chunk, out _), Is.False);
            var writable = b.WritableAsync();
            Assert.That(writable.IsCompleted, Is.False);
            var received = 0L;
            while (received < sent) received += await a.ReceiveAsync(chunk);
            await writable;
            b.Shutdown(SocketShutdown.Send);
            Assert.That(await a.ReceiveAsync(chunk), Is.Zero);
            Assert.That(a.TryReceive(chunk, out n), Is.True);
            Assert.That(n, Is.Zero);
        }
    });

    [Test]
    public void SecondOperationInOneDirection_ThrowsNamingIt() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var pending = a.ReceiveAsync(new byte[8]);
            var e = Assert.Throws<InvalidOperationException>(() => _ = a.ReceiveAsync(new byte[8]));
            Assert.That(e!.Message, Does.Contain("reading"));
            Assert.Throws<InvalidOperationException>(() => _ = a.ReadableAsync());
            Assert.Throws<InvalidOperationException>(() => _ = a.AcceptAsync());
            await a.SendAsync(new byte[1]); // the other direction is free
            await b.SendAsync(new byte[5]);
            Assert.That(await pending, Is.EqualTo(5));
        }
    });

    [Test]
    public void HalfClose_DataStillFlowsTheOtherWay() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            a.Shutdown(SocketShutdown.Send);
            Assert.That(await b.ReceiveAsync(new byte[8]), Is.Zero);
            for (var i = 0; i < 50; i++)
            {
                await b.SendAsync(new byte[100]);
                var got = 0;
                while (got < 100) got += await a.ReceiveAsync(new byte[64]);
            }
            b.Shutdown(SocketShutdown.Send);
            Assert.That(await a.ReceiveAsync(new byte[8]), Is.Zero);
        }
    });

    /// <summary>tokio#5866: after a hang-up no further edge comes.</summary>
    [Test]
    public void DataAndEndTogether_AreReadToTheEnd() => Run.OnLoop(async () =>
    {
        for (var i = 0; i < 300; i++)
        {
            var (a, b) = await Pair.Async();
            using (a)
            {
                await EventLoop.Current!.Yield(); // the first edge, of being writable, is over
                var waiting = i % 4 < 2 ? a.ReceiveAsync(new byte[100]).AsTask() : null;
                Assert.That(b.TrySend(new byte[10], out _), Is.True); // within one turn: one edge tells of both
                if (i % 2 == 0) b.Shutdown(SocketShutdown.Send);
                else b.Dispose();
                Assert.That(await (waiting ?? a.ReceiveAsync(new byte[100]).AsTask()), Is.EqualTo(10));
                Assert.That(await a.ReceiveAsync(new byte[100]), Is.Zero);
            }
            b.Dispose();
        }
    });

    /// <summary>10 bytes, an out-of-band byte and 10 more: recv stops in the middle, and no second edge comes.</summary>
    [TestCase(true)]
    [TestCase(false)]
    public void OutOfBandInMidStream_DoesNotHang(bool waitFirst) => Run.OnLoop(async () =>
    {
        for (var round = 0; round < 20; round++)
        {
            var (x, y) = Pair.Tcp();
            using (y)
            using (var a = new AsyncSocket(x))
            {
                var first = waitFirst ? a.ReceiveAsync(new byte[100]).AsTask() : null;
                y.Send(new byte[10]);
                y.Send([7], SocketFlags.OutOfBand);
                y.Send(new byte[10]);
                var got = first is null ? 0 : await first;
                while (got < 20) got += await a.ReceiveAsync(new byte[100]);
                Assert.That(got, Is.EqualTo(20));
            }
        }
    });

    [Test]
    public void Reset_WithDataUnread_ThrowsAndDisposeIsClean() => Run.OnLoop(async () =>
    {
        TestPoller.SkipOnLibkqueue("it takes the error of a connection away (SO_ERROR) before a call can tell it");
        var (a, b) = await Pair.Async();
        using (a)
        {
            await a.SendAsync(new byte[10]);
            await b.Loop.Yield();
            var pending = a.ReceiveAsync(new byte[8]);
            b.Abort();
            var e = await Expect.Throws<SocketException>(async () => await pending);
            Assert.That(e!.SocketErrorCode, Is.EqualTo(SocketError.ConnectionReset));
            Assert.That(await a.ReceiveAsync(new byte[8]), Is.Zero, "the error is told once, as by the kernel");
            e = await Expect.Throws<SocketException>(async () => { for (var i = 0; i < 10; i++) await a.SendAsync(new byte[8]); });
            Assert.That(e!.SocketErrorCode, Is.EqualTo(SocketError.Shutdown));
        }
    });

    [Test]
    public void Cancel_BeforeDuringAndAfter_NeverTakesAByte() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            using var cancelled = new CancellationTokenSource();
            cancelled.Cancel();
            await b.SendAsync(new byte[3]);
            var e = await Expect.Throws<TaskCanceledException>(async () => await a.ReceiveAsync(new byte[8], cancelled.Token));
            Assert.That(e!.CancellationToken, Is.EqualTo(cancelled.Token));
            Assert.That(await a.ReceiveAsync(new byte[8]), Is.EqualTo(3));

            using var source = new CancellationTokenSource();
            var pending = a.ReceiveAsync(new byte[8], source.Token).AsTask();
            source.Cancel();
            Assert.That(pending.IsCompleted, Is.False, "completed by the loop, not by the caller of Cancel");
            await Expect.Throws<OperationCanceledException>(async () => await pending);
            await b.SendAsync(new byte[2]);
            Assert.That(await a.ReceiveAsync(new byte[8]), Is.EqualTo(2));
            Assert.That(a.BytesReceived, Is.EqualTo(5));
        }
    });

    [TestCase("tcp")]
    [TestCase("unix")]
    public void Cancel_RacingWithArrival_LosesNoByteAndHitsNoOtherOperation(string kind) => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Of(kind);
        using var a = new AsyncSocket(x);
        using (y)
        {
            long received = 0, sent = 0;
            int cancelled = 0, completed = 0;
            var buffer = new byte[64];
            for (var i = 0; i < 20_000; i++)
            {
                using var source = new CancellationTokenSource();
                var receiving = a.ReceiveAsync(buffer, source.Token);
                if (i % 4 == 0)
                {
                    var s = source;
                    ThreadPool.UnsafeQueueUserWorkItem(static c => c.Cancel(), s, preferLocal: false);
                }
                else source.Cancel();
                if (i % 3 == 0) sent += y.Send(buffer, 0, 1, SocketFlags.None);
                try
                {
                    received += await receiving;
                    completed++;
                }
                catch (OperationCanceledException)
                {
                    cancelled++;
                }
                if (i % 4 == 0) while (!source.IsCancellationRequested) await a.Loop.Yield();
            }
            while (received < sent) received += await a.ReceiveAsync(buffer);
            Assert.That(received, Is.EqualTo(sent));
            Assert.That(cancelled, Is.Positive);
            TestContext.Out.WriteLine($"{completed} completed, {cancelled} cancelled");
        }
    });

    [Test]
    public void Dispose_UnderPendingOperations_EndsThemThroughTheQueue() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (b)
        {
            var receiving = a.ReceiveAsync(new byte[8]).AsTask();
            var sending = a.SendAsync(new byte[50_000_000]).AsTask();
            a.Dispose();
            Assert.That(receiving.IsCompleted, Is.False, "never inline in the caller");
            var e = await Expect.Throws<ObjectDisposedException>(async () => await receiving);
            Assert.That(e!.ObjectName, Is.EqualTo(nameof(AsyncSocket)));
            await Expect.Throws<ObjectDisposedException>(async () => await sending);
            Assert.Throws<ObjectDisposedException>(() => _ = a.ReceiveAsync(new byte[8]));
            Assert.Throws<ObjectDisposedException>(() => _ = a.SendAsync(new byte[8]));
            Assert.Throws<ObjectDisposedException>(() => _ = a.TrySend(new byte[8], out _));
            Assert.Throws<ObjectDisposedException>(() => _ = a.LocalEndPoint);
            Assert.Throws<ObjectDisposedException>(() => _ = a.Socket);
            Assert.Throws<ObjectDisposedException>(() => a.Shutdown(SocketShutdown.Both));
            a.Dispose();
            a.Abort();
            await a.DisposeAsync();
        }
    });

    [Test]
    public void Dispose_FromManyThreadsRacingWithOperations_EndsEachOnceAndLeaksNothing()
    {
        using var loop = EventLoop.Start();
        var before = Descriptors.Settle();
        for (var i = 0; i < 2000; i++)
        {
            var (x, y) = Pair.Unix();
            AsyncSocket a = new(x, loop), b = new(y, loop);
            if (i % 3 == 0) _ = a.Socket;
            async Task Pump(AsyncSocket s)
            {
                await Task.Yield();
                var buffer = new byte[32];
                try
                {
                    while (await s.ReceiveAsync(buffer) is > 0 and var n) await s.SendAsync(buffer.AsMemory(0, n));
                }
                catch (Exception e) when (e is ObjectDisposedException or SocketException)
                {
                }
            }
            a.TrySend([1], out _);
            var pumps = Task.WhenAll(Pump(a), Pump(b));
            var disposing = Task.WhenAll(Task.Run(a.Dispose), Task.Run(a.Dispose), Task.Run(() => b.Abort()));
            Run.Wait(disposing);
            Run.Wait(pumps);
        }
        Run.Until(() => loop.Statistics.Registrations == 0, "all registrations end");
        Assert.That(Descriptors.Settle(), Is.EqualTo(before), Descriptors.List());
    }

    [Test]
    public void Dispose_CloseGraceful_UnsentDataStillArrives() => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Tcp();
        using (y)
        {
            var a = new AsyncSocket(x);
            _ = a.Handle;
            var total = 0L;
            var chunk = new byte[1 << 16];
            while (a.TrySend(chunk, out var n)) total += n;
            var pending = a.ReceiveAsync(new byte[8]).AsTask();
            a.Dispose();
            await Expect.Throws<ObjectDisposedException>(async () => await pending);
            using var b = new AsyncSocket(y, ownsSocket: false);
            var got = 0L;
            int m;
            while ((m = await b.ReceiveAsync(chunk)) > 0) got += m;
            Assert.That(got, Is.EqualTo(total));
        }
    });

    [Test]
    public void Dispose_InsideAnotherConnectionsResume_DropsItsEvent() => Run.OnLoop(async () =>
    {
        for (var i = 0; i < 100; i++)
        {
            var (a, a2) = await Pair.Async();
            var (b, b2) = await Pair.Async();
            async Task<string> ReceiveAndClose(AsyncSocket mine, AsyncSocket other)
            {
                try
                {
                    await mine.ReceiveAsync(new byte[8]);
                    other.Dispose();
                    return "received";
                }
                catch (ObjectDisposedException)
                {
                    return "disposed";
                }
            }
            var one = ReceiveAndClose(a, b);
            var two = ReceiveAndClose(b, a);
            a2.TrySend([1], out _);
            b2.TrySend([1], out _);
            Assert.That(new[] { await one, await two }, Is.EquivalentTo(new[] { "received", "disposed" }));
            foreach (var s in new[] { a, a2, b, b2 }) s.Dispose();
        }
    });

    [Test]
    public void Detach_GivesAWorkingSocketBack() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (b)
        {
            var pending = a.ReceiveAsync(new byte[8]).AsTask();
            using var socket = a.Detach();
            await Expect.Throws<ObjectDisposedException>(async () => await pending);
            Assert.Throws<ObjectDisposedException>(() => a.Detach());
            a.Dispose();
            Assert.That(socket.Blocking, Is.False);
            Assert.That(socket.Send([1, 2, 3]), Is.EqualTo(3));
            Assert.That(await b.ReceiveAsync(new byte[8]), Is.EqualTo(3));
            using var again = new AsyncSocket(socket);
            await b.SendAsync(new byte[4]);
            Assert.That(await again.ReceiveAsync(new byte[8]), Is.EqualTo(4));
        }
    });

    [Test]
    public void OwnsSocketFalse_LeavesTheSocketOpen() => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Tcp();
        using (x)
        using (y)
        {
            new AsyncSocket(x, ownsSocket: false).Dispose();
            Assert.That(x.Send([1]), Is.EqualTo(1));
            using var again = new AsyncSocket(x, ownsSocket: false);
            Assert.Throws<InvalidOperationException>(() => _ = new AsyncSocket(x, ownsSocket: false));
            await again.SendAsync(new byte[1]);
        }
    });

    [Test]
    public void Constructor_BadSockets_Throw() => Run.OnLoop(() =>
    {
        Assert.Throws<ArgumentNullException>(() => _ = new AsyncSocket(null!));
        var closed = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        closed.Dispose();
        Assert.Throws<ObjectDisposedException>(() => _ = new AsyncSocket(closed));
        using var unconnected = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        var e = Assert.Throws<SocketException>(() => _ = new AsyncSocket(unconnected));
        Assert.That(e!.SocketErrorCode, Is.EqualTo(SocketError.NotConnected));
        Assert.Throws<ArgumentNullException>(() => AsyncSocket.Listen(null!));
        Assert.Throws<ArgumentNullException>(() => _ = AsyncSocket.ConnectAsync(null!));
        return Task.CompletedTask;
    });

    [Test]
    public void StoppedLoop_PendingOperationsEndAndNewOnesThrow()
    {
        var before = Descriptors.Settle();
        var loop = EventLoop.Start();
        var (x, y) = Pair.Tcp();
        var a = new AsyncSocket(x, loop);
        var receiving = Task.Run(async () => await a.ReceiveAsync(new byte[8]));
        var plain = Task.Run(async () => await loop.InvokeAsync(async () => await y.ReadableAsync()));
        Run.Until(() => loop.Statistics.Registrations == 2, "both are registered");
        loop.Dispose();
        Assert.Throws<ObjectDisposedException>(() => Run.Wait(receiving));
        Assert.Throws<ObjectDisposedException>(() => Run.Wait(plain));
        Assert.Throws<ObjectDisposedException>(() => _ = a.ReceiveAsync(new byte[8]));
        Assert.Throws<ObjectDisposedException>(() => _ = a.TryReceive(new byte[8], out _));
        Assert.Throws<ObjectDisposedException>(() => _ = new AsyncSocket(y, loop));
        Assert.Throws<ObjectDisposedException>(() => AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0), loop: loop));
        a.Dispose();
        y.Dispose();
        Assert.That(Descriptors.Settle(), Is.EqualTo(before));
    }

    [Test]
    public void SocketClosedBehindItsBack_PendingReceiveEndsWhenTheNumberIsUsedAgain() => Run.OnLoop(async () =>
    {
        TestPoller.SkipWithoutFiles();
        var (x, y) = Pair.Tcp();
        using (y)
        using (var a = new AsyncSocket(x))
        {
            var pending = a.ReceiveAsync(new byte[8]).AsTask();
            x.Dispose();
            var (b, c) = await Pair.Async(); // one of them has the number
            using (b)
            using (c)
            {
                await Expect.Throws<ObjectDisposedException>(async () => await pending);
                await b.SendAsync(new byte[3]);
                Assert.That(await c.ReceiveAsync(new byte[8]), Is.EqualTo(3));
            }
        }
    });

    [Test]
    public void NeverDisposed_IsClosedByTheFinalizer() => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Tcp();
        using (y)
        {
            Forgotten(x);
            var end = y.ReceiveAsync(new byte[1], SocketFlags.None);
            for (var i = 0; i < 100 && !end.IsCompleted; i++)
            {
                GC.Collect();
                GC.WaitForPendingFinalizers();
                await EventLoop.Current!.Delay(TimeSpan.FromMilliseconds(5));
            }
            Assert.That(end.IsCompleted, Is.True);
        }
        [System.Runtime.CompilerServices.MethodImpl(System.Runtime.CompilerServices.MethodImplOptions.NoInlining)]
        static void Forgotten(Socket socket) => _ = new AsyncSocket(socket);
    });

    [Test]
    public void PendingReceive_KeepsTheSocketAlive() => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Tcp();
        using (y)
        {
            var receiving = Start(x);
            for (var i = 0; i < 5; i++)
            {
                GC.Collect();
                GC.WaitForPendingFinalizers();
            }
            y.Send([1, 2, 3]);
            Assert.That(await receiving, Is.EqualTo(3));
        }
        [System.Runtime.CompilerServices.MethodImpl(System.Runtime.CompilerServices.MethodImplOptions.NoInlining)]
        static ValueTask<int> Start(Socket socket) => new AsyncSocket(socket).ReceiveAsync(new byte[8]);
    });
}
