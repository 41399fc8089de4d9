namespace Amy.Async.Tests.Loop;

[TestFixture]
internal sealed class WorkQueueTests
{
    private static WorkItem Item(object target) => new(static (_, _) => { }, target, null, null);

    private static List<object> TakeAll(WorkQueue queue)
    {
        var taken = new List<object>();
        while (queue.TryTake(out var item)) taken.Add(item.Target);
        return taken;
    }

    [Test]
    public void Fresh_IsEmptyOpenAndUnmarked()
    {
        var queue = new WorkQueue();
        Assert.That((queue.IsEmpty, queue.HasWork, queue.IsClosed, queue.Count(10)), Is.EqualTo((true, false, false, 0)));
        Assert.That(queue.TryTake(out _), Is.False);
        Assert.That(queue.HasWork, Is.False, "counting none marks nothing");
    }

    [Test]
    public void TryAdd_MarksAndKeepsTheOrderAndWhatAnItemIs()
    {
        var queue = new WorkQueue();
        var state = new object();
        Action<object, object?> run = static (_, _) => { };
        var context = ExecutionContext.Capture();
        Assert.That(queue.TryAdd(new WorkItem(run, "first", state, context)), Is.True);
        Assert.That((queue.HasWork, queue.IsEmpty), Is.EqualTo((true, false)));
        Assert.That(queue.TryAdd(Item("second")), Is.True);
        Assert.That(queue.TryTake(out var item), Is.True);
        Assert.That((item.Run, item.Target, item.State, item.Context), Is.EqualTo((run, (object)"first", state, context)));
        Assert.That(TakeAll(queue), Is.EqualTo(new object[] { "second" }));
        Assert.That(queue.IsEmpty, Is.True);
    }

    [TestCase(2, 3, 2, false)]
    [TestCase(3, 3, 3, false)]
    [TestCase(4, 3, 3, true)]
    public void Count_TakesTheMarkAway_UnlessThereIsMore(int items, int atMost, int counted, bool remainsMarked)
    {
        var queue = new WorkQueue();
        for (var i = 0; i < items; i++) queue.TryAdd(Item(i));
        Assert.That(queue.Count(atMost), Is.EqualTo(counted));
        Assert.That(queue.HasWork, Is.EqualTo(remainsMarked));
        Assert.That(TakeAll(queue), Has.Count.EqualTo(items));
    }

    [Test]
    public void TryAdd_AfterACount_MarksAgain()
    {
        var queue = new WorkQueue();
        queue.TryAdd(Item(1));
        queue.Count(10);
        Assert.That(queue.HasWork, Is.False);
        queue.TryAdd(Item(2));
        Assert.That(queue.HasWork, Is.True);
    }

    [Test]
    public void TryAdd_LeavesNoWordThatSomebodyAdds()
    {
        var queue = new WorkQueue();
        Assert.That(queue.IsBusy, Is.False);
        queue.TryAdd(Item(1));
        Assert.That(queue.IsBusy, Is.False, "the next adder would wait for nobody");
        queue.Close();
        Assert.That(queue.TryAdd(Item(2)), Is.False);
        Assert.That(queue.IsBusy, Is.False, "nor does one that is refused");
    }

    [Test, CancelAfter(30_000)]
    public void TryAdd_AnotherStoppedInItsMiddle_AddsAllTheSame(CancellationToken token)
    {
        var queue = new WorkQueue();
        queue.SayThatSomebodyAdds(); // and then is not heard of again
        var adding = Task.Run(() => queue.TryAdd(Item(1)), token);
        Assert.That(adding.Wait(20_000, token), Is.True, "waits for whoever does not come back");
        Assert.That((adding.Result, queue.HasWork, queue.IsBusy), Is.EqualTo((true, true, false)));
        Assert.That(TakeAll(queue), Is.EqualTo(new object[] { 1 }));
    }

    [Test, CancelAfter(60_000)]
    public void TryAdd_WhileItAdds_OthersCanReadSo(CancellationToken token)
    {
        var queue = new WorkQueue();
        using var seen = new CancellationTokenSource();
        var adding = Task.Run(
            () =>
            {
                while (!seen.IsCancellationRequested)
                {
                    queue.TryAdd(Item(1));
                    queue.TryTake(out _);
                }
            },
            token);
        try
        {
            Assert.That(SpinWait.SpinUntil(() => queue.IsBusy, 30_000), Is.True, "in millions of adds nobody has said so");
        }
        finally
        {
            seen.Cancel();
            adding.Wait(token);
        }
    }

    [Test]
    public void Mark_SaysThatSomethingIsThere()
    {
        var queue = new WorkQueue();
        queue.Mark();
        Assert.That(queue.HasWork, Is.True);
    }

    [Test]
    public void Close_RefusesWhatComesAndLeavesWhatIsThere()
    {
        var queue = new WorkQueue();
        queue.TryAdd(Item("before"));
        queue.Close();
        Assert.That(queue.IsClosed, Is.True);
        Assert.That(queue.TryAdd(Item("after")), Is.False);
        Assert.That(TakeAll(queue), Is.EqualTo(new object[] { "before" }));
    }
}
