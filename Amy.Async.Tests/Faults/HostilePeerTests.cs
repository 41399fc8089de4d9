using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace Amy.Async.Tests.Faults;

/// <summary>
/// Peers that mean harm, many at once, against a server on a loop of its own: memory stays bounded, others are served, and the
/// statistics show what happened. (Malformed frames and lines, one peer at a time: CodecSocketTests.)
/// </summary>
[TestFixture]
[NonParallelizable]
internal sealed class HostilePeerTests
{
    /// <summary>The server: what it does with a connection is given; how each ended is counted.</summary>
    private sealed class Server : IDisposable
    {
        private readonly Func<AsyncSocket, Task> _serve;
        private readonly AsyncSocket _listener;

        internal readonly EventLoop Loop = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
        internal readonly ConcurrentDictionary<string, int> Ends = new();
        internal volatile int Open;
        internal volatile int Accepted;

        internal Server(Func<AsyncSocket, Task> serve)
        {
            _serve = serve;
            _listener = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0), new AsyncSocketOptions { Backlog = 4096 }, Loop);
            EndPoint = _listener.LocalEndPoint!;
        }

        internal EndPoint EndPoint { get; }

        internal void Begin() => _ = Loop.InvokeAsync(async () =>
        {
            try
            {
                while (true) _ = ServeAsync(await _listener.AcceptAsync());
            }
            catch (ObjectDisposedException)
            {
                // the test is over
            }
        });

        private async Task ServeAsync(AsyncSocket connection)
        {
            Accepted++;
            Open++;
            var end = "ended";
            try
            {
                using (connection) await _serve(connection);
            }
            catch (Exception e)
            {
                end = e.GetType().Name;
            }
            Ends.AddOrUpdate(end, 1, static (_, n) => n + 1);
            Open--;
        }

        internal int Count(string end) => Ends.GetValueOrDefault(end);

        public void Dispose()
        {
            _listener.Dispose();
            Loop.Dispose();
        }
    }

    private static async Task Echo(AsyncSocket connection)
    {
        var buffer = new byte[512];
        for (int n; (n = await connection.ReceiveAsync(buffer)) > 0;) await connection.SendAsync(buffer.AsMemory(0, n));
    }

    private static Socket Connect(EndPoint endPoint)
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true, ReceiveTimeout = 30_000, SendTimeout = 30_000 };
        socket.Connect(endPoint);
        return socket;
    }

    /// <summary>Closes with a reset, which leaves no port waiting for its time.</summary>
    private static void Reset(Socket socket)
    {
        socket.LingerState = new LingerOption(true, 0);
        socket.Dispose();
    }

    private static void Exchange(Socket socket, int times)
    {
        var buffer = new byte[16];
        for (var i = 0; i < times; i++)
        {
            socket.Send([(byte)i, (byte)(i >> 8), 3]);
            for (var got = 0; got < 3;)
            {
                var n = socket.Receive(buffer, got, buffer.Length - got, SocketFlags.None);
                Assert.That(n, Is.Positive);
                got += n;
            }
            Assert.That(buffer.AsSpan(0, 3).SequenceEqual<byte>([(byte)i, (byte)(i >> 8), 3]), Is.True);
        }
    }

    // Without what a double of kqueue keeps in the kernel's stead.
    private static long Memory()
    {
        Descriptors.Settle();
        return GC.GetTotalMemory(forceFullCollection: true) - KqueueDouble.Bytes;
    }

    /// <summary>
    /// What doing it leaves in memory, the least of at most four times: tables keep the room of the most there ever were, and the rest
    /// of the process comes and goes; a leak is there each time.
    /// </summary>
    private static long LeastGrowth(long limit, Action action)
    {
        var least = long.MaxValue;
        for (var i = 0; i < 4 && least >= limit; i++)
        {
            var before = Memory();
            action();
            least = Math.Min(least, Memory() - before);
            TestContext.Out.WriteLine($"at least {least} bytes");
        }
        return least;
    }

    private static void AtRest(Server server) =>
        Run.Until(() => server.Loop.Statistics.Registrations == 1 && server.Open == 0, "all but the listener is gone");

    [Test]
    public void Senders_OneByteNowAndThen_CostNoMoreThanTheyHaveSent()
    {
        TestPoller.SkipOnLibkqueue("edges are lost where more descriptors are ready at once than its list of events has room for");
        const int Peers = 300, Bytes = 100;
        var lines = 0;
        using var server = new Server(async connection =>
        {
            await foreach (var line in connection.ReadLinesAsync(maxLength: 4096))
            {
                lines++;
                await connection.SendAsync(Encoding.ASCII.GetBytes(line + "\n"));
            }
        });
        server.Begin();
        using var good = Connect(server.EndPoint);
        Run.Until(() => server.Open == 1, "the good one is accepted");
        var before = Memory();
        var peers = Enumerable.Range(0, Peers).Select(_ => Connect(server.EndPoint)).ToList();
        Run.Until(() => server.Open == Peers + 1, "all are accepted");
        var buffer = new byte[16];
        for (var i = 0; i < Bytes; i++)
        {
            foreach (var peer in peers) peer.Send("a"u8);
            good.Send("hi\n"u8);
            for (var got = 0; got < 3;) got += good.Receive(buffer, got, 3 - got, SocketFlags.None);
        }
        Assert.That(lines, Is.EqualTo(Bytes), "others are served, after each byte of the slow ones");
        var grown = Memory() - before;
        TestContext.Out.WriteLine($"{grown / Peers} bytes each");
        Assert.That(grown / Peers, Is.LessThan(8 * 1024));
        Assert.That(server.Loop.Statistics.Registrations, Is.EqualTo(Peers + 2));
        Assert.That(server.Loop.Statistics.Events, Is.GreaterThan(Bytes));
        peers.ForEach(Reset);
        good.Dispose();
        AtRest(server);
        Assert.That(server.Count(nameof(SocketException)), Is.EqualTo(Peers));
    }

    [Test]
    public void Receivers_ThatNeverReceive_HoldNoBufferOfOurs_AndATimeoutEndsThem()
    {
        const int Peers = 200;
        var chunk = new byte[1 << 20];
        var blocked = 0;
        using var server = new Server(async connection =>
        {
            var first = new byte[1];
            await connection.ReceiveAsync(first);
            if (first[0] == (byte)'e')
            {
                await connection.SendAsync(first);
                await Echo(connection);
                return;
            }
            connection.SendTimeout = first[0] == (byte)'t' ? TimeSpan.FromMilliseconds(50) : Timeout.InfiniteTimeSpan;
            blocked++;
            while (true) await connection.SendAsync(chunk);
        });
        server.Begin();
        using var good = Connect(server.EndPoint);
        good.Send("e"u8);
        Assert.That(good.Receive(new byte[1]), Is.EqualTo(1));
        var before = Memory();
        var peers = Enumerable.Range(0, Peers).Select(i => { var s = Connect(server.EndPoint); s.ReceiveBufferSize = 4096; s.Send(i % 2 == 0 ? "t"u8 : "x"u8); return s; }).ToList();
        Exchange(good, 200);
        Run.Until(() => server.Count(nameof(TimeoutException)) == Peers / 2, "half of them had a time-out");
        Assert.That(blocked, Is.EqualTo(Peers));
        Exchange(good, 200);
        var grown = Memory() - before;
        TestContext.Out.WriteLine($"{grown / Peers} bytes each");
        Assert.That(grown / Peers, Is.LessThan(8 * 1024), "a mebibyte waits for each; none has a copy of it");
        var statistics = server.Loop.Statistics;
        Assert.That(statistics.TimersFired, Is.GreaterThanOrEqualTo(Peers / 2));
        Assert.That(statistics.Registrations, Is.EqualTo(Peers / 2 + 2));
        peers.ForEach(Reset);
        good.Dispose();
        AtRest(server);
        Assert.That(server.Count(nameof(SocketException)), Is.EqualTo(Peers / 2));
    }

    /// <summary>The peers are in processes of their own, so that their descriptors are no limit here.</summary>
    [Test]
    public void Connections_TenThousandThatNeverSpeak_CostLittle_AndATimeoutEndsSome()
    {
        TestPoller.SkipOnLibkqueue("edges are lost where more descriptors are ready at once than its list of events has room for");
        const int Peers = 10_000, Late = 500;
        if (DescriptorLimit() < Peers + Directory.GetFileSystemEntries("/proc/self/fd").Length + 500) Assert.Ignore($"{Peers} connections are more than the limit of descriptors, {DescriptorLimit()}, has room for.");
        var timeout = Timeout.InfiniteTimeSpan;
        using var server = new Server(async connection =>
        {
            connection.ReceiveTimeout = timeout;
            await Echo(connection);
        });
        server.Begin();
        using var good = Connect(server.EndPoint);
        Exchange(good, 10);
        var before = Memory();
        using (new SilentPeers(server.EndPoint, Peers - Late))
        {
            Run.Until(() => server.Accepted == Peers - Late + 1, "none is still in the queue");
            Run.Wait(server.Loop.InvokeAsync(() => { timeout = TimeSpan.FromMilliseconds(100); }));
            using (new SilentPeers(server.EndPoint, Late))
            {
                Run.Until(() => server.Accepted == Peers + 1, "all are accepted");
                Exchange(good, 200);
                var grown = Memory() - before;
                TestContext.Out.WriteLine($"{grown / Peers} bytes each, a buffer of 512 and an async method included");
                Assert.That(grown / Peers, Is.LessThan(3 * 1024));
                Run.Until(() => server.Count(nameof(TimeoutException)) == Late, "who has a time-out is sent away");
                var statistics = server.Loop.Statistics;
                Assert.That(statistics.TimersFired, Is.GreaterThanOrEqualTo(Late));
                Assert.That(statistics.Registrations, Is.EqualTo(Peers - Late + 2));
                Exchange(good, 10);
            }
        }
        good.Dispose();
        AtRest(server);
        Assert.That(Memory() - before, Is.LessThan(Peers * 200L + 300_000), "what grows with the most there ever were: the tables of slots");
    }

    /// <summary>Peers that say nothing, until they are disposed of.</summary>
    private sealed class SilentPeers : IDisposable
    {
        private readonly RealProgram _program;

        internal SilentPeers(EndPoint server, int count)
        {
            _program = RealProgram.Dotnet(Repository.Program("Amy.Async.Bench"), "hold", "--port", $"{((IPEndPoint)server).Port}", "--connections", $"{count}");
            Assert.That(Run.Wait(_program.Process.StandardOutput.ReadLineAsync()), Is.EqualTo("connected"));
        }

        public void Dispose()
        {
            _program.Process.StandardInput.Close();
            _program.Process.WaitForExit(Run.Limit); // it resets its connections: killed, it would leave their ports waiting
            _program.Dispose();
        }
    }

    private static int DescriptorLimit() =>
        int.Parse(File.ReadLines("/proc/self/limits").Single(l => l.StartsWith("Max open files", StringComparison.Ordinal)).Split(' ', StringSplitOptions.RemoveEmptyEntries)[3], System.Globalization.CultureInfo.InvariantCulture);

    [Test]
    public void Connections_ResetBeforeTheyAreAccepted_EndQuietly()
    {
        TestPoller.SkipOnLibkqueue("it takes the error of a connection away (SO_ERROR) before a call can tell it");
        const int Peers = 1000, Limit = Peers * 256;
        var descriptors = Descriptors.Settle();
        Assert.That(LeastGrowth(Limit, Storm), Is.LessThan(Limit));
        Assert.That(Descriptors.Settle(), Is.EqualTo(descriptors), Descriptors.List());

        static void Storm()
        {
            using var server = new Server(Echo);
            for (var i = 0; i < Peers; i++) Reset(Connect(server.EndPoint));
            using (var good = Connect(server.EndPoint)) // the last in the queue
            {
                server.Begin();
                Exchange(good, 100);
            }
            AtRest(server);
            Assert.That(server.Count(nameof(SocketException)), Is.EqualTo(server.Accepted - 1), "each is told once");
            Assert.That(server.Loop.Statistics.AcceptBackoffs, Is.Zero);
        }
    }

    [TestCase("lines")]
    [TestCase("frames")]
    public void Nonsense_FromManyAtOnce_IsRefusedByEach(string codec)
    {
        TestPoller.SkipOnLibkqueue("edges are lost where more descriptors are ready at once than its list of events has room for");
        const int Peers = 200, Most = 1000, Limit = Peers * 1024;
        var refused = 0;
        using var server = new Server(async connection =>
        {
            var first = new byte[1];
            await connection.ReceiveAsync(first);
            if (first[0] == (byte)'e') await Echo(connection);
            else if (codec == "lines")
                await foreach (var _ in connection.ReadLinesAsync(Most)) { }
            else
                await foreach (var _ in connection.ReadFramesAsync(Most)) { }
        });
        server.Begin();
        using var good = Connect(server.EndPoint);
        good.Send("e"u8);
        Exchange(good, 10);
        var nonsense = new byte[8000];
        new Random(9).NextBytes(nonsense);
        nonsense.AsSpan().Replace((byte)'\n', (byte)0xFE);
        nonsense[0] = (byte)'x';
        nonsense[1] = 0x7F; // a frame of 2 GiB
        var peers = new List<Socket>();
        Assert.That(LeastGrowth(Limit, Storm), Is.LessThan(Limit), "what is left: the peers' own sockets");
        Assert.That(server.Loop.Statistics.Registrations, Is.EqualTo(2));
        Assert.That(server.Loop.Statistics.Events, Is.GreaterThanOrEqualTo(refused), "each was heard");
        peers.ForEach(Reset);
        good.Dispose();
        AtRest(server);

        void Storm()
        {
            for (var i = 0; i < Peers; i++)
            {
                peers.Add(Connect(server.EndPoint));
                peers[^1].Send(nonsense);
            }
            Exchange(good, 200);
            refused += Peers;
            Run.Until(() => server.Count(nameof(InvalidDataException)) == refused, "each is refused");
        }
    }

    [Test]
    public void Churn_AsFastAsItGoes_GrowsNothing()
    {
        const int Threads = 2, Each = 8000, WarmUp = 1000;
        using var server = new Server(Echo);
        server.Begin();
        using var good = Connect(server.EndPoint);
        Storm(WarmUp);
        var descriptors = Descriptors.Settle();
        var storms = 0;
        Assert.That(LeastGrowth(256 * 1024, () => { Storm(Each); storms++; }), Is.LessThan(256 * 1024));
        Assert.That(Descriptors.Settle(), Is.EqualTo(descriptors), Descriptors.List());
        Assert.That(server.Accepted, Is.InRange(1 + WarmUp, Threads * (WarmUp + storms * Each) + storms + 2), "the kernel drops some that are reset at once");
        Assert.That(server.Loop.Statistics.Registrations, Is.EqualTo(2));

        void Storm(int each)
        {
            var storms = Enumerable.Range(0, Threads).Select(_ => Task.Factory.StartNew(() =>
            {
                for (var i = 0; i < each; i++) Reset(Connect(server.EndPoint));
            }, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default)).ToArray();
            while (!Task.WhenAll(storms).IsCompleted) Exchange(good, 10);
            Run.Wait(Task.WhenAll(storms));
            var last = Connect(server.EndPoint); // behind all others in the queue
            Exchange(last, 1);
            Reset(last);
            Run.Until(() => server.Open == 1, "all have come and gone");
        }
    }
}
