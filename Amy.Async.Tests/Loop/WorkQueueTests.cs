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
