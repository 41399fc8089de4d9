using System.Net;
using System.Net.Sockets;
using Amy.Async.Bench;

namespace Amy.Async.Tests.Faults;

/// <summary>Echoes under seeded faults, with exact accounts: each byte arrives, or the operation that had it has failed.</summary>
[TestFixture]
internal sealed class FaultyEchoTests
{
    private static EndPoint Local(string family) => family switch
    {
        "IPv4" => new IPEndPoint(IPAddress.Loopback, 0),
        "IPv6" => new IPEndPoint(IPAddress.IPv6Loopback, 0),
        _ => new UnixDomainSocketEndPoint(Pair.TemporaryPath()),
    };

    private static byte Pattern(long position, int seed) => (byte)(position * 31 + seed * 7 >> 2);

    private static void AssertPattern(ReadOnlySpan<byte> bytes, long position, int seed)
    {
        for (var i = 0; i < bytes.Length; i++)
            if (bytes[i] != Pattern(position + i, seed)) Assert.Fail($"byte {position + i} of connection {seed} is wrong");
    }

    private static byte[] Chunk(Random random, long position, int seed, int most)
    {
        var chunk = new byte[random.Next(1, most)];
        for (var i = 0; i < chunk.Length; i++) chunk[i] = Pattern(position + i, seed);
        return chunk;
    }

    [Test]
    public void Echo_FaultsThatNobodyIsToSee_EveryByteComesBack([Values("IPv4", "IPv6", "Unix")] string family, [Values(1UL, 2UL, 3UL)] ulong seed)
    {
        const int Connections = 8, Total = 150_000;
        var calls = new FaultyCalls(FaultMix.Transparent(seed));
        Run.OnLoop(async () =>
        {
            using var listener = AsyncSocket.Listen(Local(family));
            var serving = Serve(listener);
            await Task.WhenAll(Enumerable.Range(0, Connections).Select(Client));
            listener.Dispose();
            await serving;
            Assert.That(EventLoop.Current!.Statistics.Registrations, Is.Zero);

            async Task Client(int n)
            {
                using var socket = await AsyncSocket.ConnectAsync(listener.LocalEndPoint!);
                await Task.WhenAll(Send(), Receive());

                async Task Send()
                {
                    var random = new Random(n);
                    for (long sent = 0; sent < Total;) sent += await socket.SendAsync(Chunk(random, sent, n, 9000));
                    socket.Shutdown(SocketShutdown.Send);
                }

                async Task Receive()
                {
                    var buffer = new byte[5000];
                    long got = 0;
                    for (int count; (count = await socket.ReceiveAsync(buffer)) > 0; got += count) AssertPattern(buffer.AsSpan(0, count), got, n);
                    Assert.That(got, Is.EqualTo(socket.BytesSent));
                }
            }
        }, new EventLoopOptions { SpinDuration = TimeSpan.Zero, SystemCalls = calls });
        TestContext.Out.WriteLine(calls.Summary());
        foreach (var (point, kind) in new[]
        {
            (FaultPoint.Event, FaultKind.Delayed), (FaultPoint.Event, FaultKind.Duplicated),
            (FaultPoint.Receive, FaultKind.WouldBlock), (FaultPoint.Receive, FaultKind.Short), (FaultPoint.Send, FaultKind.WouldBlock), (FaultPoint.Send, FaultKind.Short),
        })
            Assert.That(calls.Struck(point, kind), Is.Positive, $"{point} {kind}");

        async Task Serve(AsyncSocket listener)
        {
            var all = new List<Task>();
            try
            {
                while (true) all.Add(Echo(await listener.AcceptAsync()));
            }
            catch (ObjectDisposedException)
            {
                // the test is over
            }
            await Task.WhenAll(all);
        }

        static async Task Echo(AsyncSocket socket)
        {
            using (socket)
            {
                var buffer = new byte[4000];
                for (int n; (n = await socket.ReceiveAsync(buffer)) > 0;) await socket.SendAsync(buffer.AsMemory(0, n));
            }
        }
    }

    /// <summary>Connections fail under the two; each failure is one that was injected, and what was sent before has arrived.</summary>
    [Test]
    public void OneWay_SendsAndReceivesFail_WhatWasSentArrivesAndEachFailureIsToldOnce([Values("IPv4", "Unix")] string family, [Values(4UL, 5UL, 6UL)] ulong seed)
    {
        const int Connections = 60, Total = 60_000;
        var calls = new FaultyCalls(FaultMix.All(seed, percent: 1));
        long failures = 0;
        Run.OnLoop(async () =>
        {
            using var listener = AsyncSocket.Listen(Local(family));
            for (var n = 0; n < Connections; n++)
            {
                var accepting = listener.AcceptAsync();
                using var client = await AsyncSocket.ConnectAsync(listener.LocalEndPoint!);
                using var server = await accepting;
                await Task.WhenAll(Send(client, n), Receive(server, n));
                Assert.That(server.BytesReceived, Is.EqualTo(client.BytesSent));
            }
        }, new EventLoopOptions { SpinDuration = TimeSpan.Zero, SystemCalls = calls });
        TestContext.Out.WriteLine(calls.Summary());
        var injected = calls.Struck(FaultPoint.Send, FaultKind.Error) + calls.Struck(FaultPoint.Receive, FaultKind.Error);
        Assert.That(injected, Is.Positive);
        Assert.That(failures, Is.EqualTo(injected));

        // A sender whose send has failed ends its direction: the kernel has all that BytesSent says.
        async Task Send(AsyncSocket socket, int n)
        {
            var random = new Random(n);
            try
            {
                while (socket.BytesSent < Total) await socket.SendAsync(Chunk(random, socket.BytesSent, n, 4000));
            }
            catch (SocketException)
            {
                failures++;
            }
            socket.Shutdown(SocketShutdown.Send);
        }

        // A receive that has failed has taken nothing: the next one goes on.
        async Task Receive(AsyncSocket socket, int n)
        {
            var buffer = new byte[3000];
            for (var ended = false; !ended;)
            {
                var before = socket.BytesReceived;
                try
                {
                    var count = await socket.ReceiveAsync(buffer);
                    AssertPattern(buffer.AsSpan(0, count), before, n);
                    ended = count == 0;
                }
                catch (SocketException)
                {
                    failures++;
                    Assert.That(socket.BytesReceived, Is.EqualTo(before));
                }
            }
        }
    }
}
