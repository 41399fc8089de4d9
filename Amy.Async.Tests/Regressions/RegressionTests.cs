using System.Buffers;
using System.Net;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Amy.Async.Native;
using Microsoft.Win32.SafeHandles;

namespace Amy.Async.Tests.Regressions;

/// <summary>Bugs that were found once, each as the test that found it.</summary>
[TestFixture]
internal sealed class RegressionTests
{
    [DllImport("libc", EntryPoint = "close")]
    private static extern int Close(int fd);

    [DllImport("libc", EntryPoint = "dup2")]
    private static extern int Dup2(int from, int to);

    private static bool Ends(Task t, int ms = 3000) => ((IAsyncResult)t).AsyncWaitHandle.WaitOne(ms);

    [Test]
    public void Constructor_Fails_LeavesTheUsersSocketAlone()
    {
        using var loop = EventLoop.Start();
        var (x, y) = Pair.Tcp();
        using var first = new AsyncSocket(x, loop, ownsSocket: false);
        Second(x, loop);
        for (var i = 0; i < 3; i++) { GC.Collect(); GC.WaitForPendingFinalizers(); }
        Assert.That(x.SafeHandle.IsClosed, Is.False, "user's socket closed by the finalizer of an object whose constructor threw");
        y.Dispose();
    }
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static void Second(Socket x, EventLoop loop) => Assert.Throws<InvalidOperationException>(() => _ = new AsyncSocket(x, loop));

    [Test]
    public void StopAsync_LoopThatNeverSleeps_Stops()
    {
        var loop = EventLoop.Start(new EventLoopOptions { SpinDuration = Timeout.InfiniteTimeSpan });
        Run.Wait(loop.InvokeAsync(() => { }));
        using (var p = new ManualResetEventSlim()) p.Wait(50);
        var ended = Ends(loop.StopAsync());
        Assert.That(ended, Is.True, "StopAsync hangs");
    }

    [Test]
    public void Post_ThatFails_LosesNothingQueuedBehindIt()
    {
        Task? behind = null;
        Assert.Throws<InvalidTimeZoneException>(() => Run.OnLoop(async () =>
        {
            var loop = EventLoop.Current!;
            loop.Post(() => throw new InvalidTimeZoneException());
            behind = loop.InvokeAsync(() => { });
            await loop.Delay(Timeout.InfiniteTimeSpan);
        }));
        Assert.That(Ends(behind!), Is.True, "InvokeAsync queued behind a failing item never ends");
    }

    [Test]
    public void Stop_OneMethodFails_OthersStillGoOn()
    {
        var resumed = 0; const int N = 200;
        Assert.Throws<InvalidTimeZoneException>(() => Run.OnLoop(async () =>
        {
            var loop = EventLoop.Current!;
            await Task.Yield();
            async void Fails() { try { await loop.Delay(Timeout.InfiniteTimeSpan); } catch (ObjectDisposedException) { } await Task.Yield(); throw new InvalidTimeZoneException(); }
            async Task Other() { try { await loop.Delay(Timeout.InfiniteTimeSpan); } catch (ObjectDisposedException) { } await Task.Yield(); await Task.Yield(); Interlocked.Increment(ref resumed); }
            Fails();
            for (var i = 0; i < N; i++) _ = Other();
        }));
        SpinWait.SpinUntil(() => Volatile.Read(ref resumed) == N, 2000);
        Assert.That(resumed, Is.EqualTo(N), "async methods that never go on");
    }

    [Test]
    public void Stop_MoreWorkThanTheLastTurns_GoesToThePool()
    {
        const int N = 300; var onPool = 0;
        Run.OnLoop(async () =>
        {
            var loop = EventLoop.Current!;
            async Task Spin() { while (loop.IsCurrent) await Task.Yield(); Interlocked.Increment(ref onPool); }
            for (var i = 0; i < N; i++) _ = Spin();
            await Task.Yield();
        });
        SpinWait.SpinUntil(() => Volatile.Read(ref onPool) == N, 2000);
        Assert.That(onPool, Is.EqualTo(N), "methods that yield when the loop ends must go on, on the pool");
    }

