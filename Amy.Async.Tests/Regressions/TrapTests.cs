using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async.Native;

namespace Amy.Async.Tests.Regressions;

/// <summary>Traps that no other test falls into when their handling is taken out (docs/testing.md has all of them).</summary>
[TestFixture]
internal sealed class TrapTests
{
    // ---- SIGPIPE. The runtime ignores it, so that nothing is to be seen of it; where it is blocked, it remains pending.

    private const int SIGPIPE = 13;
    private const int SIG_BLOCK = 0;
    private const int SIG_UNBLOCK = 1;

    [DllImport("libc")]
    private static extern int pthread_sigmask(int how, byte[] set, byte[]? old);

    [DllImport("libc")]
    private static extern int sigpending(byte[] set);

    [DllImport("libc")]
    private static extern nint send(int socket, byte[] buffer, nint length, int flags);

    private static byte[] PipeSignal()
    {
        var set = new byte[128];
        set[(SIGPIPE - 1) / 8] = 1 << (SIGPIPE - 1) % 8;
        return set;
    }

    private static bool TakePending()
    {
        var set = new byte[128];
        _ = sigpending(set);
        _ = pthread_sigmask(SIG_UNBLOCK, PipeSignal(), null); // ignored, and gone
        _ = pthread_sigmask(SIG_BLOCK, PipeSignal(), null);
        return (set[(SIGPIPE - 1) / 8] & 1 << (SIGPIPE - 1) % 8) != 0;
    }

    [Test]
    public void Send_PeerIsGone_RaisesNoSignal()
    {
        if (!OperatingSystem.IsLinux()) Assert.Ignore("the numbers are Linux's");
        var (ours, peer) = Pair.Unix();
        peer.Dispose();
        using (ours)
            Run.OnThread(() =>
            {
                var descriptor = (int)ours.SafeHandle.DangerousGetHandle();
                var calls = new SystemCalls();
                byte[] data = [1];
                _ = pthread_sigmask(SIG_BLOCK, PipeSignal(), null);
                try
                {
                    Assert.That(send(descriptor, data, 1, 0), Is.EqualTo((nint)(-1)));
                    Assert.That(TakePending(), Is.True, "without the flag it is raised, and seen here");
                    Assert.That(calls.Send(descriptor, data), Is.EqualTo(-Errno.EPIPE));
                    Assert.That(TakePending(), Is.False, "send");
                    Assert.That(calls.SendTo(descriptor, data, default, 0), Is.EqualTo(-Errno.EPIPE));
                    Assert.That(TakePending(), Is.False, "sendto");
                    Assert.That(SendOne(calls, descriptor), Is.EqualTo(-Errno.EPIPE));
                    Assert.That(TakePending(), Is.False, "sendmsg");
                }
                finally
                {
                    _ = pthread_sigmask(SIG_UNBLOCK, PipeSignal(), null);
                }
                GC.KeepAlive(ours);
            });
    }

    private static int SendOne(SystemCalls calls, int descriptor)
    {
        var vectors = new PinnedVectors();
        vectors.Add(new byte[1]);
        var n = calls.SendMessage(descriptor, vectors.Vectors, default, default, 0);
        vectors.Clear();
        return n;
    }

    // ---- the wake-up descriptor

    private sealed class CountingReads : SystemCalls
    {
        internal int Reads, Writes;

        internal override int Read(int descriptor, Span<byte> buffer)
        {
            Reads++;
            return base.Read(descriptor, buffer);
        }

        internal override int Write(int descriptor, ReadOnlySpan<byte> buffer)
        {
            Writes++;
            return base.Write(descriptor, buffer);
        }
    }

