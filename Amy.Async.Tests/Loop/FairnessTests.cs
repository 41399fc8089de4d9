using System.Buffers;
using System.Net;
using System.Net.Sockets;
using Amy.Async.Native;

namespace Amy.Async.Tests.Loop;

/// <summary>The bounds of one turn, counted: no clock is looked at.</summary>
[TestFixture]
internal sealed class FairnessTests
{
    private const int Budget = 64;
    private const int MaxItems = 256;
    private const int MaxTimers = 256;

    /// <summary>A kernel that always takes and always has something.</summary>
    private sealed class GenerousCalls : CountingCalls
    {
        internal volatile bool Generous;
        internal int Most = int.MaxValue; // bytes of one send

        internal override int Send(int socket, ReadOnlySpan<byte> buffer) => Generous ? Math.Min(buffer.Length, Most) : base.Send(socket, buffer);

        internal override int Receive(int socket, Span<byte> buffer) => Generous ? buffer.Length : base.Receive(socket, buffer);
    }

    private static EventLoopOptions Options(SystemCalls calls, TimeProvider? time = null) =>
        new() { SpinDuration = TimeSpan.Zero, SystemCalls = calls, TimeProvider = time };

    // The edges of what was set up have come: the poller was asked since.
    private static async Task Settle(EventLoop loop)
    {
        for (var i = 0; i < 3; i++) await loop.Yield();
    }

