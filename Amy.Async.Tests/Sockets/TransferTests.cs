using System.Buffers;
using System.Net;
using System.Net.Sockets;
using Microsoft.Win32.SafeHandles;

namespace Amy.Async.Tests.Sockets;

/// <summary>Scatter and gather, peek, out-of-band, files, descriptors, hang-up, time-outs.</summary>
[TestFixture]
internal class TransferTests
{
    private sealed class Segment : ReadOnlySequenceSegment<byte>
    {
        private Segment(ReadOnlyMemory<byte> memory) => Memory = memory;

        internal static ReadOnlySequence<byte> Of(params byte[][] parts)
        {
            var first = new Segment(parts[0]);
            var last = first;
            foreach (var part in parts.Skip(1))
            {
                var next = new Segment(part) { RunningIndex = last.RunningIndex + last.Memory.Length };
                last.Next = next;
                last = next;
            }
            return new ReadOnlySequence<byte>(first, 0, last, last.Memory.Length);
        }
    }

    private static byte[][] Parts(int count, int seed) =>
        [.. Enumerable.Range(0, count).Select(i => Enumerable.Range(0, i * 37 % 5000).Select(j => (byte)(i * 31 + j * 7 + seed)).ToArray())];

    private static async Task<byte[]> ReceiveAll(AsyncSocket socket, long count)
    {
        var all = new byte[count];
        for (var n = 0; n < count;)
        {
            var got = await socket.ReceiveAsync(all.AsMemory(n));
            Assert.That(got, Is.Positive);
            n += got;
        }
        return all;
    }

