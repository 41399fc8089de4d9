using System.Diagnostics;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Amy.Async.Native;

namespace Amy.Async.Tests.Loop;

/// <summary>However much is ready at once or in a row, the stack stays flat: at most 64 frames of the library's.</summary>
[TestFixture]
internal sealed class StackDepthTests
{
    private const int MaxFrames = 64;

    private int _deepest;
    private int _deepestOfAll;

    [SetUp]
    public void Reset() => _deepest = _deepestOfAll = 0;

    /// <summary>Looks at the stack, here.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private void Sample()
    {
        var frames = new StackTrace(fNeedFileInfo: false).GetFrames();
        _deepest = Math.Max(_deepest, frames.Count(f => f.GetMethod()?.Module.Assembly == typeof(EventLoop).Assembly));
        _deepestOfAll = Math.Max(_deepestOfAll, frames.Length);
    }

    private void Check()
    {
        TestContext.Out.WriteLine($"{_deepest} frames of the library, {_deepestOfAll} in all");
        Assert.That(_deepest, Is.InRange(1, MaxFrames));
        Assert.That(_deepestOfAll, Is.LessThan(1000), "the users' frames, too, do not pile up");
    }

    [DllImport("libc")]
    private static extern int getrlimit(int resource, [Out] ulong[] limits);

    /// <summary>How many descriptors this process may still open, with some to spare.</summary>
    private static int DescriptorsLeft()
    {
        const int RLIMIT_NOFILE = 7;
        var limits = new ulong[2];
        Assert.That(getrlimit(RLIMIT_NOFILE, limits), Is.Zero);
        return (int)Math.Min(limits[0], 1_000_000) - Directory.GetFileSystemEntries("/proc/self/fd").Length - 500;
    }

    // Two descriptors each: as many as may be, of 10,000. How they await decides how the resumes nest.
    [Test]
    public void ConnectionsReadyAtOnce_ResumeOnAFlatStack([Values("captured", "free", "task", "nested")] string how) => Run.OnLoop(async () =>
    {
        TestPoller.SkipOnLibkqueue("edges are lost where more descriptors are ready at once than its list of events has room for");
        var count = Math.Min(10_000, DescriptorsLeft() / 2);
        Assert.That(count, Is.GreaterThanOrEqualTo(500), "the limit of open files is too low for this test");
        TestContext.Out.WriteLine($"{count} connections");
        var pairs = new (Socket Peer, AsyncSocket Socket)[count];
        var (resumed, next) = (0, new TaskCompletionSource());
        for (var i = 0; i < count; i++)
        {
            var (x, y) = Pair.Unix();
            pairs[i] = (y, new AsyncSocket(x));
        }
        async Task Receive(int i)
        {
            var socket = pairs[i].Socket;
            for (var round = 0; round < 2; round++)
            {
                switch (how)
                {
                    case "captured": await socket.ReceiveAsync(new byte[1]); break;
                    case "free": await socket.ReceiveAsync(new byte[1]).ConfigureAwait(false); break;
                    case "task": await socket.ReceiveAsync(new byte[1]).AsTask().ConfigureAwait(false); break;
                    default: await Deep(socket, 20).ConfigureAwait(false); break;
                }
                // In its continuation, each makes another one ready: the neighbour, of the second round.
                if (round == 0) pairs[(i + 1) % count].Peer.Send([2]);
                if (i % 20 == 0) Sample();
                if (++resumed == 2 * count) next.SetResult();
            }
        }
        async Task<int> Deep(AsyncSocket socket, int levels) =>
            levels > 0 ? await Deep(socket, levels - 1).ConfigureAwait(false) : await socket.ReceiveAsync(new byte[1]).ConfigureAwait(false);
        var all = Enumerable.Range(0, count).Select(Receive).ToArray();
        foreach (var (peer, _) in pairs) peer.Send([1]); // the loop is here, and sees them all at once afterwards
        await next.Task;
        await Task.WhenAll(all);
        Check();
        // And as many ended at once, each disposing of the next from its continuation.
        var ended = 0;
        async Task End(int i)
        {
            try
            {
                await pairs[i].Socket.ReceiveAsync(new byte[1]).ConfigureAwait(false);
            }
            catch (ObjectDisposedException)
            {
            }
            if (i % 20 == 0) Sample();
            pairs[(i + 1) % count].Socket.Dispose();
            ended++;
        }
        all = [.. Enumerable.Range(0, count).Select(End)];
        await EventLoop.Current!.Yield();
        pairs[0].Socket.Dispose();
        await Task.WhenAll(all);
        Assert.That(ended, Is.EqualTo(count));
        Check();
        foreach (var (peer, _) in pairs) peer.Dispose();
    });

    [DllImport("libc", SetLastError = true)]
    private static extern int eventfd(uint value, int flags);

