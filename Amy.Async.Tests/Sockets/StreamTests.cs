using System.Buffers;
using System.Diagnostics.CodeAnalysis;
using System.IO.Pipes;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Amy.Async.Tests.Sockets;

/// <summary>
/// <c>AsStream()</c>: what dotnet/runtime's StreamConformanceTests assert of connected streams, and what is this stream's own.
/// </summary>
[TestFixture]
[SuppressMessage("Performance", "CA1835", Justification = "Every overload is tested.")]
[SuppressMessage("Reliability", "CA2022", Justification = "What a read returns is looked at where it matters.")]
internal class StreamTests
{
    private static (Stream A, Stream B) Streams(string kind, EventLoop? loop = null)
    {
        if (kind == "fd")
        {
            var (x, y) = Pair.Fds(loop);
            return (x.AsStream(), y.AsStream());
        }
        var (a, b) = Pair.Of(kind);
        return (new AsyncSocket(a, loop).AsStream(), new AsyncSocket(b, loop).AsStream());
    }

    [TestCase("tcp")]
    [TestCase("unix")]
    [TestCase("fd")]
    public void ReadsAndWrites_ByEveryOverload(string kind) => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start();
        var (a, b) = Streams(kind, loop);
        using (a)
        using (b)
        {
            Run.Wait(Task.Run(async () =>
            {
                var data = new byte[] { 1, 2, 3, 4, 5 };
                var got = new byte[7];
                for (var mode = 0; mode < 5; mode++)
                {
                    Array.Clear(got);
                    switch (mode)
                    {
                        case 0: a.Write(data, 1, 3); break;
                        case 1: a.Write(data.AsSpan(1, 3)); break;
                        case 2: await a.WriteAsync(data, 1, 3, default); break;
                        case 3: await a.WriteAsync(data.AsMemory(1, 3)); break;
                        case 4: a.EndWrite(a.BeginWrite(data, 1, 3, null, null)); break;
                    }
                    a.Flush();
                    await a.FlushAsync();
                    var n = mode switch
                    {
                        0 => b.Read(got, 2, 5),
                        1 => b.Read(got.AsSpan(2)),
                        2 => await b.ReadAsync(got, 2, 5),
                        3 => await b.ReadAsync(got.AsMemory(2)),
                        _ => b.EndRead(b.BeginRead(got, 2, 5, null, null)),
                    };
                    Assert.That(n, Is.EqualTo(3));
                    Assert.That(got, Is.EqualTo(new byte[] { 0, 0, 2, 3, 4, 0, 0 }));
                }
                a.WriteByte(77);
                Assert.That(b.ReadByte(), Is.EqualTo(77));
                a.Dispose();
                Assert.That(b.ReadByte(), Is.EqualTo(-1));
                Assert.That(await b.ReadAsync(got), Is.Zero);
            }));
        }
    });

    [TestCase("tcp")]
    [TestCase("unix")]
    [TestCase("fd")]
    public void Megabytes_BothWaysAtOnce(string kind) => Run.OnLoop(async () =>
    {
        var (a, b) = Streams(kind);
        using (a)
        using (b)
        {
            var data = Enumerable.Range(0, 3_000_000).Select(i => (byte)(i * 17 + i / 253)).ToArray();
            async Task<byte[]> Read(Stream stream)
            {
                var all = new byte[data.Length];
                await stream.ReadExactlyAsync(all);
                return all;
            }
            var reads = new[] { Read(a), Read(b) };
            await Task.WhenAll(a.WriteAsync(data).AsTask(), b.WriteAsync(data).AsTask());
            foreach (var read in await Task.WhenAll(reads)) Assert.That(read.AsSpan().SequenceEqual(data), Is.True);
        }
    });

    [Test]
    public void CopyTo_Synchronously_OnAThreadOfItsOwn() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start();
        var (a, b) = Streams("tcp", loop);
        using (a)
        using (b)
        {
            var data = Enumerable.Range(0, 2_000_000).Select(i => (byte)(i * 17)).ToArray();
            var writer = new Thread(() =>
            {
                new MemoryStream(data).CopyTo(a);
                a.Dispose();
            });
            writer.Start();
            var all = new MemoryStream();
            b.CopyTo(all);
            writer.Join();
            Assert.That(all.ToArray().AsSpan().SequenceEqual(data), Is.True);
        }
    });

    [Test]
    public void ManySynchronousReaders_OnThePool_AreNotStarved() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start();
        ThreadPool.GetMinThreads(out var minimum, out _);
        var pairs = Enumerable.Range(0, minimum * 2).Select(_ => Streams("unix", loop)).ToList();
        var reads = pairs.Select(p => Task.Run(() => p.B.ReadByte())).ToList(); // all of the pool's threads block
        foreach (var (a, _) in pairs) a.WriteByte(5);
        foreach (var read in reads) Assert.That(Run.Wait(read), Is.EqualTo(5));
        pairs.ForEach(p => { p.A.Dispose(); p.B.Dispose(); });
    });

    [TestCase("tcp")]
    [TestCase("fd")]
    public void ZeroByteRead_WaitsForData_AndTakesNone(string kind) => Run.OnLoop(async () =>
    {
        var (a, b) = Streams(kind);
        using (a)
        using (b)
        {
            var waiting = b.ReadAsync(Memory<byte>.Empty);
            Assert.That(waiting.IsCompleted, Is.False);
            await a.WriteAsync(new byte[] { 9 });
            Assert.That(await waiting, Is.Zero);
            Assert.That(await b.ReadAsync(Array.Empty<byte>(), 0, 0), Is.Zero);
            Assert.That(await b.ReadAsync(new byte[5]), Is.EqualTo(1));
            await a.WriteAsync(ReadOnlyMemory<byte>.Empty);
            // Synchronously, elsewhere.
            var elsewhere = Task.Run(() => b.Read([]));
            await a.WriteAsync(new byte[] { 8 });
            Assert.That(await elsewhere, Is.Zero);
            Assert.That(await b.ReadAsync(new byte[5]), Is.EqualTo(1));
        }
    });

    [Test]
    public void SynchronousCalls_OnTheLoop_AreRefusedWithAdvice() => Run.OnLoop(async () =>
    {
        var (a, b) = Streams("tcp");
        using (a)
        using (b)
        {
            await a.WriteAsync(new byte[] { 1 });
            foreach (var call in new Action[] { () => b.ReadByte(), () => b.Read(new byte[1], 0, 1), () => b.Read(new byte[1].AsSpan()), () => b.Write(new byte[1], 0, 1), () => b.WriteByte(1), () => b.Write(new byte[1].AsSpan()), () => b.CopyTo(Stream.Null) })
                Assert.That(call, Throws.InvalidOperationException.With.Message.Contains("asynchronous"));
            Assert.That(b.Flush, Throws.Nothing);
            Assert.That(await Task.Run(b.ReadByte), Is.EqualTo(1));
        }
    });

    [TestCase("tcp")]
    [TestCase("fd")]
    public void Properties_OfAnOpenAndAClosedOne(string kind) => Run.OnLoop(async () =>
    {
        var (a, b) = Streams(kind);
        Assert.That((a.CanRead, a.CanWrite, a.CanSeek, a.CanTimeout), Is.EqualTo((true, true, false, true)));
        Assert.That(() => a.Length, Throws.TypeOf<NotSupportedException>());
        Assert.That(() => a.Position, Throws.TypeOf<NotSupportedException>());
        Assert.That(() => a.Position = 1, Throws.TypeOf<NotSupportedException>());
        Assert.That(() => a.Seek(0, SeekOrigin.Begin), Throws.TypeOf<NotSupportedException>());
        Assert.That(() => a.SetLength(1), Throws.TypeOf<NotSupportedException>());
        a.Dispose();
        a.Dispose();
        await a.DisposeAsync();
        Assert.That((a.CanRead, a.CanWrite, a.CanSeek), Is.EqualTo((false, false, false)));
        await Expect.Throws<ObjectDisposedException>(async () => await a.ReadAsync(new byte[1]));
        await Expect.Throws<ObjectDisposedException>(async () => await a.WriteAsync(new byte[1]));
        await Expect.Throws<ObjectDisposedException>(async () => await a.ReadAsync(new byte[1], 0, 1));
        Assert.That(() => a.Write(new byte[1], 0, 1), Throws.TypeOf<ObjectDisposedException>());
        Assert.That(a.ReadByte, Throws.TypeOf<ObjectDisposedException>());
        Assert.That(() => a.ReadTimeout, Throws.TypeOf<ObjectDisposedException>());
        Assert.That(() => a.WriteTimeout = 5, Throws.TypeOf<ObjectDisposedException>());
        Assert.That(() => a.CopyTo(Stream.Null), Throws.TypeOf<ObjectDisposedException>());
        await Expect.Throws<ObjectDisposedException>(() => a.CopyToAsync(Stream.Null));
        Assert.That(() => a.EndRead(a.BeginRead(new byte[1], 0, 1, null, null)), Throws.TypeOf<ObjectDisposedException>());
        Assert.That(await b.ReadAsync(new byte[1]), Is.Zero);
        b.Dispose();
    });

    [Test]
    public void BadArguments_AreRefusedByName() => Run.OnLoop(async () =>
    {
        var (a, b) = Streams("tcp");
        using (a)
        using (b)
        {
            Assert.That((await Expect.Throws<ArgumentNullException>(async () => await a.ReadAsync(null!, 0, 1))).ParamName, Is.EqualTo("buffer"));
            Assert.That((await Expect.Throws<ArgumentOutOfRangeException>(async () => await a.ReadAsync(new byte[1], -1, 1))).ParamName, Is.EqualTo("offset"));
            Assert.That((await Expect.Throws<ArgumentOutOfRangeException>(async () => await a.ReadAsync(new byte[1], 0, 2))).ParamName, Is.EqualTo("count"));
            Assert.That((await Expect.Throws<ArgumentOutOfRangeException>(async () => await a.WriteAsync(new byte[1], 1, 1))).ParamName, Is.EqualTo("count"));
            Assert.That((await Expect.Throws<ArgumentNullException>(async () => await a.WriteAsync(null!, 0, 1))).ParamName, Is.EqualTo("buffer"));
            Assert.That((await Expect.Throws<ArgumentOutOfRangeException>(async () => await a.ReadAsync(new byte[1], 2, 0))).ParamName, Is.EqualTo("count"));
            Assert.That((await Expect.Throws<ArgumentOutOfRangeException>(async () => await a.ReadAsync(new byte[1], 0, -1))).ParamName, Is.EqualTo("count"));
            Assert.That((await Expect.Throws<ArgumentOutOfRangeException>(async () => await a.ReadAsync(new byte[1], int.MaxValue, int.MaxValue))).ParamName, Is.EqualTo("count"));
            Assert.That((await Expect.Throws<ArgumentNullException>(() => a.CopyToAsync(null!))).ParamName, Is.EqualTo("destination"));
            Assert.That((await Expect.Throws<ArgumentOutOfRangeException>(() => a.CopyToAsync(Stream.Null, 0))).ParamName, Is.EqualTo("bufferSize"));
            await Expect.Throws<NotSupportedException>(() => a.CopyToAsync(new MemoryStream(new byte[1], writable: false)));
            Assert.That(() => a.EndRead(null!), Throws.ArgumentNullException);
            Assert.That(() => a.EndRead(Task.CompletedTask), Throws.ArgumentException);
        }
    });

    [Test]
    public void Cancellation_BeforeAndDuring() => Run.OnLoop(async () =>
    {
        var (a, b) = Streams("tcp");
        using (a)
        using (b)
        {
            var cancelled = new CancellationToken(true);
            Assert.That(a.ReadAsync(new byte[1], cancelled).IsCanceled, Is.True);
            Assert.That(a.WriteAsync(new byte[1], cancelled).IsCanceled, Is.True);
            Assert.That(a.FlushAsync(cancelled).IsCanceled, Is.True);
            using var source = new CancellationTokenSource();
            var reading = a.ReadAsync(new byte[1], source.Token).AsTask();
            var writing = a.WriteAsync(new byte[10_000_000], source.Token).AsTask();
            source.Cancel();
            Assert.That((await Expect.Throws<OperationCanceledException>(() => reading)).CancellationToken, Is.EqualTo(source.Token));
            await Expect.Throws<OperationCanceledException>(() => writing);
            await b.WriteAsync(new byte[] { 3 });
            Assert.That(await a.ReadAsync(new byte[1]), Is.EqualTo(1));
        }
    });

    [TestCase("tcp")]
    [TestCase("unix")]
    public void Failures_AreIOExceptions_WithTheSocketsInside(string kind) => Run.OnLoop(async () =>
    {
        if (kind == "tcp") TestPoller.SkipOnLibkqueue("it takes the error of a connection away (SO_ERROR) before a call can tell it");
        var (x, y) = Pair.Of(kind);
        using var stream = new AsyncSocket(x).AsStream();
        if (kind == "tcp")
        {
            var peer = new AsyncSocket(y);
            var reading = stream.ReadAsync(new byte[1]).AsTask();
            peer.Abort();
            var error = await Expect.Throws<IOException>(() => reading);
            Assert.That(((SocketException)error.InnerException!).SocketErrorCode, Is.EqualTo(SocketError.ConnectionReset));
        }
        else y.Dispose();
        var writing = await Expect.Throws<IOException>(async () =>
        {
            for (var i = 0; i < 3; i++) await stream.WriteAsync(new byte[1]);
        });
        Assert.That(writing.InnerException, Is.InstanceOf<SocketException>());
        var elsewhere = await Expect.Throws<IOException>(() => Task.Run(() => stream.WriteByte(1)));
        Assert.That(elsewhere.InnerException, Is.InstanceOf<SocketException>());
    });

    [Test]
    public void Timeouts_OfBothKindsOfCalls() => Run.OnLoop(async () =>
    {
        var (a, b) = Streams("tcp");
        using (a)
        using (b)
        {
            Assert.That((a.ReadTimeout, a.WriteTimeout), Is.EqualTo((-1, -1)));
            Assert.That(() => a.ReadTimeout = 0, Throws.TypeOf<ArgumentOutOfRangeException>());
            Assert.That(() => a.WriteTimeout = -2, Throws.TypeOf<ArgumentOutOfRangeException>());
            a.ReadTimeout = 20;
            a.WriteTimeout = 30;
            Assert.That((a.ReadTimeout, a.WriteTimeout), Is.EqualTo((20, 30)));
            Assert.That((await Expect.Throws<IOException>(async () => await a.ReadAsync(new byte[1]))).InnerException, Is.InstanceOf<TimeoutException>());
            Assert.That((await Expect.Throws<IOException>(() => Task.Run(a.ReadByte))).InnerException, Is.InstanceOf<TimeoutException>());
            Assert.That((await Expect.Throws<IOException>(async () => await a.WriteAsync(new byte[50_000_000]))).InnerException, Is.InstanceOf<TimeoutException>());
            Assert.That((await Expect.Throws<IOException>(() => Task.Run(() => a.Write(new byte[50_000_000])))).InnerException, Is.InstanceOf<TimeoutException>());
            a.ReadTimeout = Timeout.Infinite;
            await b.WriteAsync(new byte[] { 1 });
            Assert.That(await a.ReadAsync(new byte[1]), Is.EqualTo(1));
        }
    });

    // Many times: a close that shuts the connection down too early lets the reader see an end that the peer never sent.
    [Test]
    public void Dispose_UnderABlockedReader_EndsIt() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
        for (var i = 0; i < 300; i++)
        {
            var (a, b) = Streams("tcp", loop);
            using (a)
            {
                using var started = new ManualResetEventSlim();
                var reading = Task.Run(() =>
                {
                    started.Set();
                    return b.ReadByte();
                });
                started.Wait();
                if (i % 2 == 0) Run.Until(() => loop.IsSleeping, "the loop sleeps");
                b.Dispose();
                Assert.That(() => Run.Wait(reading), Throws.InstanceOf<ObjectDisposedException>());
                Assert.That(a.ReadByte(), Is.EqualTo(-1), "the peer sees the end");
            }
        }
    });

    [Test]
    public void Dispose_OfAStreamOverABorrowedSocket_LeavesTheConnection() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start();
        var (client, server) = Pair.Tcp();
        using (client)
        using (server)
        {
            new AsyncSocket(server, loop, ownsSocket: false).AsStream().Dispose();
            Assert.That(server.Send(new byte[] { 7 }), Is.EqualTo(1));
            var buffer = new byte[2];
            Assert.That(client.Receive(buffer), Is.EqualTo(1));
        }
    });

    [Test]
    public void NotOwning_LeavesTheSocketOpen() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            a.AsStream(ownsSocket: false).Dispose();
            await a.SendAsync(new byte[] { 1 });
            Assert.That(await b.AsStream().ReadAsync(new byte[3]), Is.EqualTo(1));
            a.Dispose();
            Assert.That(() => a.AsStream(), Throws.TypeOf<ObjectDisposedException>());
        }
    });

    [Test]
    public void OneWayDescriptors_SayWhatTheyCan() => Run.OnLoop(async () =>
    {
        using var server = new AnonymousPipeServerStream(PipeDirection.Out);
        using var client = new AnonymousPipeClientStream(PipeDirection.In, server.ClientSafePipeHandle);
        using var writer = new AsyncFd(server.SafePipeHandle, ownsHandle: false).AsStream();
        using var reader = new AsyncFd(client.SafePipeHandle, ownsHandle: false).AsStream();
        Assert.That((writer.CanRead, writer.CanWrite), Is.EqualTo((false, true)));
        Assert.That((reader.CanRead, reader.CanWrite), Is.EqualTo((true, false)));
        await Expect.Throws<NotSupportedException>(async () => await writer.ReadAsync(new byte[1]));
        await Expect.Throws<NotSupportedException>(async () => await reader.WriteAsync(new byte[1]));
        Assert.That(writer.ReadByte, Throws.TypeOf<NotSupportedException>());
        Assert.That(() => reader.WriteByte(1), Throws.TypeOf<NotSupportedException>());
        await Expect.Throws<NotSupportedException>(() => writer.CopyToAsync(Stream.Null));
        await Expect.Throws<NotSupportedException>(() => Task.Factory.FromAsync(writer.BeginRead, writer.EndRead, new byte[1], 0, 1, null));
        await writer.WriteAsync(new byte[] { 4 });
        Assert.That(await reader.ReadAsync(new byte[3]), Is.EqualTo(1));
    });

    [Test]
    public void ApmCallback_IsCalledOnce_WithTheState() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start();
        var (a, b) = Streams("tcp", loop);
        using (a)
        using (b)
        {
            using var called = new ManualResetEventSlim();
            var count = 0;
            var state = new object();
            var buffer = new byte[4];
            var result = b.BeginRead(buffer, 0, 4, r =>
            {
                Assert.That(r.AsyncState, Is.SameAs(state));
                Interlocked.Increment(ref count);
                called.Set();
            }, state);
            a.Write([1, 2], 0, 2);
            Assert.That(called.Wait(Run.Limit), Is.True);
            Assert.That(b.EndRead(result), Is.EqualTo(2));
            Assert.That(count, Is.EqualTo(1));
        }
    });

    /// <summary>Memory that is no array.</summary>
    private sealed class NativeMemory(int length) : MemoryManager<byte>
    {
        private readonly nint _address = Marshal.AllocHGlobal(length);

        public override Memory<byte> Memory => CreateMemory(length);

        public override Span<byte> GetSpan() => MemoryMarshal.CreateSpan(ref Unsafe.AddByteOffset(ref Unsafe.NullRef<byte>(), _address), length);

        public override MemoryHandle Pin(int elementIndex = 0) => throw new NotSupportedException();

        public override void Unpin()
        {
        }

        protected override void Dispose(bool disposing) => Marshal.FreeHGlobal(_address);
    }

    [Test]
    public void MemoryThatIsNoArray() => Run.OnLoop(async () =>
    {
        var (a, b) = Streams("tcp");
        using (a)
        using (b)
        {
            using MemoryManager<byte> from = new NativeMemory(1000);
            using MemoryManager<byte> to = new NativeMemory(1000);
            for (var i = 0; i < 1000; i++) from.Memory.Span[i] = (byte)(i * 3);
            var reading = b.ReadExactlyAsync(to.Memory);
            await a.WriteAsync(from.Memory);
            await reading;
            Assert.That(to.Memory.Span.SequenceEqual(from.Memory.Span), Is.True);
        }
    });

