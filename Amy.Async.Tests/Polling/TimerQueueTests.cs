namespace Amy.Async.Tests.Polling;

[TestFixture]
internal sealed class TimerQueueTests
{
    private sealed class Entry(long deadline) : ITimerEntry
    {
        internal readonly long Deadline = deadline;

        public int QueueIndex { get; set; } = -1;
    }

    [Test]
    public void RandomInsertsRemovesAndExpiries_AgreeWithASortedList([Values(1, 2, 3, 4, 5)] int seed)
    {
        var random = new Random(seed);
        var queue = new TimerQueue<Entry>();
        var model = new List<Entry>();
        for (var i = 0; i < 20_000; i++)
        {
            switch (random.Next(4))
            {
                case 0 or 1:
                    var entry = new Entry(random.Next(1000));
                    model.Add(entry);
                    queue.Add(entry, entry.Deadline);
                    break;
                case 2 when model.Count > 0:
                    var victim = model[random.Next(model.Count)];
                    model.Remove(victim);
                    Assert.That(queue.Remove(victim), Is.True);
                    Assert.That(queue.Remove(victim), Is.False);
                    break;
                default:
                    var now = random.Next(1000);
                    if (queue.TryTakeDue(now, out var due))
                    {
                        Assert.That(((Entry)due!).Deadline, Is.LessThanOrEqualTo(now));
                        Assert.That(((Entry)due).Deadline, Is.EqualTo(model.Min(e => e.Deadline)));
                        Assert.That(due.QueueIndex, Is.Negative);
                        model.Remove(due);
                    }
                    else Assert.That(model.All(e => e.Deadline > now), Is.True);
                    break;
            }
            Assert.That(queue.Count, Is.EqualTo(model.Count));
            Assert.That(queue.NextDeadline, Is.EqualTo(model.Count == 0 ? long.MaxValue : model.Min(e => e.Deadline)));
        }
    }

    [Test]
    public void Empty_HasNoDeadlineAndNothingDue()
    {
        var queue = new TimerQueue<Entry>();
        Assert.That((queue.Count, queue.NextDeadline), Is.EqualTo((0, long.MaxValue)));
        Assert.That(queue.TryTakeDue(long.MaxValue, out var due), Is.False);
        Assert.That(due, Is.Null);
        Assert.That(queue.Remove(new Entry(1)), Is.False);
    }

    [Test]
    public void TryTakeDue_ExactlyAtTheDeadline_IsDue()
    {
        var queue = new TimerQueue<Entry>();
        var entry = new Entry(10);
        queue.Add(entry, 10);
        Assert.That(queue.TryTakeDue(9, out _), Is.False);
        Assert.That(queue.TryTakeDue(10, out var due) && due == entry, Is.True);
        Assert.That(queue.Count, Is.Zero);
    }

    [TestCase(3)]
    [TestCase(200)]
    public void EqualDeadlines_FireInTheOrderInWhichTheyWereSet(int count)
    {
        var queue = new TimerQueue<Entry>();
        var entries = Enumerable.Range(0, count).Select(static _ => new Entry(7)).ToList();
        foreach (var entry in entries) queue.Add(entry, entry.Deadline);
        for (var i = count - 2; i > 0; i -= 3) // some of them are cancelled, in the middle of the heap
        {
            queue.Remove(entries[i]);
            entries.RemoveAt(i);
        }
        var fired = new List<Entry>();
        while (queue.TryTakeDue(7, out var due)) fired.Add(due!);
        Assert.That(fired, Is.EqualTo(entries));
    }

    [Test]
    public void RandomChanges_KeepTheHeapInOrder_AndEachEntrysPlaceInIt([Values(1, 2, 3)] int seed)
    {
        var random = new Random(seed);
        var queue = new TimerQueue<Entry>();
        var entries = new List<(Entry Entry, int Order)>();
        for (var i = 0; i < 3000; i++)
        {
            if (random.Next(5) < 3)
            {
                var entry = new Entry(random.Next(50));
                entries.Add((entry, i));
                queue.Add(entry, entry.Deadline);
            }
            else if (entries.Count > 0)
            {
                var victim = entries[random.Next(entries.Count)];
                entries.Remove(victim);
                queue.Remove(victim.Entry);
                Assert.That(victim.Entry.QueueIndex, Is.EqualTo(-1));
            }
            Assert.That(entries.Select(e => e.Entry.QueueIndex).Order(), Is.EqualTo(Enumerable.Range(0, entries.Count)));
        }
        var expected = entries.OrderBy(e => e.Entry.Deadline).ThenBy(e => e.Order).Select(e => e.Entry);
        var fired = new List<Entry>();
        while (queue.TryTakeDue(long.MaxValue, out var due)) fired.Add(due!);
        Assert.That(fired, Is.EqualTo(expected));
    }

    [Test]
    public void Removed_IsLetGoOf()
    {
        var queue = new TimerQueue<Entry>();
        var references = Enumerable.Range(0, 5).Select(i => AddAndRemove(queue, i)).ToList();
        for (var i = 0; i < 10 && references.Exists(r => r.IsAlive); i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
        Assert.That(references.Select(r => r.IsAlive), Is.All.False);
        GC.KeepAlive(queue);

        [System.Runtime.CompilerServices.MethodImpl(System.Runtime.CompilerServices.MethodImplOptions.NoInlining)]
        static WeakReference AddAndRemove(TimerQueue<Entry> queue, int deadline)
        {
            var entry = new Entry(deadline);
            queue.Add(entry, deadline);
            queue.Remove(entry);
            return new WeakReference(entry);
        }
    }
}
