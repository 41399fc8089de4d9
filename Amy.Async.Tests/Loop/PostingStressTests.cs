using System.Diagnostics;
using Amy.Async.Native;

namespace Amy.Async.Tests.Loop;

/// <summary>
/// Posts at every moment of a loop's life, from several threads: what is accepted runs once, on the loop in the order of each
/// poster, or, once the loop runs nothing any more, on the thread pool; and a loop that sleeps is woken.
/// </summary>
[TestFixture]
internal sealed class PostingStressTests
{
    private const int Posters = 3;

    /// <summary>A loop's life, and all that was posted to it.</summary>
    private sealed class Life(EventLoop loop)
    {
        internal readonly EventLoop Loop = loop;
        internal readonly int[] Next = new int[Posters + 1]; // of each poster and of the loop itself: the item that is to run next; loop only
        internal int Accepted, Ran, RanOnPool;
        internal int Children; // loop only
        internal volatile bool IsOver; // Dispose has returned
        internal volatile string? Failure;
        private volatile bool _isInside;
        private volatile bool _poolBegan;

        internal void Run(Item item)
        {
            if (Interlocked.Increment(ref item.Ran) != 1) Failure = "an item runs twice";
            if (Loop.IsCurrent) RunOnLoop(item);
            else
            {
                _poolBegan = true;
                if (_isInside) Failure = "an item runs on the thread pool while the loop runs another";
                if (!Thread.CurrentThread.IsThreadPoolThread) Failure = "an item runs on some other thread";
                Interlocked.Increment(ref RanOnPool);
            }
            Interlocked.Increment(ref Ran);
        }

        private void RunOnLoop(Item item)
        {
            if (_isInside) Failure = "two items of the loop's run at once";
            _isInside = true;
            if (_poolBegan) Failure = "the loop runs an item after the thread pool has begun to";
            if (IsOver) Failure = "the loop runs an item after its end";
            if (item.Number != Next[item.Poster]++) Failure = $"item {item.Number} of {item.Poster} runs out of order";
            if (item.Poster < Posters && item.Number % 4 == 0) Post(Posters, Children++); // by the loop itself
            _isInside = false;
        }

        /// <summary>False: refused.</summary>
        internal bool Post(int poster, int number)
        {
            var item = new Item(this, poster, number);
            Interlocked.Increment(ref Accepted); // before it can run
            try
            {
                if (poster == 0) Loop.Post(item.Run);
                else if (poster == 1) Loop.SynchronizationContext.Post(static i => ((Item)i!).Run(), item);
                else Loop.Post(static i => i.Run(), item);
                return true;
            }
            catch (ObjectDisposedException)
            {
                Interlocked.Decrement(ref Accepted);
                return false;
            }
        }
    }

    private sealed class Item(Life life, int poster, int number)
    {
        internal readonly int Poster = poster, Number = number;
        internal int Ran;

        internal void Run() => life.Run(this);
    }

