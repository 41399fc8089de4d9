using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async.Bench;
using Amy.Async.Native;

namespace Amy.Async.Tests.Faults;

/// <summary>One fault at a time, at a call that is named.</summary>
[TestFixture]
internal sealed class ScriptedFaultTests
{
    private static readonly IPEndPoint s_any = new(IPAddress.Loopback, 0);

    private static EventLoopOptions With(FaultyCalls calls) => new() { SpinDuration = TimeSpan.Zero, SystemCalls = calls };

    /// <summary>A loop whose calls follow the script; the descriptors are counted before and behind.</summary>
    private static FaultyCalls OnFaultyLoop(ScriptedFaults script, Func<FaultyCalls, Task> main)
    {
        var calls = new FaultyCalls(script);
        Run.OnLoop(() => main(calls), With(calls));
        return calls;
    }

    private static async Task Exchange(AsyncSocket a, AsyncSocket b)
    {
        var buffer = new byte[16];
        await a.SendAsync(new byte[] { 1, 2, 3 });
        for (var got = 0; got < 3;) got += await b.ReceiveAsync(buffer);
        await b.SendAsync(new byte[] { 4, 5 });
        for (var got = 0; got < 2;) got += await a.ReceiveAsync(buffer);
    }

    [TestCase(Errno.EMFILE)]
    [TestCase(Errno.ENFILE)]
    [TestCase(Errno.ENOBUFS)]
    [TestCase(Errno.ENOMEM)]
    public void AcceptAsync_DescriptorsOrMemoryRunOut_TriesAgainByItself(int errno) =>
        OnFaultyLoop(new ScriptedFaults().At(FaultPoint.Accept, 1, FaultKind.Error, errno, count: 3), async calls =>
        {
            var (a, b) = await Pair.Async();
            using (a)
            using (b) await Exchange(a, b);
            Assert.That(calls.Struck(FaultPoint.Accept, FaultKind.Error), Is.EqualTo(3));
            Assert.That(EventLoop.Current!.Statistics.AcceptBackoffs, Is.EqualTo(3));
        });

    [TestCase(1)]
    [TestCase(200)]
    public void AcceptAsync_ConnectionsFailedWhileTheyWaited_PassesThemOver(int count) =>
        OnFaultyLoop(new ScriptedFaults().At(FaultPoint.Accept, 1, FaultKind.Error, Errno.ECONNABORTED, count), async calls =>
        {
            var (a, b) = await Pair.Async();
            using (a)
            using (b) await Exchange(a, b);
            Assert.That(calls.Struck(FaultPoint.Accept, FaultKind.Error), Is.EqualTo(count));
            Assert.That(EventLoop.Current!.Statistics.AcceptBackoffs, Is.Zero);
        });

    [TestCase(Errno.ECONNRESET, SocketError.ConnectionReset)]
    [TestCase(Errno.ETIMEDOUT, SocketError.TimedOut)]
    public void ReceiveAsync_Fails_ThrowsThatAndTakesNothing(int errno, SocketError code) =>
        OnFaultyLoop(new ScriptedFaults().At(FaultPoint.Receive, 2, FaultKind.Error, errno), async _ =>
        {
            var (a, b) = await Pair.Async();
            using (a)
            using (b)
            {
                var waiting = b.ReceiveAsync(new byte[8]); // the first call: nothing there
                await a.SendAsync(new byte[] { 1, 2, 3 });
                var e = await Expect.Throws<SocketException>(async () => await waiting);
                Assert.That(e.SocketErrorCode, Is.EqualTo(code));
                Assert.That(await b.ReceiveAsync(new byte[8]), Is.EqualTo(3), "what the failed call did not take");
                Assert.That(b.BytesReceived, Is.EqualTo(3));
            }
        });

