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
}