    [TestCase("tcp", 1)]
    [TestCase("tcp", 3)]
    [TestCase("tcp", 64)]
    [TestCase("tcp", 65)]
    [TestCase("tcp", 1000)]
    [TestCase("unix", 1000)]
    public void Gather_SendsEveryByteInOrder_ThoughThePeerIsSlow(string kind, int count) => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Of(kind);
        using var a = new AsyncSocket(x);
        using var b = new AsyncSocket(y);
        var parts = Parts(count, 1);
        var expected = parts.SelectMany(p => p).ToArray();
        var sequence = a.SendAsync(Segment.Of(parts)).AsTask();
        Assert.That(await ReceiveAll(b, expected.Length), Is.EqualTo(expected));
        Assert.That(await sequence, Is.EqualTo(expected.Length));
        var list = a.SendAsync(parts.Select(p => new ArraySegment<byte>(p)).ToList()).AsTask();
        Assert.That(await ReceiveAll(b, expected.Length), Is.EqualTo(expected));
        Assert.That(await list, Is.EqualTo(expected.Length));
        Assert.That(a.BytesSent, Is.EqualTo(2L * expected.Length));
    });

    [Test]
    public void Gather_OfNothing_SendsNothing_ButADatagram() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            Assert.That(await a.SendAsync(ReadOnlySequence<byte>.Empty), Is.Zero);
            Assert.That(await a.SendAsync([]), Is.Zero);
            Assert.That(b.TryReceive(new byte[1], out _), Is.False);
        }
        using var server = AsyncSocket.BindDatagram(new IPEndPoint(IPAddress.Loopback, 0));
        using var client = AsyncSocket.ConnectDatagram(server.LocalEndPoint!);
        Assert.That(await client.SendAsync(Segment.Of([1, 2], [3], [], [4, 5, 6])), Is.EqualTo(6));
        Assert.That(await client.SendAsync(ReadOnlySequence<byte>.Empty), Is.Zero);
        var buffer = new byte[10];
        Assert.That(await server.ReceiveAsync(buffer), Is.EqualTo(6), "one datagram");
        Assert.That(buffer.AsSpan(0, 6).ToArray(), Is.EqualTo(new byte[] { 1, 2, 3, 4, 5, 6 }));
        Assert.That(await server.ReceiveAsync(buffer), Is.Zero);
    });

    [TestCase("tcp")]
    [TestCase("unix")]
    public void Scatter_FillsOneAfterTheOther_AndGoesOnAfterAShortOne(string kind) => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Of(kind);
        using var a = new AsyncSocket(x);
        using var b = new AsyncSocket(y);
        var storage = new byte[30];
        ArraySegment<byte>[] buffers = [new(storage, 0, 3), new(storage, 3, 0), new(storage, 3, 20)];
        for (var i = 0; i < 50; i++)
        {
            var receiving = b.ReceiveAsync(buffers);
            await a.SendAsync(new byte[] { (byte)i, 2, 3, 4, 5 });
            Assert.That(await receiving, Is.EqualTo(5));
            Assert.That(storage.AsSpan(0, 5).ToArray(), Is.EqualTo(new byte[] { (byte)i, 2, 3, 4, 5 }));
        }
        a.Shutdown(SocketShutdown.Send);
        Assert.That(await b.ReceiveAsync(buffers), Is.Zero);
        await Expect.Throws<ArgumentException>(async () => await b.ReceiveAsync(new List<ArraySegment<byte>>()));
    });

    [TestCase("tcp")]
    [TestCase("unix")]
    public void Peek_LeavesTheData(string kind) => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Of(kind);
        using var a = new AsyncSocket(x);
        using var b = new AsyncSocket(y);
        var buffer = new byte[10];
        var peeking = b.ReceiveAsync(buffer, SocketFlags.Peek);
        await a.SendAsync("hello"u8.ToArray());
        Assert.That(await peeking, Is.EqualTo(5));
        Assert.That(await b.ReceiveAsync(buffer.AsMemory(0, 2), SocketFlags.Peek), Is.EqualTo(2));
        Assert.That(b.BytesReceived, Is.Zero);
        Assert.That(await b.ReceiveAsync(buffer), Is.EqualTo(5));
        Assert.That(b.TryReceive(buffer, out _), Is.False);
        await Expect.Throws<ArgumentException>(async () => await b.ReceiveAsync(buffer, SocketFlags.Truncated));
        await Expect.Throws<ArgumentException>(async () => await b.SendAsync(buffer, SocketFlags.Peek));
    });

    [Test]
    public void OutOfBand_IsPriority_AndIsReceivedApart() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var buffer = new byte[10];
            await Expect.Throws<SocketException>(async () => await b.ReceiveAsync(buffer, SocketFlags.OutOfBand));
            await a.SendAsync("abc"u8.ToArray());
            await a.SendAsync("!"u8.ToArray(), SocketFlags.OutOfBand);
            await a.SendAsync("def"u8.ToArray());
            Readiness readiness;
            do readiness = await b.ReadableAsync();
            while (!readiness.HasFlag(Readiness.Priority));
            Assert.That(await b.ReceiveAsync(buffer, SocketFlags.OutOfBand), Is.EqualTo(1));
            Assert.That(buffer[0], Is.EqualTo((byte)'!'));
            var text = "";
            while (text.Length < 6) text += System.Text.Encoding.ASCII.GetString(buffer, 0, await b.ReceiveAsync(buffer));
            Assert.That(text, Is.EqualTo("abcdef"));
        }
    });

    [TestCase("tcp")]
    [TestCase("unix")]
    public void SendFile_SendsAPart_ToTheEnd_WithoutMovingThePosition(string kind) => Run.OnLoop(async () =>
    {
        var path = Path.GetTempFileName();
        try
        {
            var content = Enumerable.Range(0, 5_000_000).Select(i => (byte)(i * 11 + i / 251)).ToArray();
            File.WriteAllBytes(path, content);
            using var file = new FileStream(path, FileMode.Open);
            var (x, y) = Pair.Of(kind);
            using var a = new AsyncSocket(x);
            using var b = new AsyncSocket(y);
            var sending = a.SendFileAsync(file.SafeFileHandle).AsTask();
            Assert.That((await ReceiveAll(b, content.Length)).AsSpan().SequenceEqual(content), Is.True);
            Assert.That(await sending, Is.EqualTo(content.Length));
            Assert.That(file.Position, Is.Zero);

            sending = a.SendFileAsync(file.SafeFileHandle, 4_999_990, 1000).AsTask();
            Assert.That(await ReceiveAll(b, 10), Is.EqualTo(content[4_999_990..]));
            Assert.That(await sending, Is.EqualTo(10), "the end of the file");
            Assert.That(await a.SendFileAsync(file.SafeFileHandle, 100, 0), Is.Zero);
            Assert.That(await a.SendFileAsync(file.SafeFileHandle, 6_000_000), Is.Zero);
            await Expect.Throws<ArgumentOutOfRangeException>(async () => await a.SendFileAsync(file.SafeFileHandle, -1));
            await Expect.Throws<ArgumentOutOfRangeException>(async () => await a.SendFileAsync(file.SafeFileHandle, 0, -1));
            using var pipe = new System.IO.Pipes.AnonymousPipeServerStream();
            Assert.That((await Expect.Throws<SocketException>(async () => await a.SendFileAsync(pipe.SafePipeHandle))).SocketErrorCode, Is.Not.EqualTo(SocketError.Success));
            file.Dispose();
            await Expect.Throws<ObjectDisposedException>(async () => await a.SendFileAsync(file.SafeFileHandle));
            await a.SendAsync("still"u8.ToArray());
            Assert.That(await ReceiveAll(b, 5), Is.EqualTo("still"u8.ToArray()));
        }
        finally
        {
            File.Delete(path);
        }
    });

    [TestCase("stream")]
    [TestCase("datagram")]
    public void Descriptors_ArePassed_AndAreTheSameFile(string kind) => Run.OnLoop(async () =>
    {
        var path = Pair.TemporaryPath();
        AsyncSocket a, b;
        AsyncSocket? listener = null;
        if (kind == "stream")
        {
            var (x, y) = Pair.Unix();
            (a, b) = (new AsyncSocket(x), new AsyncSocket(y));
        }
        else
        {
            b = AsyncSocket.BindDatagram(new UnixDomainSocketEndPoint(path));
            a = AsyncSocket.ConnectDatagram(new UnixDomainSocketEndPoint(path));
        }
        using (listener)
        using (a)
        using (b)
        {
            var file = Path.GetTempFileName();
            using (var stream = new FileStream(file, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite | FileShare.Delete))
            {
                var before = Directory.GetFiles("/proc/self/fd").Length;
                var receiving = b.ReceiveMessageAsync(new byte[100], new byte[ControlMessage.GetSpace(2 * sizeof(int))]);
                Assert.That(await a.SendDescriptorsAsync("take this"u8.ToArray(), [stream.SafeFileHandle, stream.SafeFileHandle]), Is.EqualTo(9));
                var message = await receiving;
                Assert.That(message.Count, Is.EqualTo(9));
                Assert.That(message.Descriptors, Has.Count.EqualTo(2));
                using (var copy = new FileStream(message.Descriptors[0], FileAccess.Write)) copy.Write("through the copy"u8);
                message.Descriptors[1].Dispose();
                Assert.That(File.ReadAllText(file), Is.EqualTo("through the copy"));

                // Room for one of two: the other is closed by the kernel, and the flag tells.
                await a.SendDescriptorsAsync("x"u8.ToArray(), [stream.SafeFileHandle, stream.SafeFileHandle, stream.SafeFileHandle]);
                message = await b.ReceiveMessageAsync(new byte[100], new byte[ControlMessage.GetSpace(sizeof(int))]);
                Assert.That(message.Flags, Is.EqualTo(SocketFlags.ControlDataTruncated));
                foreach (var handle in message.Descriptors) handle.Dispose();

                // A plain receive leaves none behind.
                await a.SendDescriptorsAsync("y"u8.ToArray(), [stream.SafeFileHandle]);
                Assert.That(await b.ReceiveAsync(new byte[100]), Is.EqualTo(1));
                Assert.That(Directory.GetFiles("/proc/self/fd").Length, Is.EqualTo(before));
            }
            File.Delete(file);
            await Expect.Throws<ArgumentException>(async () => await a.SendDescriptorsAsync("x"u8.ToArray(), []));
            await Expect.Throws<ArgumentException>(async () => await a.SendDescriptorsAsync(default, [new SafeFileHandle(0, false)]));
            var closed = File.OpenHandle("/dev/null");
            closed.Dispose();
            await Expect.Throws<ObjectDisposedException>(async () => await a.SendDescriptorsAsync("x"u8.ToArray(), [closed]));
            await a.SendAsync("z"u8.ToArray());
            Assert.That(await b.ReceiveAsync(new byte[100]), Is.EqualTo(1), "nothing is bricked");
        }
    });

    [Test]
    public void Descriptor_InMidStream_WithAPlainReader_DoesNotHang([Values] bool waits, [Values] bool segments) => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Unix();
        using var a = new AsyncSocket(x);
        using var b = new AsyncSocket(y);
        await EventLoop.Current!.Yield(); // the first edge, of being writable, is over
        var buffer = new byte[100];
        var several = new ArraySegment<byte>[] { new(buffer) };
        Task<int> Receive() => segments ? b.ReceiveAsync(several).AsTask() : b.ReceiveAsync(buffer).AsTask();
        var receiving = waits ? Receive() : null;
        Assert.That(a.TrySend(new byte[10], out _), Is.True); // within one turn: one edge tells of all three
        var sending = a.SendDescriptorsAsync(new byte[10], [a.Handle]);
        Assert.That((sending.IsCompletedSuccessfully, a.TrySend(new byte[10], out _)), Is.EqualTo((true, true)));
        await sending;
        var n = 0;
        while (n < 30)
        {
            n += await (receiving ?? Receive());
            receiving = null;
        }
    });

    [Test]
    public void ClosedAsync_EndsWithTheConnection_WhileReadingIsLeftAlone() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var closed = b.ClosedAsync();
            await Expect.Throws<InvalidOperationException>(async () => await b.ClosedAsync());
            await a.SendAsync("unread"u8.ToArray());
            await b.ReadableAsync();
            Assert.That(closed.IsCompleted, Is.False, "data is no hang-up");
            a.Dispose();
            await closed;
            await b.ClosedAsync(); // and it stays so
            Assert.That(await b.ReceiveAsync(new byte[10]), Is.EqualTo(6), "what was sent before is still there");
            Assert.That(await b.ReceiveAsync(new byte[10]), Is.Zero);
        }
    });

    [TestCase("tcp")]
    [TestCase("unix")]
    public void ClosedAsync_BesidesAPendingReceive_OnHalfClose(string kind) => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Of(kind);
        using var a = new AsyncSocket(x);
        using var b = new AsyncSocket(y);
        var closed = b.ClosedAsync().AsTask();
        var receiving = b.ReceiveAsync(new byte[1]).AsTask();
        a.Shutdown(SocketShutdown.Send);
        Assert.That(await receiving, Is.Zero);
        await closed;
        await b.SendAsync("still open this way"u8.ToArray());
        Assert.That(await a.ReceiveAsync(new byte[100]), Is.EqualTo(19));
    });

    [Test]
    public void ClosedAsync_IsCancelled_Disposed_AndEndsOnReset() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using var source = new CancellationTokenSource();
        var cancelled = b.ClosedAsync(source.Token);
        source.Cancel();
        await Expect.Throws<OperationCanceledException>(async () => await cancelled);
        var reset = b.ClosedAsync().AsTask();
        var own = a.ClosedAsync().AsTask();
        a.Abort();
        await reset;
        await Expect.Throws<ObjectDisposedException>(async () => await own);
        b.Dispose();
        await Expect.Throws<ObjectDisposedException>(async () => await b.ClosedAsync());
    });

    [Test]
    public void ClosedAsync_EndsWhenTheLoopStops()
    {
        var loop = EventLoop.Start();
        var (x, y) = Pair.Tcp();
        using (x)
        using (y)
        {
            var socket = new AsyncSocket(x, loop);
            var closed = socket.ClosedAsync().AsTask();
            Run.Wait(loop.StopAsync());
            Assert.That(() => Run.Wait(closed), Throws.InstanceOf<ObjectDisposedException>());
        }
    }

    [Test]
    public void ClosedAsync_Races_AreNotLost() => Run.OnLoop(async () =>
    {
        for (var i = 0; i < 300; i++)
        {
            var (x, y) = Pair.Unix();
            using var b = new AsyncSocket(y);
            var closing = Task.Run(x.Dispose);
            if (i % 2 == 0) await b.ClosedAsync();
            else await Task.Run(async () => await b.ClosedAsync());
            await closing;
        }
    });

    [TestCase(0)]
    [TestCase(5)]
    public void Reset_ToldToASend_IsNoCleanEndForTheReceiver(int unread) => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (b)
        {
            if (unread > 0) await a.SendAsync(new byte[unread]);
            await b.SendAsync(new byte[1]);
            a.Abort();
            Assert.That((await Expect.Throws<SocketException>(async () => await b.SendAsync(new byte[1]))).SocketErrorCode, Is.EqualTo(SocketError.ConnectionReset));
            var error = await Expect.Throws<SocketException>(async () =>
            {
                var buffer = new byte[10];
                while (await b.ReceiveAsync(buffer) > 0)
                {
                }
            });
            Assert.That(error.SocketErrorCode, Is.EqualTo(SocketError.ConnectionReset));
            await Expect.Throws<SocketException>(async () => await b.ReceiveAsync(new ArraySegment<byte>[] { new(new byte[5]) }));
        }
    });

    [Test]
    public void ReceiveTimeout_Throws_TakesNoData_AndTheNextOneWorks() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            Assert.That(b.ReceiveTimeout, Is.EqualTo(Timeout.InfiniteTimeSpan));
            b.ReceiveTimeout = TimeSpan.FromMilliseconds(20);
            var start = DateTime.UtcNow;
            await Expect.Throws<TimeoutException>(async () => await b.ReceiveAsync(new byte[10]));
            Assert.That(DateTime.UtcNow - start, Is.GreaterThan(TimeSpan.FromMilliseconds(15)));
            await Expect.Throws<TimeoutException>(async () => await b.ReadableAsync());
            await a.SendAsync("abc"u8.ToArray());
            Assert.That(await b.ReceiveAsync(new byte[10]), Is.EqualTo(3));
            b.ReceiveTimeout = Timeout.InfiniteTimeSpan;
            var forever = b.ReceiveAsync(new byte[10]);
            await a.Loop.Delay(TimeSpan.FromMilliseconds(40));
            Assert.That(forever.IsCompleted, Is.False);
            await a.SendAsync("d"u8.ToArray());
            Assert.That(await forever, Is.EqualTo(1));
            Assert.That(() => b.ReceiveTimeout = TimeSpan.Zero, Throws.TypeOf<ArgumentOutOfRangeException>());
            Assert.That(() => b.SendTimeout = TimeSpan.FromTicks(-5), Throws.TypeOf<ArgumentOutOfRangeException>());
        }
    });

    [Test]
    public void SendTimeout_Throws_AndBytesSentTellsHowFar() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            a.SendTimeout = TimeSpan.FromMilliseconds(20);
            await Expect.Throws<TimeoutException>(async () => await a.SendAsync(new byte[50_000_000]));
            Assert.That(a.BytesSent, Is.InRange(1, 49_999_999));
            var received = 0L;
            a.Shutdown(SocketShutdown.Send);
            var buffer = new byte[1 << 16];
            for (int n; (n = await b.ReceiveAsync(buffer)) > 0;) received += n;
            Assert.That(received, Is.EqualTo(a.BytesSent));
        }
    });

    [Test]
    public void Timeouts_OnVirtualTime_AreExact_AndALongerOneDoesNotInheritAShorterOnes() => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Tcp();
        using (x)
        {
            using var b = new AsyncSocket(y);
            var loop = EventLoop.Current!;
            var time = loop.TimeProvider;
            foreach (var seconds in new[] { 10, 5, 60, 1 })
            {
                b.ReceiveTimeout = TimeSpan.FromSeconds(seconds);
                var start = time.GetTimestamp();
                await Expect.Throws<TimeoutException>(async () => await b.ReceiveAsync(new byte[1]));
                Assert.That(time.GetElapsedTime(start), Is.EqualTo(TimeSpan.FromSeconds(seconds)));
            }
            // In time, again and again: the deadline moves on.
            b.ReceiveTimeout = TimeSpan.FromSeconds(1);
            for (var i = 0; i < 10; i++)
            {
                var receiving = b.ReceiveAsync(new byte[1]).AsTask();
                await loop.Delay(TimeSpan.FromMilliseconds(900));
                x.Send(new byte[1]);
                Assert.That(await receiving, Is.EqualTo(1));
            }
        }
    }, new EventLoopOptions { TimeProvider = new VirtualTimeProvider { AutoJump = true } });

    [Test]
    public void Timeout_OfAClosedSocket_IsNotKept() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        for (var i = 0; i < 50; i++)
        {
            var (a, b) = await Pair.Async();
            a.ReceiveTimeout = a.SendTimeout = TimeSpan.FromHours(1);
            var receiving = a.ReceiveAsync(new byte[1]).AsTask();
            if (i % 2 == 0) await b.SendAsync(new byte[1]);
            else _ = receiving.ContinueWith(static t => t.Exception, TaskScheduler.Default);
            if (i % 2 == 0) await receiving;
            if (i % 3 == 0) await Task.Run(a.Dispose);
            else a.Dispose();
            b.Dispose();
        }
        await loop.Yield();
        await loop.Yield();
        Assert.That(loop.Statistics.TimersPending, Is.Zero);
    });

    [Test]
    public void Timeout_FromAnotherThread() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start();
        var (x, y) = Pair.Tcp();
        using (x)
        {
            using var b = new AsyncSocket(y, loop) { ReceiveTimeout = TimeSpan.FromMilliseconds(10) };
            for (var i = 0; i < 20; i++) Assert.That(() => Run.Wait(b.ReceiveAsync(new byte[1]).AsTask()), Throws.TypeOf<TimeoutException>());
            using var listener = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0), loop: loop);
            listener.ReceiveTimeout = TimeSpan.FromMilliseconds(10);
            Assert.That(() => Run.Wait(listener.AcceptAsync().AsTask()), Throws.TypeOf<TimeoutException>());
        }
    });

    [Test]
    public void Timeout_RacingWithData_LosesNoByte() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            b.ReceiveTimeout = TimeSpan.FromTicks(2000); // 200 us
            var sent = 0;
            var received = 0;
            var sender = Task.Run(async () =>
            {
                for (; sent < 2000; sent++)
                {
                    var until = System.Diagnostics.Stopwatch.GetTimestamp() + System.Diagnostics.Stopwatch.Frequency / 5000;
                    while (System.Diagnostics.Stopwatch.GetTimestamp() < until) Thread.SpinWait(10);
                    await a.SendAsync(new[] { (byte)sent });
                }
            });
            var buffer = new byte[1];
            var timeouts = 0;
            while (received < 2000)
            {
                try
                {
                    Assert.That(await b.ReceiveAsync(buffer), Is.EqualTo(1));
                    Assert.That(buffer[0], Is.EqualTo((byte)received++));
                }
                catch (TimeoutException)
                {
                    timeouts++;
                }
            }
            await sender;
            TestContext.Out.WriteLine($"{timeouts} time-outs");
        }
    });
}
