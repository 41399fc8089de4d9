using System.Diagnostics.Metrics;
using System.Net;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using Amy.Async.Native;

namespace Amy.Async.Tests.Regressions;

/// <summary>What threads, meters and a stop may do to a loop at the worst moment.</summary>
[TestFixture]
internal sealed class SchedulerRegressionTests
{
    private static readonly EventLoopOptions s_quiet = new() { SpinDuration = TimeSpan.Zero };

    // ---- lingering

    [Test]
    public void PostsThatComeOneByOne_DoNotKeepTheLoopFromThePoller() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start(s_quiet);
        var (done, polls, since, longest) = (0, 0L, 0, 0);
        Action item = () =>
        {
            since = loop.Polls == polls ? since + 1 : 0;
            polls = loop.Polls;
            longest = Math.Max(longest, since);
            Volatile.Write(ref done, done + 1);
        };
        for (var i = 1; i <= 50_000; i++)
        {
            loop.Post(item);
            while (Volatile.Read(ref done) < i) // posts the next in a moment
            {
                if (Environment.ProcessorCount == 1) Thread.Yield(); // or the loop gets its turn when this thread's time is up
                else Thread.SpinWait(1);
            }
        }
        TestContext.Out.WriteLine($"turns {loop.Statistics.Turns}, polls {loop.Polls}, longest without a poll: {longest}");
        Assert.That(loop.Statistics.Turns - loop.Polls, Is.LessThanOrEqualTo(1), "every turn looks at the kernel");
    });

    // ---- listeners of the meter, which run on the loop's thread

    private static MeterListener Listen(string instrument, string name, Action action)
    {
        var listener = new MeterListener
        {
            InstrumentPublished = (i, l) =>
            {
                if (i.Meter.Name == "Amy.Async" && i.Name == instrument) l.EnableMeasurementEvents(i);
            },
        };
        void Note(ReadOnlySpan<KeyValuePair<string, object?>> tags)
        {
            foreach (var tag in tags)
                if (Equals(tag.Value, name)) action();
        }
        listener.SetMeasurementEventCallback<double>((_, _, t, _) => Note(t));
        listener.SetMeasurementEventCallback<int>((_, _, t, _) => Note(t));
        listener.Start();
        return listener;
    }

    [TestCase("amy.loop.turn.duration")]
    [TestCase("amy.loop.batch.size")]
    public void MeterListenerThatPosts_IsServed(string instrument) => Run.OnThread(() =>
    {
        var name = $"meter {Guid.NewGuid():N}";
        using var loop = EventLoop.Start(new EventLoopOptions { ThreadName = name, SpinDuration = TimeSpan.Zero });
        using var ran = new ManualResetEventSlim();
        var posted = 0;
        using var listener = Listen(instrument, name, () =>
        {
            if (Interlocked.Exchange(ref posted, 1) == 0) loop.Post(ran.Set);
        });
        while (Volatile.Read(ref posted) == 0)
        {
            Run.Until(() => loop.IsSleeping || Volatile.Read(ref posted) != 0, "it sleeps");
            if (Volatile.Read(ref posted) == 0) loop.Post(static () => { });
            Thread.Sleep(5);
        }
        Assert.That(ran.Wait(TimeSpan.FromSeconds(3)), Is.True, "the loop does not sleep on it");
    });

    [TestCase("amy.loop.turn.duration")]
    [TestCase("amy.loop.batch.size")]
    public void MeterListenerThatThrows_ReachesTheHandler_AndEndsNothing(string instrument) => Run.OnThread(() =>
    {
        var name = $"meter {Guid.NewGuid():N}";
        var told = 0;
        var failed = 0;
        EventLoop.Run(async () =>
        {
            using var listener = Listen(instrument, name, () =>
            {
                failed++;
                throw new InvalidDataException();
            });
            var (a, b) = await Pair.Async();
            using (a)
            using (b)
            {
                for (var i = 0; i < 5; i++)
                {
                    var receiving = b.ReceiveAsync(new byte[8]);
                    await a.SendAsync(new byte[] { 1 });
                    Assert.That(await receiving, Is.EqualTo(1));
                }
            }
        }, new EventLoopOptions { ThreadName = name, UnhandledException = e => { if (e is InvalidDataException) told++; return true; } });
        Assert.That((told, told > 0), Is.EqualTo((failed, true)));
    });

    [Test]
    public void LoopsOfOneName_AreOneSeries() => Run.OnThread(() =>
    {
        var name = $"meter {Guid.NewGuid():N}";
        using var first = EventLoop.Start(new EventLoopOptions { ThreadName = name });
        using var second = EventLoop.Start(new EventLoopOptions { ThreadName = name });
        Run.Wait(first.InvokeAsync(() => { }));
        Run.Wait(second.InvokeAsync(() => { }));
        var seen = new List<long>();
        using var listener = new MeterListener
        {
            InstrumentPublished = static (i, l) =>
            {
                if (i.Meter.Name == "Amy.Async" && i.Name == "amy.loop.posts") l.EnableMeasurementEvents(i);
            },
        };
        listener.SetMeasurementEventCallback<long>((_, v, tags, _) =>
        {
            foreach (var tag in tags)
                if (Equals(tag.Value, name)) seen.Add(v);
        });
        listener.Start();
        listener.RecordObservableInstruments();
        Assert.That(seen, Is.EqualTo(new[] { 2L }), "two measurements under one set of tags: an exporter keeps the last");
    });

    // ---- a deadline that is set just before the loop stops

    [Test]
    public void DeadlineSetJustBeforeTheStop_Expires() => Run.OnThread(() =>
    {
        var loop = EventLoop.Start(s_quiet);
        var deadline = loop.CreateDeadline();
        using var go = new ManualResetEventSlim();
        using var held = new ManualResetEventSlim();
        loop.Post(() =>
        {
            held.Set();
            go.Wait(Run.Limit);
        });
        Assert.That(held.Wait(Run.Limit), Is.True);
        deadline.Set(TimeSpan.FromDays(1)); // its way into the loop's queue is behind the stop
        var stopped = loop.StopAsync();
        go.Set();
        Run.Wait(stopped);
        Assert.That(deadline.Token.IsCancellationRequested, Is.True, "nobody else would ever cancel it");
    });

    // ---- a stopped loop is garbage

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static WeakReference Watched(Action<EventLoop>? use = null)
    {
        var loop = EventLoop.Start(new EventLoopOptions { BlockedThreshold = TimeSpan.FromMilliseconds(4), SpinDuration = TimeSpan.Zero });
        var looks = Watchdog.Looks;
        while (Watchdog.Looks < looks + 3) Run.Wait(loop.InvokeAsync(() => Thread.Sleep(1)));
        use?.Invoke(loop);
        Run.Until(() => loop.IsSleeping, "it sleeps");
        Thread.Sleep(50);
        loop.Dispose();
        return new WeakReference(loop);
    }

    [TestCase(false)]
    [TestCase(true)]
    public void StoppedLoop_IsNotKeptByTheWatchdog(bool blocked) => Run.OnThread(() =>
    {
        var loop = Watched(blocked ? static l => Run.Wait(l.InvokeAsync(() => Thread.Sleep(100))) : null);
        for (var i = 0; i < 50 && loop.IsAlive; i++)
        {
            Thread.Sleep(10);
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
        Assert.That(loop.IsAlive, Is.False);
    });

    // ---- pinning

    [Test]
    public void Group_MadeOnAPinnedLoop_MayUseTheOtherProcessors() => Run.OnThread(() =>
    {
        var all = Affinity.From(SystemCalls.Instance, 0);
        if (all.Length < 2) Assert.Ignore("one processor");
        EventLoop.Run(async () =>
        {
            await using var group = new EventLoopGroup(2, new EventLoopOptions { Processor = all[1] });
            var on = new HashSet<string>();
            foreach (var loop in group.Loops)
                on.Add(await loop.InvokeAsync(static () => File.ReadLines("/proc/thread-self/status").First(l => l.StartsWith("Cpus_allowed_list", StringComparison.Ordinal))));
            Assert.That(on, Has.Count.EqualTo(2));
        }, new EventLoopOptions { Processor = all[0] });
    });

    private sealed class PinsOnce : KqueueDouble
    {
        private int _calls;

        internal override int SetAffinity(ReadOnlySpan<byte> mask) => Interlocked.Increment(ref _calls) > 2 ? -Errno.EINVAL : base.SetAffinity(mask);
    }

    [Test]
    public void ProcessorThatIsTakenAway_FailsTheRun_AndLeavesNothing() => Run.OnThread(() =>
    {
        var before = Descriptors.Settle();
        for (var i = 0; i < 20; i++)
        {
            Assert.That(() => EventLoop.Run(() => Task.CompletedTask, new EventLoopOptions { Processor = 0, SystemCalls = new PinsOnce() }), Throws.TypeOf<ArgumentOutOfRangeException>());
            Assert.That((EventLoop.Current, SynchronizationContext.Current), Is.EqualTo(((EventLoop?)null, (SynchronizationContext?)null)));
        }
        Assert.That(Descriptors.Settle(), Is.LessThanOrEqualTo(before), Descriptors.List());
    });

    // ---- moving

    [TestCase(false)]
    [TestCase(true)]
    public void Move_RacingWithTheSocket_HasOneOwner(bool detach) => Run.OnThread(() =>
    {
        using var first = EventLoop.Start(s_quiet);
        using var second = EventLoop.Start(s_quiet);
        using var listener = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0), loop: first);
        for (var i = 0; i < 3000; i++)
        {
            using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            client.Connect(listener.LocalEndPoint!);
            var accepted = Run.Wait(listener.AcceptAsync().AsTask()); // has no Socket
            using var go = new Barrier(2);
            Socket? socket = null;
            var taking = Task.Run(() =>
            {
                go.SignalAndWait();
                Thread.SpinWait(i % 50);
                try
                {
                    socket = detach ? accepted.Detach() : accepted.Socket;
                }
                catch (Exception e) when (e is ObjectDisposedException or InvalidOperationException)
                {
                    // moved before
                }
            });
            go.SignalAndWait();
            AsyncSocket? moved = null;
            try
            {
                moved = accepted.MoveToAsync(second).AsTask().GetAwaiter().GetResult();
            }
            catch (Exception e) when (e is ObjectDisposedException or InvalidOperationException)
            {
                // the other was first
            }
            Run.Wait(taking);
            if (moved is not null && socket is not null) Assert.That(moved.Socket, Is.SameAs(socket), $"two owners of one descriptor, round {i}");
            moved?.Dispose();
            socket?.Dispose();
        }
    });
}
