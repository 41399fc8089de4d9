using System.Diagnostics;
using Microsoft.Extensions.Time.Testing;

namespace Amy.Async.Tests.Loop;

/// <summary>Timers of a loop on the kernel's clock: they fire on the loop, in phase, and never early.</summary>
[TestFixture]
internal sealed class TimeTests
{
    private static TimeSpan Ms(int milliseconds) => TimeSpan.FromMilliseconds(milliseconds);

    [Test]
    public void TaskDelay_WithTheLoopsTime_EndsOnTheLoopsThread() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        var thread = Environment.CurrentManagedThreadId;
        var clock = Stopwatch.StartNew();
        var wakes = loop.Statistics.WakesWritten;
        await Task.Delay(Ms(15), loop.TimeProvider);
        Assert.That(clock.Elapsed, Is.GreaterThanOrEqualTo(Ms(15)));
        Assert.That(Environment.CurrentManagedThreadId, Is.EqualTo(thread));
        Assert.That(SynchronizationContext.Current, Is.SameAs(loop.SynchronizationContext));
        Assert.That(loop.Statistics.WakesWritten, Is.EqualTo(wakes), "no other thread was needed");
    });

    [Test]
    public void CancellationTokenSource_WithTheLoopsTime_CancelsOnTheLoop() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        using var source = new CancellationTokenSource(Ms(5), loop.TimeProvider);
        EventLoop? cancelledOn = null;
        using var registration = source.Token.Register(() => cancelledOn = EventLoop.Current);
        await Expect.Throws<OperationCanceledException>(() => loop.Delay(Timeout.InfiniteTimeSpan, source.Token).AsTask());
        Assert.That(cancelledOn, Is.SameAs(loop));
    });

    [Test]
    public void PeriodicTimer_WithTheLoopsTime_TicksOnTheLoop() => Run.OnLoop(async () =>
    {
        using var timer = new PeriodicTimer(Ms(3), EventLoop.Current!.TimeProvider);
        var thread = Environment.CurrentManagedThreadId;
        var clock = Stopwatch.StartNew();
        for (var i = 1; i <= 4; i++)
        {
            Assert.That(await timer.WaitForNextTickAsync(), Is.True);
            Assert.That(clock.Elapsed, Is.GreaterThanOrEqualTo(Ms(3 * i)));
            Assert.That(Environment.CurrentManagedThreadId, Is.EqualTo(thread));
        }
    });

    [Test]
    public void TimeProvider_FromOtherThreads_FiresOnTheLoop()
    {
        using var loop = EventLoop.Start();
        var fired = new TaskCompletionSource<EventLoop?>(TaskCreationOptions.RunContinuationsAsynchronously);
        using var timer = loop.TimeProvider.CreateTimer(_ => fired.TrySetResult(EventLoop.Current), null, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
        Assert.That(timer.Change(Ms(2), Timeout.InfiniteTimeSpan), Is.True);
        Assert.That(Run.Wait(fired.Task), Is.SameAs(loop));
        timer.Dispose();
        Assert.That(timer.Change(Ms(2), Ms(2)), Is.False);
        Assert.Throws<ArgumentOutOfRangeException>(() => timer.Change(Ms(-2), Ms(2)));
        Assert.Throws<ArgumentNullException>(() => loop.TimeProvider.CreateTimer(null!, null, Ms(1), Ms(1)));
    }

    [Test]
    public void TimerCallback_ExecutionContextFlows_AndExceptionsReachTheHandler()
    {
        var local = new AsyncLocal<string>();
        Exception? handled = null;
        string? seen = null;
        Run.OnLoop(async () =>
        {
            var loop = EventLoop.Current!;
            local.Value = "creator";
            using var timer = loop.TimeProvider.CreateTimer(_ =>
            {
                seen = local.Value;
                throw new InvalidOperationException("timer");
            }, null, Ms(1), Timeout.InfiniteTimeSpan);
            local.Value = "later";
            await loop.Delay(Ms(5));
        }, new EventLoopOptions { UnhandledException = e => { handled = e; return true; } });
        Assert.That(seen, Is.EqualTo("creator"));
        Assert.That(handled?.Message, Is.EqualTo("timer"));
    }

    /// <summary>Nothing waits for ever because a loop has gone.</summary>
    [Test]
    public void TimersOfAStoppedLoop_FireOnTheThreadPool()
    {
        var loop = EventLoop.Start();
        var time = loop.TimeProvider;
        var pending = Task.Delay(Ms(50), time);
        var ticks = 0;
        var periodic = time.CreateTimer(_ => Interlocked.Increment(ref ticks), null, Ms(20), Ms(1));
        loop.Dispose();
        Run.Wait(pending);
        Run.Wait(Task.Delay(Ms(1), time));
        Run.Until(() => Volatile.Read(ref ticks) > 3, "the periodic one goes on");
        Assert.That(periodic.Change(Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan), Is.True);
        periodic.Dispose();
    }

    [Test]
    public void Timestamps_AreTheLoopsClock() => Run.OnLoop(async () =>
    {
        var time = EventLoop.Current!.TimeProvider;
        var start = time.GetTimestamp();
        await EventLoop.Current.Delay(Ms(5));
        Assert.That(time.GetElapsedTime(start), Is.InRange(Ms(5), Run.Limit));
        Assert.That(time.GetUtcNow() - DateTimeOffset.UtcNow, Is.LessThan(TimeSpan.FromSeconds(5)));
        Assert.That(time.LocalTimeZone, Is.EqualTo(TimeZoneInfo.Local));
    });

    // ---- LoopTimer

    [Test]
    public void LoopTimer_Ticks_InPhaseAndOnTheLoop() => Run.OnLoop(async () =>
    {
        var time = new VirtualTimeProvider { AutoJump = true };
        await using var loop = EventLoop.Start(new EventLoopOptions { TimeProvider = time });
        await loop.InvokeAsync(async () =>
        {
            using var timer = loop.CreateTimer(Ms(10));
            Assert.That(timer.Period, Is.EqualTo(Ms(10)));
            var start = time.GetTimestamp();
            for (var i = 1; i <= 5; i++)
            {
                Assert.That(await timer.WaitForNextTickAsync(), Is.True);
                Assert.That(time.GetElapsedTime(start), Is.EqualTo(Ms(10 * i)));
                Assert.That(loop.IsCurrent, Is.True);
            }
            await loop.Delay(Ms(37)); // 87: the ticks of 60, 70 and 80 are one
            Assert.That(timer.WaitForNextTickAsync() is { IsCompletedSuccessfully: true, Result: true }, Is.True);
            Assert.That(await timer.WaitForNextTickAsync(), Is.True);
            Assert.That(time.GetElapsedTime(start), Is.EqualTo(Ms(90)));
        });
    });

    [Test]
    public void LoopTimer_Dispose_EndsTheWaitWithFalse() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        var timer = loop.CreateTimer(TimeSpan.FromHours(1));
        var wait = timer.WaitForNextTickAsync();
        Assert.Throws<InvalidOperationException>(() => timer.WaitForNextTickAsync());
        _ = Task.Run(timer.Dispose);
        Assert.That(await wait, Is.False);
        Assert.That(await timer.WaitForNextTickAsync(), Is.False);
        timer.Dispose();
        await loop.Yield();
        Assert.That(loop.Statistics.TimersPending, Is.Zero);
    });

    [Test]
    public void LoopTimer_CancelledWait_LeavesTheTimerTicking() => Run.OnLoop(async () =>
    {
        using var timer = EventLoop.Current!.CreateTimer(Ms(20));
        using var source = new CancellationTokenSource();
        var wait = timer.WaitForNextTickAsync(source.Token).AsTask();
        source.Cancel();
        var e = await Expect.Throws<OperationCanceledException>(() => wait);
        Assert.That(e.CancellationToken, Is.EqualTo(source.Token));
        Assert.That(await timer.WaitForNextTickAsync(), Is.True);
        await Expect.Throws<OperationCanceledException>(() => timer.WaitForNextTickAsync(source.Token).AsTask());
    });

    [Test]
    public void LoopTimer_LoopStops_WaitFails()
    {
        var loop = EventLoop.Start();
        var timer = loop.CreateTimer(TimeSpan.FromHours(1));
        var wait = timer.WaitForNextTickAsync().AsTask();
        loop.Dispose();
        Assert.ThrowsAsync<ObjectDisposedException>(() => wait);
        Assert.Throws<ObjectDisposedException>(() => timer.WaitForNextTickAsync().AsTask().GetAwaiter().GetResult());
        Assert.Throws<ObjectDisposedException>(() => loop.CreateTimer(Ms(1)));
        timer.Dispose();
    }

    [Test]
    public void LoopTimer_OutOfRange_Throws() => Run.OnLoop(() =>
    {
        Assert.Throws<ArgumentOutOfRangeException>(() => EventLoop.Current!.CreateTimer(TimeSpan.Zero));
        Assert.Throws<ArgumentOutOfRangeException>(() => EventLoop.Current!.CreateTimer(Timeout.InfiniteTimeSpan));
        return Task.CompletedTask;
    });

    [Test]
    public void LoopTimer_DroppedWithoutDispose_StopsTicking() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        Drop(loop);
        for (var i = 0; i < 100 && loop.Statistics.TimersPending > 0; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
            await loop.Delay(Ms(1));
        }
        Assert.That(loop.Statistics.TimersPending, Is.Zero);

        [System.Runtime.CompilerServices.MethodImpl(System.Runtime.CompilerServices.MethodImplOptions.NoInlining)]
        static void Drop(EventLoop loop) => loop.CreateTimer(Ms(1));
    });

    [Test]
    public void LoopTimerAndDelay_AfterWarmUp_AllocateNothing() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        using var timer = loop.CreateTimer(TimeSpan.FromTicks(500));
        async Task Rounds()
        {
            for (var i = 0; i < 200; i++)
            {
                await timer.WaitForNextTickAsync();
                await loop.Delay(TimeSpan.FromTicks(100));
            }
        }
        await Rounds();
        long bytes = 0;
        for (var attempt = 0; attempt < 5; attempt++) // the method builder's own box is made once per Rounds
        {
            var before = GC.GetAllocatedBytesForCurrentThread();
            await Rounds();
            bytes = GC.GetAllocatedBytesForCurrentThread() - before;
        }
        Assert.That(bytes, Is.LessThan(400), "the state machine of Rounds itself, nothing for its 400 awaits");
    });

    // ---- virtual time

    /// <summary>The sample of the documents: a time-out of 30 seconds, tested in a millisecond, always the same.</summary>
    [Test]
    public void AutoJump_TimeoutOfThirtySeconds_TakesNoRealTime()
    {
        var real = Stopwatch.StartNew();
        var time = new VirtualTimeProvider { AutoJump = true };
        EventLoop.Run(async () =>
        {
            var (client, server) = await Pair.Async();
            using (client)
            using (server)
            {
                using var timeout = new CancellationTokenSource(TimeSpan.FromSeconds(30), EventLoop.Current!.TimeProvider);
                await Expect.Throws<OperationCanceledException>(() => server.ReceiveAsync(new byte[1], timeout.Token).AsTask());
                await client.SendAsync(new byte[] { 1 });
                Assert.That(await server.ReceiveAsync(new byte[1]), Is.EqualTo(1), "data that is there comes before time");
            }
        }, new EventLoopOptions { TimeProvider = time });
        Assert.That(time.GetUtcNow(), Is.EqualTo(new DateTimeOffset(2000, 1, 1, 0, 0, 30, TimeSpan.Zero)), "exactly");
        Assert.That(real.Elapsed, Is.LessThan(TimeSpan.FromSeconds(20)));
    }

    [Test]
    public void AutoJump_ThousandDelays_FireInOrderEachAtItsTime()
    {
        var time = new VirtualTimeProvider { AutoJump = true };
        var order = new List<int>();
        EventLoop.Run(async () =>
        {
            var loop = EventLoop.Current!;
            var random = new Random(7);
            var tasks = Enumerable.Range(1, 1000).OrderBy(_ => random.Next()).Select(async seconds =>
            {
                await loop.Delay(TimeSpan.FromSeconds(seconds));
                Assert.That(time.GetElapsedTime(0), Is.EqualTo(TimeSpan.FromSeconds(seconds)));
                order.Add(seconds);
            }).ToArray();
            await Task.WhenAll(tasks);
        }, new EventLoopOptions { TimeProvider = time });
        Assert.That(order, Is.Ordered.And.Count.EqualTo(1000));
    }

    /// <summary>While a socket's data is on its way, or posted work waits, time stands still.</summary>
    [Test]
    public void AutoJump_WhileThereIsWork_DoesNotJump()
    {
        var time = new VirtualTimeProvider { AutoJump = true };
        EventLoop.Run(async () =>
        {
            var (client, server) = await Pair.Async();
            using (client)
            using (server)
            {
                var buffer = new byte[8];
                var timeout = EventLoop.Current!.Delay(TimeSpan.FromTicks(1)).AsTask();
                for (var i = 0; i < 100; i++)
                {
                    var receive = server.ReceiveAsync(buffer);
                    await client.SendAsync(buffer.AsMemory(0, 1));
                    await receive;
                    await EventLoop.Current!.Yield();
                }
                Assert.That(timeout.IsCompleted, Is.False);
                await timeout;
            }
        }, new EventLoopOptions { TimeProvider = time });
    }

    /// <summary>What the library itself waits for is real: a closed handle is found although virtual time stands still.</summary>
    [Test]
    public void VirtualTime_HandleClosedUnderAPlainWait_IsStillFound()
    {
        var time = new VirtualTimeProvider();
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
        Assert.That(time.GetTimestamp(), Is.Zero);
    }

    [Test]
    public void Advance_FromAnotherThread_FiresWhatIsDueOnTheLoop()
    {
        var time = new VirtualTimeProvider();
        using var loop = EventLoop.Start(new EventLoopOptions { TimeProvider = time });
        for (var i = 0; i < 2000; i++)
        {
            var delay = loop.InvokeAsync(() => loop.Delay(TimeSpan.FromSeconds(10)).AsTask());
            Run.Until(() => loop.Statistics.TimersPending == 1, "the delay has begun");
            time.Advance(TimeSpan.FromSeconds(4)); // in two steps, which may hit the loop between its look and its alarm
            time.Advance(TimeSpan.FromSeconds(6));
            Run.Wait(delay);
        }
        Assert.That(time.GetElapsedTime(0), Is.EqualTo(TimeSpan.FromSeconds(20_000)));
    }

    [Test]
    public void FakeTimeProvider_Works()
    {
        var time = new FakeTimeProvider();
        using var loop = EventLoop.Start(new EventLoopOptions { TimeProvider = time });
        for (var i = 0; i < 200; i++)
        {
            var delay = loop.InvokeAsync(() => loop.Delay(TimeSpan.FromSeconds(30)).AsTask());
            Run.Until(() => loop.Statistics.TimersPending == 1, "the delay has begun");
            time.Advance(TimeSpan.FromSeconds(29));
            Assert.That(delay.IsCompleted, Is.False);
            time.Advance(TimeSpan.FromSeconds(1));
            Run.Wait(delay);
        }
        var task = loop.InvokeAsync(() => Task.Delay(TimeSpan.FromDays(1), loop.TimeProvider));
        Run.Until(() => loop.Statistics.TimersPending == 1, "the delay has begun");
        time.Advance(TimeSpan.FromDays(1));
        Run.Wait(task);
    }

    [Test]
    public void VirtualTimeProvider_OwnTimers_FireInOrderAtTheirTimes()
    {
        var time = new VirtualTimeProvider(new DateTimeOffset(2026, 1, 1, 0, 0, 0, TimeSpan.Zero));
        var log = new List<string>();
        void Log(object? name) => log.Add($"{name}@{time.GetElapsedTime(0).TotalSeconds}");
        using var a = time.CreateTimer(Log, "a", TimeSpan.FromSeconds(2), TimeSpan.FromSeconds(2));
        using var b = time.CreateTimer(Log, "b", TimeSpan.FromSeconds(3), Timeout.InfiniteTimeSpan);
        using var zero = time.CreateTimer(Log, "zero", TimeSpan.Zero, Timeout.InfiniteTimeSpan);
        time.Advance(TimeSpan.FromSeconds(5));
        Assert.That(log, Is.EqualTo(new[] { "zero@0", "a@2", "b@3", "a@4" }));
        Assert.That(time.GetUtcNow(), Is.EqualTo(new DateTimeOffset(2026, 1, 1, 0, 0, 5, TimeSpan.Zero)));
        a.Dispose();
        Assert.That(a.Change(TimeSpan.Zero, TimeSpan.Zero), Is.False);
        time.Advance(TimeSpan.FromSeconds(60));
        Assert.That(log, Has.Count.EqualTo(4));
        Assert.Throws<ArgumentOutOfRangeException>(() => time.Advance(TimeSpan.FromTicks(-1)));
        Assert.Throws<ArgumentOutOfRangeException>(() => time.Advance(TimeSpan.MaxValue));
        Assert.Throws<ArgumentOutOfRangeException>(() => _ = new VirtualTimeProvider { AutoJumpThreshold = TimeSpan.FromTicks(-1) });
        Assert.Throws<ArgumentOutOfRangeException>(() => time.CreateTimer(Log, null, TimeSpan.FromMilliseconds(-2), TimeSpan.Zero));
        Assert.Throws<ArgumentNullException>(() => time.CreateTimer(null!, null, TimeSpan.Zero, TimeSpan.Zero));
    }

    [Test]
    public void AutoJumpThreshold_GivesOtherThreadsTimeToAnswer()
    {
        var time = new VirtualTimeProvider { AutoJump = true, AutoJumpThreshold = TimeSpan.FromSeconds(20) };
        EventLoop.Run(async () =>
        {
            using var timeout = new CancellationTokenSource(TimeSpan.FromSeconds(1), EventLoop.Current!.TimeProvider);
            var answer = await Task.Run(() => { Thread.Sleep(10); return 42; }).WaitAsync(timeout.Token);
            Assert.That(answer, Is.EqualTo(42));
        }, new EventLoopOptions { TimeProvider = time });
        Assert.That(time.GetTimestamp(), Is.Zero);
    }
}
