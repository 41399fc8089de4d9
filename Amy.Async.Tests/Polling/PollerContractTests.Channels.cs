using System.Threading.Channels;

namespace Amy.Async.Tests.Polling;

// Channels: amy's channel tests, and what amy gets wrong (a second empty receive is an error, a dropped sender wakes nobody).
internal abstract partial class PollerContractTests
{
    private static Notification Written<T>(PollerChannel<T> channel) => new(channel.Id, Readiness.Readable, 1);

    private static PollerChannel<int> Channel(Poller poller, bool bounded) =>
        bounded ? poller.Registrar.CreateBoundedChannel<int>(1000) : poller.Registrar.CreateUnboundedChannel<int>();

    /// <summary>amy: a send wakes the poller; many sends before a wait give one notification; two rounds retrigger.</summary>
    [TestCase(false)]
    [TestCase(true)]
    public void TryWrite_ManyBeforeAWait_GiveOneNotification(bool bounded)
    {
        using var poller = Create();
        using var channel = Channel(poller, bounded);
        for (var round = 0; round < 2; round++)
        {
            for (var i = 0; i < 10; i++) Assert.That(channel.Writer.TryWrite(i), Is.True);
            Assert.That(Wait(poller, s_soon), Is.EqualTo(new[] { Written(channel) }));
            Assert.That(Wait(poller, s_now), Is.Empty);
            for (var i = 0; i < 10; i++)
            {
                Assert.That(channel.Reader.TryRead(out var item), Is.True);
                Assert.That(item, Is.EqualTo(i));
            }
            Assert.That(channel.Reader.TryRead(out _), Is.False);
            Assert.That(channel.Reader.TryRead(out _), Is.False, "a second look at an empty channel is no error");
            Assert.That(Wait(poller, s_now), Is.Empty, "receiving down to empty tells nothing");
        }
    }

    /// <summary>amy: sends before and after a wait give one more.</summary>
    [Test]
    public void TryWrite_AfterANotificationWithoutDraining_NotifiesAgain()
    {
        using var poller = Create();
        using var channel = Channel(poller, bounded: false);
        channel.Writer.TryWrite(1);
        Assert.That(Wait(poller, s_soon), Is.EqualTo(new[] { Written(channel) }));
        channel.Writer.TryWrite(2);
        channel.Writer.TryWrite(3);
        Assert.That(Wait(poller, s_soon), Is.EqualTo(new[] { Written(channel) }));
        Assert.That(Wait(poller, s_now), Is.Empty);
    }

    [Test]
    public void TryWrite_WhileThePollerSleeps_WakesItOncePerBurst()
    {
        using var poller = Create();
        using var channel = Channel(poller, bounded: false);
        var told = 0;
        var read = 0;
        var waiter = Run.Waiter(() =>
        {
            while (read < 1000)
            {
                if (poller.Wait(s_soon).Length > 0) told++;
                while (channel.Reader.TryRead(out _)) read++;
            }
        });
        Run.Until(() => poller.IsSleeping, "the poller sleeps");
        for (var i = 0; i < 1000; i++) channel.Writer.TryWrite(i);
        Assert.That(waiter.Join(Run.Limit), Is.True);
        Assert.That(poller.WakesWritten, Is.InRange(1, told), "no more writes than waits that ended");
    }

    /// <summary>amy: a bounded channel of 1 refuses the second until one is received.</summary>
    [Test]
    public void Bounded_Full_RefusesUntilOneIsRead()
    {
        using var poller = Create();
        using var channel = poller.Registrar.CreateBoundedChannel<string>(1);
        Assert.That(channel.Writer.TryWrite("a"), Is.True);
        Assert.That(channel.Writer.TryWrite("b"), Is.False);
        var waiting = channel.Writer.WriteAsync("b").AsTask();
        Assert.That(waiting.IsCompleted, Is.False);
        Assert.That(Wait(poller, s_soon), Is.EqualTo(new[] { Written(channel) }));
        Assert.That(channel.Reader.TryRead(out var item) && item == "a", Is.True);
        Run.Wait(waiting);
        Assert.That(Wait(poller, s_soon), Is.EqualTo(new[] { Written(channel) }));
        Assert.That(channel.Reader.TryRead(out item) && item == "b", Is.True);
        Assert.Throws<ArgumentOutOfRangeException>(() => poller.Registrar.CreateBoundedChannel<int>(0));
    }

