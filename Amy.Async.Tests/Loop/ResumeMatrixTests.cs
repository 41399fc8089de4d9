using System.Collections.Concurrent;
using System.Net.Sockets;
using System.Runtime.CompilerServices;

namespace Amy.Async.Tests.Loop;

/// <summary>
/// "Who resumes where" of ARCHITECTURE.md: every row for every operation, awaited directly, in a method with a pooling builder,
/// and as a task; by thread and by current context, before and after.
/// </summary>
[TestFixture]
[System.Runtime.Versioning.UnsupportedOSPlatform("windows")]
internal sealed class ResumeMatrixTests
{
    private static IEnumerable<string> Operations => Scenes.All;

    // Their loop is that of the thread they are awaited on.
    private static IEnumerable<string> OperationsOfALoop => Scenes.All.Where(s => !Scenes.ChooseTheirLoop(s));

    private static readonly Await[] s_ways = [Await.Directly, Await.Pooled, Await.AsTask];

    /// <summary>A context with a thread of its own, as a user interface has.</summary>
    private sealed class ThreadContext : SynchronizationContext, IDisposable
    {
        private readonly BlockingCollection<(SendOrPostCallback, object?)> _posts = [];
        private readonly Thread _thread;

        internal ThreadContext()
        {
            _thread = new Thread(() =>
            {
                SetSynchronizationContext(this);
                foreach (var (callback, state) in _posts.GetConsumingEnumerable()) callback(state);
            })
            { IsBackground = true };
            _thread.Start();
        }

        internal int Thread => _thread.ManagedThreadId;

        internal int Posts;

        public override void Post(SendOrPostCallback d, object? state)
        {
            Interlocked.Increment(ref Posts);
            _posts.Add((d, state));
        }

        public void Dispose()
        {
            _posts.CompleteAdding();
            _thread.Join();
            _posts.Dispose();
        }
    }

    /// <summary>Starts on the operation's loop, and ends it from there.</summary>
    private static Trace OnItsLoop(Stage stage, Await how, bool capture, SynchronizationContext? context = null) =>
        Run.Wait(Run.Wait(stage.Loop.InvokeAsync(() =>
        {
            if (context is not null) SynchronizationContext.SetSynchronizationContext(context);
            var awaiting = stage.Scene.Await(how, capture);
            if (context is not null) SynchronizationContext.SetSynchronizationContext(stage.Loop.SynchronizationContext);
            stage.Scene.Complete();
            return Task.FromResult(awaiting);
        })));

    /// <summary>Starts on a thread of its own, and ends it from another.</summary>
    private static Trace OnAThread(Stage stage, Await how, bool capture, SynchronizationContext? context = null)
    {
        Task<Trace>? awaiting = null;
        Run.OnThread(() =>
        {
            SynchronizationContext.SetSynchronizationContext(context);
            awaiting = stage.Scene.Await(how, capture);
        });
        stage.Scene.Complete();
        return Run.Wait(awaiting!);
    }

    private static void Check(Trace trace, Await how)
    {
        Assert.That(trace.Error, Is.Null, how.ToString());
        Assert.That(trace.Waited, Is.True, how.ToString());
        Assert.That(trace.After.Local, Is.EqualTo(trace.Before.Local), "the execution context flows");
    }

    [Test]
    public void OnItsLoop_ContextCaptured_ResumesThereUnderIt([ValueSource(nameof(Operations))] string operation)
    {
        foreach (var how in s_ways)
        {
            using var stage = new Stage(operation);
            var trace = OnItsLoop(stage, how, capture: true);
            Check(trace, how);
            Assert.That(trace.After, Is.EqualTo(trace.Before));
            Assert.That(trace.After.Context, Is.SameAs(stage.Loop.SynchronizationContext));
            Assert.That(trace.After.Loop, Is.SameAs(stage.Loop));
        }
    }

    [Test]
    public void OnItsLoop_NothingCaptured_ResumesThereWithoutAContext([ValueSource(nameof(Operations))] string operation)
    {
        foreach (var how in s_ways)
        {
            using var stage = new Stage(operation);
            var trace = OnItsLoop(stage, how, capture: false);
            Check(trace, how);
            Assert.That(trace.Before.Context, Is.SameAs(stage.Loop.SynchronizationContext));
            Assert.That(trace.After, Is.EqualTo(trace.Before with { Context = null }), how.ToString());
            var next = Run.Wait(stage.Loop.InvokeAsync(Place.Here));
            Assert.That(next, Is.EqualTo(trace.Before with { Local = Place.Flowing.Value }), "what runs next has the loop's context again");
        }
    }

