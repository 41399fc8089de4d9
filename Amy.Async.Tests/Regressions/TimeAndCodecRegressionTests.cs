using System.Buffers;
using System.IO.Pipelines;
using System.Text;
using System.Threading.Channels;
using Microsoft.Extensions.Time.Testing;

namespace Amy.Async.Tests.Regressions;

/// <summary>What a review found in timers, channels, virtual time and codecs.</summary>
[TestFixture]
internal sealed class TimeAndCodecRegressionTests
{
    private static TimeSpan Ms(double milliseconds) => TimeSpan.FromTicks((long)(milliseconds * TimeSpan.TicksPerMillisecond));

    /// <summary>The alarm of a timer that was cancelled stayed set, and time jumped to it.</summary>
    [Test]
    public void AutoJump_TimeoutWasCancelled_TimeStandsStill()
    {
        var time = new VirtualTimeProvider { AutoJump = true };
        EventLoop.Run(async () =>
        {
            var (client, server) = await Pair.Async();
            using (client)
            using (server)
            {
                using (var timeout = new CancellationTokenSource(TimeSpan.FromSeconds(30), EventLoop.Current!.TimeProvider))
                {
                    var receive = server.ReceiveAsync(new byte[1], timeout.Token);
                    await EventLoop.Current.Yield();
                    await client.SendAsync(new byte[] { 1 });
                    await receive;
                }
                await Task.Run(() => Thread.Sleep(20));
            }
        }, new EventLoopOptions { TimeProvider = time });
        Assert.That(time.GetTimestamp(), Is.Zero);
    }

    /// <summary>Its timestamps count from the year 1: in nanoseconds they overflowed from 2046 on.</summary>
    [TestCase(1700)]
    [TestCase(2000)]
    [TestCase(2050)]
    public void FakeTimeProvider_OfAnyDate_Fires(int year)
    {
        var time = new FakeTimeProvider(new DateTimeOffset(year, 1, 1, 0, 0, 0, TimeSpan.Zero));
        using var loop = EventLoop.Start(new EventLoopOptions { TimeProvider = time });
        var delay = loop.InvokeAsync(() => loop.Delay(TimeSpan.FromSeconds(30)).AsTask());
        Run.Until(() => loop.Statistics.TimersPending == 1, "the delay has begun");
        time.Advance(TimeSpan.FromSeconds(31));
        Run.Wait(delay);
    }

    /// <summary>A wake-up whose work was done already let time jump before the threshold.</summary>
    [Test]
    public void AutoJumpThreshold_WhilePostsAndDataKeepComing_IsKept()
    {
        var time = new VirtualTimeProvider { AutoJump = true, AutoJumpThreshold = TimeSpan.FromSeconds(50) };
        using var loop = EventLoop.Start(new EventLoopOptions { TimeProvider = time });
        var (client, server) = Run.Wait(Pair.Async(loop));
        using (client)
        using (server)
        {
            _ = loop.InvokeAsync(async () => { var b = new byte[16]; while (await server.ReceiveAsync(b) > 0) { } });
            _ = loop.InvokeAsync(() => loop.Delay(TimeSpan.FromSeconds(30)).AsTask());
            var random = new Random(1);
            var message = new byte[] { 1 };
            for (var i = 0; i < 20_000; i++)
            {
                client.TrySend(message, out _);
                Thread.SpinWait(random.Next(1500));
                loop.Post(() => { });
                Thread.SpinWait(500);
            }
            Assert.That(time.GetTimestamp(), Is.Zero);
        }
    }

    /// <summary>The threshold delayed the look for closed handles.</summary>
    [Test]
    public void AutoJumpThreshold_DoesNotDelayHousekeeping()
    {
        var time = new VirtualTimeProvider { AutoJump = true, AutoJumpThreshold = TimeSpan.FromHours(1) };
        EventLoop.Run(async () =>
        {
            var (a, b) = Pair.Tcp();
            using (a)
            {
                var wait = b.ReadableAsync().AsTask();
                b.Dispose();
                await Expect.Throws<ObjectDisposedException>(() => wait);
            }
        }, new EventLoopOptions { TimeProvider = time });
    }

