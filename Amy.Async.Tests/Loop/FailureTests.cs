using System.Net.Sockets;

namespace Amy.Async.Tests.Loop;

/// <summary>User code that fails, and loops that end at any moment: nothing is silent, nothing waits for ever.</summary>
[TestFixture]
[System.Runtime.Versioning.UnsupportedOSPlatform("windows")]
internal sealed class FailureTests
{
    private static IEnumerable<string> Operations => Scenes.All;

    private static IEnumerable<string> Kinds =>
        ["post", "post with state", "context", "async void", "delay continuation", "receive continuation", "switch continuation", "timer", "cancellation callback", "pipe scheduler"];

    /// <summary>On the loop: has code of a kind run that fails there.</summary>
    private static void Fail(string kind, EventLoop loop, AsyncSocket socket, Socket peer)
    {
        switch (kind)
        {
            case "post": loop.Post(Throw); break;
            case "post with state": loop.Post(_ => Throw(), new object()); break;
            case "context": loop.SynchronizationContext.Post(_ => Throw(), null); break;
            case "async void": FailAsync(); break;
            case "delay continuation": loop.Delay(TimeSpan.FromTicks(10)).GetAwaiter().UnsafeOnCompleted(Throw); break;
            case "receive continuation":
                socket.ReceiveAsync(new byte[1]).GetAwaiter().UnsafeOnCompleted(Throw);
                peer.Send([1]);
                break;
            case "switch continuation": loop.Yield().GetAwaiter().UnsafeOnCompleted(Throw); break;
            case "timer": loop.TimeProvider.CreateTimer(_ => Throw(), null, TimeSpan.FromTicks(10), Timeout.InfiniteTimeSpan); break;
            case "cancellation callback": new CancellationTokenSource(TimeSpan.FromMilliseconds(1), loop.TimeProvider).Token.Register(Throw); break;
            default: loop.PipeScheduler.Schedule(_ => Throw(), null); break;
        }

        static void Throw() => throw new FormatException("on purpose");

        async void FailAsync()
        {
            await loop.Yield();
            Throw();
        }
    }

    // What a token's callbacks throw comes in an AggregateException.
    private static Exception Inner(Exception e) => e is AggregateException { InnerExceptions.Count: 1 } all ? all.InnerExceptions[0] : e;

    [Test]
    public void Exception_ReachesTheHandlerOnce_OnTheLoop_AndTheRestGoesOn([ValueSource(nameof(Kinds))] string kind)
    {
        var seen = new List<(Exception, EventLoop?)>();
        var options = new EventLoopOptions { UnhandledException = e => { seen.Add((Inner(e), EventLoop.Current)); return true; } };
        Run.OnLoop(async () =>
        {
            var loop = EventLoop.Current!;
            var (x, y) = Pair.Unix();
            var (other, end) = Pair.Unix();
            using var a = new AsyncSocket(x);
            using var b = new AsyncSocket(other);
            using (y)
            using (end)
            {
                var receiving = b.ReceiveAsync(new byte[1]).AsTask();
                var behind = 0;
                Fail(kind, loop, a, y);
                for (var i = 0; i < 10; i++) loop.Post(() => behind++);
                while (seen.Count == 0) await loop.Delay(TimeSpan.FromMilliseconds(1));
                end.Send([1]);
                Assert.That(await receiving, Is.EqualTo(1), "the others' operations are as before");
                Assert.That(behind, Is.EqualTo(10));
                Assert.That(seen.Single(), Is.EqualTo((seen[0].Item1, loop)));
                Assert.That(seen[0].Item1, Is.TypeOf<FormatException>());
                Assert.That(SynchronizationContext.Current, Is.SameAs(loop.SynchronizationContext));
            }
        }, options);
    }

    [Test]
    public void Exception_WithoutAHandler_ComesOutOfRun_AndWhatWasQueuedStillRuns([ValueSource(nameof(Kinds))] string kind, [Values] bool handlerRefuses)
    {
        using var behind = new CountdownEvent(10);
        Exception? pending = null;
        var (x, y) = Pair.Unix();
        using (y)
        {
            var options = new EventLoopOptions { SpinDuration = TimeSpan.Zero, UnhandledException = handlerRefuses ? _ => false : null };
            var e = Assert.Catch(() => Run.OnLoop(async () =>
            {
                var loop = EventLoop.Current!;
                using var a = new AsyncSocket(x);
                async Task Wait()
                {
                    try
                    {
                        await loop.Delay(Timeout.InfiniteTimeSpan);
                    }
                    catch (Exception error)
                    {
                        pending = error;
                    }
                }
                _ = Wait();
                Fail(kind, loop, a, y);
                for (var i = 0; i < 10; i++) loop.Post(() => behind.Signal());
                await new TaskCompletionSource().Task;
            }, options));
            Assert.That(Inner(e!), Is.TypeOf<FormatException>());
            Assert.That(behind.Wait(Run.Limit), Is.True, "what was posted is not lost");
            Assert.That(pending, Is.TypeOf<ObjectDisposedException>());
        }
    }

