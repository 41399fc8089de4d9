using System.Diagnostics;
using System.IO.Pipes;
using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Tests.Polling;

/// <summary>What every poller promises, whatever kernel mechanism is behind it.</summary>
internal abstract partial class PollerContractTests
{
    private static readonly TimeSpan s_soon = TimeSpan.FromSeconds(10);
    private static readonly TimeSpan s_now = TimeSpan.Zero;

    protected Poller Create() => Create(Amy.Async.Native.SystemCalls.Instance, Amy.Async.Native.MonotonicClock.Instance);

    protected abstract Poller Create(Amy.Async.Native.SystemCalls calls, Amy.Async.Native.MonotonicClock clock);

    /// <summary>Whether out-of-band data is told of here.</summary>
    protected virtual bool TellsOfPriority => true;

    /// <summary>Whether this is libkqueue, whose differences from the kernels are skipped by name.</summary>
    protected virtual bool IsLibkqueue => false;

    private static Notification[] Wait(Poller poller, TimeSpan timeout) => poller.Wait(timeout).ToArray();

    private static (Socket Client, Socket Server) NonBlockingPair()
    {
        var (a, b) = Pair.Tcp();
        a.Blocking = b.Blocking = false;
        return (a, b);
    }

    /// <summary>mio.</summary>
    [Test]
    public void Wait_NothingRegistered_ReturnsEmptyAfterTheTimeout()
    {
        using var poller = Create();
        var clock = Stopwatch.StartNew();
        Assert.That(Wait(poller, TimeSpan.FromMilliseconds(20)), Is.Empty);
        Assert.That(clock.Elapsed, Is.GreaterThanOrEqualTo(TimeSpan.FromMilliseconds(20)));
    }

    [TestCase(1)]
    [TestCase(7)]
    [TestCase(300)]
    public void Wait_SubMillisecond_IsNeverEarly(int microseconds)
    {
        using var poller = Create();
        for (var i = 0; i < 20; i++)
        {
            var clock = Stopwatch.StartNew();
            poller.Wait(TimeSpan.FromTicks(microseconds * 10));
            Assert.That(clock.Elapsed.Ticks, Is.GreaterThanOrEqualTo(microseconds * 10));
        }
    }

    [Test]
    public void Wait_NegativeTimeout_Throws()
    {
        using var poller = Create();
        Assert.Throws<ArgumentOutOfRangeException>(() => poller.Wait(TimeSpan.FromMilliseconds(-2)));
    }

    [Test]
    public void Wait_LongestTimeout_DoesNotOverflow()
    {
        using var poller = Create();
        poller.Registrar.Wake();
        Assert.That(Wait(poller, TimeSpan.MaxValue), Is.Empty);
    }

    /// <summary>amy, multi-threaded example; mio.</summary>
    [Test]
    public void Wait_ZeroTimeout_CollectsWhatIsThere()
    {
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        using (a)
        using (b)
        {
            var id = poller.Registrar.Register(b, Interest.Readable);
            a.Send([1]);
            Assert.That(Wait(poller, s_soon), Is.EqualTo(new[] { new Notification(id, Readiness.Readable, 1) }));
        }
    }

    /// <summary>amy: one write event, and then silence.</summary>
    [Test]
    public void Register_WritableSocket_NotifiesOnceAndThenIsSilent()
    {
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        using (a)
        using (b)
        {
            var id = poller.Registrar.Register(a, Interest.Writable);
            Assert.That(Wait(poller, s_soon), Is.EqualTo(new[] { new Notification(id, Readiness.Writable, 1) }));
            Assert.That(Wait(poller, TimeSpan.FromMilliseconds(20)), Is.Empty);
        }
    }

    [Test]
    public void Register_BothDirectionsReady_IsOneNotification()
    {
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        using (a)
        using (b)
        {
            a.Send([1]);
            Run.Until(() => b.Available > 0, "the byte arrives");
            var id = poller.Registrar.Register(b, Interest.Both);
            Assert.That(Wait(poller, s_soon), Is.EqualTo(new[] { new Notification(id, Readiness.Readable | Readiness.Writable, 1) }));
        }
    }

    /// <summary>mio: readiness comes back after would-block.</summary>
    [Test]
    public void Wait_NewDataAfterDraining_NotifiesAgain()
    {
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        using (a)
        using (b)
        {
            var id = poller.Registrar.Register(b, Interest.Readable);
            var buffer = new byte[8];
            for (var i = 0; i < 3; i++)
            {
                a.Send([1]);
                Assert.That(Wait(poller, s_soon).Single().Id, Is.EqualTo(id));
                Assert.That(b.Receive(buffer), Is.EqualTo(1));
                Assert.That(Wait(poller, s_now), Is.Empty);
            }
        }
    }