    [Test]
    public void AutoJump_TimerOfTheProviderThrows_GoesToTheHandler()
    {
        var time = new VirtualTimeProvider { AutoJump = true };
        var handled = 0;
        Run.OnLoop(async () =>
        {
            using var timer = time.CreateTimer(_ => throw new InvalidOperationException("direct"), null, Ms(1), Timeout.InfiniteTimeSpan);
            await EventLoop.Current!.Delay(Ms(5));
        }, new EventLoopOptions { TimeProvider = time, UnhandledException = _ => { handled++; return true; } });
        Assert.That(handled, Is.EqualTo(1));
    }

    [Test]
    public void Advance_FromTwoThreads_AddsUp()
    {
        var time = new VirtualTimeProvider();
        var threads = Enumerable.Range(0, 2).Select(_ => new Thread(() => { for (var i = 0; i < 50_000; i++) time.Advance(TimeSpan.FromTicks(1)); })).ToArray();
        foreach (var t in threads) t.Start();
        foreach (var t in threads) t.Join();
        Assert.That(time.GetTimestamp(), Is.EqualTo(100_000));
    }

    [Test]
    public void EqualDeadlines_FireInTheOrderInWhichTheyWereSet()
    {
        var order = new List<int>();
        EventLoop.Run(() =>
        {
            var loop = EventLoop.Current!;
            return Task.WhenAll(Enumerable.Range(0, 100).Select(async i => { await loop.Delay(TimeSpan.FromSeconds(1)); order.Add(i); }).ToArray());
        }, new EventLoopOptions { TimeProvider = new VirtualTimeProvider { AutoJump = true } });
        Assert.That(order, Is.EqualTo(Enumerable.Range(0, 100)));
    }

