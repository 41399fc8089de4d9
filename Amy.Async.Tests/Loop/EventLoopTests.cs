using System.Diagnostics;

namespace Amy.Async.Tests.Loop;

[TestFixture]
internal sealed class EventLoopTests
{
    [Test]
    public void Run_ReturnsTheResultAndRestoresTheContext()
    {
        Run.OnThread(() =>
        {
            var context = new SynchronizationContext();
            SynchronizationContext.SetSynchronizationContext(context);
            var result = EventLoop.Run(async () =>
            {
                Assert.That(EventLoop.Current, Is.Not.Null);
                Assert.That(EventLoop.Current!.IsCurrent, Is.True);
                Assert.That(SynchronizationContext.Current, Is.SameAs(EventLoop.Current.SynchronizationContext));
                await EventLoop.Current.Yield();
                return 42;
            });
            Assert.That(result, Is.EqualTo(42));
            Assert.That(EventLoop.Current, Is.Null);
            Assert.That(SynchronizationContext.Current, Is.SameAs(context));
        });
    }

    [Test]
    public void Run_MainThrows_ThrowsIt()
    {
        Assert.Throws<FormatException>(() => Run.OnLoop(() => throw new FormatException()));
        Assert.Throws<FormatException>(() => Run.OnLoop(async () =>
        {
            await EventLoop.Current!.Yield();
            throw new FormatException();
        }));
        Assert.Throws<InvalidOperationException>(() => Run.OnLoop(() => null!));
        Assert.Throws<ArgumentNullException>(() => EventLoop.Run(null!));
    }

    [Test]
    public void Run_Nested_Throws() => Run.OnLoop(() =>
    {
        Assert.Throws<InvalidOperationException>(() => EventLoop.Run(() => Task.CompletedTask));
        return Task.CompletedTask;
    });

    [Test]
    public void Run_MainFlowsTheCallersExecutionContext() => Run.OnThread(() =>
    {
        var local = new AsyncLocal<int> { Value = 7 };
        EventLoop.Run(async () =>
        {
            Assert.That(local.Value, Is.EqualTo(7));
            await EventLoop.Current!.Yield();
            Assert.That(local.Value, Is.EqualTo(7));
            local.Value = 8;
        });
        Assert.That(local.Value, Is.EqualTo(7));
    });

    [Test]
    public void Run_OtherWorkPending_EndsItAndReturns()
    {
        Exception? failure = null;
        Run.OnLoop(async () =>
        {
            async Task Other()
            {
                try
                {
                    await EventLoop.Current!.Delay(TimeSpan.FromHours(1));
                }
                catch (Exception e)
                {
                    failure = e;
                }
            }
            _ = Other();
            await EventLoop.Current!.Yield();
        });
        Assert.That(failure, Is.TypeOf<ObjectDisposedException>());
    }

    [Test]
    public void Post_FromManyThreads_RunsAllInOrderPerThread()
    {
        using var loop = EventLoop.Start();
        const int threads = 4, each = 20_000;
        var last = new int[threads];
        var done = new TaskCompletionSource();
        var count = 0;
        for (var t = 0; t < threads; t++)
        {
            var me = t;
            new Thread(() =>
            {
                for (var i = 1; i <= each; i++)
                {
                    var n = i;
                    loop.Post(() =>
                    {
                        if (last[me] != n - 1) done.TrySetException(new InvalidOperationException("out of order"));
                        last[me] = n;
                        if (++count == threads * each) done.TrySetResult();
                    });
                }
            }).Start();
        }
        Run.Wait(done.Task);
    }

    [Test]
    public void Post_BurstOnASleepingLoop_WakesItAtMostOnce()
    {
        using var loop = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
        Run.Wait(loop.InvokeAsync(() => { }));
        using var gate = new ManualResetEventSlim();
        loop.Post(gate.Wait); // the loop is busy, not asleep
        Run.Until(() => loop.Statistics.Turns > 0, "runs");
        var before = loop.Statistics.WakesWritten;
        var done = new TaskCompletionSource();
        for (var i = 0; i < 1000; i++) loop.Post(static () => { });
        loop.Post(() => done.SetResult());
        gate.Set();
        Run.Wait(done.Task);
        Assert.That(loop.Statistics.WakesWritten - before, Is.LessThanOrEqualTo(1));
    }

    [Test]
    public void Post_WithState_PassesIt()
    {
        using var loop = EventLoop.Start();
        var done = new TaskCompletionSource<string>();
        loop.Post(static s => s.SetResult("here"), done);
        Assert.That(Run.Wait(done.Task), Is.EqualTo("here"));
    }

