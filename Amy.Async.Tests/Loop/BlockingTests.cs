namespace Amy.Async.Tests.Loop;

/// <summary>What is told of code that blocks a loop: by the watchdog, and by the loop's context.</summary>
[TestFixture]
internal sealed class BlockingTests
{
    private static readonly EventLoopOptions s_quick = new() { BlockedThreshold = TimeSpan.FromMilliseconds(20), SpinDuration = TimeSpan.Zero };

    [Test]
    public void BlockedThreshold_OutOfBounds_IsRefused()
    {
        Assert.That(new EventLoopOptions().BlockedThreshold, Is.EqualTo(TimeSpan.FromSeconds(1)));
        Assert.That(new EventLoopOptions { BlockedThreshold = Timeout.InfiniteTimeSpan }.BlockedThreshold, Is.EqualTo(Timeout.InfiniteTimeSpan));
        foreach (var wrong in new[] { TimeSpan.Zero, TimeSpan.FromTicks(9999), TimeSpan.FromSeconds(-1), TimeSpan.FromDays(2) })
            Assert.That(() => new EventLoopOptions { BlockedThreshold = wrong }, Throws.TypeOf<ArgumentOutOfRangeException>());
    }

    [Test]
    public void HandlerThatFails_WhenTheLoopHasEnded_IsToldOf() => Run.OnThread(() =>
    {
        using var told = new ManualResetEventSlim();
        using var failed = new ManualResetEventSlim();
        using var ended = new ManualResetEventSlim();
        var loop = EventLoop.Start(new EventLoopOptions
        {
            BlockedThreshold = s_quick.BlockedThreshold,
            UnhandledException = e =>
            {
                if (e is FormatException) failed.Set();
                return true;
            },
        });
        loop.Blocked += (_, _) =>
        {
            told.Set();
            ended.Wait(Run.Limit);
            throw new FormatException();
        };
        loop.Post(() => BlockUntil(told));
        BlockUntil(told);
        loop.Dispose();
        ended.Set();
        Assert.That(failed.Wait(Run.Limit), Is.True);
    });

    // Blocks until the report itself releases it: the test knows no time.
    private void BlockUntil(ManualResetEventSlim told) => Assert.That(told.Wait(Run.Limit), Is.True, "the watchdog tells");

    private async Task BlockLater(EventLoop loop, ManualResetEventSlim told)
    {
        await loop.Yield();
        BlockUntil(told);
    }