    [Test]
    public void Handler_ThatFails_ComesOutOfRunWithBoth()
    {
        var e = Assert.Throws<AggregateException>(() => Run.OnLoop(async () =>
        {
            EventLoop.Current!.Post(() => throw new FormatException());
            await new TaskCompletionSource().Task;
        }, new EventLoopOptions { UnhandledException = _ => throw new NotSupportedException() }));
        Assert.That(e!.InnerExceptions.Select(i => i.GetType()), Is.EqualTo(new[] { typeof(FormatException), typeof(NotSupportedException) }));
    }

    [Test]
    public void TasksThatFail_AreTheirOwnersAffair_NotTheHandlers()
    {
        var seen = 0;
        Run.OnLoop(async () =>
        {
            var loop = EventLoop.Current!;
            await Expect.Throws<FormatException>(() => loop.InvokeAsync(() => throw new FormatException()));
            await Expect.Throws<FormatException>(() => loop.InvokeAsync(async () => { await loop.Yield(); throw new FormatException(); }));
            await Expect.Throws<FormatException>(() => Task.Factory.StartNew(() => throw new FormatException(), CancellationToken.None, TaskCreationOptions.None, loop.TaskScheduler));
        }, new EventLoopOptions { UnhandledException = _ => { seen++; return true; } });
        Assert.That(seen, Is.Zero);
    }

