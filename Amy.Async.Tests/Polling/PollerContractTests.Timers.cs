using System.Diagnostics;
using Amy.Async.Native;

namespace Amy.Async.Tests.Polling;

// Timers: amy's section of the behaviours, and what amy gets wrong (zero never fires, overruns are dropped).
internal abstract partial class PollerContractTests
{
    private const long Millisecond = MonotonicClock.NanosecondsPerMillisecond;

    private Poller Create(MonotonicClock clock) => Create(SystemCalls.Instance, clock);

    private static Notification Due(long id, int count = 1) => new(id, Readiness.Readable, count);

    private static TimeSpan Ms(double milliseconds) => TimeSpan.FromTicks((long)(milliseconds * TimeSpan.TicksPerMillisecond));

    /// <summary>amy: never early.</summary>
    [Test]
    public void SetTimeout_FiresOnceAndNotBeforeItIsDue()
    {
        var clock = new ManualClock();
        using var poller = Create(clock);
        var id = poller.Registrar.SetTimeout(TimeSpan.FromTicks(1));
        clock.Time += 99;
        Assert.That(Wait(poller, s_now), Is.Empty);
        clock.Time += 1;
        Assert.That(Wait(poller, s_now), Is.EqualTo(new[] { Due(id) }));
        clock.Time += 1000 * Millisecond;
        Assert.That(Wait(poller, s_now), Is.Empty);
        Assert.That(poller.Registrar.CancelTimeout(id), Is.False);
    }

    [TestCase(0.0001)]
    [TestCase(0.25)]
    [TestCase(3)]
    public void SetTimeout_RealClock_IsNeverEarlyAndEndsTheWait(double milliseconds)
    {
        using var poller = Create();
        for (var i = 0; i < 20; i++)
        {
            var clock = Stopwatch.StartNew();
            var id = poller.Registrar.SetTimeout(Ms(milliseconds));
            Assert.That(Wait(poller, s_soon), Is.EqualTo(new[] { Due(id) }));
            Assert.That(clock.Elapsed, Is.GreaterThanOrEqualTo(Ms(milliseconds)));
        }
    }

    /// <summary>amy: four intervals, each at or after i * T; no skew.</summary>
    [Test]
    public void SetInterval_RealClock_EachExpirationIsAtOrAfterItsTime()
    {
        using var poller = Create();
        var clock = Stopwatch.StartNew();
        var id = poller.Registrar.SetInterval(Ms(5));
        var expirations = 0;
        while (expirations < 4)
        {
            var note = Wait(poller, s_soon).Single();
            Assert.That(note.Id, Is.EqualTo(id));
            expirations += note.Count;
            Assert.That(clock.Elapsed, Is.GreaterThanOrEqualTo(Ms(5 * expirations)));
        }
    }

    [Test]
    public void SetInterval_LookedAtLate_CountsOverrunsAndKeepsItsPhase()
    {
        var clock = new ManualClock();
        using var poller = Create(clock);
        var id = poller.Registrar.SetInterval(Ms(10));
        clock.Time += 10 * Millisecond;
        Assert.That(Wait(poller, s_now), Is.EqualTo(new[] { Due(id) }));
        clock.Time += 37 * Millisecond; // 47 ms: 20, 30 and 40 have passed
        Assert.That(Wait(poller, s_now), Is.EqualTo(new[] { Due(id, 3) }));
        clock.Time += 2 * Millisecond;
        Assert.That(Wait(poller, s_now), Is.Empty);
        clock.Time += 1 * Millisecond; // 50: in phase
        Assert.That(Wait(poller, s_now), Is.EqualTo(new[] { Due(id) }));
    }

    /// <summary>amy: zero must fire.</summary>
    [Test]
    public void SetTimeout_Zero_IsToldByTheNextWait()
    {
        using var poller = Create();
        var id = poller.Registrar.SetTimeout(TimeSpan.Zero);
        Assert.That(Wait(poller, s_now), Is.EqualTo(new[] { Due(id) }));
    }

    /// <summary>amy: cancel silences.</summary>
    [Test]
    public void CancelTimeout_Pending_SilencesItAndSaysSo()
    {
        var clock = new ManualClock();
        using var poller = Create(clock);
        var timeout = poller.Registrar.SetTimeout(Ms(1));
        var interval = poller.Registrar.SetInterval(Ms(1));
        clock.Time += Millisecond;
        Assert.That(Wait(poller, s_now).Select(n => n.Id), Is.EquivalentTo(new[] { timeout, interval }));
        Assert.That(poller.Registrar.CancelTimeout(timeout), Is.False, "fired");
        Assert.That(poller.Registrar.CancelTimeout(interval), Is.True, "an interval lives until it is cancelled");
        Assert.That(poller.Registrar.CancelTimeout(interval), Is.False, "cancelled");
        clock.Time += 1000 * Millisecond;
        Assert.That(Wait(poller, s_now), Is.Empty);
        Assert.That(poller.Registrar.CancelTimeout(12345), Is.False, "unknown");
    }

