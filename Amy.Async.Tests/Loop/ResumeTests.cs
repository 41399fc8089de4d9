using System.Net.Sockets;

namespace Amy.Async.Tests.Loop;

/// <summary>"Who resumes where" of ARCHITECTURE.md, a test for each row: by thread and by current context.</summary>
[TestFixture]
internal sealed class ResumeTests
{
    private sealed record Place(int Thread, SynchronizationContext? Context, bool OnPool, TaskScheduler Scheduler);

    private static Place Here() =>
        new(Environment.CurrentManagedThreadId, SynchronizationContext.Current, Thread.CurrentThread.IsThreadPoolThread, TaskScheduler.Current);

    private sealed class CountingContext : SynchronizationContext
    {
        internal int Posts;

        public override void Post(SendOrPostCallback d, object? state)
        {
            Interlocked.Increment(ref Posts);
            ThreadPool.QueueUserWorkItem(_ =>
            {
                SetSynchronizationContext(this);
                d(state);
                SetSynchronizationContext(null);
            });
        }
    }

    [Test]
    public void OnTheLoop_WithItsContext_ResumesInlineUnderTheContext() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var before = Here();
            var posts = a.Loop.Statistics.PostsRun;
            a.Loop.Post(() => b.TrySend([1], out _));
            Assert.That(await a.ReceiveAsync(new byte[8]), Is.EqualTo(1));
            Assert.That(Here(), Is.EqualTo(before));
            Assert.That(a.Loop.Statistics.PostsRun - posts, Is.EqualTo(1), "only the post of the test");
        }
    });

    [Test]
    public void OnTheLoop_ConfigureAwaitFalse_ResumesInlineWithoutAContext_AlsoUpAChainOfTasks() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var loop = a.Loop;
            var places = new List<Place>();
            async Task<int> Inner()
            {
                var n = await a.ReceiveAsync(new byte[8]).ConfigureAwait(false);
                places.Add(Here());
                return n;
            }
            async Task<int> Middle()
            {
                var n = await Inner().ConfigureAwait(false);
                places.Add(Here());
                return n;
            }
            async Task Outer()
            {
                await Middle().ConfigureAwait(false);
                places.Add(Here());
            }
            loop.Post(() => b.TrySend([1], out _));
            var thread = Environment.CurrentManagedThreadId;
            await Outer();
            Assert.That(places, Has.Count.EqualTo(3));
            Assert.That(places.All(p => p.Thread == thread && p.Context is null), Is.True, string.Join("; ", places));
            Assert.That(SynchronizationContext.Current, Is.SameAs(loop.SynchronizationContext), "restored");
        }
    });

    [Test]
    public void OnTheLoop_ForeignContextCaptured_IsPostedToIt() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var context = new CountingContext();
            async Task<Place> Receive()
            {
                SynchronizationContext.SetSynchronizationContext(context);
                var pending = a.ReceiveAsync(new byte[8]);
                await pending;
                return Here();
            }
            var receiving = Receive();
            SynchronizationContext.SetSynchronizationContext(a.Loop.SynchronizationContext);
            b.TrySend([1], out _);
            var place = await receiving;
            Assert.That(place.Context, Is.SameAs(context));
            Assert.That(context.Posts, Is.EqualTo(1));
        }
    });

    [Test]
    public void OnAnotherThread_LoopsContextCaptured_IsPostedToTheLoop()
    {
        using var loop = EventLoop.Start();
        var (x, y) = Pair.Tcp();
        using (y)
        using (var a = new AsyncSocket(x, loop))
        {
            async Task<Place> Receive()
            {
                SynchronizationContext.SetSynchronizationContext(loop.SynchronizationContext);
                await a.ReceiveAsync(new byte[8]);
                return Here();
            }
            Task<Place>? receiving = null;
            Run.OnThread(() => receiving = Receive());
            y.Send([1]);
            var place = Run.Wait(receiving!);
            Assert.That(place.Context, Is.SameAs(loop.SynchronizationContext));
            Assert.That(place.OnPool, Is.False);
        }
    }

    [Test]
    public void AnotherLoopsContextCaptured_IsPostedToThatLoop()
    {
        using var one = EventLoop.Start();
        using var two = EventLoop.Start();
        var (x, y) = Pair.Tcp();
        using (y)
        using (var a = new AsyncSocket(x, one))
        {
            var receiving = two.InvokeAsync(async () =>
            {
                await a.ReceiveAsync(new byte[8]);
                return two.IsCurrent && SynchronizationContext.Current == two.SynchronizationContext;
            });
            y.Send([1]);
            Assert.That(Run.Wait(receiving), Is.True);
        }
    }

    [Test]
    public void TaskSchedulerCaptured_IsQueuedToIt() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start();
        var pair = new ConcurrentExclusiveSchedulerPair();
        var (x, y) = Pair.Tcp();
        using (y)
        using (var a = new AsyncSocket(x, loop))
        {
            var receiving = Task.Factory.StartNew(async () =>
            {
                await a.ReceiveAsync(new byte[8]);
                return Here();
            }, CancellationToken.None, TaskCreationOptions.None, pair.ExclusiveScheduler).Unwrap();
            y.Send([1]);
            Assert.That(Run.Wait(receiving).Scheduler, Is.SameAs(pair.ExclusiveScheduler));
        }
    });

    [TestCase(true)]
    [TestCase(false)]
    public void OnAnotherThread_NothingCaptured_ResumesOnThePool(bool continueOnCapturedContext)
    {
        using var loop = EventLoop.Start();
        var (x, y) = Pair.Tcp();
        using (y)
        using (var a = new AsyncSocket(x, loop))
        {
            async Task<Place> Receive()
            {
                await a.ReceiveAsync(new byte[8]).ConfigureAwait(continueOnCapturedContext);
                return Here();
            }
            Task<Place>? receiving = null;
            Run.OnThread(() => receiving = Receive());
            y.Send([1]);
            Assert.That(Run.Wait(receiving!).OnPool, Is.True);
        }
    }

    [Test]
    public void AsTask_OnTheLoop_ComesBackToTheLoop() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var before = Here();
            b.Loop.Post(() => b.TrySend([1], out _));
            Assert.That(await a.ReceiveAsync(new byte[8]).AsTask(), Is.EqualTo(1));
            Assert.That(Here(), Is.EqualTo(before));
        }
    });

    [Test]
    public void AsyncLocal_FlowsThroughEveryAwait() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var local = new AsyncLocal<int>();
            async Task Receive(int value)
            {
                local.Value = value;
                await a.ReceiveAsync(new byte[1]);
                Assert.That(local.Value, Is.EqualTo(value));
            }
            for (var i = 1; i < 4; i++)
            {
                var receiving = Receive(i);
                b.TrySend([1], out _);
                await receiving;
                Assert.That(local.Value, Is.Zero);
            }
        }
    });

    [Test]
    public void ValueTask_AwaitedTwice_Throws() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var pending = a.ReceiveAsync(new byte[8]);
            b.TrySend([1], out _);
            Assert.That(await pending, Is.EqualTo(1));
            Assert.Throws<InvalidOperationException>(() => pending.GetAwaiter().GetResult());
            Assert.Throws<InvalidOperationException>(() => _ = pending.IsCompleted);
            b.TrySend([1, 2], out _);
            Assert.That(await a.ReceiveAsync(new byte[8]), Is.EqualTo(2), "the direction is as before");
        }
    });

    [Test]
    public void ValueTask_NeverAwaited_DoesNotBrickItsDirection() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var dropped = a.ReceiveAsync(new byte[8]);
            b.TrySend([1], out _);
            while (!dropped.IsCompleted) await a.Loop.Yield();
            b.TrySend([1, 2], out _);
            Assert.That(await a.ReceiveAsync(new byte[8]), Is.EqualTo(2));
            Assert.Throws<InvalidOperationException>(() => dropped.GetAwaiter().GetResult());
        }
    });

    [Test]
    public void ManyConnectionsReadyInOneBatch_ResumeOnAFlatStack() => Run.OnLoop(async () =>
    {
        const int count = 2000;
        var pairs = new List<(Socket, AsyncSocket)>();
        var depths = new List<int>();
        var done = new TaskCompletionSource();
        async Task Receive(AsyncSocket socket)
        {
            await socket.ReceiveAsync(new byte[8]);
            depths.Add(new System.Diagnostics.StackTrace().GetFrames().Count(f => f.GetMethod()?.DeclaringType?.Assembly == typeof(EventLoop).Assembly));
            if (depths.Count == count) done.SetResult();
        }
        for (var i = 0; i < count; i++)
        {
            var (x, y) = Pair.Unix();
            var a = new AsyncSocket(x);
            pairs.Add((y, a));
            _ = Receive(a);
        }
        foreach (var (y, _) in pairs) y.Send([1]);
        await done.Task;
        Assert.That(depths.Max(), Is.LessThanOrEqualTo(64));
        foreach (var (y, a) in pairs)
        {
            y.Dispose();
            a.Dispose();
        }
    });

    // One after the other: receive, awaiter, receive, awaiter. Each connection sends its own number over and over, in messages
    // that come together, and some of them so much at once that its receives are put off through the queue.
    [Test]
    public void ReceivesIntoOneBuffer_EachAwaiterFindsWhatItsOwnReceiveGot() => Run.OnLoop(async () =>
    {
        const int Count = 48;
        const int Messages = 200;
        const int Much = 200_000;
        string? wrong = null;
        var shared = new byte[4096];
        var (peers, sockets) = (new Socket[Count], new AsyncSocket[Count]);
        for (var i = 0; i < Count; i++)
        {
            var (x, y) = i % 2 == 0 ? Pair.Unix() : Pair.Tcp();
            (peers[i], sockets[i]) = (y, new AsyncSocket(x));
        }
        var receiving = sockets.Select(Receive).ToArray();
        var sending = Task.Run(() =>
        {
            for (var round = 0; round < Messages; round++)
                for (var i = 0; i < Count; i++)
                    peers[i].Send(Enumerable.Repeat((byte)i, round % 50 == 49 && i % 8 == 0 ? Much : 1 + round).ToArray());
            foreach (var peer in peers) peer.Shutdown(SocketShutdown.Send);
        });
        var received = 0L;
        foreach (var task in receiving) received += await task;
        await sending;
        Assert.That(wrong, Is.Null);
        Assert.That(received, Is.EqualTo(sockets.Sum(s => s.BytesReceived)));
        Assert.That(received, Is.GreaterThan(Count / 8 * 4 * (long)Much));
        foreach (var socket in sockets) socket.Dispose();
        foreach (var peer in peers) peer.Dispose();

        async Task<long> Receive(AsyncSocket socket, int i)
        {
            var total = 0L;
            int n;
            while ((n = await socket.ReceiveAsync(shared)) > 0)
            {
                var at = shared.AsSpan(0, n).IndexOfAnyExcept((byte)i);
                if (at >= 0) wrong ??= $"connection {i} found {shared[at]} at {at} of {n}"; // and reads on: the sender waits
                total += n;
            }
            return total;
        }
    });

    [Test]
    public void AMillionSynchronousCompletions_NeitherDeepenTheStackNorStarveOthers() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var turns = 0;
            var stop = false;
            void Count()
            {
                turns++;
                if (!stop) a.Loop.Post(Count);
            }
            a.Loop.Post(Count);
            for (var i = 0; i < 1_000_000; i++) await a.WritableAsync();
            stop = true;
            Assert.That(turns, Is.GreaterThan(10_000), "others ran in between");
            Assert.That(a.Loop.Statistics.BudgetYields, Is.GreaterThan(10_000));
        }
    });
}