    [Test]
    public void Reregister_ReadyDescriptor_NotifiesAgain()
    {
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        using (a)
        using (b)
        {
            var id = poller.Registrar.Register(b, Interest.Readable);
            Assert.That(Wait(poller, s_now), Is.Empty);
            poller.Registrar.Reregister(id, Interest.Writable);
            Assert.That(Wait(poller, s_soon).Single().Readiness, Is.EqualTo(Readiness.Writable));
            poller.Registrar.Reregister(id, Interest.Writable);
            Assert.That(Wait(poller, s_soon).Single().Readiness, Is.EqualTo(Readiness.Writable));
        }
    }

    [Test]
    public void Register_SameSocketTwice_Throws()
    {
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        using (a)
        using (b)
        {
            poller.Registrar.Register(a, Interest.Readable);
            Assert.Throws<InvalidOperationException>(() => poller.Registrar.Register(a, Interest.Readable));
        }
    }

    [Test]
    public void Register_SameSocketInTwoPollers_BothNotify()
    {
        using var one = Create();
        using var two = Create();
        var (a, b) = NonBlockingPair();
        using (a)
        using (b)
        {
            one.Registrar.Register(b, Interest.Readable);
            two.Registrar.Register(b, Interest.Readable);
            a.Send([1]);
            Assert.That(Wait(one, s_soon), Has.Length.EqualTo(1));
            Assert.That(Wait(two, s_soon), Has.Length.EqualTo(1));
        }
    }

    [Test]
    public void Deregister_ThenRegister_GivesANewId()
    {
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        using (a)
        using (b)
        {
            var ids = new HashSet<long>();
            for (var i = 0; i < 1000; i++)
            {
                var id = poller.Registrar.Register(a, Interest.Readable);
                Assert.That(id, Is.Positive);
                Assert.That(ids.Add(id), Is.True);
                poller.Registrar.Deregister(id);
            }
        }
    }

    [Test]
    public void Deregister_ReadyDescriptor_LeavesNoNotification()
    {
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        using (a)
        using (b)
        {
            var id = poller.Registrar.Register(a, Interest.Both);
            poller.Registrar.Deregister(id);
            Assert.That(Wait(poller, TimeSpan.FromMilliseconds(20)), Is.Empty);
        }
    }

    [Test]
    public void Deregister_UnknownId_Throws()
    {
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        using (a)
        using (b)
        {
            var id = poller.Registrar.Register(a, Interest.Both);
            poller.Registrar.Deregister(id);
            Assert.Throws<InvalidOperationException>(() => poller.Registrar.Deregister(id));
            Assert.Throws<InvalidOperationException>(() => poller.Registrar.Reregister(id, Interest.Both));
            Assert.Throws<InvalidOperationException>(() => poller.Registrar.Deregister(0));
            Assert.Throws<InvalidOperationException>(() => poller.Registrar.Deregister(-1));
            Assert.Throws<InvalidOperationException>(() => poller.Registrar.Deregister(long.MaxValue));
        }
    }

    /// <summary>corefx#6173: the event of a closed descriptor must not reach the new owner of its number.</summary>
    [Test]
    public void Close_WithoutDeregister_NewOwnerOfTheNumberIsLeftAlone()
    {
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        var old = poller.Registrar.Register(b, Interest.Both);
        b.Dispose();
        var (c, d) = NonBlockingPair(); // takes the number
        using (a)
        using (c)
        using (d)
        {
            var first = poller.Registrar.Register(c, Interest.Readable);
            var second = poller.Registrar.Register(d, Interest.Readable);
            Assert.That(new[] { first, second }, Does.Not.Contain(old));
            try
            {
                poller.Registrar.Deregister(old); // late: must not take away what c or d registered
            }
            catch (InvalidOperationException)
            {
                // it was found stale when its number was registered anew
            }
            c.Send([1]);
            d.Send([1]);
            var ids = new HashSet<long>();
            while (ids.Count < 2) foreach (var n in Wait(poller, s_soon)) ids.Add(n.Id);
            Assert.That(ids, Is.EquivalentTo(new[] { first, second }));
        }
    }

    [Test]
    public void Register_RegularFile_ThrowsNotSupported()
    {
        using var poller = Create();
        using var file = File.OpenHandle(typeof(PollerContractTests).Assembly.Location);
        Assert.Throws<NotSupportedException>(() => poller.Registrar.Register(file, Interest.Readable));
        using var nothing = File.OpenHandle("/dev/null");
        Assert.Throws<NotSupportedException>(() => poller.Registrar.Register(nothing, Interest.Readable));
    }