    [TestCase("posted", "BlockUntil")]
    [TestCase("lambda", "TurnOverTheThreshold_IsReportedWithTheNameOfTheWork")]
    [TestCase("invoked", "BlockUntil")]
    [TestCase("async", "BlockLater")]
    [TestCase("context", "BlockUntil")]
    [TestCase("task", "Task ")]
    public void TurnOverTheThreshold_IsReportedWithTheNameOfTheWork(string how, string name) => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start(s_quick);
        using var told = new ManualResetEventSlim();
        LoopBlockedEventArgs? report = null;
        object? sender = null;
        var reports = 0;
        loop.Blocked += (s, e) =>
        {
            (sender, report) = (s, e);
            Interlocked.Increment(ref reports);
            Assert.That(EventLoop.Current, Is.Null, "not on the loop, which is blocked");
            told.Set();
        };
        switch (how)
        {
            case "posted":
                loop.Post(BlockUntil, told);
                break;
            case "lambda":
                loop.Post(() => told.Wait(Run.Limit));
                break;
            case "invoked":
                Run.Wait(loop.InvokeAsync(() => BlockUntil(told)));
                break;
            case "async":
                Run.Wait(loop.InvokeAsync(() => BlockLater(loop, told)));
                break;
            case "context":
                loop.SynchronizationContext.Post(s => BlockUntil((ManualResetEventSlim)s!), told);
                break;
            default:
                Run.Wait(Task.Factory.StartNew(() => BlockUntil(told), CancellationToken.None, TaskCreationOptions.None, loop.TaskScheduler));
                break;
        }
        Assert.That(told.Wait(Run.Limit), Is.True);
        Run.Wait(loop.InvokeAsync(() => { })); // the loop goes on
        Assert.That(sender, Is.SameAs(loop));
        Assert.That(report!.Duration, Is.GreaterThanOrEqualTo(s_quick.BlockedThreshold));
        if (how is "invoked" or "context") Assert.That(report.Work, Does.Contain(nameof(TurnOverTheThreshold_IsReportedWithTheNameOfTheWork)), "the lambda's method");
        else Assert.That(report.Work, Does.Contain(name));
        Assert.That(loop.Statistics.BlockedTurns, Is.GreaterThanOrEqualTo(1));
        Assert.That(reports, Is.GreaterThanOrEqualTo(1));
    });

    [Test]
    public void Main_ThatBlocks_IsReported()
    {
        // Nobody can subscribe before main runs; the statistics tell.
        long blocked = 0;
        Run.OnLoop(() =>
        {
            var loop = EventLoop.Current!;
            Run.Until(() => loop.Statistics.BlockedTurns > 0, "the watchdog counts");
            blocked = loop.Statistics.BlockedTurns;
            return Task.CompletedTask;
        }, s_quick);
        Assert.That(blocked, Is.EqualTo(1));
    }

    [Test]
    public void OneLongTurn_IsReportedOnce() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start(new EventLoopOptions { BlockedThreshold = TimeSpan.FromMilliseconds(1) });
        using var told = new ManualResetEventSlim();
        var reports = 0;
        loop.Blocked += (_, _) =>
        {
            Interlocked.Increment(ref reports);
            told.Set();
        };
        var during = 0;
        Run.Wait(loop.InvokeAsync(() =>
        {
            told.Wait(Run.Limit);
            var looks = Watchdog.Looks;
            Run.Until(() => Watchdog.Looks > looks + 10, "the watchdog goes on looking");
            during = Volatile.Read(ref reports);
        }));
        Assert.That(during, Is.EqualTo(1));
    });

    [Test]
    public void Handler_ThatThrows_ReachesTheHandlerOfExceptions() => Run.OnThread(() =>
    {
        using var told = new ManualResetEventSlim();
        Exception? failure = null;
        using var loop = EventLoop.Start(new EventLoopOptions
        {
            BlockedThreshold = TimeSpan.FromMilliseconds(5),
            UnhandledException = e =>
            {
                failure = e;
                told.Set();
                return true;
            },
        });
        using var raised = new ManualResetEventSlim();
        loop.Blocked += (_, _) =>
        {
            raised.Set();
            throw new InvalidDataException("handler");
        };
        loop.Post(() => raised.Wait(Run.Limit));
        Assert.That(told.Wait(Run.Limit), Is.True);
        Assert.That(failure, Is.TypeOf<InvalidDataException>());
    });

    [Test]
    public void Watchdog_SleepsWhileAllLoopsDo_AndWatchesAgain() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start(s_quick);
        for (var i = 0; i < 20; i++)
        {
            Run.Until(() => Watchdog.IsParked && loop.IsSleeping, "both sleep");
            using var told = new ManualResetEventSlim();
            void Told(object? sender, LoopBlockedEventArgs e) => told.Set();
            loop.Blocked += Told;
            loop.Post(BlockUntil, told);
            Assert.That(told.Wait(Run.Limit), Is.True);
            loop.Blocked -= Told;
        }
    });

    [Test]
    public void LoopThatNeverSleeps_IsNotTakenForBlocked() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start(new EventLoopOptions { SpinDuration = Timeout.InfiniteTimeSpan });
        var polls = loop.Polls;
        Run.Until(() => loop.Polls > polls + 1000, "each spinning pass counts");
    });

    [Test]
    public void NotWatched_NothingIsTold() => Run.OnThread(() =>
    {
        using var watched = EventLoop.Start(s_quick);
        using var loop = EventLoop.Start(new EventLoopOptions { BlockedThreshold = Timeout.InfiniteTimeSpan });
        loop.Blocked += (_, _) => Assert.Fail("not watched");
        using var told = new ManualResetEventSlim();
        watched.Blocked += (_, _) => told.Set();
        watched.Post(BlockUntil, told);
        Run.Wait(loop.InvokeAsync(() => BlockUntil(told)));
        Assert.That(loop.Statistics.BlockedTurns, Is.Zero);
    });

    // ---- synchronous waits

    private static readonly EventLoopOptions s_throwing = new() { ThrowOnTaskWait = true, SpinDuration = TimeSpan.Zero };

    [Test]
    public void TaskWait_OnTheLoop_IsReported() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start();
        var reports = new List<SynchronousWaitEventArgs>();
        var gate = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        loop.SynchronousWait += (_, e) =>
        {
            reports.Add(e);
            gate.TrySetResult();
        };
        Run.Wait(loop.InvokeAsync(WaitForIt));
        void WaitForIt() => gate.Task.Wait();
        Assert.That(reports, Has.Count.EqualTo(1));
        Assert.That(reports[0].IsTaskWait, Is.True);
        Assert.That(reports[0].Method, Does.Contain("WaitForIt").And.Contain(nameof(BlockingTests)));
        Assert.That(reports[0].StackTrace, Does.Contain("WaitForIt"));
        Assert.That(loop.Statistics.SynchronousWaits, Is.EqualTo(1));
    });

    [TestCase("Wait")]
    [TestCase("Result")]
    [TestCase("GetResult")]
    [TestCase("WaitAll")]
    [TestCase("WaitAny")]
    public void TaskWait_WhereItIsToThrow_Throws(string how) => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        var never = new TaskCompletionSource<int>(TaskCreationOptions.RunContinuationsAsynchronously);
        Task[] two = [never.Task, never.Task];
        Assert.That(() =>
        {
            switch (how)
            {
                case "Wait":
                    never.Task.Wait();
                    break;
                case "Result":
                    _ = never.Task.Result;
                    break;
                case "GetResult":
                    never.Task.GetAwaiter().GetResult();
                    break;
                case "WaitAll":
                    Task.WaitAll(two);
                    break;
                default:
                    Task.WaitAny(two);
                    break;
            }
        }, Throws.InvalidOperationException.With.Message.Contains("Await it"));
        await loop.Yield(); // alive
        never.SetResult(1);
        Assert.That(never.Task.Wait(0), Is.True, "what is done, or only looked at, is no wait");
    }, s_throwing);

    // Throwing there would break whatever holds the lock, the platform's own code included.
    [TestCase("monitor")]
    [TestCase("lock")]
    [TestCase("event")]
    public void ContendedLock_OnTheLoop_IsReportedAndNeverThrows(string how) => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start(s_throwing);
        var monitor = new object();