    [Test]
    public void OnItsLoop_AnotherContextCaptured_IsPostedToThatOne([ValueSource(nameof(Operations))] string operation)
    {
        foreach (var how in s_ways)
        {
            using var context = new ThreadContext();
            using var stage = new Stage(operation);
            var trace = OnItsLoop(stage, how, capture: true, context);
            Check(trace, how);
            Assert.That(trace.Before.Loop, Is.SameAs(stage.Loop));
            Assert.That(trace.After.Context, Is.SameAs(context));
            Assert.That(trace.After.Thread, Is.EqualTo(context.Thread));
            Assert.That(context.Posts, Is.EqualTo(1));
        }
    }

    [Test]
    public void OnAnotherLoop_ItsContextCaptured_IsPostedToThatLoop([ValueSource(nameof(OperationsOfALoop))] string operation)
    {
        using var other = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
        foreach (var how in s_ways)
        {
            using var stage = new Stage(operation);
            var awaiting = Run.Wait(other.InvokeAsync(() => Task.FromResult(stage.Scene.Await(how, capture: true))));
            stage.Scene.Complete();
            var trace = Run.Wait(awaiting);
            Check(trace, how);
            Assert.That(trace.After, Is.EqualTo(trace.Before));
            Assert.That(trace.After.Context, Is.SameAs(other.SynchronizationContext));
            Assert.That(trace.After.Loop, Is.SameAs(other));
        }
    }

    [Test]
    public void OnAnotherLoop_NothingCaptured_ResumesOnThePool([ValueSource(nameof(OperationsOfALoop))] string operation)
    {
        using var other = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
        foreach (var how in s_ways)
        {
            using var stage = new Stage(operation);
            var awaiting = Run.Wait(other.InvokeAsync(() => Task.FromResult(stage.Scene.Await(how, capture: false))));
            stage.Scene.Complete();
            var trace = Run.Wait(awaiting);
            Check(trace, how);
            Assert.That(trace.Before.Loop, Is.SameAs(other));
            Assert.That((trace.After.OnPool, trace.After.Context, trace.After.Loop), Is.EqualTo((true, default(SynchronizationContext), default(EventLoop))));
        }
    }

    [Test]
    public void OnAThread_LoopsContextCaptured_IsPostedToTheLoop([ValueSource(nameof(Operations))] string operation)
    {
        foreach (var how in s_ways)
        {
            using var stage = new Stage(operation);
            var trace = OnAThread(stage, how, capture: true, stage.Loop.SynchronizationContext);
            Check(trace, how);
            Assert.That(trace.Before.Loop, Is.Null);
            Assert.That((trace.After.Loop, trace.After.Context), Is.EqualTo((stage.Loop, stage.Loop.SynchronizationContext)));
        }
    }

    [Test]
    public void OnAThread_AnotherContextCaptured_IsPostedToThatOne([ValueSource(nameof(Operations))] string operation)
    {
        foreach (var how in s_ways)
        {
            using var context = new ThreadContext();
            using var stage = new Stage(operation);
            var trace = OnAThread(stage, how, capture: true, context);
            Check(trace, how);
            Assert.That((trace.After.Thread, trace.After.Context, context.Posts), Is.EqualTo((context.Thread, context, 1)));
        }
    }

    [Test]
    public void OnAThread_NothingCaptured_ResumesOnThePool([ValueSource(nameof(Operations))] string operation, [Values] bool capture)
    {
        foreach (var how in s_ways)
        {
            using var stage = new Stage(operation);
            var trace = OnAThread(stage, how, capture);
            Check(trace, how);
            Assert.That((trace.Before.OnPool, trace.Before.Context), Is.EqualTo((false, default(SynchronizationContext))));
            Assert.That((trace.After.OnPool, trace.After.Context, trace.After.Loop), Is.EqualTo((true, default(SynchronizationContext), default(EventLoop))));
        }
    }

    [Test]
    public void UnderAnExclusiveScheduler_IsQueuedToItIfCaptured([ValueSource(nameof(Operations))] string operation, [Values] bool capture)
    {
        var scheduler = new ConcurrentExclusiveSchedulerPair().ExclusiveScheduler;
        foreach (var how in s_ways)
        {
            using var stage = new Stage(operation);
            var starting = Task.Factory.StartNew(() => Task.FromResult(stage.Scene.Await(how, capture)), CancellationToken.None, TaskCreationOptions.None, scheduler);
            var awaiting = Run.Wait(Run.Wait(starting));
            stage.Scene.Complete();
            var trace = Run.Wait(awaiting);
            Check(trace, how);
            Assert.That(trace.Before.Scheduler, Is.SameAs(scheduler));
            Assert.That(trace.After.Scheduler, Is.SameAs(capture ? scheduler : TaskScheduler.Default));
            Assert.That((trace.After.OnPool, trace.After.Context, trace.After.Loop), Is.EqualTo((true, default(SynchronizationContext), default(EventLoop))));
        }
    }