    [Test]
    public void Register_BadArguments_Throws()
    {
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        b.Dispose();
        a.Dispose();
        Assert.Throws<ArgumentNullException>(() => poller.Registrar.Register((Socket)null!, Interest.Readable));
        Assert.Throws<ObjectDisposedException>(() => poller.Registrar.Register(a, Interest.Readable));
        using var c = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        Assert.Throws<ArgumentException>(() => poller.Registrar.Register(c, 0));
        Assert.Throws<ArgumentException>(() => poller.Registrar.Register(c, (Interest)64));
    }

    [Test]
    public void Wait_PeerShutsDownSending_ReportsReadClosed()
    {
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        using (a)
        using (b)
        {
            poller.Registrar.Register(b, Interest.Readable);
            a.Shutdown(SocketShutdown.Send);
            var readiness = Wait(poller, s_soon).Single().Readiness;
            Assert.That(readiness.HasFlag(Readiness.Readable | Readiness.ReadClosed), Is.True, readiness.ToString());
            Assert.That(readiness.HasFlag(Readiness.WriteClosed), Is.False);
        }
    }

    [Test]
    public void Wait_BothEndsShutDown_ReportsWriteClosed()
    {
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        using (a)
        using (b)
        {
            poller.Registrar.Register(b, Interest.Both);
            b.Shutdown(SocketShutdown.Send);
            a.Shutdown(SocketShutdown.Send);
            var all = Readiness.None;
            while (!all.HasFlag(Readiness.ReadClosed | Readiness.WriteClosed)) all |= Wait(poller, s_soon).Single().Readiness;
        }
    }

    [Test]
    public void Wait_Reset_ReportsItAndIsQuietThen()
    {
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        using (b)
        {
            poller.Registrar.Register(b, Interest.Readable);
            a.LingerState = new LingerOption(true, 0);
            a.Dispose();
            var readiness = Wait(poller, s_soon).Single().Readiness;
            Assert.That(readiness.HasFlag(Readiness.ReadClosed | Readiness.Error), Is.True, readiness.ToString());
            Assert.That(Wait(poller, TimeSpan.FromMilliseconds(20)), Is.Empty);
        }
    }

    [Test]
    public void Wait_OutOfBandData_ReportsPriority()
    {
        if (!TellsOfPriority) Assert.Ignore("this kqueue tells of no out-of-band data");
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        using (a)
        using (b)
        {
            poller.Registrar.Register(b, Interest.Priority);
            a.Send([1], SocketFlags.OutOfBand);
            Assert.That(Wait(poller, s_soon).Single().Readiness, Is.EqualTo(Readiness.Priority));
        }
    }

    [Test]
    public void Wait_OtherEndOfAPipeDropped_IsReportedToBothDirections()
    {
        using var poller = Create();
        var one = new AnonymousPipeServerStream(PipeDirection.Out);
        var reader = one.ClientSafePipeHandle;
        var readId = poller.Registrar.Register(reader, Interest.Readable);
        one.SafePipeHandle.Dispose();
        var note = Wait(poller, s_soon).Single();
        Assert.That(note.Id, Is.EqualTo(readId));
        Assert.That(note.Readiness.HasFlag(Readiness.ReadClosed), Is.True, note.Readiness.ToString());
        reader.Dispose();

        var two = new AnonymousPipeServerStream(PipeDirection.Out);
        var writeId = poller.Registrar.Register(two.SafePipeHandle, Interest.Writable);
        Assert.That(Wait(poller, s_soon).Single().Readiness, Is.EqualTo(Readiness.Writable));
        two.ClientSafePipeHandle.Dispose();
        note = Wait(poller, s_soon).Single();
        Assert.That(note.Id, Is.EqualTo(writeId));
        Assert.That(note.Readiness.HasFlag(Readiness.WriteClosed), Is.True, note.Readiness.ToString());
        two.SafePipeHandle.Dispose();
    }

