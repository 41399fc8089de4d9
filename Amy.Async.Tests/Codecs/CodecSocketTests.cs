using System.Buffers.Binary;
using System.Net.Sockets;
using System.Text;

namespace Amy.Async.Tests.Codecs;

/// <summary>Codecs on sockets, and peers that mean harm: each is refused, with bounded memory, while others are served.</summary>
[TestFixture]
internal class CodecSocketTests
{
    [Test]
    public void ReadLinesAsync_UntilTheEnd_GivesEveryLine() => Run.OnLoop(async () =>
    {
        var (client, server) = await Pair.Async();
        using (client)
        using (server)
        {
            var feed = Feed();
            var lines = new List<string>();
            await foreach (var line in server.ReadLinesAsync())
            {
                Assert.That(EventLoop.Current, Is.Not.Null, "enumerating on the loop stays there");
                lines.Add(line);
            }
            await feed;
            Assert.That(lines, Is.EqualTo(Enumerable.Range(0, 1000).Select(i => $"line {i}").Append("the rest")));

            async Task Feed()
            {
                for (var i = 0; i < 1000; i++) await client.SendAsync(Encoding.UTF8.GetBytes($"line {i}\r\n"));
                await client.SendAsync("the rest"u8.ToArray());
                client.Shutdown(SocketShutdown.Send);
            }
        }
    });

    [Test]
    public void Frames_ThroughWriterAndReader_ComeBackWhole() => Run.OnLoop(async () =>
    {
        var (client, server) = await Pair.Async();
        using (client)
        using (server)
        {
            var random = new Random(3);
            byte[][] sent = [.. Enumerable.Range(0, 300).Select(_ => { var f = new byte[random.Next(20_000)]; random.NextBytes(f); return f; })];
            var feed = Feed();
            var received = new List<byte[]>();
            await foreach (var frame in server.ReadFramesAsync(20_000)) received.Add(frame.ToArray());
            await feed;
            Assert.That(received, Is.EqualTo(sent));

            async Task Feed()
            {
                var writer = new FrameWriter(20_000, 60_000);
                foreach (var frame in sent)
                    while (!writer.TryWrite(frame))
                        if (!client.TrySend(writer)) await client.WritableAsync();
                await client.SendAsync(writer);
                Assert.That(writer.IsEmpty, Is.True);
                client.Shutdown(SocketShutdown.Send);
            }
        }
    });

    [Test]
    public void ReadFramesAsync_StreamEndsWithinAFrame_Throws() => Run.OnLoop(async () =>
    {
        var (client, server) = await Pair.Async();
        using (server)
        {
            await client.SendAsync(new byte[] { 0, 0, 0, 9, 1 });
            client.Dispose();
            await Expect.Throws<EndOfStreamException>(async () =>
            {
                await foreach (var _ in server.ReadFramesAsync(100)) Assert.Fail("no whole frame");
            });
        }
    });

    [Test]
    public void ReadLinesAsync_Cancelled_Throws() => Run.OnLoop(async () =>
    {
        var (client, server) = await Pair.Async();
        using (client)
        using (server)
        using (var source = new CancellationTokenSource(TimeSpan.FromMilliseconds(5), EventLoop.Current!.TimeProvider))
            await Expect.Throws<OperationCanceledException>(async () =>
            {
                await foreach (var _ in server.ReadLinesAsync().WithCancellation(source.Token)) Assert.Fail("nothing was sent");
            });
    });

    [TestCase("lines", "garbage")]
    [TestCase("lines", "no newline")]
    [TestCase("lines", "one byte at a time")]
    [TestCase("frames", "garbage")]
    [TestCase("frames", "4 GiB")]
    [TestCase("frames", "one byte at a time")]
    public void HostilePeer_IsRefusedWithBoundedMemory_AndOthersAreServed(string codec, string attack)
    {
        const int Max = 64 * 1024;
        const int Limit = 2 * Max + 400_000; // twice the maximum, the exception, the tasks of a hundred awaits
        Run.OnLoop(async () =>
        {
            var (evil, victim) = await Pair.Async();
            var (good, served) = await Pair.Async();
            using (evil)
            using (victim)
            using (good)
            using (served)
            {
                var rounds = 0;
                var stop = false;
                var others = Others();
                var before = GC.GetAllocatedBytesForCurrentThread();
                var outcome = Consume();
                var bytes = await Attack();
                var error = await outcome;
                var allocated = GC.GetAllocatedBytesForCurrentThread() - before;
                TestContext.Out.WriteLine($"{bytes} bytes sent, {allocated} allocated, {rounds} rounds for others; {error?.Message}");
                Assert.That(allocated, Is.LessThan(Limit + rounds * 2000L), "the others' lines are strings");
                stop = true;
                await others;
                Assert.That(rounds, Is.Positive);
                if (attack == "one byte at a time") Assert.That(error, Is.Null, "slow, but right: every message came through");
                else Assert.That(error, Is.TypeOf<InvalidDataException>());

                async Task<Exception?> Consume()
                {
                    try
                    {
                        var count = 0;
                        if (codec == "lines")
                            await foreach (var _ in victim.ReadLinesAsync(Max)) count++;
                        else
                            await foreach (var _ in victim.ReadFramesAsync(Max)) count++;
                        return count == 100 ? null : new InvalidOperationException($"{count} messages");
                    }
                    catch (InvalidDataException e)
                    {
                        return e;
                    }
                    finally
                    {
                        victim.Dispose();
                    }
                }

                async Task<long> Attack()
                {
                    var buffer = new byte[8192];
                    if (attack == "one byte at a time")
                    {
                        var message = codec == "lines" ? "hi\n"u8.ToArray() : [0, 0, 0, 1, 7];
                        for (var i = 0; i < 100; i++)
                            for (var k = 0; k < message.Length; k++)
                            {
                                await evil.SendAsync(message.AsMemory(k, 1));
                                await EventLoop.Current!.Yield();
                            }
                        evil.Shutdown(SocketShutdown.Send);
                        return evil.BytesSent;
                    }
                    if (attack == "garbage") new Random(5).NextBytes(buffer);
                    else if (attack == "4 GiB") BinaryPrimitives.WriteUInt32BigEndian(buffer, uint.MaxValue);
                    else buffer.AsSpan().Fill((byte)'a');
                    if (attack == "garbage" && codec == "lines") buffer.AsSpan().Replace((byte)'\n', (byte)0xFF);
                    try
                    {
                        for (var i = 0; i < 1000; i++) await evil.SendAsync(buffer);
                    }
                    catch (SocketException)
                    {
                        // refused: the victim has hung up
                    }
                    return evil.BytesSent;
                }

                async Task Others()
                {
                    var buffer = new byte[16];
                    do
                    {
                        await good.SendAsync(new byte[] { 1, 2, 3 });
                        for (var got = 0; got < 3;) got += await served.ReceiveAsync(buffer);
                        rounds++;
                        await EventLoop.Current!.Yield();
                    }
                    while (!stop);
                }
            }
        });
    }
}