#if !AMY_NETSTANDARD // there, a Stream is called by its array overloads, which make Tasks
    [Test]
    public void ValueTask_IsConsumedOnce() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start();
        var (a, b) = Streams("tcp", loop);
        using (a)
        using (b)
        {
            Run.Wait(Task.Run(async () =>
            {
                var read = b.ReadAsync(new byte[1]);
                await a.WriteAsync(new byte[] { 42 });
                Assert.That(await read, Is.EqualTo(1));
                await Expect.Throws<InvalidOperationException>(async () => await read);
                Assert.That(() => read.GetAwaiter().IsCompleted, Throws.InvalidOperationException);
                Assert.That(() => read.GetAwaiter().OnCompleted(() => { }), Throws.InvalidOperationException);
                Assert.That(() => read.GetAwaiter().GetResult(), Throws.InvalidOperationException);
                var twice = b.ReadAsync(new byte[1]);
                twice.GetAwaiter().OnCompleted(() => { });
                Assert.That(() => twice.GetAwaiter().OnCompleted(() => { }), Throws.InvalidOperationException);
            }));
        }
    });
#endif

    private sealed class OtherContext : SynchronizationContext
    {
        public override void Post(SendOrPostCallback d, object? state) => ThreadPool.QueueUserWorkItem(_ =>
        {
            SetSynchronizationContext(this);
            d(state);
            SetSynchronizationContext(null);
        }, null);
    }

    [TestCase(true, true)]
    [TestCase(true, false)]
    [TestCase(false, true)]
    [TestCase(false, false)]
    public void Continuation_GoesWhereItWasCaptured(bool flow, bool captured) => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start();
        var (a, b) = Streams("tcp", loop);
        using (a)
        using (b)
        {
            var local = new AsyncLocal<int>();
            var seen = new TaskCompletionSource<(bool Context, int Local)>();
            var read = b.ReadAsync(new byte[1]);
            SynchronizationContext.SetSynchronizationContext(new OtherContext());
            local.Value = 42;
            var awaiter = read.ConfigureAwait(captured).GetAwaiter();
            Action continuation = () => seen.SetResult((SynchronizationContext.Current is OtherContext, local.Value));
            if (flow) awaiter.OnCompleted(continuation);
            else awaiter.UnsafeOnCompleted(continuation);
            local.Value = 0;
            SynchronizationContext.SetSynchronizationContext(null);
            a.WriteByte(1);
            Assert.That(Run.Wait(seen.Task), Is.EqualTo((captured, flow ? 42 : 0)));
        }
    });

    [TestCase(true)]
    [TestCase(false)]
    public void Dispose_WithUnreadInput_IsTheEndForThePeer_NotAReset(bool fromSocket) => Run.OnLoop(async () =>
    {
        for (var i = 0; i < 50; i++)
        {
            AsyncSocket a, b;
            if (fromSocket)
            {
                var (x, y) = Pair.Tcp();
                (a, b) = (new AsyncSocket(x), new AsyncSocket(y));
            }
            else (a, b) = await Pair.Async();
            using var peer = a;
            await peer.SendAsync(new byte[10]);
            await b.ReadableAsync();
            var stream = b.AsStream();
            await stream.WriteAsync(new byte[] { 1, 2, 3 });
            stream.Dispose();
            var buffer = new byte[10];
            Assert.That(await peer.ReceiveAsync(buffer), Is.EqualTo(3));
            Assert.That(await peer.ReceiveAsync(buffer), Is.Zero);
        }
    });

    [Test]
    public void EndRead_OfAnUnfinishedOne_OnTheLoop_IsRefused() => Run.OnLoop(async () =>
    {
        var (a, b) = Streams("tcp");
        using (a)
        using (b)
        {
            var reading = b.BeginRead(new byte[1], 0, 1, null, null);
            Assert.That(() => b.EndRead(reading), Throws.InvalidOperationException.With.Message.Contains("asynchronous"));
            await a.WriteAsync(new byte[1]);
            while (!reading.IsCompleted) await EventLoop.Current!.Yield();
            Assert.That(b.EndRead(reading), Is.EqualTo(1));
        }
    });

    [Test]
    public void WriteTimeout_OfASynchronousWrite_IsThatOfAll() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start();
        var (x, y) = Pair.Tcp();
        using (y)
        {
            using var a = new AsyncSocket(x, loop).AsStream();
            a.WriteTimeout = 300;
            var stop = false;
            var trickle = new Thread(() =>
            {
                var buffer = new byte[200_000]; // something now and then: each wait for room is shorter than the time-out
                while (!Volatile.Read(ref stop))
                {
                    y.Receive(buffer);
                    Thread.Sleep(50);
                }
            });
            trickle.Start();
            try
            {
                Assert.That(() => a.Write(new byte[50_000_000], 0, 50_000_000), Throws.TypeOf<IOException>().With.InnerException.TypeOf<TimeoutException>());
                Assert.That(() => a.Write(new byte[50_000_000].AsSpan()), Throws.TypeOf<IOException>());
            }
            finally
            {
                Volatile.Write(ref stop, true);
                a.Dispose();
                trickle.Join();
            }
        }
    });

    [Test]
    public void BeginRead_ThatCompletesAtOnce_SaysSo() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start();
        var (a, b) = Streams("unix", loop);
        using (a)
        using (b)
        {
            a.Write(new byte[1000], 0, 1000);
            var caller = Environment.CurrentManagedThreadId; // a callback on this thread can only be nested in the call
            for (var i = 0; i < 1000; i++)
            {
                var nested = false;
                var saysSo = false;
                var result = b.BeginRead(new byte[1], 0, 1, r =>
                {
                    if (Environment.CurrentManagedThreadId != caller) return;
                    nested = true;
                    saysSo = r.CompletedSynchronously;
                }, null);
                Assert.That((nested, saysSo, result.CompletedSynchronously), Is.EqualTo((true, true, true)), "there is data: at once");
                Assert.That(b.EndRead(result), Is.EqualTo(1));
            }
        }
    });

    [Test]
    public void InterruptedReader_ReadsOn_AndIsInterruptedAfterwards() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start();
        var (a, b) = Streams("tcp", loop);
        using (a)
        using (b)
        {
            var read = 0;
            var interrupted = false;
            var reader = new Thread(() =>
            {
                read = b.ReadByte();
                try
                {
                    Thread.Sleep(1);
                }
                catch (ThreadInterruptedException)
                {
                    interrupted = true;
                }
            });
            reader.Start();
            Run.Until(() => (reader.ThreadState & System.Threading.ThreadState.WaitSleepJoin) != 0, "it waits");
            reader.Interrupt();
            a.WriteByte(9);
            reader.Join();
            Assert.That((read, interrupted), Is.EqualTo((9, true)));
            a.WriteByte(8);
            Assert.That(b.ReadByte(), Is.EqualTo(8));
        }
    });

    [Test]
    public void OfADisposedDescriptor_ThereIsNone() => Run.OnLoop(() =>
    {
        var (a, b) = Pair.Fds();
        a.Dispose();
        b.Dispose();
        Assert.That(() => a.AsStream(), Throws.TypeOf<ObjectDisposedException>());
        return Task.CompletedTask;
    });
}
