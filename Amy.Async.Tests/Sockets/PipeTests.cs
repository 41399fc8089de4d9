using System.Buffers;
using System.IO.Pipelines;
using System.Net.Sockets;
using System.Text;

namespace Amy.Async.Tests.Sockets;

/// <summary><c>AsPipe()</c>: reading and writing through System.IO.Pipelines.</summary>
[TestFixture]
internal class PipeTests
{
    private static (AsyncSocket A, AsyncSocket B) Sockets(string kind = "tcp", EventLoop? loop = null)
    {
        var (x, y) = Pair.Of(kind);
        return (new AsyncSocket(x, loop), new AsyncSocket(y, loop));
    }

    private static byte[] Data(int length) => [.. Enumerable.Range(0, length).Select(i => (byte)(i * 19 + i / 255))];

    [TestCase("tcp")]
    [TestCase("unix")]
    public void Lines_AreReadAcrossBuffers_AndEchoed(string kind) => Run.OnLoop(async () =>
    {
        var pool = new CountingPool();
        var (a, b) = Sockets(kind);
        using (a)
        {
            var pipe = b.AsPipe(new AsyncPipeOptions { Pool = pool, MinimumSegmentSize = 16 });
            async Task Echo()
            {
                while (true)
                {
                    var result = await pipe.Input.ReadAsync();
                    var buffer = result.Buffer;
                    while (buffer.PositionOf((byte)'\n') is { } end)
                    {
                        var line = buffer.Slice(0, buffer.GetPosition(1, end));
                        foreach (var part in line) pipe.Output.Write(part.Span);
                        buffer = buffer.Slice(line.End);
                    }
                    pipe.Input.AdvanceTo(buffer.Start, buffer.End);
                    await pipe.Output.FlushAsync();
                    if (result.IsCompleted) break;
                }
                pipe.Input.Complete();
                pipe.Output.Complete();
            }
            var echo = Echo();
            var text = string.Concat(Enumerable.Range(0, 200).Select(i => new string((char)('a' + i % 26), i % 60) + "\n"));
            foreach (var chunk in text.Chunk(37)) await a.SendAsync(Encoding.ASCII.GetBytes(chunk));
            a.Shutdown(SocketShutdown.Send);
            var all = new MemoryStream();
            var received = new byte[1000];
            for (int n; (n = await a.ReceiveAsync(received)) > 0;) all.Write(received, 0, n);
            Assert.That(Encoding.ASCII.GetString(all.ToArray()), Is.EqualTo(text));
            await echo;
            Assert.That(pool.Rented, Is.Zero);
            Assert.That(() => b.TrySend(new byte[1], out _), Throws.TypeOf<ObjectDisposedException>(), "both sides are completed: disposed");
        }
    });

    [Test]
    public void AnIdleConnection_HoldsNoBuffer() => Run.OnLoop(async () =>
    {
        var pool = new CountingPool();
        var (a, b) = Sockets();
        using (a)
        using (b)
        {
            var pipe = b.AsPipe(new AsyncPipeOptions { Pool = pool });
            var reading = pipe.Input.ReadAsync();
            Assert.That(pool.Rented, Is.Zero, "while it waits");
            await a.SendAsync("hello"u8.ToArray());
            var result = await reading;
            Assert.That(pool.Rented, Is.EqualTo(1));
            Assert.That(result.Buffer.ToArray(), Is.EqualTo("hello"u8.ToArray()));
            pipe.Input.AdvanceTo(result.Buffer.End);
            Assert.That(pool.Rented, Is.Zero);
            pipe.Output.Write("answer"u8);
            Assert.That(pool.Rented, Is.EqualTo(1));
            await pipe.Output.FlushAsync();
            Assert.That(pool.Rented, Is.Zero);
            Assert.That(await a.ReceiveAsync(new byte[10]), Is.EqualTo(6));
            pipe.Output.GetMemory(10);
            await pipe.Output.FlushAsync();
            Assert.That(pool.Rented, Is.Zero, "asked for and not used");
        }
    });