    [Test]
    public void SetTimeout_OutOfRange_Throws()
    {
        using var poller = Create();
        Assert.Throws<ArgumentOutOfRangeException>(() => poller.Registrar.SetTimeout(TimeSpan.FromTicks(-1)));
        Assert.Throws<ArgumentOutOfRangeException>(() => poller.Registrar.SetTimeout(Timeout.InfiniteTimeSpan));
        Assert.Throws<ArgumentOutOfRangeException>(() => poller.Registrar.SetInterval(TimeSpan.Zero));
        Assert.Throws<ArgumentOutOfRangeException>(() => poller.Registrar.SetInterval(TimeSpan.FromTicks(-1)));
        poller.Dispose();
        Assert.Throws<ObjectDisposedException>(() => poller.Registrar.SetTimeout(s_soon));
        Assert.Throws<ObjectDisposedException>(() => poller.Registrar.SetInterval(s_soon));
    }

    [Test]
    public void SetTimeout_Centuries_NeitherOverflowsNorFires()
    {
        using var poller = Create();
        var longest = poller.Registrar.SetTimeout(TimeSpan.MaxValue);
        var interval = poller.Registrar.SetInterval(TimeSpan.MaxValue);
        var soon = poller.Registrar.SetTimeout(Ms(1));
        Assert.That(Wait(poller, s_soon), Is.EqualTo(new[] { Due(soon) }));
        Assert.That(Wait(poller, Ms(1)), Is.Empty);
        Assert.That(poller.Registrar.CancelTimeout(longest), Is.True);
        Assert.That(poller.Registrar.CancelTimeout(interval), Is.True);
    }

    /// <summary>Descriptors, timers and channels never share an id, and none is given twice.</summary>
    [Test]
    public void Ids_OfAllKinds_AreDistinctForEver()
    {
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        using (a)
        using (b)
        {
            var seen = new HashSet<long>();
            for (var i = 0; i < 1000; i++)
            {
                var timer = poller.Registrar.SetTimeout(s_soon);
                var interval = poller.Registrar.SetInterval(s_soon);
                var socket = poller.Registrar.Register(a, Interest.Readable);
                using var channel = poller.Registrar.CreateUnboundedChannel<int>();
                foreach (var id in new[] { timer, interval, socket, channel.Id })
                {
                    Assert.That(id, Is.Positive);
                    Assert.That(seen.Add(id), Is.True);
                }
                poller.Registrar.CancelTimeout(timer);
                poller.Registrar.CancelTimeout(interval);
                poller.Registrar.Deregister(socket);
                Assert.Throws<InvalidOperationException>(() => poller.Registrar.Deregister(timer));
            }
        }
    }

    [Test]
    public void Wait_TimersAndDescriptorsReadyAtOnce_TellsOfAll()
    {
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        using (a)
        using (b)
        {
            var socket = poller.Registrar.Register(b, Interest.Readable);
            a.Send([1]);
            var timer = poller.Registrar.SetTimeout(TimeSpan.Zero);
            using var channel = poller.Registrar.CreateUnboundedChannel<int>();
            channel.Writer.TryWrite(1);
            Assert.That(Wait(poller, s_soon).Select(n => n.Id), Is.EquivalentTo(new[] { socket, timer, channel.Id }));
        }
    }

    /// <summary>More are due than one wait tells of: the rest comes at once with the next.</summary>
    [Test]
    public void Wait_ThousandsOfTimersDue_TellsOfEachOnce()
    {
        var clock = new ManualClock();
        using var poller = Create(clock);
        var ids = Enumerable.Range(0, 5000).Select(i => poller.Registrar.SetTimeout(Ms(i % 7))).ToHashSet();
        clock.Time += 7 * Millisecond;
        while (ids.Count > 0)
        {
            var notes = Wait(poller, s_soon);
            Assert.That(notes, Is.Not.Empty);
            foreach (var note in notes) Assert.That(ids.Remove(note.Id), Is.True);
        }
        Assert.That(Wait(poller, s_now), Is.Empty);
    }