    // The token's callbacks run where Cancel is called, as everywhere in .NET; our own callback is one of them and goes on.
    [Test]
    public void CancellationCallback_ThatFailsInCancel_DoesNotKeepTheOperationFromEnding() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            foreach (var first in new[] { true, false })
            {
                using var source = new CancellationTokenSource();
                if (first) source.Token.Register(() => throw new FormatException());
                var receiving = a.ReceiveAsync(new byte[1], source.Token).AsTask();
                if (!first) source.Token.Register(() => throw new FormatException());
                Assert.Throws<AggregateException>(source.Cancel);
                await Expect.Throws<OperationCanceledException>(() => receiving);
            }
        }
    });

    // ---- stopping under each kind of operation

    private static void CheckStopped(Trace trace)
    {
        Assert.That(trace.Waited, Is.True);
        Assert.That(trace.Error, Is.TypeOf<ObjectDisposedException>());
        Assert.That(trace.Error!.Message, Does.Contain("The event loop has stopped"));
    }

    [Test]
    public void LoopStops_UnderAnOperation_EndsItClearly([ValueSource(nameof(Operations))] string operation, [Values] bool awaitedOnTheLoop, [Values] bool fromTheLoop)
    {
        if (!awaitedOnTheLoop && Scenes.ChooseTheirLoop(operation)) return; // off a loop these wait on the default one, which does not stop
        using var stage = new Stage(operation, onDefault: false);
        Task<Trace>? awaiting = null;
        if (awaitedOnTheLoop) awaiting = Run.Wait(stage.Loop.InvokeAsync(() => Task.FromResult(stage.Scene.Await(Await.Directly, capture: true))));
        else Run.OnThread(() => awaiting = stage.Scene.Await(Await.Directly, capture: true));
        Assert.That(awaiting!.IsCompleted, Is.False);
        if (fromTheLoop) stage.Loop.Post(stage.Loop.Dispose);
        else stage.Loop.Dispose();
        CheckStopped(Run.Wait(awaiting));
        Run.Wait(stage.Loop.StopAsync());
        // And the next one says so at once.
        if (Scenes.ChooseTheirLoop(operation)) return; // would wait on the default loop now
        var next = Run.Wait(stage.Scene.Await(Await.Directly, capture: true));
        Assert.That(next.Error, Is.TypeOf<ObjectDisposedException>());
        Assert.That(next.Waited, Is.False);
    }

    [Test]
    public void RunEnds_UnderAnOperation_EndsItClearly([ValueSource(nameof(Operations))] string operation)
    {
        var calls = new Stage.HoldingCalls();
        Task<Trace>? awaiting = null;
        Scene? scene = null;
        Run.OnLoop(() =>
        {
            scene = Scenes.Make(operation, EventLoop.Current!, new VirtualTimeProvider(), calls);
            awaiting = scene.Await(Await.Directly, capture: true);
            return Task.CompletedTask;
        }, new EventLoopOptions { SpinDuration = TimeSpan.Zero, SystemCalls = calls });
        CheckStopped(Run.Wait(awaiting!));
        scene!.Dispose();
    }

    // ---- starting and stopping

    [Test]
    public void Dispose_AtOnceAfterTheStart_EndsCleanly()
    {
        for (var i = 0; i < 300; i++)
        {
            var loop = EventLoop.Start();
            if (i % 3 == 0) loop.Post(() => { });
            if (i % 2 == 0) loop.Dispose();
            else Run.Wait(loop.StopAsync());
            Assert.Throws<ObjectDisposedException>(() => loop.Post(() => { }));
        }
    }

    [Test]
    public void Dispose_ByManyAtOnce_AllReturn()
    {
        for (var i = 0; i < 50; i++)
        {
            var loop = EventLoop.Start();
            var pending = Task.Run(async () => await loop.Delay(Timeout.InfiniteTimeSpan));
            Run.Until(() => loop.Statistics.TimersPending == 1, "armed");
            using var barrier = new Barrier(6);
            var threads = Enumerable.Range(0, 6).Select(t => Run.Waiter(() =>
            {
                barrier.SignalAndWait();
                switch (t % 4)
                {
                    case 0: loop.Dispose(); break;
                    case 1: loop.StopAsync().GetAwaiter().GetResult(); break;
                    case 2: loop.DisposeAsync().AsTask().GetAwaiter().GetResult(); break;
                    default: loop.Post(loop.Dispose); break; // may be refused by now
                }
            })).ToArray();
            foreach (var thread in threads) Assert.That(thread.Join(Run.Limit), Is.True);
            Assert.Throws<ObjectDisposedException>(() => Run.Wait(pending));
            loop.Dispose();
        }
    }

    [Test]
    public void Dispose_TwiceOnTheLoop_ThenOutside()
    {
        var loop = EventLoop.Start();
        Run.Wait(loop.InvokeAsync(() =>
        {
            loop.Dispose();
            loop.Dispose();
            Assert.That(loop.DisposeAsync().IsCompleted, Is.False, "it stops after this turn");
        }));
        loop.Dispose();
        loop.Dispose();
    }

    // What reacts to the end may stop it again, post, await, and start operations, which are refused.
    [Test]
    public void DuringTheStop_EverythingIsAnsweredOrRefused()
    {
        var loop = EventLoop.Start();
        var (x, y) = Pair.Unix();
        using var a = new AsyncSocket(x, loop);
        using (y)
        {
            var posted = 0;
            var ending = loop.InvokeAsync(async () =>
            {
                var place = Environment.CurrentManagedThreadId;
                await Expect.Throws<ObjectDisposedException>(async () => await a.ReceiveAsync(new byte[1]));
                Assert.That(Environment.CurrentManagedThreadId, Is.EqualTo(place), "told on the loop's own thread");
                loop.Dispose();
                var stopping = loop.StopAsync();
                Assert.That(stopping.IsCompleted, Is.False);
                Assert.Throws<ObjectDisposedException>(() => a.SendAsync(new byte[1]));
                Assert.Throws<ObjectDisposedException>(() => loop.Delay(TimeSpan.FromSeconds(1)));
                Assert.Throws<ObjectDisposedException>(() => loop.CreateTimer(TimeSpan.FromSeconds(1)));
                Assert.Throws<ObjectDisposedException>(() => loop.InvokeAsync(() => { }));
                for (var i = 0; i < 10; i++) loop.SynchronizationContext.Post(_ => Interlocked.Increment(ref posted), null);
                await Task.Yield(); // through the context
                await Task.Run(() => { }); // back through the context, wherever that leads by now
                await stopping;
            });
            Run.Wait(loop.StopAsync());
            Run.Wait(ending);
            Run.Until(() => Volatile.Read(ref posted) == 10, "posted");
        }
    }

    [Test]
    public void Run_NestedAnywhereOnALoop_IsRefused_ElsewhereNot()
    {
        static void Refused() => Assert.Throws<InvalidOperationException>(() => EventLoop.Run(() => Task.CompletedTask));
        using var loop = EventLoop.Start();
        Run.Wait(loop.InvokeAsync(Refused));
        Run.OnLoop(async () =>
        {
            Refused();
            await EventLoop.Current!.Delay(TimeSpan.FromTicks(1)).ConfigureAwait(false);
            Refused(); // no context is current here
            await loop.SwitchTo();
            Refused();
        });
        Run.Wait(Task.Run(() => EventLoop.Run(() =>
        {
            Refused();
            return Task.CompletedTask;
        })));
        Run.OnThread(() =>
        {
            for (var i = 0; i < 3; i++) EventLoop.Run(async () => await EventLoop.Current!.Yield()); // one after the other
        });
        Run.Wait(EventLoop.Default.InvokeAsync(Refused));
    }

    [Test]
    public void Run_StoppedWhileItStarts_ReturnsOrThrows()
    {
        for (var i = 0; i < 100; i++)
        {
            Assert.Throws<ObjectDisposedException>(() => Run.OnLoop(() =>
            {
                var loop = EventLoop.Current!;
                if (i % 2 == 0) loop.Dispose();
                else Run.OnThread(() => _ = loop.StopAsync());
                return new TaskCompletionSource().Task;
            }));
        }
    }

    // ---- after the stop

    [Test]
    public void AfterTheStop_EverythingIsRefused()
    {
        var loop = EventLoop.Start();
        loop.Dispose();
        Action[] calls =
        [
            () => loop.Post(() => { }),
            () => loop.Post(_ => { }, new object()),
            () => loop.InvokeAsync(() => { }),
            () => loop.InvokeAsync(() => 1),
            () => loop.InvokeAsync(() => Task.CompletedTask),
            () => loop.InvokeAsync(() => Task.FromResult(1)),
            () => loop.Delay(TimeSpan.FromSeconds(1)),
            () => loop.Delay(TimeSpan.Zero),
            () => loop.SwitchTo(),
            () => loop.Yield(),
            () => loop.CreateTimer(TimeSpan.FromSeconds(1)),
            () => AsyncSocket.Listen(new System.Net.IPEndPoint(System.Net.IPAddress.Loopback, 0), loop: loop),
            () => loop.SynchronizationContext.Send(_ => { }, null),
        ];
        foreach (var call in calls) Assert.That(Assert.Throws<ObjectDisposedException>(call)!.Message, Does.Contain("has stopped"));
        Assert.That(loop.IsCurrent, Is.False);
        Assert.That(loop.Statistics.TimersPending, Is.Zero);
    }

    [Test]
    public void PostsRacingWithTheStop_AreRefusedOrRunOnce()
    {
        for (var round = 0; round < 10; round++)
        {
            var loop = EventLoop.Start();
            int accepted = 0, ran = 0;
            var threads = Enumerable.Range(0, 3).Select(_ => new Thread(() =>
            {
                try
                {
                    while (true)
                    {
                        loop.Post(() => Interlocked.Increment(ref ran));
                        Interlocked.Increment(ref accepted);
                    }
                }
                catch (ObjectDisposedException)
                {
                }
            })).ToArray();
            foreach (var thread in threads) thread.Start();
            Run.Until(() => Volatile.Read(ref accepted) > 100, "posting");
            loop.Dispose();
            foreach (var thread in threads) Assert.That(thread.Join(Run.Limit), Is.True);
            Run.Until(() => Volatile.Read(ref ran) >= accepted, "what was accepted runs");
            Assert.That(ran, Is.EqualTo(accepted));
        }
    }

    [Test]
    public void ContextCapturedBeforeTheStop_GoesOnOnThePool_WithItsExecutionContext()
    {
        var loop = EventLoop.Start();
        var gate = new TaskCompletionSource();
        var going = loop.InvokeAsync(async () =>
        {
            Place.Flowing.Value = 5;
            await gate.Task;
            var first = Place.Here();
            await Task.Yield();
            return (First: first, Second: Place.Here());
        });
        Run.Wait(loop.InvokeAsync(() => { }));
        loop.Dispose();
        gate.SetResult();
        var (one, two) = Run.Wait(going);
        Assert.That((one.OnPool, one.Loop, one.Local), Is.EqualTo((true, default(EventLoop), 5)));
        Assert.That((two.OnPool, two.Loop, two.Local), Is.EqualTo((true, default(EventLoop), 5)));
    }

    // A method that starts again and again what the loop no longer takes: the end of the process, were the handler not asked.
    [Test]
    public void LeftOverWork_ThatFailsOnThePool_ReachesTheHandler()
    {
        using var seen = new SemaphoreSlim(0);
        Exception? error = null;
        var loop = EventLoop.Start(new EventLoopOptions
        {
            UnhandledException = e =>
            {
                error = e;
                seen.Release();
                return true;
            },
        });
        void Again() => loop.Post(Again);
        loop.Post(Again);
        loop.Dispose();
        Assert.That(seen.Wait(Run.Limit), Is.True);
        Assert.That(error, Is.TypeOf<ObjectDisposedException>());
        loop.SynchronizationContext.Post(_ => throw new FormatException(), null);
        Assert.That(seen.Wait(Run.Limit), Is.True);
        Assert.That(error, Is.TypeOf<FormatException>());
    }
}