    [Test]
    public void Cancelled_ResumesByTheSameTable([ValueSource(nameof(Operations))] string operation, [Values] bool capture)
    {
        foreach (var how in s_ways)
        {
            using var stage = new Stage(operation);
            using var source = new CancellationTokenSource();
            var awaiting = Run.Wait(stage.Loop.InvokeAsync(() => Task.FromResult(stage.Scene.Await(how, capture, source.Token))));
            Assert.That(awaiting.IsCompleted, Is.False);
            source.Cancel();
            var trace = Run.Wait(awaiting);
            Assert.That(trace.Error, Is.InstanceOf<OperationCanceledException>());
            Assert.That(((OperationCanceledException)trace.Error!).CancellationToken, Is.EqualTo(source.Token));
            Assert.That(trace.After, Is.EqualTo(trace.Before with { Context = capture ? stage.Loop.SynchronizationContext : null }));
        }
    }

    [Test]
    public void CancelledBefore_IsToldWithoutWaiting([ValueSource(nameof(Operations))] string operation)
    {
        using var stage = new Stage(operation);
        using var source = new CancellationTokenSource();
        source.Cancel();
        var trace = Run.Wait(stage.Loop.InvokeAsync(() => stage.Scene.Await(Await.Directly, capture: true, source.Token)));
        Assert.That((trace.Error as OperationCanceledException)?.CancellationToken, Is.EqualTo(source.Token));
        Assert.That(trace.Waited, Is.False);
        Assert.That(OnItsLoop(stage, Await.Directly, capture: true).Error, Is.Null, "the next one is as ever");
    }

    [Test]
    public void SwitchToAndYield_GoOnOnTheLoopUnderItsContext_WhateverWasCaptured([Values] bool yield)
    {
        using var loop = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
        using var other = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
        using var context = new ThreadContext();
        var exclusive = new ConcurrentExclusiveSchedulerPair().ExclusiveScheduler;
        async Task<Trace> Go()
        {
            Place.Flowing.Value = 3;
            var before = Place.Here();
            if (yield) await loop.Yield();
            else await loop.SwitchTo();
            return new Trace(before, Place.Here(), true, null);
        }
        Task<Trace>? onAThread = null, underAContext = null;
        Run.OnThread(() => onAThread = Go());
        Run.OnThread(() =>
        {
            SynchronizationContext.SetSynchronizationContext(context);
            underAContext = Go();
        });
        var traces = new[]
        {
            Run.Wait(onAThread!),
            Run.Wait(underAContext!),
            Run.Wait(loop.InvokeAsync(Go)),
            Run.Wait(other.InvokeAsync(Go)),
            Run.Wait(Task.Factory.StartNew(Go, CancellationToken.None, TaskCreationOptions.None, exclusive).Unwrap()),
        };
        foreach (var trace in traces)
        {
            Assert.That((trace.After.Loop, trace.After.Context, trace.After.Local), Is.EqualTo((loop, loop.SynchronizationContext, 3)));
            Assert.That(trace.After.Scheduler, Is.SameAs(TaskScheduler.Default));
        }
        Assert.That(context.Posts, Is.Zero);
    }

