using System.Threading.Tasks.Dataflow;

namespace Amy.Async.Tests.Loop;

/// <summary><see cref="EventLoop.TaskScheduler"/> under what the platform schedules with one: on the loop's thread, one at a time.</summary>
[TestFixture]
internal sealed class TaskSchedulerTests
{
    /// <summary>Sees that nothing of what calls it runs elsewhere or at the same time.</summary>
    private sealed class Witness(EventLoop loop)
    {
        private int _inside;
        private int _wrong;

        internal int Calls;

        internal void Enter()
        {
            if (!loop.IsCurrent || Interlocked.Increment(ref _inside) != 1) Interlocked.Increment(ref _wrong);
            Calls++;
        }

        internal void Leave() => Interlocked.Decrement(ref _inside);

        internal void See()
        {
            Enter();
            Thread.SpinWait(50);
            Leave();
        }

        internal void Check(int calls) => Assert.That((_wrong, Calls), Is.EqualTo((0, calls)));
    }

    private static TaskFactory Factory(EventLoop loop) => new(CancellationToken.None, TaskCreationOptions.None, TaskContinuationOptions.None, loop.TaskScheduler);

    [Test]
    public void StartNew_FromManyThreads_RunsOnTheLoop_OneAtATime()
    {
        using var loop = EventLoop.Start();
        var (witness, factory) = (new Witness(loop), Factory(loop));
        var tasks = Enumerable.Range(0, 8).Select(_ => Task.Run(() => Task.WhenAll(Enumerable.Range(0, 500).Select(_ => factory.StartNew(witness.See)))));
        Run.Wait(Task.WhenAll(tasks));
        witness.Check(4000);
    }

    [Test]
    public void StartNew_SeesTheSchedulerAndTheContext_AndItsAwaitsComeBack()
    {
        using var loop = EventLoop.Start();
        Run.Wait(Factory(loop).StartNew(async () =>
        {
            Assert.That(TaskScheduler.Current, Is.SameAs(loop.TaskScheduler));
            Assert.That(SynchronizationContext.Current, Is.SameAs(loop.SynchronizationContext));
            await Task.Run(() => Assert.That(loop.IsCurrent, Is.False));
            Assert.That(loop.IsCurrent, Is.True);
            await Task.Delay(1);
            Assert.That((loop.IsCurrent, SynchronizationContext.Current), Is.EqualTo((true, loop.SynchronizationContext)));
        }).Unwrap());
    }

    [Test]
    public void ContinueWith_AndChildren_RunOnTheLoop()
    {
        using var loop = EventLoop.Start();
        var (witness, factory) = (new Witness(loop), Factory(loop));
        var last = Task.Run(() => { }).ContinueWith(_ => witness.See(), loop.TaskScheduler).ContinueWith(_ => witness.See(), loop.TaskScheduler);
        Run.Wait(last);
        Run.Wait(factory.StartNew(() =>
        {
            witness.See();
            for (var i = 0; i < 10; i++) _ = Task.Factory.StartNew(witness.See, CancellationToken.None, TaskCreationOptions.AttachedToParent, TaskScheduler.Current);
        }));
        witness.Check(13);
    }

    [Test]
    public void Failures_EndInTheTask_AndTheLoopGoesOn()
    {
        using var loop = EventLoop.Start();
        var factory = Factory(loop);
        Assert.Throws<FormatException>(() => Run.Wait(factory.StartNew(() => throw new FormatException())));
        Assert.Throws<FormatException>(() => Run.Wait(factory.StartNew(async () => { await loop.Yield(); throw new FormatException(); }).Unwrap()));
        Assert.That(Run.Wait(factory.StartNew(() => loop.IsCurrent)), Is.True);
    }

    [Test]
    public void WaitedForOnTheLoop_RunsInline_Once()
    {
        using var loop = EventLoop.Start();
        var factory = Factory(loop);
        var runs = 0;
        Run.Wait(loop.InvokeAsync(() =>
        {
            var task = factory.StartNew(() => runs++);
            task.Wait(); // with a time-out it would not be run inline, and the loop would wait for itself
            var cold = new Task(() => runs++);
            cold.RunSynchronously(loop.TaskScheduler);
            Assert.That(cold.IsCompletedSuccessfully, Is.True);
        }));
        Run.Wait(loop.InvokeAsync(() => { }));
        Assert.That(runs, Is.EqualTo(2));
    }