    [Test]
    public void Examined_WaitsForMore_AndConsumedNothingKeepsAll() => Run.OnLoop(async () =>
    {
        var (a, b) = Sockets();
        using (a)
        using (b)
        {
            var input = b.AsPipe().Input;
            await a.SendAsync("abc"u8.ToArray());
            var result = await input.ReadAsync();
            input.AdvanceTo(result.Buffer.Start); // nothing examined: the same again, at once
            result = await input.ReadAsync();
            Assert.That(result.Buffer.Length, Is.EqualTo(3));
            input.AdvanceTo(result.Buffer.GetPosition(1), result.Buffer.End);
            Assert.That(input.TryRead(out _), Is.False);
            var more = input.ReadAsync();
            Assert.That(more.IsCompleted, Is.False);
            await a.SendAsync("def"u8.ToArray());
            result = await more;
            Assert.That(Encoding.ASCII.GetString(result.Buffer), Is.EqualTo("bcdef"));
            input.AdvanceTo(result.Buffer.GetPosition(2));
            Assert.That(input.TryRead(out result), Is.True);
            Assert.That(Encoding.ASCII.GetString(result.Buffer), Is.EqualTo("def"));
            input.AdvanceTo(result.Buffer.End);
            await a.SendAsync("x"u8.ToArray());
            await b.Loop.Yield();
            while (!input.TryRead(out result)) await b.Loop.Yield();
            Assert.That(Encoding.ASCII.GetString(result.Buffer), Is.EqualTo("x"));
            input.AdvanceTo(result.Buffer.End);
            a.Shutdown(SocketShutdown.Send);
            result = await input.ReadAsync();
            Assert.That((result.IsCompleted, result.Buffer.IsEmpty), Is.EqualTo((true, true)));
            input.AdvanceTo(result.Buffer.End);
            result = await input.ReadAsync();
            Assert.That(result.IsCompleted, Is.True);
        }
    });

    [Test]
    public void CancelPendingRead_DuringBeforeAndFromElsewhere() => Run.OnLoop(async () =>
    {
        var (a, b) = Sockets();
        using (a)
        using (b)
        {
            var input = b.AsPipe().Input;
            var reading = input.ReadAsync();
            input.CancelPendingRead();
            Assert.That((await reading).IsCanceled, Is.True);
            input.CancelPendingRead();
            Assert.That((await input.ReadAsync()).IsCanceled, Is.True);
            for (var i = 0; i < 500; i++)
            {
                var cancelling = Task.Run(input.CancelPendingRead);
                Assert.That((await input.ReadAsync()).IsCanceled, Is.True);
                await cancelling;
            }
            await a.SendAsync("still"u8.ToArray());
            var result = await input.ReadAsync();
            Assert.That(result.IsCanceled, Is.False);
            Assert.That(Encoding.ASCII.GetString(result.Buffer), Is.EqualTo("still"));
            input.AdvanceTo(result.Buffer.End);
            using var source = new CancellationTokenSource();
            var cancelled = input.ReadAsync(source.Token);
            source.Cancel();
            await Expect.Throws<OperationCanceledException>(async () => await cancelled);
            await Expect.Throws<OperationCanceledException>(async () => await input.ReadAsync(source.Token));
        }
    });

    [TestCase(false)]
    [TestCase(true)]
    public void Writer_PausesAtTheThreshold_AndResumes_WithEveryByte(bool fromAnotherThread) => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start();
        Run.Wait(fromAnotherThread ? Task.Run(Main) : loop.InvokeAsync(Main));