    [TestCase(Errno.ECONNRESET, SocketError.ConnectionReset)]
    [TestCase(Errno.EPIPE, SocketError.Shutdown)]
    [TestCase(Errno.ETIMEDOUT, SocketError.TimedOut)]
    public void SendAsync_FailsHalfWay_BytesSentSaysHowMuchArrives(int errno, SocketError code) =>
        OnFaultyLoop(new ScriptedFaults().At(FaultPoint.Send, 1, FaultKind.Short, count: 4).At(FaultPoint.Send, 6, FaultKind.Error, errno), async _ =>
        {
            var (a, b) = await Pair.Async();
            using (a)
            using (b)
            {
                var sending = a.SendAsync(new byte[50_000_000]).AsTask(); // the fifth call fills the buffer
                var received = 0L;
                var buffer = new byte[100_000];
                while (!sending.IsCompleted) received += await b.ReceiveAsync(buffer);
                var e = await Expect.Throws<SocketException>(() => sending);
                Assert.That(e.SocketErrorCode, Is.EqualTo(code));
                a.Shutdown(SocketShutdown.Send);
                for (int n; (n = await b.ReceiveAsync(buffer)) > 0;) received += n;
                Assert.That(received, Is.EqualTo(a.BytesSent));
                Assert.That(a.BytesSent, Is.InRange(5, 49_999_999));
            }
        });

    [Test]
    public void EveryDirection_WouldBlockAlthoughItCould_GoesOn() =>
        OnFaultyLoop(new ScriptedFaults()
            .At(FaultPoint.Accept, 1, FaultKind.WouldBlock, count: 5)
            .At(FaultPoint.Receive, 1, FaultKind.WouldBlock, count: 5)
            .At(FaultPoint.Send, 1, FaultKind.WouldBlock, count: 5)
            .At(FaultPoint.Poll, 1, FaultKind.WouldBlock, count: 5), async calls =>
        {
            var (a, b) = await Pair.Async();
            using (a)
            using (b)
            {
                await Exchange(a, b);
                Assert.That((await a.WritableAsync()).HasFlag(Readiness.Writable), Is.True);
                await b.SendAsync(new byte[1]);
                Assert.That((await a.ReadableAsync()).HasFlag(Readiness.Readable), Is.True);
                Assert.That(await a.ReceiveAsync(new byte[8]), Is.EqualTo(1));
            }
            foreach (var point in new[] { FaultPoint.Accept, FaultPoint.Receive, FaultPoint.Send, FaultPoint.Poll })
                Assert.That(calls.Struck(point, FaultKind.WouldBlock), Is.Positive, point.ToString());
        });

    /// <summary>One datagram of a batch at a time, although there are more: the others follow.</summary>
    [Test]
    public void Batches_CutShort_SendAndReceiveAllTheSame() =>
        OnFaultyLoop(new ScriptedFaults().At(FaultPoint.Send, 1, FaultKind.Short, count: 3).At(FaultPoint.Receive, 1, FaultKind.Short, count: 2), async calls =>
        {
            const int Datagrams = 6;
            using var a = AsyncSocket.BindDatagram(s_any);
            using var b = AsyncSocket.BindDatagram(s_any);
            var batch = new DatagramBatch(Datagrams, 8);
            for (byte i = 0; i < Datagrams; i++) batch.Add([i], b.LocalEndPoint!.Serialize());
            Assert.That(await a.SendAsync(batch), Is.EqualTo(Datagrams));
            var (received, counts) = (new List<byte>(), new List<int>());
            var arrived = new DatagramBatch(Datagrams, 8);
            while (received.Count < Datagrams)
            {
                counts.Add(await b.ReceiveAsync(arrived));
                for (var i = 0; i < arrived.Count; i++) received.Add(arrived[i].Span[0]);
            }
            Assert.That(received, Is.EqualTo(new byte[] { 0, 1, 2, 3, 4, 5 }));
            Assert.That(counts, Is.EqualTo(new[] { 1, 1, 4 }));
            Assert.That((calls.Struck(FaultPoint.Send, FaultKind.Short), calls.Struck(FaultPoint.Receive, FaultKind.Short)), Is.EqualTo((3L, 2L)));
        });

    [DllImport("libc", EntryPoint = "dup2")]
    private static extern int Dup2(int from, int to);