    /// <summary>amy's fault mended: the last sender's end wakes the receiver.</summary>
    [Test]
    public void Complete_WakesThePoller_AndTheReaderSeesTheEnd()
    {
        using var poller = Create();
        using var channel = Channel(poller, bounded: false);
        var waiter = Run.Waiter(() => Wait(poller, s_soon));
        Run.Until(() => poller.IsSleeping, "the poller sleeps");
        channel.Writer.Complete();
        Assert.That(waiter.Join(TimeSpan.FromSeconds(5)), Is.True);
        Assert.That(channel.Reader.Completion.IsCompletedSuccessfully, Is.True);
        Assert.That(channel.Writer.TryComplete(), Is.False);
        Assert.That(Wait(poller, s_now), Is.Empty);
    }

    /// <summary>amy: a receiver that is gone fails the senders.</summary>
    [Test]
    public void Dispose_FailsWritersAlsoThoseThatWait_AndLetsGoOfTheItems()
    {
        using var poller = Create();
        var channel = poller.Registrar.CreateBoundedChannel<object>(1);
        var weak = Fill(channel);
        var waiting = channel.Writer.WriteAsync(new object()).AsTask();
        channel.Dispose();
        channel.Dispose();
        Assert.That(channel.Writer.TryWrite(new object()), Is.False);
        Assert.ThrowsAsync<ChannelClosedException>(async () => await channel.Writer.WriteAsync(new object()));
        Assert.ThrowsAsync<ChannelClosedException>(() => waiting);
        Assert.That(Wait(poller, s_now), Is.Empty, "no notification of what is gone");
        GC.Collect();
        GC.WaitForPendingFinalizers();
        Assert.That(weak.IsAlive, Is.False);
        GC.KeepAlive(channel);

        [System.Runtime.CompilerServices.MethodImpl(System.Runtime.CompilerServices.MethodImplOptions.NoInlining)]
        static WeakReference Fill(PollerChannel<object> channel)
        {
            var item = new object();
            channel.Writer.TryWrite(item);
            return new WeakReference(item);
        }
    }

    [Test]
    public void TryWrite_AfterThePollerIsDisposed_StillPassesItems()
    {
        var poller = Create();
        using var channel = Channel(poller, bounded: false);
        poller.Dispose();
        Assert.That(channel.Writer.TryWrite(7), Is.True);
        Assert.That(channel.Reader.TryRead(out var item) && item == 7, Is.True);
    }

    /// <summary>amy: many senders, none lost; each item read after a notification that came after it.</summary>
    [TestCase(false)]
    [TestCase(true)]
    public void FourWriters_WithOneReaderThatSleepsBetween_LoseNothing(bool bounded)
    {
        using var poller = Create();
        using var channel = bounded ? poller.Registrar.CreateBoundedChannel<int>(16) : poller.Registrar.CreateUnboundedChannel<int>();
        const int PerThread = 20_000;
        var threads = Enumerable.Range(0, 4).Select(n => new Thread(() =>
        {
            try
            {
                for (var i = 0; i < PerThread; i++) channel.Writer.WriteAsync(n * PerThread + i).AsTask().GetAwaiter().GetResult();
            }
            catch (ChannelClosedException)
            {
                // the test has failed, and says why itself
            }
        })).ToArray();
        foreach (var t in threads) t.Start();
        var last = new[] { -1, -1, -1, -1 };
        var count = 0;
        while (count < 4 * PerThread)
        {
            Assert.That(Wait(poller, s_soon), Is.EqualTo(new[] { Written(channel) }), "a lost notification hangs here");
            while (channel.Reader.TryRead(out var item))
            {
                Assert.That(item % PerThread, Is.EqualTo(++last[item / PerThread]), "in order");
                count++;
            }
        }
        foreach (var t in threads) t.Join();
    }

    [TestCase(false)]
    [TestCase(true)]
    public void WriteWaitRead_AfterWarmUp_AllocateNothing(bool bounded)
    {
        using var poller = Create();
        using var channel = Channel(poller, bounded);
        void Round()
        {
            for (var i = 0; i < 10; i++) channel.Writer.TryWrite(i);
            if (poller.Wait(s_soon).Length != 1) throw new InvalidOperationException("one notification");
            while (channel.Reader.TryRead(out _))
            {
            }
        }
        for (var i = 0; i < 1000; i++) Round();
        var before = GC.GetAllocatedBytesForCurrentThread();
        for (var i = 0; i < 1000; i++) Round();
        Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.Zero);
    }
}