    private sealed class NoTimers : TimeProvider
    {
        public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period) => throw new NotSupportedException();
    }

    [Test]
    public void TimeProviderThatThrows_LeaksNoDescriptor()
    {
        var before = Descriptors.Settle();
        for (var i = 0; i < 10; i++) Assert.Throws<NotSupportedException>(() => EventLoop.Start(new EventLoopOptions { TimeProvider = new NoTimers() }));
        Assert.That(Descriptors.Settle(), Is.EqualTo(before));
    }

    // ---- timers of a loop that stops

    [Test]
    public void StoppedLoop_TimerWithAPeriodBelowAMillisecond_GoesOn()
    {
        var loop = EventLoop.Start();
        var ticks = 0;
        using var timer = loop.TimeProvider.CreateTimer(_ => Interlocked.Increment(ref ticks), null, Ms(20), Ms(0.5));
        loop.Dispose();
        Run.Until(() => Volatile.Read(ref ticks) > 5, "it ticks");
    }

    /// <summary>Changed, and then taken over when the loop stopped: the queued look fired it a second time.</summary>
    [Test]
    public void LoopStopsUnderAChange_OneShotFiresOnce()
    {
        var loop = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
        var fired = 0;
        var began = new ManualResetEventSlim();
        var go = new ManualResetEventSlim();
        using var timer = loop.TimeProvider.CreateTimer(_ => Interlocked.Increment(ref fired), null, TimeSpan.FromHours(1), Timeout.InfiniteTimeSpan);
        _ = loop.InvokeAsync(async () =>
        {
            try
            {
                await loop.Delay(TimeSpan.FromHours(2));
            }
            catch (ObjectDisposedException)
            {
                Thread.Sleep(50); // the successor fires meanwhile
            }
        });
        Run.Until(() => loop.Statistics.TimersPending == 2, "both wait");
        loop.Post(() => { began.Set(); go.Wait(); });
        began.Wait();
        timer.Change(TimeSpan.Zero, Timeout.InfiniteTimeSpan);
        var stop = loop.StopAsync();
        go.Set();
        Run.Wait(stop);
        Run.Until(() => Volatile.Read(ref fired) > 0, "it fires");
        Thread.Sleep(50);
        Assert.That(fired, Is.EqualTo(1));
    }

    [Test]
    public void TimerDisposeAsync_WaitsForTheCallbackInProgress()
    {
        using var loop = EventLoop.Start();
        var inside = new ManualResetEventSlim();
        var go = new ManualResetEventSlim();
        var timer = loop.TimeProvider.CreateTimer(_ => { inside.Set(); go.Wait(); }, null, Ms(1), Timeout.InfiniteTimeSpan);
        inside.Wait();
        var dispose = timer.DisposeAsync();
        Assert.That(dispose.IsCompleted, Is.False);
        go.Set();
        Run.Wait(dispose.AsTask());
    }

    /// <summary>A look handed to the thread pool after the stop completed delays there (an assertion, in debug builds).</summary>
    [Test]
    public void DelaysFromOtherThreads_WhileTheLoopStops_AllEnd()
    {
        for (var i = 0; i < 30; i++)
        {
            var loop = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
            var tasks = new List<Task>();
            var threads = Enumerable.Range(0, 2).Select(_ => new Thread(() =>
            {
                var mine = new List<Task>();
                try
                {
                    while (mine.Count < 3_000) mine.Add(loop.Delay(TimeSpan.FromHours(1)).AsTask());
                }
                catch (ObjectDisposedException)
                {
                }
                lock (tasks) tasks.AddRange(mine);
            })).ToArray();
            foreach (var t in threads) t.Start();
            Thread.Yield();
            Run.Wait(loop.StopAsync());
            foreach (var t in threads) t.Join();
            foreach (var t in tasks) Assert.That(((IAsyncResult)t).AsyncWaitHandle.WaitOne(Run.Limit), Is.True, "a delay waits for ever");
        }
    }

    // ---- poller

    /// <summary>Channels took all the room of a wait, and timers never had any.</summary>
    [Test]
    public void Wait_MoreChannelsReadyThanItTells_StillTellsOfTimers()
    {
        using var poller = new Poller();
        var channels = Enumerable.Range(0, 1100).Select(_ => poller.Registrar.CreateUnboundedChannel<int>()).ToDictionary(c => c.Id);
        foreach (var channel in channels.Values) channel.Writer.TryWrite(1);
        var timer = poller.Registrar.SetTimeout(TimeSpan.Zero);
        var told = false;
        foreach (var note in poller.Wait(Run.Limit))
        {
            if (note.Id == timer) told = true;
            else Assert.That(channels[note.Id].Writer.TryWrite(1), Is.True);
        }
        Assert.That(told, Is.True);
    }

    /// <summary>Channels that were dropped stayed in the poller's table for ever.</summary>
    [Test]
    public void PollerChannel_DroppedWithoutDispose_LeavesThePoller()
    {
        using var poller = new Poller();
        var dropped = Drop(poller);
        for (var i = 0; i < 100 && poller.Signals.Count > 0; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
        Assert.That(poller.Signals.Count, Is.Zero);
        Assert.That(dropped, Is.InRange(1, 100), "the collector may have begun already");

        [System.Runtime.CompilerServices.MethodImpl(System.Runtime.CompilerServices.MethodImplOptions.NoInlining)]
        static int Drop(Poller poller)
        {
            for (var i = 0; i < 100; i++) poller.Registrar.CreateUnboundedChannel<int>().Writer.TryWrite(i);
            return poller.Signals.Count;
        }
    }

    [Test]
    public async Task PollerChannel_CompletedWithAnError_FailsWritersAsOtherChannelsDo()
    {
        using var poller = new Poller();
        static async Task<string> After(Channel<int> channel)
        {
            channel.Writer.Complete(new IOException("x"));
            return await Failure(channel.Writer.WriteAsync(1));
        }
        static async Task<string> During(Channel<int> channel)
        {
            channel.Writer.TryWrite(1);
            var waiting = channel.Writer.WriteAsync(2);
            channel.Writer.Complete(new IOException("x"));
            return await Failure(waiting);
        }
        static async Task<string> Failure(ValueTask write)
        {
            try
            {
                await write;
                return "none";
            }
            catch (Exception e)
            {
                return $"{e.GetType().Name}({e.InnerException?.GetType().Name})";
            }
        }
        Assert.That(await After(poller.Registrar.CreateUnboundedChannel<int>()), Is.EqualTo(await After(Channel.CreateUnbounded<int>())));
        Assert.That(await During(poller.Registrar.CreateBoundedChannel<int>(1)), Is.EqualTo(await During(Channel.CreateBounded<int>(1))));
        var full = poller.Registrar.CreateBoundedChannel<int>(1);
        full.Writer.TryWrite(1);
        using var source = new CancellationTokenSource();
        var cancelled = full.Writer.WriteAsync(2, source.Token);
        source.Cancel();
        await Expect.Throws<OperationCanceledException>(() => cancelled.AsTask());
        poller.Dispose();
        Assert.Throws<ObjectDisposedException>(() => poller.Registrar.CreateUnboundedChannel<int>());
    }

    // ---- codecs

    [Test]
    public async Task PipeLines_LeftEarly_GoOnBehindTheLastLine()
    {
        var pipe = new Pipe();
        await pipe.Writer.WriteAsync(Encoding.ASCII.GetBytes("a: 1\r\n\r\nbody"));
        await foreach (var line in pipe.Reader.ReadLinesAsync())
            if (line.Length == 0) break;
        var result = await pipe.Reader.ReadAsync();
        Assert.That(Encoding.ASCII.GetString(result.Buffer.ToArray()), Is.EqualTo("body"));
        pipe.Reader.AdvanceTo(result.Buffer.Start);
        pipe.Reader.CancelPendingRead();
        await Expect.Throws<OperationCanceledException>(async () => { await foreach (var _ in pipe.Reader.ReadLinesAsync()) { } });
        Assert.That(pipe.Reader.TryRead(out result) && result.Buffer.Length == 4, Is.True, "usable, and nothing is gone");
    }

    [Test]
    public async Task PipeFrames_LeftEarly_GoOnBehindTheLastFrame()
    {
        var pipe = new Pipe();
        foreach (var b in new byte[] { 1, 2, 3 }) FrameWriter.Write(pipe.Writer, [b]);
        await pipe.Writer.FlushAsync();
        for (var expected = 1; expected <= 3; expected++)
            await foreach (var frame in pipe.Reader.ReadFramesAsync(10))
            {
                Assert.That(frame.ToArray(), Is.EqualTo(new[] { (byte)expected }));
                break;
            }
    }

    [Test]
    public void SocketLines_LeftEarlyWithAReader_GoOnBehindTheLastLine() => Run.OnLoop(async () =>
    {
        var (client, server) = await Pair.Async();
        using (client)
        using (server)
        {
            await client.SendAsync("one\ntwo\nthree\n"u8.ToArray());
            var reader = new LineReader(100);
            foreach (var expected in new[] { "one", "two", "three" })
                await foreach (var line in server.ReadLinesAsync(reader))
                {
                    Assert.That(line, Is.EqualTo(expected));
                    break;
                }
        }
    });

    [Test]
    public async Task PipeLines_LastLineOverTheMaximum_IsRefused()
    {
        var pipe = new Pipe();
        await pipe.Writer.WriteAsync(Encoding.ASCII.GetBytes(new string('a', 11)));
        await pipe.Writer.CompleteAsync();
        await Expect.Throws<InvalidDataException>(async () => { await foreach (var _ in pipe.Reader.ReadLinesAsync(10)) { } });
    }

    [Test]
    public void LineRest_WithACarriageReturn_IsALineOfTheMaximum()
    {
        var reader = new LineReader(10);
        Encoding.ASCII.GetBytes("aaaaaaaaaa\r").CopyTo(reader.GetSpan());
        reader.Advance(11);
        Assert.That(reader.TryRead(out string? _), Is.False);
        Assert.That(reader.TryReadRest(out var rest) && rest.Length == 10, Is.True);
    }

    /// <summary>Room is out, being filled, while the last line is taken: it moved under the receive.</summary>
    [Test]
    public void Reader_LastMessageTakenWhileRoomIsOut_KeepsTheRoomInPlace()
    {
        var reader = new LineReader(100);
        "old\n"u8.CopyTo(reader.GetSpan());
        reader.Advance(4);
        var room = reader.GetMemory();
        Assert.That(reader.TryRead(out string? line) && line == "old", Is.True);
        "new\n"u8.CopyTo(room.Span);
        reader.Advance(4);
        Assert.That(reader.TryRead(out line) && line == "new", Is.True);
    }

    /// <summary>A full queue that is drained in small pieces moved as a whole for each frame.</summary>
    [Test]
    public void FrameWriter_FullQueueDrainedSlowly_SeldomMoves()
    {
        var writer = new FrameWriter(1 << 20);
        var frame = new byte[60];
        while (writer.TryWrite(frame))
        {
        }
        var moves = 0;
        for (var i = 0; i < 10_000; i++)
        {
            var before = Array(writer);
            writer.Advance(64);
            Assert.That(writer.TryWrite(frame), Is.True);
            var after = Array(writer);
            if (after.Array != before.Array || after.Offset < before.Offset) moves++;
        }
        Assert.That(moves, Is.LessThan(3));

        static ArraySegment<byte> Array(FrameWriter writer) =>
            System.Runtime.InteropServices.MemoryMarshal.TryGetArray(writer.Unwritten, out var segment) ? segment : throw new InvalidOperationException();
    }

    [Test]
    public void Adapters_BadArguments_ThrowAtOnce()
    {
        Assert.Throws<ArgumentNullException>(() => CodecExtensions.ReadLinesAsync((PipeReader)null!));
        Assert.Throws<ArgumentNullException>(() => CodecExtensions.ReadFramesAsync((AsyncSocket)null!, 10));
        Assert.Throws<ArgumentOutOfRangeException>(() => new Pipe().Reader.ReadLinesAsync(0));
    }

    /// <summary>The adapters on a loop: nothing per message with ConfigureAwait(false).</summary>
    [Test]
    public void ReadFramesAsync_OneFrameAtATime_AllocatesNothing() => Run.OnLoop(async () =>
    {
        var (client, server) = await Pair.Async();
        using (client)
        using (server)
        {
            var frames = 0;
            var reading = Read();
            var message = new byte[] { 0, 0, 0, 1, 7 };
            for (var i = 0; i < 500; i++) await Round();
            var least = long.MaxValue;
            for (var attempt = 0; attempt < 5; attempt++)
            {
                var before = GC.GetAllocatedBytesForCurrentThread();
                for (var i = 0; i < 200; i++)
                {
                    var wanted = frames + 1;
                    await client.SendAsync(message);
                    while (frames < wanted) await EventLoop.Current!.Yield();
                }
                least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
            }
            Assert.That(least, Is.Zero);
            client.Shutdown(System.Net.Sockets.SocketShutdown.Send);
            await reading;

            async Task Round()
            {
                var wanted = frames + 1;
                await client.SendAsync(message);
                while (frames < wanted) await EventLoop.Current!.Yield();
            }

            async Task Read()
            {
                await foreach (var _ in server.ReadFramesAsync(100).ConfigureAwait(false)) frames++;
            }
        }
    });
}