    [Test]
    public void RunSynchronously_FromAnotherThread_RunsOnTheLoop() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start();
        var there = false;
        var cold = new Task(() => there = loop.IsCurrent);
        cold.RunSynchronously(loop.TaskScheduler);
        Assert.That((cold.IsCompletedSuccessfully, there), Is.EqualTo((true, true)));
    });

    [Test]
    public void ParallelForEachAsync_BodiesTakeTurnsAtTheirAwaits()
    {
        using var loop = EventLoop.Start();
        var witness = new Witness(loop);
        var (inTheMiddle, most) = (0, 0);
        var all = Parallel.ForEachAsync(Enumerable.Range(0, 500), new ParallelOptions { TaskScheduler = loop.TaskScheduler, MaxDegreeOfParallelism = 4 }, async (i, token) =>
        {
            witness.See();
            most = Math.Max(most, ++inTheMiddle);
            await loop.Yield();
            witness.See();
            await Task.Delay(i % 50 == 0 ? 1 : 0, token);
            inTheMiddle--;
            witness.See();
        });
        Run.Wait(all);
        witness.Check(1500);
        Assert.That(most, Is.InRange(1, 4));
    }

    [Test]
    public void ParallelForEachAsync_OfAnAsyncSequence_AndItsFailures()
    {
        using var loop = EventLoop.Start();
        var witness = new Witness(loop);
        var options = new ParallelOptions { TaskScheduler = loop.TaskScheduler, MaxDegreeOfParallelism = 3 };
        Run.Wait(Parallel.ForEachAsync(Numbers(), options, (_, _) =>
        {
            witness.See();
            return default;
        }));
        witness.Check(200);
        Assert.Throws<FormatException>(() => Run.Wait(Parallel.ForEachAsync(Numbers(), options, (i, _) => i == 50 ? throw new FormatException() : default)));

        static async IAsyncEnumerable<int> Numbers()
        {
            for (var i = 0; i < 200; i++)
            {
                await Task.Yield();
                yield return i;
            }
        }
    }

    [Test]
    public void Dataflow_BlocksRunOnTheLoop_OneAtATime()
    {
        using var loop = EventLoop.Start();
        var witness = new Witness(loop);
        var options = new ExecutionDataflowBlockOptions { TaskScheduler = loop.TaskScheduler, MaxDegreeOfParallelism = 4, BoundedCapacity = 16 };
        var sum = 0L;
        var parse = new TransformBlock<string, int>(s =>
        {
            witness.See();
            return int.Parse(s, System.Globalization.CultureInfo.InvariantCulture);
        }, options);
        var twice = new TransformManyBlock<int, int>(i =>
        {
            witness.See();
            return new[] { i, i };
        }, options);
        var slow = new TransformBlock<int, int>(async i =>
        {
            witness.See();
            await loop.Yield();
            witness.See();
            return i;
        }, options);
        var add = new ActionBlock<int>(i =>
        {
            witness.See();
            sum += i;
        }, options);
        var link = new DataflowLinkOptions { PropagateCompletion = true };
        parse.LinkTo(twice, link);
        twice.LinkTo(slow, link);
        slow.LinkTo(add, link);
        Run.Wait(Task.Run(async () =>
        {
            for (var i = 0; i < 1000; i++) await parse.SendAsync(i.ToString(System.Globalization.CultureInfo.InvariantCulture));
            parse.Complete();
            await add.Completion;
        }));
        Assert.That(sum, Is.EqualTo(999_000));
        witness.Check(1000 + 1000 + 4000 + 2000);
    }

    [Test]
    public void Dataflow_AFailingBlock_FaultsAndTheLoopGoesOn()
    {
        using var loop = EventLoop.Start();
        var block = new ActionBlock<int>(_ => throw new FormatException(), new ExecutionDataflowBlockOptions { TaskScheduler = loop.TaskScheduler });
        block.Post(1);
        Assert.Throws<FormatException>(() => Run.Wait(block.Completion));
        Assert.That(Run.Wait(loop.InvokeAsync(() => loop.IsCurrent)), Is.True);
    }

    [Test]
    public void AfterTheStop_StartNewIsRefused()
    {
        var loop = EventLoop.Start();
        loop.Dispose();
        var e = Assert.Throws<TaskSchedulerException>(() => Factory(loop).StartNew(() => { }));
        Assert.That(e!.InnerException, Is.TypeOf<ObjectDisposedException>());
    }
}