    [TestCase(10_000, 12)]
    [TestCase(200, 3000)]
    public void Posts_AtEveryMomentOfALoopsLife_RunOnceAndInOrder(int rounds, int most)
    {
        Life? life = null;
        var ended = false;
        using var start = new Barrier(Posters + 1);
        using var end = new Barrier(Posters + 1);
        var threads = Enumerable.Range(0, Posters).Select(poster => new Thread(() =>
        {
            while (start.SignalAndWait(Run.Limit) && !ended)
            {
                var number = 0;
                while (number < most && life!.Post(poster, number)) number++;
                while (poster == 1 && !life!.IsOver) Thread.Yield();
                if (poster == 1) life!.Post(poster, number); // a captured context's last: on the thread pool
                end.SignalAndWait(Run.Limit);
            }
        })
        { IsBackground = true }).ToArray();
        foreach (var thread in threads) thread.Start();
        var (onPool, refused) = (0, 0);
        var round = 0;
        for (var watch = Stopwatch.StartNew(); round < rounds && watch.Elapsed < TimeSpan.FromSeconds(20); round++) // a machine may be busy
        {
            var loop = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.FromTicks(round % 2) });
            life = new Life(loop);
            Assert.That(start.SignalAndWait(Run.Limit), Is.True);
            Thread.SpinWait(round % 64 * most / 8);
            if (round % 3 == 0) life.Loop.Post(loop.Dispose);
            else if (round % 3 == 1) _ = loop.StopAsync();
            loop.Dispose();
            life.IsOver = true;
            Assert.That(end.SignalAndWait(Run.Limit), Is.True);
            Run.Until(() => Volatile.Read(ref life.Ran) >= life.Accepted, $"round {round}: {life.Ran} of {life.Accepted} ran");
            if (life.Failure is { } failure) Assert.Fail($"round {round}: {failure}");
            onPool += life.RanOnPool;
            if (life.Accepted < Posters * most) refused++;
        }
        ended = true;
        start.SignalAndWait(Run.Limit);
        TestContext.Out.WriteLine($"{round} rounds; {onPool} on the thread pool; in {refused} some were refused");
        Assert.That((onPool >= round, refused > 0), Is.EqualTo((true, true)), "the stop came in between");
    }

    private sealed class OnOneProcessor : SystemCalls
    {
        internal override int CurrentProcessor() => 0;
    }

    private static EventLoopOptions Of(string kind) => kind switch
    {
        "sleeps" => new() { SpinDuration = TimeSpan.Zero },
        "spins" => new() { SpinDuration = TimeSpan.FromMilliseconds(0.05) },
        "gives way" => new() { SpinDuration = TimeSpan.Zero, SystemCalls = new OnOneProcessor() },
        "never sleeps" => new() { SpinDuration = Timeout.InfiniteTimeSpan },
        "virtual" => new() { TimeProvider = new VirtualTimeProvider { AutoJump = true } },
        _ => throw new ArgumentOutOfRangeException(nameof(kind)),
    };

    // Each waits for its item before it posts the next, so every one of them may find the loop on its way to sleep.
    [TestCase("sleeps", 20_000)]
    [TestCase("gives way", 20_000)]
    [TestCase("spins", 20_000)]
    [TestCase("never sleeps", 20_000)]
    [TestCase("virtual", 5_000)]
    public void Post_ToALoopOnItsWayToSleep_IsNotMissed_AndCostsFewTurns(string kind, int items) => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start(Of(kind));
        var posted = 0;
        var threads = Enumerable.Range(0, 2).Select(poster => new Thread(() =>
        {
            var ran = 0;
            Action run = () => Volatile.Write(ref ran, ran + 1);
            var watch = Stopwatch.StartNew(); // on one core, a loop that never sleeps keeps it for a slice for each item
            for (var i = 1; i <= items && watch.Elapsed < TimeSpan.FromSeconds(5); i++)
            {
                loop.Post(run);
                Interlocked.Increment(ref posted);
                var wait = default(SpinWait);
                while (Volatile.Read(ref ran) < i) wait.SpinOnce(sleep1Threshold: -1);
                if (i % 3 == poster) Thread.SpinWait(i % 512);
            }
        })
        { IsBackground = true }).ToArray();
        foreach (var thread in threads) thread.Start();
        foreach (var thread in threads) Assert.That(thread.Join(Run.Limit), Is.True, "an item was missed");
        var statistics = loop.Statistics;
        Assert.That(statistics.PostsRun, Is.EqualTo(posted));
        if (kind is "sleeps" or "gives way") Assert.That(statistics.Turns, Is.LessThan(4 * statistics.PostsRun + 16), "turns without work");
        TestContext.Out.WriteLine($"{statistics.Turns} turns, {statistics.WakesWritten} wake-ups");
    });

    [Test]
    public void WhatWasQueuedBehindAFailure_StillRunsOnTheLoop() => Run.OnThread(() =>
    {
        const int items = 300; // more than one turn runs
        var onLoop = 0;
        Assert.That(() => EventLoop.Run(() =>
        {
            var loop = EventLoop.Current!;
            loop.Post(static () => throw new FormatException());
            for (var i = 0; i < items; i++)
            {
                loop.Post(() =>
                {
                    if (loop.IsCurrent) onLoop++;
                });
            }
            return new TaskCompletionSource().Task;
        }), Throws.TypeOf<FormatException>());
        Assert.That(onLoop, Is.EqualTo(items));
    });

    // Under Run the loop's own context is the caller's, and goes along where the loop itself does not run the item any more.
    [Test]
    public void LeftOverWork_RunsInTheContextInWhichItWasPosted() => Run.OnThread(() =>
    {
        var local = new AsyncLocal<int> { Value = 7 };
        var (first, second) = (0, 0);
        using var done = new CountdownEvent(2);
        Assert.That(() => EventLoop.Run(() =>
        {
            var loop = EventLoop.Current!;
            for (var i = 0; i < 2; i++) loop.Post(static () => throw new FormatException()); // one ends the loop, one what follows
            loop.Post(() =>
            {
                first = loop.IsCurrent ? -1 : local.Value;
                done.Signal();
            });
            local.Value = 8;
            loop.Post(() =>
            {
                second = loop.IsCurrent ? -1 : local.Value;
                done.Signal();
            });
            return new TaskCompletionSource().Task;
        }), Throws.TypeOf<FormatException>());
        Assert.That(done.Wait(Run.Limit), Is.True);
        Assert.That((first, second), Is.EqualTo((7, 8)));
    });

    private sealed class BrokenTime : TimeProvider
    {
        public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period) => new BrokenTimer();

        private sealed class BrokenTimer : ITimer
        {
            public bool Change(TimeSpan dueTime, TimeSpan period) => true;

            public void Dispose() => throw new FormatException();

            public ValueTask DisposeAsync() => throw new FormatException();
        }
    }

    [Test]
    public void TimeProvider_ThatFailsAtTheEnd_DoesNotKeepTheLoopFromEnding() => Run.OnThread(() =>
    {
        var before = Descriptors.Settle();
        Exception? told = null;
        EventLoop? loop = null;
        EventLoop.Run(() =>
        {
            loop = EventLoop.Current;
            return Task.CompletedTask;
        }, new EventLoopOptions { TimeProvider = new BrokenTime(), UnhandledException = e => (told = e) is not null });
        Assert.That(told, Is.TypeOf<FormatException>());
        Run.Wait(loop!.StopAsync());
        Assert.That(Descriptors.Settle(), Is.LessThanOrEqualTo(before), Descriptors.List());
    });
}