    /// <summary>Edge-triggered or not: on some kernels a counter that is not zero makes no second edge.</summary>
    [Test]
    public void Wake_EventFd_IsReadEachTimeItFires()
    {
        var calls = new CountingReads();
        var selector = new EpollSelector(calls);
        for (var i = 1; i <= 3; i++)
        {
            selector.Wake();
            Assert.That(selector.Wait(0), Is.EqualTo(1));
            Assert.That(selector.Get(0, out _), Is.EqualTo(Selector.WakeId));
            selector.AcknowledgeWake();
            Assert.That((calls.Writes, calls.Reads), Is.EqualTo((i, i)));
        }
        selector.Close();
        using var poller = new Poller(PollerKind.Epoll, calls, MonotonicClock.Instance);
        var waiter = Run.Waiter(() =>
        {
            while (true) poller.Wait(Run.Limit);
        });
        for (var i = 0; i < 3; i++)
        {
            var reads = Volatile.Read(ref calls.Reads);
            Run.Until(() => poller.IsSleeping, "it sleeps");
            poller.Registrar.Wake();
            Run.Until(() => Volatile.Read(ref calls.Reads) == reads + 1, "it is read");
        }
        poller.Dispose();
        waiter.Join();
    }

    // ---- closing

    [DllImport("libc", EntryPoint = "dup")]
    private static extern int Duplicate(int descriptor);

    [DllImport("libc", EntryPoint = "close")]
    private static extern int CloseDescriptor(int descriptor);