        async Task Main()
        {
            var pool = new CountingPool();
            var (a, b) = Sockets("tcp", loop);
            using (a)
            {
                var output = b.AsPipe(new AsyncPipeOptions { Pool = pool, PauseWriterThreshold = 100_000, ResumeWriterThreshold = 10_000 }).Output;
                var data = Data(9_000_000);
                var paused = 0;
                async Task Write()
                {
                    for (var sent = 0; sent < data.Length;)
                    {
                        var n = Math.Min(data.Length - sent, 30_001);
                        data.AsSpan(sent, n).CopyTo(output.GetSpan(n));
                        output.Advance(n);
                        sent += n;
                        var flushing = output.FlushAsync();
                        if (!flushing.IsCompleted) paused++;
                        var result = await flushing;
                        Assert.That((result.IsCanceled, result.IsCompleted), Is.EqualTo((false, false)));
                    }
                    output.Complete();
                }
                var writing = Write();
                var all = new MemoryStream();
                var buffer = new byte[64 * 1024];
                for (int n; (n = await a.ReceiveAsync(buffer)) > 0;) all.Write(buffer, 0, n);
                await writing;
                Assert.That(all.ToArray().AsSpan().SequenceEqual(data), Is.True);
                Assert.That(paused, Is.Positive);
                Assert.That(pool.Rented, Is.Zero);
                b.Dispose();
            }
        }
    });

    [Test]
    public void WriteAsync_OfMuch_NeedsNoBuffer_WhileTheKernelTakesIt() => Run.OnLoop(async () =>
    {
        var pool = new CountingPool();
        var (a, b) = Sockets();
        using (a)
        using (b)
        {
            var output = b.AsPipe(new AsyncPipeOptions { Pool = pool }).Output;
            var data = Data(20_000);
            await output.WriteAsync(data);
            Assert.That(pool.Rented, Is.Zero);
            var all = new byte[data.Length];
            await a.AsStream(false).ReadExactlyAsync(all);
            Assert.That(all, Is.EqualTo(data));
            // More than the kernel takes: the rest is buffered and sent on.
            data = Data(5_000_000);
            var writing = output.WriteAsync(data).AsTask();
            Assert.That(writing.IsCompleted, Is.False);
            all = new byte[data.Length];
            await a.AsStream(false).ReadExactlyAsync(all);
            await writing;
            Assert.That(all.AsSpan().SequenceEqual(data), Is.True);
            await output.FlushAsync();
            Assert.That(pool.Rented, Is.Zero);
        }
    });

    [Test]
    public void UnflushedBytes_AndBadArguments() => Run.OnLoop(async () =>
    {
        var (a, b) = Sockets();
        using (a)
        using (b)
        {
            var output = b.AsPipe().Output;
            Assert.That(output.CanGetUnflushedBytes, Is.True);
            output.Write(new byte[10]);
            Assert.That(output.UnflushedBytes, Is.EqualTo(10));
            await output.FlushAsync();
            Assert.That(output.UnflushedBytes, Is.Zero);
            Assert.That(() => output.GetMemory(-1), Throws.TypeOf<ArgumentOutOfRangeException>());
            Assert.That(() => output.Advance(-1), Throws.TypeOf<ArgumentOutOfRangeException>());
            Assert.That(() => output.Advance(1), Throws.TypeOf<ArgumentOutOfRangeException>());
            Assert.That(output.GetMemory(100_000).Length, Is.GreaterThanOrEqualTo(100_000));
            output.Complete();
            output.Complete();
            Assert.That(() => output.GetMemory(), Throws.InvalidOperationException);
            await Expect.Throws<InvalidOperationException>(async () => await output.FlushAsync());
            Assert.That(await a.ReceiveAsync(new byte[20]), Is.EqualTo(10));
            Assert.That(await a.ReceiveAsync(new byte[20]), Is.Zero, "the end of the stream");
            foreach (var wrong in new[] { new AsyncPipeOptions { MinimumSegmentSize = 0 }, new() { PauseWriterThreshold = -1 }, new() { PauseWriterThreshold = 5, ResumeWriterThreshold = 6 }, new() { ResumeWriterThreshold = -1 } })
                Assert.That(() => b.AsPipe(wrong), Throws.TypeOf<ArgumentOutOfRangeException>());
        }
    });

    [Test]
    public void Complete_WithUnsentData_SendsItFirst() => Run.OnLoop(async () =>
    {
        var (a, b) = Sockets();
        using (a)
        {
            var pipe = b.AsPipe(new AsyncPipeOptions { PauseWriterThreshold = 100_000_000 });
            var data = Data(8_000_000);
            pipe.Output.Write(data);
            pipe.Output.Complete(); // not even flushed
            pipe.Input.Complete();
            var all = new byte[data.Length];
            await a.AsStream(false).ReadExactlyAsync(all);
            Assert.That(all.AsSpan().SequenceEqual(data), Is.True);
            Assert.That(await a.ReceiveAsync(new byte[1]), Is.Zero);
        }
    });

    [Test]
    public void Complete_WithAnException_Resets() => Run.OnLoop(async () =>
    {
        var (a, b) = Sockets();
        using (a)
        {
            var pipe = b.AsPipe();
            await pipe.Output.WriteAsync("part"u8.ToArray());
            pipe.Output.Complete(new FormatException());
            await Expect.Throws<SocketException>(async () =>
            {
                while (await a.ReceiveAsync(new byte[10]) > 0)
                {
                }
            });
            pipe.Input.Complete();
        }
    });

    [Test]
    public void CancelPendingFlush_AndToken_LeaveTheDataInTheQueue() => Run.OnLoop(async () =>
    {
        var (a, b) = Sockets();
        using (a)
        using (b)
        {
            var output = b.AsPipe(new AsyncPipeOptions { PauseWriterThreshold = 0, ResumeWriterThreshold = 0 }).Output;
            var data = Data(6_000_000);
            output.Write(data);
            var flushing = output.FlushAsync();
            Assert.That(flushing.IsCompleted, Is.False);
            await Expect.Throws<InvalidOperationException>(async () => await output.FlushAsync());
            output.CancelPendingFlush();
            Assert.That((await flushing).IsCanceled, Is.True);
            using var source = new CancellationTokenSource();
            flushing = output.FlushAsync(source.Token);
            source.Cancel();
            await Expect.Throws<OperationCanceledException>(async () => await flushing);
            output.CancelPendingFlush();
            Assert.That((await output.FlushAsync()).IsCanceled, Is.True, "the next one, if none is pending");
            var last = output.FlushAsync().AsTask();
            var all = new byte[data.Length];
            await a.AsStream(false).ReadExactlyAsync(all);
            Assert.That(all.AsSpan().SequenceEqual(data), Is.True);
            await last;
        }
    });

    [Test]
    public void PeersReset_IsToldByReadAndFlush() => Run.OnLoop(async () =>
    {
        var pool = new CountingPool();
        var (a, b) = Sockets();
        using (b)
        {
            var pipe = b.AsPipe(new AsyncPipeOptions { Pool = pool, PauseWriterThreshold = 0, ResumeWriterThreshold = 0 });
            pipe.Output.Write(Data(6_000_000));
            var flushing = pipe.Output.FlushAsync().AsTask();
            var reading = pipe.Input.ReadAsync().AsTask();
            a.Abort();
            await Expect.Throws<SocketException>(() => flushing);
            await Expect.Throws<SocketException>(() => reading);
            await Expect.Throws<SocketException>(async () => await pipe.Output.FlushAsync());
            pipe.Output.Complete();
            pipe.Input.Complete();
            Assert.That(pool.Rented, Is.Zero);
        }
    });

    [Test]
    public void SocketDisposed_UnderAReadAndAFlush_EndsThem_AndGivesAllBuffersBack() => Run.OnLoop(async () =>
    {
        var pool = new CountingPool();
        var (a, b) = Sockets();
        using (a)
        {
            var pipe = b.AsPipe(new AsyncPipeOptions { Pool = pool, PauseWriterThreshold = 0, ResumeWriterThreshold = 0 });
            pipe.Output.Write(Data(6_000_000));
            var flushing = pipe.Output.FlushAsync().AsTask();
            var reading = pipe.Input.ReadAsync().AsTask();
            b.Dispose();
            await Expect.Throws<ObjectDisposedException>(() => reading);
            await Expect.Throws<ObjectDisposedException>(() => flushing);
            pipe.Output.Complete();
            pipe.Input.Complete();
            Assert.That(pool.Rented, Is.Zero);
        }
    });

    [Test]
    public void LoopStopped_UnderAReadAndAFlush_EndsThem()
    {
        var loop = EventLoop.Start();
        var (a, b) = Sockets("tcp", loop);
        var pipe = b.AsPipe(new AsyncPipeOptions { PauseWriterThreshold = 0, ResumeWriterThreshold = 0 });
        pipe.Output.Write(Data(6_000_000));
        var flushing = pipe.Output.FlushAsync().AsTask();
        var reading = pipe.Input.ReadAsync().AsTask();
        Run.Wait(loop.StopAsync());
        Assert.That(() => Run.Wait(reading), Throws.InstanceOf<ObjectDisposedException>());
        Assert.That(() => Run.Wait(flushing), Throws.InstanceOf<ObjectDisposedException>());
        a.Dispose();
        b.Dispose();
    }

    [Test]
    public void SmallFlushes_FromAnotherThread_NeverCollideWithTheLoopsSends() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start();
        var (x, y) = Pair.Unix();
        x.SendBufferSize = 4096; // so that the loop has to send on all the time
        var a = new AsyncSocket(x, loop);
        Run.Wait(Task.Run(async () =>
        {
            var output = a.AsPipe(new AsyncPipeOptions { PauseWriterThreshold = 20_000, ResumeWriterThreshold = 5_000 }).Output;
            var reading = Task.Run(() =>
            {
                var all = new MemoryStream();
                var buffer = new byte[3000];
                for (int n; (n = y.Receive(buffer)) > 0;) all.Write(buffer, 0, n);
                return all.ToArray();
            });
            var data = Data(3_000_000);
            for (var sent = 0; sent < data.Length;)
            {
                var n = Math.Min(1 + sent % 1777, data.Length - sent);
                if (sent % 3 == 0) await output.WriteAsync(data.AsMemory(sent, n));
                else
                {
                    output.Write(data.AsSpan(sent, n));
                    await output.FlushAsync();
                }
                sent += n;
            }
            output.Complete();
            Assert.That((await reading).AsSpan().SequenceEqual(data), Is.True);
        }));
        a.Dispose();
        y.Dispose();
    });

    [Test]
    public void CancelledFlushesAndReads_FromAnotherThread_LoseNothing() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start();
        var (a, b) = Sockets("unix", loop);
        var (output, input) = (a.AsPipe(new AsyncPipeOptions { PauseWriterThreshold = 5_000, ResumeWriterThreshold = 1_000 }).Output, b.AsPipe().Input);
        var data = Data(5_000_000);
        var done = false;
        var canceller = new Thread(() =>
        {
            while (!Volatile.Read(ref done))
            {
                output.CancelPendingFlush();
                input.CancelPendingRead();
                Thread.SpinWait(200);
            }
        });
        canceller.Start();
        var writing = Task.Run(async () =>
        {
            var cancelled = 0;
            for (var sent = 0; sent < data.Length;)
            {
                var n = Math.Min(1 + sent % 3001, data.Length - sent);
                output.Write(data.AsSpan(sent, n));
                sent += n;
                if ((await output.FlushAsync()).IsCanceled) cancelled++;
            }
            output.Complete();
            return cancelled;
        });
        var reading = loop.InvokeAsync(async () =>
        {
            var all = new MemoryStream();
            var cancelled = 0;
            while (true)
            {
                var result = await input.ReadAsync();
                if (result.IsCanceled) cancelled++;
                foreach (var part in result.Buffer) all.Write(part.Span);
                input.AdvanceTo(result.Buffer.End);
                if (result.IsCompleted) return (cancelled, all.ToArray());
            }
        });
        var (reads, received) = Run.Wait(reading);
        var flushes = Run.Wait(writing);
        Volatile.Write(ref done, true);
        canceller.Join();
        Assert.That(received.AsSpan().SequenceEqual(data), Is.True);
        Assert.That((reads > 0, flushes > 0), Is.EqualTo((true, true)));
        a.Dispose();
        b.Dispose();
    });

    [Test]
    public void AlwaysReadyWriter_LeavesTheOthersTheirTurn() => Run.OnLoop(async () =>
    {
        var (a, b) = Sockets();
        using (a)
        using (b)
        {
            var loop = EventLoop.Current!;
            var draining = Task.Run(() =>
            {
                var buffer = new byte[1 << 16];
                using var plain = a.Detach();
                plain.Blocking = true;
                while (plain.Receive(buffer) > 0)
                {
                }
            });
            var output = b.AsPipe().Output;
            var other = false;
            loop.Post(() => other = true);
            var writes = 0;
            for (; !other && writes < 100_000; writes++) await output.WriteAsync(new byte[10]);
            Assert.That(writes, Is.LessThan(100_000));
            output.Complete();
            await draining;
        }
    });

    [Test]
    public void AfterAStream_OtherOperationsFailAsTheyUsedTo() => Run.OnLoop(async () =>
    {
        TestPoller.SkipOnLibkqueue("it takes the error of a connection away (SO_ERROR) before a call can tell it");
        var (a, b) = Sockets();
        using (b)
        {
            var reading = b.AsStream(ownsSocket: false).ReadAsync(new byte[1]);
            await a.SendAsync(new byte[1]);
            await reading;
            var peeking = b.ReceiveAsync(new byte[1], SocketFlags.Peek).AsTask();
            a.Abort();
            await Expect.Throws<SocketException>(() => peeking); // no IOException
        }
    });

    [Test]
    public void PipeScheduler_RunsThePlatformsPipeOnTheLoop() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        var pipe = new Pipe(new PipeOptions(readerScheduler: loop.PipeScheduler, writerScheduler: loop.PipeScheduler, useSynchronizationContext: false));
        var thread = Environment.CurrentManagedThreadId;
        var reading = Task.Run(async () =>
        {
            await loop.SwitchTo();
            await pipe.Reader.ReadAsync().ConfigureAwait(false);
            return Environment.CurrentManagedThreadId;
        });
        await Task.Run(async () => await pipe.Writer.WriteAsync(new byte[1]));
        Assert.That(await reading, Is.EqualTo(thread));
    });
}