    [Test]
    public void Wait_EmptyDatagram_IsReadable()
    {
        using var poller = Create();
        using var receiver = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp) { Blocking = false };
        receiver.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        using var sender = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        poller.Registrar.Register(receiver, Interest.Readable);
        sender.SendTo([], receiver.LocalEndPoint!);
        Assert.That(Wait(poller, s_soon).Single().Readiness, Is.EqualTo(Readiness.Readable));
        Assert.That(receiver.Receive(new byte[8]), Is.Zero);
    }

    [Test]
    public void Wait_HundredConnectionsReadyAtOnce_NotifiesEach()
    {
        using var poller = Create();
        var pairs = Enumerable.Range(0, 100).Select(_ => NonBlockingPair()).ToArray();
        var ids = pairs.Select(p => poller.Registrar.Register(p.Server, Interest.Readable)).ToHashSet();
        foreach (var (client, _) in pairs) client.Send([1]);
        while (ids.Count > 0)
            foreach (var n in Wait(poller, s_soon)) Assert.That(ids.Remove(n.Id), Is.True, "each once");
        foreach (var (client, server) in pairs)
        {
            client.Dispose();
            server.Dispose();
        }
    }

    [Test]
    public void Wake_BeforeWait_ReturnsEarlyOnce()
    {
        using var poller = Create();
        for (var i = 0; i < 1000; i++) poller.Registrar.Wake();
        Assert.That(Wait(poller, s_soon), Is.Empty);
        var clock = Stopwatch.StartNew();
        Assert.That(Wait(poller, TimeSpan.FromMilliseconds(20)), Is.Empty);
        Assert.That(clock.Elapsed, Is.GreaterThanOrEqualTo(TimeSpan.FromMilliseconds(20)), "the burst counts as one");
    }

    [Test]
    public void Wake_FromManyThreadsWhileWaiting_IsNeverLost()
    {
        using var poller = Create();
        for (var round = 0; round < 200; round++)
        {
            using var start = new Barrier(4);
            var threads = Enumerable.Range(0, 3).Select(_ => new Thread(() => { start.SignalAndWait(); poller.Registrar.Wake(); })).ToArray();
            foreach (var t in threads) t.Start();
            start.SignalAndWait();
            var clock = Stopwatch.StartNew();
            poller.Wait(s_soon);
            Assert.That(clock.Elapsed, Is.LessThan(s_soon));
            foreach (var t in threads) t.Join();
            poller.Wait(TimeSpan.Zero); // what the slower ones left
        }
    }

    [Test]
    public void Wait_FromTwoThreads_SecondThrows()
    {
        using var poller = Create();
        var waiter = new Thread(() => poller.Wait(s_soon));
        waiter.Start();
        Run.Until(() => poller.IsSleeping, "the first one sleeps");
        Assert.That(Assert.Throws<InvalidOperationException>(() => poller.Wait(TimeSpan.Zero)), Is.TypeOf<InvalidOperationException>());
        poller.Registrar.Wake();
        Assert.That(waiter.Join(Run.Limit), Is.True);
    }

    [Test]
    public void Dispose_WhileWaiting_EndsTheWaitWithAnError()
    {
        var poller = Create();
        Exception? failure = null;
        using var started = new ManualResetEventSlim();
        var waiter = new Thread(() =>
        {
            started.Set();
            try
            {
                poller.Wait(Timeout.InfiniteTimeSpan);
            }
            catch (Exception e)
            {
                failure = e;
            }
        });
        waiter.Start();
        started.Wait();
        poller.Dispose();
        poller.Dispose();
        Assert.That(waiter.Join(Run.Limit), Is.True);
        Assert.That(failure, Is.TypeOf<ObjectDisposedException>());
        poller.Registrar.Wake(); // nothing happens
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        Assert.Throws<ObjectDisposedException>(() => poller.Registrar.Register(socket, Interest.Readable));
        Assert.Throws<ObjectDisposedException>(() => poller.Wait(TimeSpan.Zero));
    }

    [Test]
    public void Register_FromAnotherThreadWhileWaiting_IsSeen()
    {
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        using (a)
        using (b)
        {
            long id = 0;
            var other = new Thread(() => { id = poller.Registrar.Register(b, Interest.Readable); a.Send([1]); });
            other.Start();
            var notes = Wait(poller, s_soon);
            other.Join();
            Assert.That(notes.Single().Id, Is.EqualTo(id));
        }
    }

    [Test]
    public void Create_TwoThousandTimes_LeaksNoDescriptor()
    {
        Create().Dispose();
        var before = Descriptors.Settle();
        for (var i = 0; i < 2000; i++)
        {
            using var poller = Create();
            poller.Registrar.Wake();
            poller.Wait(TimeSpan.Zero);
        }
        // libkqueue's own thread closes what belongs to a queue, a moment later.
        if (IsLibkqueue) Run.Until(() => Descriptors.Count() <= before, "its thread has closed them");
        Assert.That(Descriptors.Count(), Is.EqualTo(before));
    }

    [Test]
    public void WaitAndRegister_AfterWarmUp_AllocateNothing()
    {
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        using (a)
        using (b)
        {
            var one = new byte[1];
            void Round()
            {
                var id = poller.Registrar.Register(b, Interest.Readable);
                a.Send(one);
                if (poller.Wait(s_soon).Length != 1) throw new InvalidOperationException("one notification");
                b.Receive(one);
                poller.Registrar.Deregister(id);
            }
            for (var i = 0; i < 1000; i++) Round();
            var before = GC.GetAllocatedBytesForCurrentThread();
            for (var i = 0; i < 1000; i++) Round();
            Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.Zero);
        }
    }
}

[TestFixture]
internal sealed class EpollPollerTests : PollerContractTests
{
    protected override Poller Create(Amy.Async.Native.SystemCalls calls, Amy.Async.Native.MonotonicClock clock) => new(PollerKind.Epoll, calls, clock);
}