#if NET9_0_OR_GREATER
        var @lock = new Lock();
#else
        var @lock = new object(); // a second monitor
#endif
        using var held = new ManualResetEventSlim();
        using var release = new ManualResetEvent(false);
        SynchronousWaitEventArgs? report = null;
        loop.SynchronousWait += (_, e) =>
        {
            report = e;
            release.Set();
        };
        var holder = new Thread(() =>
        {
            if (how == "monitor")
            {
                lock (monitor) Hold();
            }
            else
            {
                lock (@lock) Hold();
            }
        });
        void Hold()
        {
            held.Set();
            release.WaitOne(Run.Limit);
        }
        holder.Start();
        held.Wait();
        var entered = Run.Wait(loop.InvokeAsync(() =>
        {
            if (how == "monitor")
            {
                lock (monitor) return true;
            }
            if (how == "lock")
            {
                lock (@lock) return true;
            }
            return release.WaitOne(Run.Limit);
        }));
        holder.Join();
        Assert.That(entered, Is.True);
        Assert.That(report, Is.Not.Null);
        Assert.That(report!.IsTaskWait, Is.False);
        Assert.That(report.Method, Does.Contain(nameof(BlockingTests)));
    });

    [Test]
    public void WaitHandler_ThatThrows_DoesNotBreakTheWait() => Run.OnThread(() =>
    {
        using var told = new ManualResetEventSlim();
        using var loop = EventLoop.Start(new EventLoopOptions
        {
            UnhandledException = e =>
            {
                if (e is InvalidDataException) told.Set();
                return true;
            },
        });
        using var release = new ManualResetEvent(false);
        loop.SynchronousWait += (_, _) =>
        {
            release.Set();
            throw new InvalidDataException("handler");
        };
        Assert.That(Run.Wait(loop.InvokeAsync(() => release.WaitOne(Run.Limit))), Is.True);
        Assert.That(told.Wait(Run.Limit), Is.True);
    });

    [Test]
    public void NoContext_NoReport() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start(s_throwing);
        loop.SynchronousWait += (_, _) => Assert.Fail("no context is current");
        Run.Wait(loop.InvokeAsync(() =>
        {
            SynchronizationContext.SetSynchronizationContext(null);
            return Task.Run(() => { }).Wait(Run.Limit);
        }));
        Assert.That(loop.Statistics.SynchronousWaits, Is.Zero);
    });
}