    // One descriptor each, so that 10,000 are possible where 20,000 are not.
    [Test]
    public void TenThousandDescriptorsReadyAtOnce_ResumeOnAFlatStack() => Run.OnLoop(async () =>
    {
        TestPoller.SkipOnLibkqueue("edges are lost where more descriptors are ready at once than its list of events has room for");
        var count = Math.Min(10_000, DescriptorsLeft());
        Assert.That(count, Is.GreaterThanOrEqualTo(2000), "the limit of open files is too low for this test");
        TestContext.Out.WriteLine($"{count} descriptors");
        var descriptors = new AsyncFd[count];
        for (var i = 0; i < count; i++) descriptors[i] = AsyncFd.FromDescriptor(eventfd(0, 0x80801), ownsHandle: true);
        var one = BitConverter.GetBytes(1L);
        async Task Read(int i)
        {
            for (var round = 0; round < 2; round++)
            {
                await descriptors[i].ReadAsync(new byte[8]).ConfigureAwait(false);
                if (i % 20 == 0) Sample();
                if (round == 0) descriptors[(i + 1) % count].TryWrite(one, out _);
            }
        }
        var all = Enumerable.Range(0, count).Select(Read).ToArray();
        foreach (var descriptor in descriptors) descriptor.TryWrite(one, out _);
        foreach (var task in all) await task;
        Check();
        foreach (var descriptor in descriptors) descriptor.Dispose();
    });

    /// <summary>A kernel that never makes anybody wait.</summary>
    private sealed class ReadyCalls : CountingCalls
    {
        internal volatile bool Ready;

        internal override int Send(int socket, ReadOnlySpan<byte> buffer) => Ready ? buffer.Length : base.Send(socket, buffer);

        internal override int Receive(int socket, Span<byte> buffer) => Ready ? buffer.Length : base.Receive(socket, buffer);
    }

    [Test]
    public void AMillionCompletionsInARow_StayFlat([Values("receive", "send", "readable", "writable", "callbacks", "layers", "two tasks")] string how)
    {
        const int million = 1_000_000;
        var calls = new ReadyCalls();
        Run.OnLoop(async () =>
        {
            var loop = EventLoop.Current!;
            var (a, b) = await Pair.Async();
            using (a)
            using (b)
            {
                b.TrySend([1], out _);
                await a.ReadableAsync();
                calls.Ready = true;
                var buffer = new byte[16];
                var turns = loop.Statistics.Turns;
                switch (how)
                {
                    case "callbacks":
                        await Callbacks(a);
                        break;
                    case "two tasks":
                        await Task.WhenAll(Loop(() => a.SendAsync(buffer), million / 2), Loop(() => a.ReceiveAsync(buffer), million / 2));
                        break;
                    case "layers":
                        for (var i = 0; i < million; i++)
                        {
                            await Layer(a, buffer, 3).ConfigureAwait(false);
                            if (i % 1000 == 0) Sample();
                        }
                        break;
                    default:
                        for (var i = 0; i < million; i++)
                        {
                            switch (how)
                            {
                                case "receive": await a.ReceiveAsync(buffer); break;
                                case "send": await a.SendAsync(buffer); break;
                                case "readable": await a.ReadableAsync(); break;
                                default: await a.WritableAsync(); break;
                            }
                            if (i % 1000 == 0) Sample();
                        }
                        break;
                }
                calls.Ready = false;
                Check();
                Assert.That(loop.Statistics.Turns - turns, Is.GreaterThan(million / 130), "others had their turns");
            }
        }, new EventLoopOptions { SpinDuration = TimeSpan.Zero, SystemCalls = calls });

        async Task Loop(Func<ValueTask<int>> operation, int count)
        {
            for (var i = 0; i < count; i++)
            {
                await operation().ConfigureAwait(false);
                if (i % 1000 == 0) Sample();
            }
        }

        static async ValueTask<int> Layer(AsyncSocket socket, byte[] buffer, int layers) =>
            layers > 0 ? await Layer(socket, buffer, layers - 1).ConfigureAwait(false) : await socket.SendAsync(buffer).ConfigureAwait(false);

        // By hand, as a program without async would: what completes at once goes on in the loop, what waits in a callback.
        Task Callbacks(AsyncSocket socket)
        {
            var (i, done, one) = (0, new TaskCompletionSource(), new byte[1]);
            void Go()
            {
                while (i < million)
                {
                    var awaiter = socket.SendAsync(one).ConfigureAwait(false).GetAwaiter();
                    if (i++ % 64 is 0 or 63) Sample();
                    if (!awaiter.IsCompleted)
                    {
                        awaiter.UnsafeOnCompleted(() =>
                        {
                            awaiter.GetResult();
                            Go();
                        });
                        return;
                    }
                    awaiter.GetResult();
                }
                done.SetResult();
            }
            Go();
            return done.Task;
        }
    }

    // A look that comes through the queue resumes an awaiter that starts the next operation, cancelled too, and so on.
    [Test]
    public void CancellationsInARow_StayFlat() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            for (var i = 0; i < 50_000; i++)
            {
                using var source = new CancellationTokenSource();
                var receiving = a.ReceiveAsync(new byte[1], source.Token);
                source.Cancel();
                try
                {
                    await receiving.ConfigureAwait(false);
                }
                catch (OperationCanceledException)
                {
                }
                if (i % 100 == 0) Sample();
            }
            Check();
        }
    });
}