    /// <summary>The edge that follows EAGAIN is made by registering anew, which must not happen where another file was registered.</summary>
    [Test]
    public void WouldBlock_NumberWasClosedAndOpenedAnew_IsToldOfWhereItIsRegisteredNow()
    {
        var calls = new FaultyCalls(new ScriptedFaults().At(FaultPoint.Receive, 1, FaultKind.WouldBlock));
        using var before = new Poller(PollerKind.Auto, calls, MonotonicClock.Instance);
        using var now = new Poller(PollerKind.Auto, calls, MonotonicClock.Instance);
        var (a, b) = Pair.Tcp();
        var (c, d) = Pair.Tcp();
        using (a)
        using (b)
        using (c)
        using (d)
        {
            var number = (int)b.SafeHandle.DangerousGetHandle();
            before.Registrar.Register(b, Interest.Both);
            Assert.That(Dup2((int)d.SafeHandle.DangerousGetHandle(), number), Is.EqualTo(number));
            var id = now.Registrar.Register(b, Interest.Readable);
            c.Send([1]);
            Assert.That(now.Wait(Run.Limit).ToArray().Select(n => n.Id), Is.EqualTo(new[] { id }));
            Assert.That(calls.Receive(number, new byte[8]), Is.EqualTo(-Errno.EAGAIN));
            Assert.That(now.Wait(Run.Limit).ToArray().Select(n => n.Id), Is.EqualTo(new[] { id }), "the edge that follows");
            Assert.That(before.Registrar.Register(b, Interest.Both), Is.Positive, "it is not registered there");
        }
    }

    [Test]
    public void ConnectAsync_Interrupted_Connects() =>
        OnFaultyLoop(new ScriptedFaults().At(FaultPoint.Connect, 1, FaultKind.Interrupted), async calls =>
        {
            var (a, b) = await Pair.Async();
            using (a)
            using (b) await Exchange(a, b);
            Assert.That(calls.Struck(FaultPoint.Connect, FaultKind.Interrupted), Is.EqualTo(1));
        });

    [Test]
    public void EveryWait_Interrupted_LosesNoTimeAndNoEvent() =>
        OnFaultyLoop(new ScriptedFaults().At(FaultPoint.Wait, 1, FaultKind.Interrupted, count: 500), async calls =>
        {
            var (a, b) = await Pair.Async();
            using (a)
            using (b)
                for (var i = 0; i < 20; i++) await Exchange(a, b);
            var clock = EventLoop.Current!.TimeProvider;
            var start = clock.GetTimestamp();
            await EventLoop.Current!.Delay(TimeSpan.FromMilliseconds(3));
            Assert.That(clock.GetElapsedTime(start), Is.GreaterThanOrEqualTo(TimeSpan.FromMilliseconds(3)));
            while (calls.Struck(FaultPoint.Wait, FaultKind.Interrupted) < 500) await EventLoop.Current!.Yield();
            await EventLoop.Current!.Delay(TimeSpan.FromMilliseconds(1));
        });

    [TestCase(Errno.ENOENT)]
    [TestCase(Errno.EBADF)]
    [TestCase(Errno.ENOMEM)]
    public void Dispose_KernelDoesNotRemove_TheNumbersNextOwnerGetsItsOwnEventsAlone(int errno)
    {
        TestPoller.SkipOnLibkqueue("what was not removed outlives the descriptor");
        // Error: the kernel's entry stays until the close; Refused: it goes, and the answer is a refusal.
        foreach (var kind in new[] { FaultKind.Error, FaultKind.Refused })
            OnFaultyLoop(new ScriptedFaults().At(FaultPoint.Remove, 1, kind, errno, count: 1000), async calls =>
            {
                for (var i = 0; i < 50; i++)
                {
                    var (a, b) = await Pair.Async();
                    using (a)
                    using (b)
                    {
                        var waiting = b.ReceiveAsync(new byte[8]);
                        await a.SendAsync(new byte[] { 1 });
                        Assert.That(await waiting, Is.EqualTo(1));
                    }
                }
                Assert.That(calls.Struck(FaultPoint.Remove, kind), Is.GreaterThanOrEqualTo(100));
                Assert.That(EventLoop.Current!.Statistics.Registrations, Is.Zero);
            });
    }