    [Test]
    public void Accept_ExhaustedThenCancelled_NextOneTries()
    {
        var calls = new CountingCalls { OnAccept = n => n == 1 ? -Errno.EMFILE : null };
        Run.OnLoop(async () =>
        {
            using var listener = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0));
            using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            client.Connect(listener.LocalEndPoint!);
            await EventLoop.Current!.Delay(TimeSpan.FromMilliseconds(50)); // the edge has been seen
            using var cts = new CancellationTokenSource();
            var first = listener.AcceptAsync(cts.Token); // EMFILE
            cts.Cancel();
            await Expect.Throws<OperationCanceledException>(async () => await first);
            var second = listener.AcceptAsync().AsTask();
            await Task.WhenAny(second, Task.Delay(2000));
            Assert.That(second.IsCompleted, Is.True, "a connection waits in the backlog but accept hangs");
            (await second).Dispose();
        }, new EventLoopOptions { SystemCalls = calls, SpinDuration = TimeSpan.Zero });
    }

    private sealed class BadMemory : MemoryManager<byte>
    {
        internal bool Bad = true;
        private readonly byte[] _b = new byte[16];
        public override Memory<byte> Memory => CreateMemory(16);
        protected override bool TryGetArray(out ArraySegment<byte> segment) => Bad ? throw new ObjectDisposedException("buffer") : base.TryGetArray(out segment);
        public override Span<byte> GetSpan() => Bad ? throw new ObjectDisposedException("buffer") : _b;
        public override MemoryHandle Pin(int elementIndex = 0) => throw new NotSupportedException();
        public override void Unpin() { }
        protected override void Dispose(bool disposing) { }
    }

    [Test]
    public void Buffer_ThatThrows_LeavesTheDirectionUsable() => Run.OnLoop(async () =>
    {
        var (c, s) = await Pair.Async();
        var bad = new BadMemory();
        await Expect.Throws<ObjectDisposedException>(async () => await s.ReceiveAsync(bad.Memory));
        bad.Bad = false;
        var again = "works"; try { s.TryReceive(new byte[1], out _); } catch (Exception e) { again = e.Message; }
        var before = Descriptors.Count();
        s.Dispose();
        Assert.Multiple(() => { Assert.That(again, Is.EqualTo("works")); Assert.That(Descriptors.Count(), Is.EqualTo(before - 1), "descriptor not closed by Dispose"); });
        c.Dispose();
    });

    [Test]
    public void Buffer_ThatThrowsInTheDispatch_FailsItsOperationOnly()
    {
        var handled = 0; var mainWentOn = false; Exception? got = null; Exception? fromRun = null;
        try
        {
            Run.OnLoop(async () =>
            {
                var (c, s) = await Pair.Async();
                var bad = new BadMemory { Bad = false };
                var r = s.ReceiveAsync(bad.Memory).AsTask();
                bad.Bad = true;
                await c.SendAsync(new byte[3]);
                try { await r; } catch (Exception e) { got = e; }
                mainWentOn = true;
            }, new EventLoopOptions { SpinDuration = TimeSpan.Zero, UnhandledException = _ => { handled++; return true; } });
        }
        catch (Exception e) { fromRun = e; }
        Assert.That(fromRun, Is.Null, $"the loop died: {fromRun?.GetType().Name}; handler called {handled}; main went on {mainWentOn}; the operation got {got?.GetType().Name}");
    }

    private sealed class DeadContext : SynchronizationContext
    {
        public override void Post(SendOrPostCallback d, object? state) => throw new InvalidTimeZoneException("dead");
    }

    [Test]
    public void ForeignContext_ThatThrows_IsReportedAndTheMethodGoesOn()
    {
        var handled = 0; Exception? fromRun = null; var went = false;
        try
        {
            Run.OnLoop(async () =>
            {
                var loop = EventLoop.Current!;
                var old = SynchronizationContext.Current;
                SynchronizationContext.SetSynchronizationContext(new DeadContext());
                async Task W() => await loop.Delay(TimeSpan.FromMilliseconds(5));
                _ = W();
                SynchronizationContext.SetSynchronizationContext(old);
                await loop.Delay(TimeSpan.FromMilliseconds(100));
                went = true;
            }, new EventLoopOptions { SpinDuration = TimeSpan.Zero, UnhandledException = _ => { handled++; return true; } });
        }
        catch (Exception e) { fromRun = e; }
        Assert.That((went, handled), Is.EqualTo((true, 1)), $"died with {fromRun?.GetType().Name}");
    }

    [Test]
    public void ForeignScheduler_ThatIsComplete_DoesNotEndTheLoop()
    {
        var handled = 0; Exception? fromRun = null; var went = false;
        try
        {
            Run.OnLoop(async () =>
            {
                var loop = EventLoop.Current!;
                var pair = new ConcurrentExclusiveSchedulerPair();
                async Task W() => await loop.Delay(TimeSpan.FromMilliseconds(50));
                await Task.Factory.StartNew(() => { _ = W(); }, CancellationToken.None, TaskCreationOptions.None, pair.ExclusiveScheduler);
                pair.Complete();
                await loop.Delay(TimeSpan.FromMilliseconds(200));
                went = true;
            }, new EventLoopOptions { SpinDuration = TimeSpan.Zero, UnhandledException = _ => { handled++; return true; } });
        }
        catch (Exception e) { fromRun = e; }
        Assert.That(went, Is.True, $"died with {fromRun?.GetType().Name}: {fromRun?.Message}; handler called {handled}");
    }

    [Test]
    public void ForeignContext_ThatThrowsWhileStopping_DoesNotHoldUpTheStop()
    {
        EventLoop? loop = null; Exception? fromRun = null; Task? stopped = null;
        try
        {
            Run.OnLoop(async () =>
            {
                loop = EventLoop.Current!;
                var old = SynchronizationContext.Current;
                SynchronizationContext.SetSynchronizationContext(new DeadContext());
                async Task W() => await loop.Delay(Timeout.InfiniteTimeSpan);
                _ = W();
                SynchronizationContext.SetSynchronizationContext(old);
                await loop.Delay(TimeSpan.FromMilliseconds(5));
            }, new EventLoopOptions { SpinDuration = TimeSpan.Zero, UnhandledException = _ => true });
        }
        catch (Exception e) { fromRun = e; }
        stopped = loop!.StopAsync();
        Assert.That(Ends(stopped), Is.True, $"StopAsync never ends; Run threw {fromRun?.GetType().Name}");
    }

    [Test]
    public void NumberWithANewOwner_IsNotClosed() => Run.OnLoop(async () =>
    {
        var (c, s) = await Pair.Async();
        var fd = ((SocketSource)typeof(AsyncSocket).GetField("_source", System.Reflection.BindingFlags.NonPublic | System.Reflection.BindingFlags.Instance)!.GetValue(s)!).FileDescriptor;
        var (x, y) = Pair.Tcp();
        var old = (int)x.SafeHandle.DangerousGetHandle();
        Assert.That(Dup2(old, fd), Is.EqualTo(fd)); // the number has a new owner
        var newSocket = new Socket(new SafeSocketHandle(fd, ownsHandle: false));
        var z = new AsyncSocket(newSocket, ownsSocket: false);
        y.Send(new byte[] { 1 });
        string result;
        try { var n = await z.ReceiveAsync(new byte[4]); result = "received " + n; } catch (Exception e) { result = e.Message; }
        Assert.That(result, Is.EqualTo("received 1"));
        GC.KeepAlive(s);
        z.Dispose();
        Assert.That(Close(fd), Is.Zero, "still open, and the test's to close");
        c.Dispose();
        x.Dispose();
        y.Dispose();
    });

    [Test]
    public void Collected_SocketStillInUse_IsLeftAlone()
    {
        using var loop = EventLoop.Start();
        var s = Make(loop);
        for (var i = 0; i < 3; i++) { GC.Collect(); GC.WaitForPendingFinalizers(); }
        Assert.That(s.SafeHandle.IsClosed, Is.False);
    }
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static Socket Make(EventLoop loop)
    {
        var (x, y) = Pair.Tcp(); x.Dispose();
        return new AsyncSocket(y, loop).Socket;
    }
}