    [Test]
    public void Post_FlowsTheExecutionContextAndTheNextItemDoesNotSeeChanges()
    {
        using var loop = EventLoop.Start();
        var local = new AsyncLocal<int> { Value = 5 };
        var seen = new List<int>();
        var contexts = new List<SynchronizationContext?>();
        loop.Post(() =>
        {
            seen.Add(local.Value);
            local.Value = 6;
            SynchronizationContext.SetSynchronizationContext(null);
        });
        Task done;
        using (ExecutionContext.SuppressFlow())
        {
            loop.SynchronizationContext.Post(_ =>
            {
                seen.Add(local.Value);
                contexts.Add(SynchronizationContext.Current);
                local.Value = 9;
            }, null);
            done = loop.InvokeAsync(() => seen.Add(local.Value));
        }
        Run.Wait(done);
        Assert.That(seen, Is.EqualTo(new[] { 5, 0, 0 }));
        Assert.That(contexts.Single(), Is.SameAs(loop.SynchronizationContext));
    }

    [Test]
    public void InvokeAsync_AllForms_RunOnTheLoop()
    {
        using var loop = EventLoop.Start();
        var here = false;
        Run.Wait(loop.InvokeAsync(() => { here = loop.IsCurrent; }));
        Assert.That(here, Is.True);
        Assert.That(Run.Wait(loop.InvokeAsync(() => loop.IsCurrent)), Is.True);
        Assert.That(Run.Wait(loop.InvokeAsync(async () => { await loop.Yield(); return loop.IsCurrent; })), Is.True);
        here = false;
        Run.Wait(loop.InvokeAsync(async () => { await loop.Yield(); here = loop.IsCurrent; }));
        Assert.That(here, Is.True);
    }

    [Test]
    public void InvokeAsync_Failures_EndInTheTask()
    {
        using var loop = EventLoop.Start();
        Assert.Throws<FormatException>(() => Run.Wait(loop.InvokeAsync(() => throw new FormatException())));
        Assert.Throws<FormatException>(() => Run.Wait(loop.InvokeAsync(async () => { await loop.Yield(); throw new FormatException(); })));
        Assert.Throws<InvalidOperationException>(() => Run.Wait(loop.InvokeAsync(() => (Task<int>)null!)));
        using var source = new CancellationTokenSource();
        source.Cancel();
        Assert.That(loop.InvokeAsync(() => { }, source.Token).IsCanceled, Is.True);
    }

    [Test]
    public void InvokeAsync_CancelledBeforeItBegins_DoesNotRun()
    {
        using var loop = EventLoop.Start();
        using var gate = new ManualResetEventSlim();
        loop.Post(gate.Wait);
        using var source = new CancellationTokenSource();
        var ran = false;
        var task = loop.InvokeAsync(() => { ran = true; }, source.Token);
        source.Cancel();
        gate.Set();
        Assert.Throws<TaskCanceledException>(() => Run.Wait(task));
        Run.Wait(loop.InvokeAsync(() => { }));
        Assert.That(ran, Is.False);
    }

    [Test]
    public void SwitchTo_FromAnotherThread_GoesOnOnTheLoopUnderItsContext()
    {
        using var loop = EventLoop.Start();
        async Task Go()
        {
            await Task.Yield();
            Assert.That(loop.IsCurrent, Is.False);
            await loop.SwitchTo();
            Assert.That(loop.IsCurrent, Is.True);
            Assert.That(SynchronizationContext.Current, Is.SameAs(loop.SynchronizationContext));
            await loop.SwitchTo(); // at once
            Assert.That(loop.IsCurrent, Is.True);
        }
        Run.Wait(Task.Run(Go));
    }

    [Test]
    public void Yield_LetsOtherPostsRunFirst() => Run.OnLoop(async () =>
    {
        var order = new List<int>();
        EventLoop.Current!.Post(() => order.Add(1));
        EventLoop.Current!.Post(() => order.Add(2));
        await EventLoop.Current.Yield();
        Assert.That(order, Is.EqualTo(new[] { 1, 2 }));
    });

    [Test]
    public void TaskScheduler_RunsTasksOnTheLoop()
    {
        using var loop = EventLoop.Start();
        var task = Task.Factory.StartNew(() => loop.IsCurrent, CancellationToken.None, TaskCreationOptions.None, loop.TaskScheduler);
        Assert.That(Run.Wait(task), Is.True);
        Assert.That(loop.TaskScheduler.MaximumConcurrencyLevel, Is.EqualTo(1));
    }

