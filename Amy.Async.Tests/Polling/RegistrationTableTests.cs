namespace Amy.Async.Tests.Polling;

[TestFixture]
internal sealed class RegistrationTableTests
{
    [Test]
    public void Ids_AreNeverReusedAndAnUsedUpSlotIsRetired()
    {
        var table = new RegistrationTable();
        table.SetGeneration(0, int.MaxValue - 2);
        var registration = new HandleRegistration();
        var ids = new List<long>();
        for (var i = 0; i < 4; i++)
        {
            table.Add(registration);
            ids.Add(registration.Id);
            Assert.That(table.Find(registration.Id), Is.SameAs(registration));
            table.Remove(registration);
            Assert.That(table.Find(ids[^1]), Is.Null);
        }
        Assert.That(ids, Is.Unique.And.All.Positive);
        Assert.That(ids.Select(id => (int)id), Is.EqualTo(new[] { 0, 0, 1, 1 }), "slot 0 is retired after its last generation");
    }

    [Test]
    public void Find_GrowingTable_KeepsAllAndForeignIdsFindNothing()
    {
        var table = new RegistrationTable();
        var all = Enumerable.Range(0, 1000).Select(_ => new HandleRegistration()).ToList();
        foreach (var r in all) table.Add(r);
        Assert.That(all.All(r => table.Find(r.Id) == r), Is.True);
        Assert.That(table.Find(0), Is.Null);
        Assert.That(table.Find(-1), Is.Null);
        Assert.That(table.Find(all[0].Id + (1L << 32)), Is.Null);
        Assert.That(table.Snapshot(), Has.Length.EqualTo(1000));
    }

    [Test]
    public void Own_NumberTakenOver_ReturnsTheStaleRegistration()
    {
        var table = new RegistrationTable();
        var old = new HandleRegistration { Descriptor = 700 };
        var young = new HandleRegistration { Descriptor = 700 };
        table.Add(old);
        Assert.That(table.Own(old), Is.Null);
        table.Add(young);
        Assert.That(table.Own(young), Is.SameAs(old));
        Assert.That(table.IsOwner(old), Is.False);
        Assert.That(table.IsOwner(young), Is.True);
        table.Remove(old);
        Assert.That(table.IsOwner(young), Is.True);
    }
}

[TestFixture]
internal sealed class PollerWakeTests
{
    private sealed class OldKernel(int error) : CountingCalls
    {
        internal int Probes;

        internal override int EpollWaitPrecise(int epoll, byte[] events, int capacity, long timeout)
        {
            Probes++;
            return -error;
        }
    }

    /// <summary>Old kernels say ENOSYS, old containers EPERM: milliseconds then, rounded up, and asked for once.</summary>
    [TestCase(38)]
    [TestCase(1)]
    public void PreciseWaitRefused_TimersAreNeverEarly(int error)
    {
        var calls = new OldKernel(error);
        using var poller = new Poller(PollerKind.Epoll, calls, Amy.Async.Native.MonotonicClock.Instance);
        for (var i = 0; i < 10; i++)
        {
            var clock = System.Diagnostics.Stopwatch.StartNew();
            var id = poller.Registrar.SetTimeout(TimeSpan.FromTicks(3000));
            Assert.That(poller.Wait(Run.Limit).ToArray(), Is.EqualTo(new[] { new Notification(id, Readiness.Readable, 1) }));
            Assert.That(clock.Elapsed.Ticks, Is.GreaterThanOrEqualTo(3000));
        }
        Assert.That(calls.Probes, Is.EqualTo(1));
    }

    private sealed class Interrupting(int count) : CountingCalls
    {
        internal readonly List<long> Asked = [];
        internal long Time = 1;

        internal override int EpollWait(int epoll, byte[] events, int capacity, long timeout)
        {
            if (Asked.Count == count) throw new InvalidOperationException("Interrupted often enough.");
            Asked.Add(timeout);
            Time += 100;
            return -Amy.Async.Native.Errno.EINTR;
        }
    }

    private sealed class ItsClock(Interrupting calls) : Amy.Async.Native.MonotonicClock
    {
        internal override long Now() => calls.Time;
    }

    /// <summary>A signal neither ends the wait nor begins its time anew.</summary>
    [Test]
    public void Wait_InterruptedAgainAndAgain_EndsInItsTime()
    {
        var calls = new Interrupting(10);
        using var poller = new Poller(PollerKind.Epoll, calls, new ItsClock(calls));
        Assert.That(poller.Wait(TimeSpan.FromTicks(3)).ToArray(), Is.Empty);
        Assert.That(calls.Asked, Is.EqualTo(new long[] { 300, 200, 100 }));
    }

    /// <summary>A deadline beyond what a number holds is none, not one that has passed.</summary>
    [Test]
    public void Wait_LongestTimeoutInterrupted_GoesOn()
    {
        var calls = new Interrupting(5);
        using var poller = new Poller(PollerKind.Epoll, calls, new ItsClock(calls));
        Assert.That(() => poller.Wait(TimeSpan.MaxValue).Length, Throws.InvalidOperationException);
        Assert.That(calls.Asked, Is.EqualTo(new long[] { -1, -1, -1, -1, -1 }));
    }

    /// <summary>amy: registering from another thread does not wake the poller; wakes coalesce.</summary>
    [Test]
    public void RegisteringFromOtherThreads_WakesNobody_AndABurstOfWakesWritesOnce()
    {
        var calls = new CountingCalls();
        using var poller = new Poller(PollerKind.Epoll, calls, Amy.Async.Native.MonotonicClock.Instance);
        var returned = 0;
        var waiter = new Thread(() =>
        {
            poller.Wait(TimeSpan.FromSeconds(50));
            Interlocked.Increment(ref returned);
        });
        waiter.Start();
        Run.Until(() => calls.Waits == 1, "the poller waits");
        var threads = Enumerable.Range(0, 4).Select(_ => new Thread(() =>
        {
            var (x, y) = Pair.Tcp();
            using (x)
            using (y)
                for (var i = 0; i < 2000; i++)
                {
                    var id = poller.Registrar.Register(x, Interest.Readable); // readable only: nothing is there
                    poller.Registrar.Reregister(id, Interest.Readable);
                    poller.Registrar.Deregister(id);
                }
        })).ToArray();
        foreach (var t in threads) t.Start();
        foreach (var t in threads) t.Join();
        Assert.That(calls.Waits, Is.EqualTo(1), "still in the same wait");
        Assert.That(calls.Writes, Is.Zero);
        for (var i = 0; i < 1000; i++) poller.Registrar.Wake();
        Assert.That(waiter.Join(Run.Limit), Is.True);
        Assert.That(calls.Writes, Is.EqualTo(1));
    }
}