    [Test]
    public void Budget_ThatManyOperationsCompleteAtOnce_ThenOneThroughTheQueue(
        [Values("receive", "readable", "vectors", "message", "peek", "send", "writable", "sequence", "list", "file", "closed", "accept",
            "receive from", "stream read", "stream write", "pipe read", "pipe write", "descriptor read", "descriptor write", "descriptor writable")] string operation) => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        var (x, y) = Pair.Unix();
        using var a = operation.StartsWith("descriptor", StringComparison.Ordinal) ? null : new AsyncSocket(x);
        using var fd = a is null ? new AsyncFd(x.SafeHandle, ownsHandle: false) : null;
        using var listener = AsyncSocket.Listen(new UnixDomainSocketEndPoint(Pair.TemporaryPath()), new AsyncSocketOptions { Backlog = 200 });
        using var datagrams = AsyncSocket.BindDatagram(new IPEndPoint(IPAddress.Loopback, 0));
        using var file = File.OpenHandle(typeof(FairnessTests).Assembly.Location);
        var (one, some) = (new byte[1], new byte[8]);
        var vectors = new[] { new ArraySegment<byte>(one) };
        var stream = a?.AsStream();
        var pipe = a?.AsPipe(new AsyncPipeOptions { MinimumSegmentSize = 16 });
        var accepted = new List<AsyncSocket>();
        var clients = new List<Socket>();
        y.Send(new byte[10_000]);
        if (operation == "closed") y.Shutdown(SocketShutdown.Both);
        if (operation == "receive from")
        {
            using var peer = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
            for (var i = 0; i < 100; i++) peer.SendTo(one, datagrams.LocalEndPoint!);
        }
        if (operation == "accept")
        {
            for (var i = 0; i < 100; i++)
            {
                clients.Add(new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified));
                clients[i].Connect(listener.LocalEndPoint!);
            }
        }
        async Task<int> Once()
        {
            switch (operation)
            {
                case "receive": return await a!.ReceiveAsync(one);
                case "readable": return (int)await a!.ReadableAsync();
                case "vectors": return await a!.ReceiveAsync(vectors);
                case "message": return (await a!.ReceiveMessageAsync(one, default)).Count;
                case "peek": return await a!.ReceiveAsync(one, SocketFlags.Peek);
                case "send": return await a!.SendAsync(one);
                case "writable": return (int)await a!.WritableAsync();
                case "sequence": return (int)await a!.SendAsync(new ReadOnlySequence<byte>(one));
                case "list": return (int)await a!.SendAsync(vectors);
                case "file": return (int)await a!.SendFileAsync(file, 0, 1);
                case "closed": await a!.ClosedAsync(); return 1;
                case "accept": accepted.Add(await listener.AcceptAsync()); return 1;
                case "receive from": return await datagrams.ReceiveFromAsync(some, new SocketAddress(AddressFamily.InterNetwork));
                case "stream read": return await stream!.ReadAsync(one.AsMemory());
                case "stream write": await stream!.WriteAsync(one.AsMemory()); return 1;
                case "pipe read":
                    var result = await pipe!.Input.ReadAsync();
                    pipe.Input.AdvanceTo(result.Buffer.End);
                    return 1;
                case "pipe write": await pipe!.Output.WriteAsync(one); return 1;
                case "descriptor read": return await fd!.ReadAsync(one);
                case "descriptor write": return await fd!.WriteAsync(one);
                default: return (int)await fd!.WritableAsync();
            }
        }
        // What has to come first is there: the edges of all this.
        await Settle(loop);
        if (operation == "closed") await a!.ClosedAsync();
        await loop.Yield(); // a fresh budget
        var ran = false;
        var yields = loop.Statistics.BudgetYields;
        loop.Post(() => ran = true);
        // A connection costs more than a message: what one accepts is set up, and served.
        var many = operation == "accept" ? (Budget + EventLoop.AcceptUnits) / (1 + EventLoop.AcceptUnits) : Budget;
        for (var i = 0; i < many; i++)
        {
            var now = Once();
            Assert.That(now.IsCompletedSuccessfully, Is.True, $"{i}");
            Assert.That(await now, Is.Positive);
        }
        Assert.That((ran, loop.Statistics.BudgetYields), Is.EqualTo((false, yields)), "all in one piece");
        if (operation == "pipe write") // never waits for that; what it has is sent later
        {
            await Once();
            Assert.That(loop.Statistics.BudgetYields, Is.GreaterThan(yields));
        }
        else
        {
            var later = Once();
            Assert.That(later.IsCompleted, Is.False);
            Assert.That(loop.Statistics.BudgetYields, Is.EqualTo(yields + 1));
            Assert.That(await later, Is.Positive);
            Assert.That(ran, Is.True, "what was posted has had its turn");
            var again = Once();
            Assert.That(again.IsCompletedSuccessfully, Is.True, "a new budget");
        }
        accepted.ForEach(s => s.Dispose());
        clients.ForEach(s => s.Dispose());
        y.Dispose();
        x.Dispose();
    });

    [Test]
    public void Posts_AtMostSoManyBeforeThePollerIsAsked()
    {
        var calls = new CountingCalls();
        Run.OnLoop(async () =>
        {
            var loop = EventLoop.Current!;
            const int count = 10 * MaxItems;
            var waits = new List<int>();
            var done = new TaskCompletionSource();
            loop.Post(() =>
            {
                for (var i = 0; i < count; i++)
                {
                    loop.Post(() =>
                    {
                        waits.Add(calls.Waits);
                        if (waits.Count == count) done.SetResult();
                    });
                }
            });
            await done.Task;
            var pieces = waits.GroupBy(w => w).OrderBy(g => g.Key).ToArray();
            Assert.That(pieces.Select(g => g.Count()), Is.EqualTo(Enumerable.Repeat(MaxItems, 10)));
            Assert.That(pieces[^1].Key - pieces[0].Key, Is.EqualTo(9), "asked once between two pieces");
        }, Options(calls));
    }

    [Test]
    public void Posts_MadeByPosts_WaitForTheNextTurn()
    {
        var calls = new CountingCalls();
        Run.OnLoop(async () =>
        {
            var loop = EventLoop.Current!;
            var (runs, waits) = (0, calls.Waits);
            var done = new TaskCompletionSource();
            void Again()
            {
                if (++runs == 1000) done.SetResult();
                else loop.Post(Again);
            }
            loop.Post(Again);
            await done.Task;
            Assert.That(calls.Waits - waits, Is.GreaterThanOrEqualTo(999));
        }, Options(calls));
    }

    [Test]
    public void PostStorm_AReadyConnectionIsServedAfterOnePiece()
    {
        var calls = new CountingCalls();
        Run.OnLoop(async () =>
        {
            var loop = EventLoop.Current!;
            var (x, y) = Pair.Unix();
            using var a = new AsyncSocket(x);
            using (y)
            {
                var (posts, servedAfter) = (0, -1);
                async Task Serve()
                {
                    await a.ReceiveAsync(new byte[1]);
                    servedAfter = posts;
                }
                var serving = Serve();
                await loop.Yield();
                for (var i = 0; i < 20 * MaxItems; i++) loop.Post(() => posts++);
                y.Send([1]);
                await serving;
                Assert.That(servedAfter, Is.InRange(0, MaxItems));
            }
        }, Options(calls));
    }

    [Test]
    public void Timers_AtMostSoManyBeforeThePollerIsAsked_AndPostsRunInBetween()
    {
        var calls = new CountingCalls();
        var time = new VirtualTimeProvider();
        Run.OnLoop(async () =>
        {
            var loop = EventLoop.Current!;
            const int count = 4 * MaxTimers;
            var waits = new List<int>();
            var (posts, postsBefore) = (0, new List<int>());
            async Task Wait()
            {
                await loop.Delay(TimeSpan.FromSeconds(1));
                waits.Add(calls.Waits);
                postsBefore.Add(posts);
            }
            var waiting = Enumerable.Range(0, count).Select(_ => Wait()).ToArray();
            void Again()
            {
                posts++;
                if (waits.Count < count) loop.Post(Again);
            }
            loop.Post(Again);
            time.Advance(TimeSpan.FromSeconds(1));
            await Task.WhenAll(waiting);
            var pieces = waits.GroupBy(w => w).Select(g => g.Count()).ToArray();
            Assert.That(pieces, Is.EqualTo(Enumerable.Repeat(MaxTimers, 4)));
            Assert.That(postsBefore.Distinct().Count(), Is.EqualTo(4), "a post between two pieces");
        }, Options(calls, time));
    }

    [Test]
    public void Firehose_AQuietConnectionIsServedWithinOneBudget([Values("receive", "send")] string direction)
    {
        var calls = new GenerousCalls();
        Run.OnLoop(async () =>
        {
            var loop = EventLoop.Current!;
            var ((hose, end), (x, y)) = (Pair.Tcp(), Pair.Unix());
            using var firehose = new AsyncSocket(hose);
            using var quiet = new AsyncSocket(x);
            using (end)
            using (y)
            {
                var (operations, servedAfter) = (0, -1);
                async Task Serve()
                {
                    await quiet.ReadableAsync();
                    servedAfter = operations;
                }
                var serving = Serve();
                await Settle(loop);
                calls.Generous = true;
                y.Send([1]);
                var buffer = new byte[100];
                for (; servedAfter < 0 && operations < 100_000; operations++)
                {
                    if (direction == "receive") await firehose.ReceiveAsync(buffer);
                    else await firehose.SendAsync(buffer);
                }
                calls.Generous = false;
                await serving;
                Assert.That(servedAfter, Is.InRange(1, Budget + 1));
            }
        }, Options(calls));
    }

    [Test]
    public void AcceptStorm_OthersRunBetweenBudgets() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        using var listener = AsyncSocket.Listen(new UnixDomainSocketEndPoint(Pair.TemporaryPath()), new AsyncSocketOptions { Backlog = 500 });
        var clients = new List<Socket>();
        for (var i = 0; i < 300; i++)
        {
            clients.Add(new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified));
            clients[i].Connect(listener.LocalEndPoint!);
        }
        await Settle(loop);
        var accepted = 0;
        var others = new List<int>();
        var done = false;
        void Other()
        {
            others.Add(accepted);
            if (!done) loop.Post(Other);
        }
        loop.Post(Other);
        for (; accepted < 300; accepted++) (await listener.AcceptAsync()).Dispose();
        done = true;
        Assert.That(others, Has.Count.GreaterThanOrEqualTo(300 / (Budget + 1)));
        Assert.That(others.Zip(others.Skip(1), (a, b) => b - a), Is.All.LessThanOrEqualTo(Budget + 1));
        clients.ForEach(c => c.Dispose());
    });

    [TestCase(Errno.ECONNABORTED)]
    [TestCase(Errno.EPERM)]
    public void AcceptStorm_OfFailedConnections_LetsOthersRun_AndGoesOn(int errno)
    {
        const int failed = 1000;
        var calls = new CountingCalls { OnAccept = n => n <= failed ? -errno : null };
        Run.OnLoop(async () =>
        {
            var loop = EventLoop.Current!;
            using var listener = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0));
            using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            client.Connect(listener.LocalEndPoint!);
            var (others, done) = (0, false);
            void Other()
            {
                others++;
                if (calls.Accepts <= failed && !done) loop.Post(Other);
            }
            loop.Post(Other);
            try
            {
                (await listener.AcceptAsync()).Dispose();
            }
            finally
            {
                done = true;
            }
            Assert.That(calls.Accepts, Is.EqualTo(failed + 1));
            Assert.That(others, Is.GreaterThan(failed / Budget / 2));
        }, Options(calls));
    }

    [Test]
    public void LargeSend_LetsOthersRunAfterEachMebibyte([Values] bool withOtherEdges)
    {
        const int mebibyte = 1 << 20;
        var calls = new GenerousCalls { Most = 1 << 16 };
        Run.OnLoop(async () =>
        {
            var loop = EventLoop.Current!;
            var (a, b) = await Pair.Async();
            using (a)
            using (b)
            {
                await Settle(loop);
                calls.Generous = true;
                var seen = new List<long>();
                var done = false;
                void Other()
                {
                    seen.Add(a.BytesSent / mebibyte);
                    // An edge besides, that of the reading side, say, must not have it go on twice from now on.
                    if (withOtherEdges && seen.Count == 2) b.Socket.Send([1]);
                    if (!done) loop.Post(Other);
                }
                loop.Post(Other);
                Assert.That(await a.SendAsync(new byte[10 * mebibyte]), Is.EqualTo(10 * mebibyte));
                done = true;
                calls.Generous = false;
                Assert.That(seen, Has.Count.GreaterThanOrEqualTo(withOtherEdges ? 8 : 9), string.Join(", ", seen));
            }
        }, Options(calls));
    }
}