    [Test]
    public void TwoLoops_AwaitEachOthersSockets([Values] bool capture, [Values] bool pooled)
    {
        const int rounds = 1000;
        using var one = EventLoop.Start();
        using var two = EventLoop.Start();
        var (x, y) = Pair.Tcp();
        using var a = new AsyncSocket(x, one);
        using var b = new AsyncSocket(y, two);
        // The socket is of the other loop in both cases.
        var playing = two.InvokeAsync(() => Play(a, two, first: true));
        var answering = one.InvokeAsync(() => Play(b, one, first: false));
        Run.Wait(Task.WhenAll(playing, answering));

        Task Play(AsyncSocket socket, EventLoop mine, bool first) => pooled ? Pooled(socket, mine, first).AsTask() : Direct(socket, mine, first);

        async Task Direct(AsyncSocket socket, EventLoop mine, bool first)
        {
            var buffer = new byte[1];
            for (var i = 0; i < rounds; i++)
            {
                if (first) await socket.SendAsync(buffer).ConfigureAwait(capture);
                var pending = socket.ReceiveAsync(buffer);
                var waited = !pending.IsCompleted;
                Assert.That(await pending.ConfigureAwait(capture), Is.EqualTo(1));
                Check(mine, socket.Loop, waited);
                if (!first) await socket.SendAsync(buffer).ConfigureAwait(capture);
            }
        }

        [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
        async ValueTask Pooled(AsyncSocket socket, EventLoop mine, bool first)
        {
            var buffer = new byte[1];
            for (var i = 0; i < rounds; i++)
            {
                if (first) await socket.SendAsync(buffer).ConfigureAwait(capture);
                var pending = socket.ReceiveAsync(buffer);
                var waited = !pending.IsCompleted;
                Assert.That(await pending.ConfigureAwait(capture), Is.EqualTo(1));
                Check(mine, socket.Loop, waited);
                if (!first) await socket.SendAsync(buffer).ConfigureAwait(capture);
            }
        }

        void Check(EventLoop mine, EventLoop its, bool waited)
        {
            if (capture) Assert.That((EventLoop.Current, SynchronizationContext.Current), Is.EqualTo((mine, mine.SynchronizationContext)));
            else
            {
                Assert.That(EventLoop.Current, Is.Not.SameAs(its), "never run on the loop of the socket");
                if (waited) Assert.That((Thread.CurrentThread.IsThreadPoolThread, SynchronizationContext.Current), Is.EqualTo((true, default(SynchronizationContext))));
            }
        }
    }

    // What each kind of code leaves behind on the loop's thread, seen by what is posted next.
    [Test]
    public void WhatCodeLeavesBehind_IsNotSeenByTheNextItem([Values("post", "context", "invoke", "task", "timer", "delay", "receive", "switch", "async void")] string kind)
    {
        var time = new VirtualTimeProvider();
        using var loop = EventLoop.Start(new EventLoopOptions { TimeProvider = time });
        var (x, y) = Pair.Unix();
        using var a = new AsyncSocket(x, loop);
        using var foreign = new ThreadContext();
        using (y)
        {
            var seen = new List<(int, SynchronizationContext?)>();
            using var ran = new SemaphoreSlim(0);
            void Leave()
            {
                Place.Flowing.Value = 77;
                SynchronizationContext.SetSynchronizationContext(foreign);
                loop.SynchronizationContext.Post(_ => // does not flow
                {
                    seen.Add((Place.Flowing.Value, SynchronizationContext.Current));
                    ran.Release();
                }, null);
            }
            async void LeaveAsync()
            {
                await loop.Yield();
                Leave();
            }
            Run.OnThread(() =>
            {
                using (ExecutionContext.SuppressFlow())
                {
                    switch (kind)
                    {
                        case "post": loop.Post(Leave); break;
                        case "context": loop.SynchronizationContext.Post(_ => Leave(), null); break;
                        case "invoke": _ = loop.InvokeAsync(Leave); break;
                        case "task": _ = Task.Factory.StartNew(Leave, CancellationToken.None, TaskCreationOptions.None, loop.TaskScheduler); break;
                        case "timer": loop.TimeProvider.CreateTimer(_ => Leave(), null, TimeSpan.FromSeconds(1), Timeout.InfiniteTimeSpan); break;
                        case "delay": loop.Post(() => loop.Delay(TimeSpan.FromSeconds(1)).GetAwaiter().UnsafeOnCompleted(Leave)); break;
                        case "receive": loop.Post(() => a.ReceiveAsync(new byte[1]).GetAwaiter().UnsafeOnCompleted(Leave)); break;
                        case "switch": loop.SwitchTo().GetAwaiter().UnsafeOnCompleted(Leave); break;
                        case "async void": loop.Post(LeaveAsync); break;
                    }
                }
            });
            Run.Wait(loop.InvokeAsync(() => { }));
            y.Send([1]);
            time.Advance(TimeSpan.FromSeconds(1));
            Assert.That(ran.Wait(Run.Limit), Is.True);
            Assert.That(seen.Single(), Is.EqualTo((0, loop.SynchronizationContext)));
        }
    }

    // As with any await of .NET: the context of the caller flows in, what is set after the await does not flow out.
    [Test]
    public void AsyncLocal_OfCallerAndCallee_AsWithAnyTask([ValueSource(nameof(Operations))] string operation)
    {
        using var stage = new Stage(operation);
        Run.Wait(stage.Loop.InvokeAsync(async () =>
        {
            Place.Flowing.Value = 10;
            async Task Callee()
            {
                var trace = await stage.Scene.Await(Await.Directly, capture: true);
                Assert.That(trace.After.Local, Is.EqualTo(11), "set by the innermost");
                Assert.That(Place.Flowing.Value, Is.EqualTo(10), "not seen outside");
                Place.Flowing.Value = 12;
                await stage.Loop.Yield();
                Assert.That(Place.Flowing.Value, Is.EqualTo(12));
            }
            var callee = Callee();
            Assert.That(Place.Flowing.Value, Is.EqualTo(10));
            stage.Scene.Complete();
            await callee;
            Assert.That(Place.Flowing.Value, Is.EqualTo(10));
        }));
    }
}
