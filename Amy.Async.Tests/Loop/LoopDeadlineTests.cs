namespace Amy.Async.Tests.Loop;

/// <summary>A deadline that spans several operations.</summary>
[TestFixture]
internal sealed class LoopDeadlineTests
{
    private static EventLoopOptions Virtual(out VirtualTimeProvider time) => new() { TimeProvider = time = new VirtualTimeProvider() };

    [Test]
    public void Deadline_SpansSeveralOperations_AndEndsTheOneInProgress() => Run.OnLoop(async () =>
    {
        var time = (VirtualTimeProvider)s_time!;
        using var deadline = EventLoop.Current!.CreateDeadline();
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var buffer = new byte[8];
            deadline.Set(TimeSpan.FromSeconds(10));
            for (var i = 0; i < 3; i++)
            {
                var receiving = b.ReceiveAsync(buffer, deadline.Token);
                time.Advance(TimeSpan.FromSeconds(3));
                await a.SendAsync(new byte[] { 1 }, deadline.Token);
                Assert.That(await receiving, Is.EqualTo(1));
            }
            Assert.That(deadline.HasExpired, Is.False);
            var last = b.ReceiveAsync(buffer, deadline.Token).AsTask();
            time.Advance(TimeSpan.FromSeconds(0.999));
            await EventLoop.Current!.Yield();
            Assert.That(last.IsCompleted, Is.False, "not early");
            time.Advance(TimeSpan.FromSeconds(0.001));
            var expired = await Expect.Throws<OperationCanceledException>(() => last);
            Assert.That((expired.CancellationToken, deadline.HasExpired), Is.EqualTo((deadline.Token, true)));
            await a.SendAsync(new byte[] { 7 });
            Assert.That(await b.ReceiveAsync(buffer), Is.EqualTo(1), "no byte is lost");

            deadline.Set(TimeSpan.FromSeconds(1)); // again, with a fresh token
            Assert.That(deadline.HasExpired || deadline.Token.IsCancellationRequested, Is.False);
            deadline.Clear();
            time.Advance(TimeSpan.FromSeconds(5));
            await EventLoop.Current!.Yield();
            Assert.That(deadline.HasExpired, Is.False);
        }
    }, SetTime());

    private static VirtualTimeProvider? s_time;

    private static EventLoopOptions SetTime()
    {
        var options = Virtual(out var time);
        s_time = time;
        return options;
    }

    [Test]
    public void Set_LaterAndEarlier_TheLastCounts() => Run.OnLoop(async () =>
    {
        var (time, loop) = (s_time!, EventLoop.Current!);
        using var deadline = loop.CreateDeadline();
        deadline.Set(TimeSpan.FromSeconds(1));
        deadline.Set(TimeSpan.FromSeconds(10));
        time.Advance(TimeSpan.FromSeconds(9));
        await loop.Yield();
        Assert.That(deadline.HasExpired, Is.False);
        deadline.Set(TimeSpan.FromSeconds(100));
        deadline.Set(TimeSpan.FromSeconds(2)); // earlier than what is in the queue
        time.Advance(TimeSpan.FromSeconds(2));
        await loop.Yield();
        Assert.That(deadline.HasExpired, Is.True);
    }, SetTime());

    [Test]
    public void BadInput_IsRefused_AndNothingIsLeftBehind() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        var deadline = loop.CreateDeadline();
        foreach (var wrong in new[] { TimeSpan.Zero, TimeSpan.FromSeconds(-1) })
            Assert.That(() => deadline.Set(wrong), Throws.TypeOf<ArgumentOutOfRangeException>());
        deadline.Set(Timeout.InfiniteTimeSpan);
        var before = loop.Statistics.TimersPending;
        deadline.Set(TimeSpan.FromDays(1));
        await loop.Yield();
        Assert.That(loop.Statistics.TimersPending, Is.EqualTo(before + 1));
        deadline.Dispose();
        deadline.Dispose();
        Assert.That(loop.Statistics.TimersPending, Is.EqualTo(before));
        Assert.That(() => deadline.Set(TimeSpan.FromSeconds(1)), Throws.TypeOf<ObjectDisposedException>());
        Assert.That(deadline.Token.IsCancellationRequested, Is.False);
    });

    [Test]
    public void LoopStops_DeadlineThatIsSetExpires_AndNewOnesAreRefused() => Run.OnThread(() =>
    {
        var loop = EventLoop.Start();
        var deadline = loop.CreateDeadline();
        deadline.Set(TimeSpan.FromDays(1)); // from another thread
        Run.Wait(loop.InvokeAsync(() => { }));
        var token = deadline.Token;
        loop.Dispose();
        Assert.That((token.IsCancellationRequested, deadline.HasExpired), Is.EqualTo((true, true)), "nothing waits for ever");
        Assert.That(() => deadline.Set(TimeSpan.FromSeconds(1)), Throws.TypeOf<ObjectDisposedException>());
        Assert.That(loop.CreateDeadline, Throws.TypeOf<ObjectDisposedException>());
        deadline.Dispose();
    });

    [Test]
    public void CallbackThatThrows_ReachesTheHandler() => Run.OnThread(() =>
    {
        using var told = new ManualResetEventSlim();
        using var loop = EventLoop.Start(new EventLoopOptions { UnhandledException = _ => { told.Set(); return true; } });
        using var deadline = loop.CreateDeadline();
        deadline.Token.Register(() => throw new InvalidDataException());
        deadline.Set(TimeSpan.FromMilliseconds(1));
        Assert.That(told.Wait(Run.Limit), Is.True);
        Run.Wait(loop.InvokeAsync(() => { }));
    });

    // Set by another thread, and on its way to the loop when that ended for another reason: it expires on the thread pool, where a
    // failing callback would end the process, were the handler not asked.
    [Test]
    public void LeftOverWhenTheLoopEnds_CallbackThatThrows_ReachesTheHandler() => Run.OnThread(() =>
    {
        using var held = new ManualResetEventSlim();
        using var go = new ManualResetEventSlim();
        using var told = new ManualResetEventSlim();
        LoopDeadline? deadline = null;
        EventLoop? loop = null;
        Exception? error = null;
        var setting = new Thread(() =>
        {
            held.Wait(Run.Limit);
            for (var i = 0; i < 2; i++) loop!.Post(static () => throw new FormatException()); // one ends the loop, one what follows
            deadline!.Set(TimeSpan.FromDays(1));
            go.Set();
        });
        setting.Start();
        Assert.That(() => EventLoop.Run(() =>
        {
            loop = EventLoop.Current!;
            deadline = loop.CreateDeadline();
            deadline.Token.Register(static () => throw new InvalidDataException());
            loop.Post(() =>
            {
                held.Set();
                go.Wait(Run.Limit);
            });
            return new TaskCompletionSource().Task;
        }, new EventLoopOptions
        {
            UnhandledException = e =>
            {
                if (e is FormatException) return false;
                error = e;
                told.Set();
                return true;
            },
        }), Throws.TypeOf<FormatException>());
        Assert.That(told.Wait(Run.Limit), Is.True);
        Assert.That((error as AggregateException)?.InnerException, Is.TypeOf<InvalidDataException>());
        Assert.That(deadline!.HasExpired, Is.True);
        setting.Join();
    });

    [Test]
    public void SetAndClear_AfterWarmUp_AllocateNothing() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        using var deadline = loop.CreateDeadline();
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var buffer = new byte[8];
            var one = new byte[] { 1 };
            async ValueTask Trips(int count)
            {
                for (var i = 0; i < count; i++)
                {
                    deadline.Set(TimeSpan.FromSeconds(30));
                    var receiving = b.ReceiveAsync(buffer, deadline.Token);
                    await a.SendAsync(one, deadline.Token);
                    await receiving;
                    deadline.Clear();
                }
            }
            await Trips(2000);
            var before = GC.GetAllocatedBytesForCurrentThread();
            var trips = Trips(500);
            await trips;
            var allocated = GC.GetAllocatedBytesForCurrentThread() - before;
            Assert.That(allocated, Is.LessThan(500), "the method's own box, and nothing per trip");
        }
    });

    // Any thread sets, the loop fires: each token is cancelled by its own deadline only.
    [Test]
    public void SetFromAnotherThread_RacingWithExpiry_NeverCancelsTheNext() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
        using var deadline = loop.CreateDeadline();
        for (var i = 0; i < 3000; i++)
        {
            deadline.Set(TimeSpan.FromTicks(1 + i % 400)); // up to 40 µs: expires about when it is set anew
            if (i % 3 == 0) Thread.SpinWait(i % 100);
            deadline.Set(TimeSpan.FromDays(1));
            var token = deadline.Token;
            Run.Wait(loop.InvokeAsync(static () => { })); // whatever was about to fire has fired
            Assert.That((token.IsCancellationRequested, deadline.HasExpired), Is.EqualTo((false, false)));
        }
    });
}