    /// <summary>The kernel's entry belongs to the open file, which the dup keeps: it would go on making events that nobody can end.</summary>
    [Test]
    public void Dispose_WhileADupLives_LeavesNoEntryInTheKernel() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        var (x, peer) = Pair.Tcp();
        using (peer)
        {
            var ours = new AsyncSocket(x);
            var dup = Duplicate((int)x.SafeHandle.DangerousGetHandle());
            await Turn();
            Assert.That(await EventsOfASend(), Is.EqualTo(1));
            ours.Dispose();
            await Turn();
            Assert.That(await EventsOfASend(), Is.Zero);
            _ = CloseDescriptor(dup);

            async Task<long> EventsOfASend()
            {
                var before = loop.Statistics.Events;
                peer.Send(new byte[1]);
                await Turn();
                return loop.Statistics.Events - before;
            }

            // Each turn looks at the kernel, after what was posted.
            static async Task Turn()
            {
                for (var i = 0; i < 3; i++) await Task.Yield();
            }
        }
    });

    // ---- spinning

    /// <summary>Each pass looks at the timers, too: a spin that never ends of itself would keep them.</summary>
    [Test]
    public void Spin_WithoutEnd_EndsWhenATimerIsDue()
    {
        using var loop = EventLoop.Start(new EventLoopOptions { SpinDuration = Timeout.InfiniteTimeSpan });
        for (var i = 0; i < 5; i++) Run.Wait(loop.InvokeAsync(() => loop.Delay(TimeSpan.FromMilliseconds(5)).AsTask()));
        Assert.That(loop.Statistics.TimersFired, Is.EqualTo(5));
        Assert.That(loop.Statistics.SpinsPaid + loop.Statistics.SpinsInVain, Is.Positive, "it did spin");
    }

    /// <summary>A Unix-domain socket tells with an edge of each read of the peer's. Nobody awaits those.</summary>
    [Test]
    public void Spin_EdgesThatNobodyAwaits_AreNotPaid()
    {
        TestPoller.SkipOnKqueue("a filter that nobody waits on makes no event of each read");
        const int Messages = 20; // beyond some more the socket counts as full, and reading one makes no edge
        using var loop = EventLoop.Start(new EventLoopOptions { SpinDuration = Timeout.InfiniteTimeSpan });
        var (x, y) = Pair.Unix();
        using var peer = y;
        using var ours = new AsyncSocket(x, loop);
        for (var i = 0; i < Messages; i++) Assert.That(ours.TrySend(new byte[1], out _), Is.True);
        Run.Wait(loop.InvokeAsync(static () => { }));
        var before = loop.Statistics;
        for (var i = 0; i < Messages; i++)
        {
            var events = loop.Statistics.Events;
            Assert.That(peer.Receive(new byte[1]), Is.EqualTo(1));
            Run.Until(() => loop.Statistics.Events > events, "each read makes an edge");
        }
        Assert.That(loop.Statistics.SpinsPaid, Is.EqualTo(before.SpinsPaid));
        Assert.That(loop.Statistics.SpinsInVain, Is.GreaterThan(before.SpinsInVain));
        for (var i = 0; i < 100 && loop.Statistics.SpinsPaid == before.SpinsPaid; i++) Run.Wait(loop.InvokeAsync(static () => { }));
        Assert.That(loop.Statistics.SpinsPaid, Is.GreaterThan(before.SpinsPaid), "work is");
    }

    // ---- blocking sockets

    [Test]
    public void Attach_BlockingSocket_IsMadeNonBlocking() => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Tcp();
        using var waitedOn = x;
        Assert.That((x.Blocking, y.Blocking), Is.EqualTo((true, true)));
        using var ours = new AsyncSocket(y);
        Assert.That(y.Blocking, Is.False);
        await x.WritableAsync();
        Assert.That(x.Blocking, Is.False);
    });

    // ---- connecting

    private sealed class ConnectingCalls : CountingCalls
    {
        internal readonly List<string> Order = [];
        internal int NotYet; // how often there is no peer although the socket is writable
        internal int Asked;

        internal override int Connect(int socket, ReadOnlySpan<byte> address)
        {
            Order.Add("connect");
            return base.Connect(socket, address);
        }

        internal override int EpollControl(int epoll, int operation, int descriptor, uint events, long data)
        {
            Order.Add("register");
            return base.EpollControl(epoll, operation, descriptor, events, data);
        }

        internal override int Kevent(int queue, byte[]? changes, int changeCount, byte[]? events, int capacity, long timeout)
        {
            if (changeCount > 0) Order.Add("register");
            return base.Kevent(queue, changes, changeCount, events, capacity, timeout);
        }

        internal override int GetPeerName(int socket, Span<byte> address)
        {
            Asked++;
            return Asked <= NotYet ? -Errno.ENOTCONN : base.GetPeerName(socket, address);
        }
    }

    /// <summary>A socket that is neither connected nor connecting reports a hang-up as soon as it is registered.</summary>
    [Test]
    public void ConnectAsync_RegistersAfterConnecting()
    {
        var calls = new ConnectingCalls();
        using var listener = Pair.ListenPlain();
        Run.OnLoop(async () =>
        {
            calls.Order.Clear();
            using var socket = await AsyncSocket.ConnectAsync(listener.LocalEndPoint!);
            Assert.That(calls.Order.Take(2), Is.EqualTo(new[] { "connect", "register" }));
        }, new EventLoopOptions { SystemCalls = calls });
    }

    [Test]
    public void ConnectAsync_WritableButWithoutAPeer_IsNotConnected()
    {
        var calls = new ConnectingCalls { NotYet = 1 };
        using var listener = Pair.ListenPlain();
        Run.OnLoop(async () =>
        {
            var connecting = AsyncSocket.ConnectAsync(listener.LocalEndPoint!);
            using var peer = listener.Accept();
            while (calls.Asked == 0) await Task.Yield();
            Assert.That(connecting.IsCompleted, Is.False);
            peer.Send(new byte[1]); // an edge: it looks again
            using var socket = await connecting;
            Assert.That(calls.Asked, Is.EqualTo(2));
        }, new EventLoopOptions { SystemCalls = calls });
    }

    /// <summary>A Unix-domain listener whose backlog is full answers EAGAIN. Nothing is in progress then, and no edge will come.</summary>
    [Test]
    public void ConnectAsync_FullUnixBacklog_IsToldAtOnce() => Run.OnLoop(async () =>
    {
        var path = Pair.TemporaryPath();
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(path));
        listener.Listen(0);
        var connected = new List<AsyncSocket>();
        var error = await Expect.Throws<SocketException>(async () =>
        {
            for (var i = 0; i < 1000; i++) connected.Add(await AsyncSocket.ConnectAsync(new UnixDomainSocketEndPoint(path)));
        });
        Assert.That(error.SocketErrorCode, Is.EqualTo(SocketError.WouldBlock));
        foreach (var socket in connected) socket.Dispose();
        File.Delete(path);
    });
}