    [Test]
    public void Delay_IsNeverEarlyAndKeepsTheOrder() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        var order = new List<int>();
        async Task Wait(int ms)
        {
            var clock = Stopwatch.StartNew();
            await loop.Delay(TimeSpan.FromMilliseconds(ms));
            Assert.That(clock.Elapsed.TotalMilliseconds, Is.GreaterThanOrEqualTo(ms));
            Assert.That(loop.IsCurrent, Is.True);
            order.Add(ms);
        }
        await Task.WhenAll(Wait(90), Wait(30), Wait(60), Wait(1));
        Assert.That(order, Is.EqualTo(new[] { 1, 30, 60, 90 }));
        await loop.Delay(TimeSpan.Zero);
        Assert.Throws<ArgumentOutOfRangeException>(() => loop.Delay(TimeSpan.FromMilliseconds(-2)));
    });

    [Test]
    public void Delay_Cancelled_EndsEarlyFromAnyThread() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        for (var i = 0; i < 200; i++)
        {
            using var source = new CancellationTokenSource();
            var delay = loop.Delay(i % 2 == 0 ? TimeSpan.FromHours(1) : Timeout.InfiniteTimeSpan, source.Token).AsTask();
            _ = Task.Run(source.Cancel);
            try
            {
                await delay;
                Assert.Fail("not cancelled");
            }
            catch (OperationCanceledException e)
            {
                Assert.That(e.CancellationToken, Is.EqualTo(source.Token));
            }
        }
        Assert.That(loop.Statistics.TimersPending, Is.Zero);
    });

    [Test]
    public void Delay_FromAnotherThread_ResumesOnThePool()
    {
        using var loop = EventLoop.Start();
        async Task Go()
        {
            await Task.Yield();
            await loop.Delay(TimeSpan.FromMilliseconds(5));
            Assert.That(loop.IsCurrent, Is.False);
            Assert.That(Thread.CurrentThread.IsThreadPoolThread, Is.True);
        }
        Run.Wait(Task.Run(Go));
    }

    [Test]
    public void Delay_CancelRacingWithTheEnd_EndsOnce() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        int ended = 0, cancelled = 0;
        for (var i = 0; i < 2000; i++)
        {
            using var source = new CancellationTokenSource();
            var delay = loop.Delay(TimeSpan.FromTicks(200), source.Token);
            var other = Task.Run(source.Cancel);
            try
            {
                await delay;
                ended++;
            }
            catch (OperationCanceledException)
            {
                cancelled++;
            }
            await other;
        }
        Assert.That(ended + cancelled, Is.EqualTo(2000));
        Assert.That(loop.Statistics.TimersPending, Is.Zero);
    });

    [Test]
    public void UnhandledException_OfAPost_GoesToTheHandlerAndTheLoopGoesOn()
    {
        var seen = new List<Exception>();
        Run.OnLoop(async () =>
        {
            var loop = EventLoop.Current!;
            loop.Post(() => throw new FormatException("post"));
            Fail();
            await loop.Yield();
            await loop.Yield();
            await loop.Delay(TimeSpan.FromMilliseconds(1));
            async void Fail()
            {
                await loop.Yield();
                throw new FormatException("async void");
            }
        }, new EventLoopOptions { UnhandledException = e => { seen.Add(e); return true; } });
        Assert.That(seen.Select(e => e.Message), Is.EquivalentTo(new[] { "post", "async void" }));
    }

    [TestCase(false)]
    [TestCase(true)]
    public void UnhandledException_NotHandled_ComesOutOfRun(bool handlerSaysFalse)
    {
        var options = new EventLoopOptions { UnhandledException = handlerSaysFalse ? _ => false : null };
        var e = Assert.Throws<FormatException>(() => Run.OnLoop(async () =>
        {
            EventLoop.Current!.Post(() => throw new FormatException("lost?"));
            await EventLoop.Current.Delay(TimeSpan.FromHours(1));
        }, options));
        Assert.That(e!.Message, Is.EqualTo("lost?"));
    }

    [Test]
    public void StopAsync_PendingWork_EndsWithErrorsAndLaterCallsThrow()
    {
        var loop = EventLoop.Start();
        var delay = Task.Run(async () => await loop.Delay(TimeSpan.FromHours(1)));
        Run.Until(() => loop.Statistics.TimersPending == 1, "armed");
        Run.Wait(loop.StopAsync());
        Assert.Throws<ObjectDisposedException>(() => Run.Wait(delay));
        Assert.Throws<ObjectDisposedException>(() => loop.Post(() => { }));
        Assert.Throws<ObjectDisposedException>(() => loop.InvokeAsync(() => { }));
        Assert.Throws<ObjectDisposedException>(() => loop.Delay(TimeSpan.FromSeconds(1)));
        Assert.Throws<ObjectDisposedException>(() => loop.SwitchTo());
        Assert.Throws<ObjectDisposedException>(() => loop.Yield());
        loop.Dispose();
        loop.Dispose();
        Run.Wait(loop.DisposeAsync().AsTask());
    }

    [Test]
    public void ContextCapturedBeforeTheStop_PostsToThePoolAfterwards()
    {
        var loop = EventLoop.Start();
        loop.Dispose();
        var done = new TaskCompletionSource<bool>();
        loop.SynchronizationContext.Post(_ => done.SetResult(Thread.CurrentThread.IsThreadPoolThread), null);
        Assert.That(Run.Wait(done.Task), Is.True);
    }

    [Test]
    public void Dispose_OnTheLoopItself_DoesNotWaitForItself()
    {
        var loop = EventLoop.Start();
        Run.Wait(loop.InvokeAsync(loop.Dispose));
        Run.Wait(loop.StopAsync());
    }

    [Test]
    public void Dispose_RunLoopFromOutside_ThrowsOutOfRun()
    {
        Assert.Throws<ObjectDisposedException>(() => Run.OnLoop(async () =>
        {
            var loop = EventLoop.Current!;
            _ = Task.Run(loop.Dispose);
            await new TaskCompletionSource().Task;
        }));
    }

    [Test]
    public void Default_CannotBeStopped()
    {
        Assert.Throws<InvalidOperationException>(() => EventLoop.Default.StopAsync());
        Assert.Throws<InvalidOperationException>(() => EventLoop.Default.Dispose());
        Assert.That(Run.Wait(EventLoop.Default.InvokeAsync(() => EventLoop.Default.IsCurrent)), Is.True);
    }

    [Test]
    public void StartAndDispose_ManyTimes_LeaksNoDescriptor()
    {
        EventLoop.Start().Dispose();
        var before = Descriptors.Settle();
        for (var i = 0; i < 300; i++) EventLoop.Start().Dispose();
        Assert.That(Descriptors.Settle(), Is.EqualTo(before));
    }

    [Test]
    public void Send_FromOutsideAndInside_RunsOnTheLoop()
    {
        using var loop = EventLoop.Start();
        var here = 0;
        loop.SynchronizationContext.Send(_ => here += loop.IsCurrent ? 1 : 0, null);
        Run.Wait(loop.InvokeAsync(() => loop.SynchronizationContext.Send(_ => here += loop.IsCurrent ? 1 : 0, null)));
        Assert.That(here, Is.EqualTo(2));
    }

    [Test]
    public void Idle_UsesNoCpu()
    {
        using var loop = EventLoop.Start();
        Run.Wait(loop.InvokeAsync(() => { }));
        var turns = loop.Statistics.Turns;
        using (var never = new ManualResetEventSlim()) never.Wait(300);
        Assert.That(loop.Statistics.Turns - turns, Is.LessThanOrEqualTo(2), "an idle loop sleeps");
    }

    [Test]
    public void Options_NegativeSpin_Throws() =>
        Assert.Throws<ArgumentOutOfRangeException>(() => _ = new EventLoopOptions { SpinDuration = TimeSpan.FromTicks(-1) });

    [Test]
    public void Fairness_PostStorm_DoesNotStarveTimers() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        var stop = false;
        void Storm()
        {
            if (stop) return;
            loop.Post(Storm);
            if (loop.Statistics.PostsRun % 64 == 0) loop.Post(Storm);
        }
        Storm();
        await loop.Delay(TimeSpan.FromMilliseconds(20));
        stop = true;
    });

    [Test]
    public void LargeOperations_CostMoreOfTheBudget() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            await a.SendAsync(new byte[100]);
            await b.ReadableAsync();
            await loop.Yield(); // a fresh budget of 64
            var one = new byte[1];
            loop.SpendBytes(8191); // small: counted by its operation alone
            for (var i = 0; i < 30; i++) Assert.That(Completed(b, one), Is.True, $"{i}");
            loop.SpendBytes(32 * 8192 + 8191);
            for (var i = 0; i < 2; i++) Assert.That(Completed(b, one), Is.True, $"{i}");
            var deferred = b.ReceiveAsync(one);
            Assert.That(deferred.IsCompleted, Is.False);
            Assert.That(await deferred, Is.EqualTo(1));
        }
    });

    private static bool Completed(AsyncSocket socket, byte[] buffer)
    {
        var receiving = socket.ReceiveAsync(buffer);
        return receiving.IsCompleted && receiving.GetAwaiter().GetResult() == 1;
    }
}