    [Test]
    public void SetTimeout_FromAnotherThreadWhileAsleep_WakesOnceIfItIsTheEarliestAndElseNever()
    {
        using var poller = Create();
        var far = poller.Registrar.SetTimeout(TimeSpan.FromHours(1));
        var told = new List<long>();
        var waiter = Run.Waiter(() =>
        {
            while (told.Count < 3)
                foreach (var note in poller.Wait(Timeout.InfiniteTimeSpan))
                    lock (told) told.Add(note.Id);
        });
        Run.Until(() => poller.IsSleeping, "the poller sleeps");
        Assert.That(poller.WakesWritten, Is.Zero);
        var late = poller.Registrar.SetTimeout(TimeSpan.FromHours(2));
        Assert.That(poller.WakesWritten, Is.Zero, "later than another");
        poller.Registrar.CancelTimeout(far);
        Assert.That(poller.WakesWritten, Is.Zero, "cancelling");
        var middle = poller.Registrar.SetTimeout(TimeSpan.FromMinutes(30));
        Assert.That(poller.WakesWritten, Is.EqualTo(1), "the earliest");
        Run.Until(() => poller.IsSleeping, "the poller sleeps again");
        poller.Registrar.SetTimeout(TimeSpan.FromMinutes(40));
        Assert.That(poller.WakesWritten, Is.EqualTo(1));
        var first = poller.Registrar.SetTimeout(Ms(1));
        Assert.That(poller.WakesWritten, Is.EqualTo(2));
        Run.Until(() => { lock (told) return told.Count == 1; }, "the first fires");
        Run.Until(() => poller.IsSleeping, "the poller sleeps again");
        var second = poller.Registrar.SetTimeout(TimeSpan.Zero);
        Run.Until(() => { lock (told) return told.Count == 2; }, "zero fires");
        Run.Until(() => poller.IsSleeping, "the poller sleeps again");
        var third = poller.Registrar.SetTimeout(Ms(2));
        Assert.That(waiter.Join(Run.Limit), Is.True);
        Assert.That(told, Is.EqualTo(new[] { first, second, third }));
        Assert.That(poller.WakesWritten, Is.EqualTo(4));
        Assert.That(poller.Registrar.CancelTimeout(late) && poller.Registrar.CancelTimeout(middle), Is.True);
    }

    /// <summary>The waiting thread sets its own timers: nobody sleeps, so nobody is woken.</summary>
    [Test]
    public void SetTimeout_ByTheWaitingThread_WritesNothing()
    {
        using var poller = Create();
        for (var i = 0; i < 100; i++)
        {
            var id = poller.Registrar.SetTimeout(TimeSpan.FromTicks(100));
            Assert.That(Wait(poller, s_soon), Is.EqualTo(new[] { Due(id) }));
        }
        Assert.That(poller.WakesWritten, Is.Zero);
    }

    [Test]
    public void SetAndCancel_FromFourThreadsWhileWaiting_TellsOfEveryTimerExactlyOnce()
    {
        using var poller = Create();
        const int PerThread = 5000;
        var cancelled = new System.Collections.Concurrent.ConcurrentBag<long>();
        var kept = new System.Collections.Concurrent.ConcurrentBag<long>();
        var threads = Enumerable.Range(0, 4).Select(seed => new Thread(() =>
        {
            var random = new Random(seed);
            for (var i = 0; i < PerThread; i++)
            {
                var id = poller.Registrar.SetTimeout(TimeSpan.FromTicks(random.Next(20_000)));
                if (random.Next(2) == 0 && poller.Registrar.CancelTimeout(id)) cancelled.Add(id);
                else kept.Add(id);
            }
        })).ToArray();
        foreach (var t in threads) t.Start();
        var done = false;
        var finisher = Run.Waiter(() =>
        {
            foreach (var t in threads) t.Join();
            Volatile.Write(ref done, true);
            poller.Registrar.Wake();
        });
        var told = new List<long>();
        while (!Volatile.Read(ref done) || poller.Timers.Count > 0)
        {
            var notes = Wait(poller, Run.Limit);
            Assert.That(notes.Length > 0 || Volatile.Read(ref done), Is.True, "slept through a timer");
            foreach (var note in notes) told.Add(note.Id);
        }
        finisher.Join();
        Assert.That(told, Is.Unique);
        Assert.That(told, Is.EquivalentTo(kept));
        Assert.That(told.Count + cancelled.Count, Is.EqualTo(4 * PerThread));
    }

    [Test]
    public void SetAndCancelAndFire_AfterWarmUp_AllocateNothing()
    {
        using var poller = Create();
        void Round()
        {
            poller.Registrar.CancelTimeout(poller.Registrar.SetTimeout(s_soon));
            poller.Registrar.SetTimeout(TimeSpan.Zero);
            var interval = poller.Registrar.SetInterval(TimeSpan.FromTicks(1));
            if (poller.Wait(s_soon).Length == 0) throw new InvalidOperationException("a timer is due");
            poller.Registrar.CancelTimeout(interval);
        }
        for (var i = 0; i < 1000; i++) Round();
        var before = GC.GetAllocatedBytesForCurrentThread();
        for (var i = 0; i < 1000; i++) Round();
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.Zero);
    }

    /// <summary>Time that only moves when told to.</summary>
    protected sealed class ManualClock : MonotonicClock
    {
        internal long Time = 1;

        internal override long Now() => Volatile.Read(ref Time);
    }
}