    [TestCase(Errno.ENOMEM)]
    [TestCase(Errno.ENOSPC)]
    public void ListenAndConnect_KernelDoesNotRegister_ThrowAndLeakNothing(int errno)
    {
        var before = 0;
        OnFaultyLoop(new ScriptedFaults().At(FaultPoint.Add, 1, FaultKind.Error, errno).At(FaultPoint.Add, 3, FaultKind.Error, errno), async _ =>
        {
            before = Descriptors.Settle();
            await Expect.Throws<IOException>(() => Task.FromResult(AsyncSocket.Listen(s_any)));
            using (var listener = AsyncSocket.Listen(s_any))
                await Expect.Throws<IOException>(async () => await AsyncSocket.ConnectAsync(listener.LocalEndPoint!));
            Assert.That(EventLoop.Current!.Statistics.Registrations, Is.Zero);
            Assert.That(Descriptors.Settle(), Is.EqualTo(before), Descriptors.List());
        });
    }

    [Test]
    public void AcceptAsync_KernelDoesNotRegister_BacksOffAndServesTheNext() =>
        OnFaultyLoop(new ScriptedFaults().At(FaultPoint.Add, 3, FaultKind.Error, Errno.ENOSPC), async _ =>
        {
            using var listener = AsyncSocket.Listen(s_any);
            var accepting = listener.AcceptAsync().AsTask();
            using (var unlucky = await AsyncSocket.ConnectAsync(listener.LocalEndPoint!))
                Assert.That(await Ended(unlucky), Is.True, "its connection is closed");
            using var client = await AsyncSocket.ConnectAsync(listener.LocalEndPoint!);
            using var server = await accepting;
            await Exchange(client, server);
            Assert.That(EventLoop.Current!.Statistics.AcceptBackoffs, Is.EqualTo(1));
        });

    [Test]
    public void MoveToAsync_KernelDoesNotRegister_ThrowsAndNothingHasHappened() =>
        OnFaultyLoop(new ScriptedFaults().At(FaultPoint.Add, 4, FaultKind.Error, Errno.ENOMEM), async calls =>
        {
            using var other = EventLoop.Start(With(calls));
            var (a, b) = await Pair.Async();
            using (a)
            using (b)
            {
                await Expect.Throws<IOException>(async () => await b.MoveToAsync(other));
                await Exchange(a, b);
                using var moved = await b.MoveToAsync(other);
                await Exchange(a, moved);
            }
            Assert.That(other.Statistics.Registrations, Is.Zero);
        });

    private static async Task<bool> Ended(AsyncSocket socket)
    {
        try
        {
            return await socket.ReceiveAsync(new byte[1]) == 0;
        }
        catch (SocketException)
        {
            return true;
        }
    }

    [TestCase(1)]
    [TestCase(2)]
    public void ALoop_WithoutDescriptors_ThrowsAndLeaksNothing(int call)
    {
        if (call == 2) TestPoller.SkipOnKqueue("a loop makes no second descriptor");
        var before = Descriptors.Settle();
        var calls = new FaultyCalls(new ScriptedFaults().At(FaultPoint.Create, call, FaultKind.Error, Errno.EMFILE));
        var e = Assert.Throws<IOException>(() => EventLoop.Start(With(calls)));
        Assert.That(e!.Message, Does.Contain($"errno {Errno.EMFILE}"));
        Assert.That(Descriptors.Settle(), Is.EqualTo(before), Descriptors.List());
        EventLoop.Start(With(calls)).Dispose();
    }

    [Test]
    public void ConnectAndListen_WithoutDescriptors_Throw() =>
        OnFaultyLoop(new ScriptedFaults().At(FaultPoint.Socket, 1, FaultKind.Error, Errno.EMFILE, count: 2), async _ =>
        {
            var e = await Expect.Throws<SocketException>(async () => await AsyncSocket.ConnectAsync(s_any));
            Assert.That(e.SocketErrorCode, Is.EqualTo(SocketError.TooManyOpenSockets));
            e = await Expect.Throws<SocketException>(() => Task.FromResult(AsyncSocket.Listen(s_any)));
            Assert.That(e.SocketErrorCode, Is.EqualTo(SocketError.TooManyOpenSockets));
        });
}
