using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Tests.Sockets;

/// <summary>Exactly 0 bytes per operation after warm-up, counted on the loop's thread.</summary>
[TestFixture]
internal sealed class AllocationTests
{
    private const int WarmUp = 3000;
    private const int Counted = 3000;

    private static async Task AssertNone(Func<int, Task> rounds)
    {
        await rounds(WarmUp);
        var before = 0L;
        var after = 0L;
        // The rounds are one async method, whose state machine is made before the first count.
        async Task Count()
        {
            await EventLoop.Current!.Yield();
            before = GC.GetAllocatedBytesForCurrentThread();
            await rounds(Counted);
            after = GC.GetAllocatedBytesForCurrentThread();
        }
        await Count();
        Assert.That(after - before, Is.LessThan(1000), "no more than the state machine of the one method, whatever the number of rounds");
        Assert.That((after - before) / Counted, Is.Zero);
    }

    private static async Task Echo(AsyncSocket socket)
    {
        var buffer = new byte[64];
        int n;
        while ((n = await socket.ReceiveAsync(buffer)) > 0) await socket.SendAsync(buffer.AsMemory(0, n));
    }

    [TestCase("tcp", false)]
    [TestCase("unix", false)]
    [TestCase("tcp", true)]
    public void ReceiveAndSend(string kind, bool withToken) => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Of(kind);
        using var a = new AsyncSocket(x);
        using var b = new AsyncSocket(y);
        using var source = new CancellationTokenSource();
        var token = withToken ? source.Token : default;
        var echo = Echo(b);
        var buffer = new byte[64];
        await AssertNone(async rounds =>
        {
            for (var i = 0; i < rounds; i++)
            {
                await a.SendAsync(buffer.AsMemory(0, 1), token);
                await a.ReceiveAsync(buffer, token);
            }
        });
        a.Shutdown(SocketShutdown.Send);
        await echo;
    });

    [Test]
    public void ReceiveWithConfigureAwaitFalse() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var buffer = new byte[64];
            await AssertNone(async rounds =>
            {
                for (var i = 0; i < rounds; i++)
                {
                    var receiving = a.ReceiveAsync(buffer);
                    b.TrySend(buffer.AsSpan(0, 1), out _);
                    await receiving.ConfigureAwait(false);
                }
                await a.Loop.SwitchTo();
            });
        }
    });

    [Test]
    public void ReadableAndEmptyReceive() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var buffer = new byte[64];
            await AssertNone(async rounds =>
            {
                for (var i = 0; i < rounds; i++)
                {
                    var readable = a.ReadableAsync();
                    b.TrySend(buffer.AsSpan(0, 1), out _);
                    await readable;
                    await a.ReceiveAsync(Memory<byte>.Empty);
                    await a.ReceiveAsync(buffer);
                    await a.WritableAsync();
                }
            });
        }
    });

    [Test]
    public void PlainReadable() => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Tcp();
        using (x)
        using (y)
        {
            var buffer = new byte[64];
            x.Blocking = false;
            await AssertNone(async rounds =>
            {
                for (var i = 0; i < rounds; i++)
                {
                    y.Send(buffer, 0, 1, SocketFlags.None);
                    while (x.Receive(buffer, 0, 64, SocketFlags.None, out var error) <= 0 || error != SocketError.Success) await x.ReadableAsync();
                }
            });
        }
    });

    [Test]
    public void PostYieldDelay() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        var count = 0;
        Action post = () => count++;
        Action<object> postWithState = _ => count++;
        var state = new object();
        await AssertNone(async rounds =>
        {
            for (var i = 0; i < rounds; i++)
            {
                loop.Post(post);
                loop.Post(postWithState, state);
                await loop.Yield();
                if (i % 100 == 0) await loop.Delay(TimeSpan.FromTicks(10));
            }
        });
        Assert.That(count, Is.EqualTo(2 * (WarmUp + Counted)));
    });

    [Test]
    public void DelayCancelled() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        using var source = new CancellationTokenSource();
        await AssertNone(async rounds =>
        {
            for (var i = 0; i < rounds; i++) await loop.Delay(TimeSpan.FromTicks(1), source.Token);
        });
    });

    [Test]
    public void ReceiveAndSendWithTimeouts() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            a.ReceiveTimeout = b.ReceiveTimeout = a.SendTimeout = TimeSpan.FromSeconds(30);
            var buffer = new byte[64];
            await AssertNone(async rounds =>
            {
                for (var i = 0; i < rounds; i++)
                {
                    var receiving = a.ReceiveAsync(buffer);
                    await b.SendAsync(buffer.AsMemory(0, 1));
                    await receiving;
                }
            });
        }
    });

    [TestCase(false)]
    [TestCase(true)]
    public void Datagrams(bool messages) => Run.OnLoop(async () =>
    {
        using var a = AsyncSocket.BindDatagram(new IPEndPoint(IPAddress.Loopback, 0), new AsyncSocketOptions { ReceiveTimestamps = messages });
        using var b = AsyncSocket.BindDatagram(new IPEndPoint(IPAddress.Loopback, 0));
        var to = a.LocalEndPoint!.Serialize();
        var from = new SocketAddress(AddressFamily.InterNetwork);
        var (buffer, control) = (new byte[64], new byte[256]);
        await AssertNone(async rounds =>
        {
            for (var i = 0; i < rounds; i++)
            {
                if (messages)
                {
                    var receiving = a.ReceiveMessageAsync(buffer, control, from);
                    await b.SendToAsync(buffer, to);
                    if ((await receiving).Timestamp is null) throw new InvalidOperationException();
                }
                else
                {
                    var receiving = a.ReceiveFromAsync(buffer, from);
                    await b.SendToAsync(buffer, to);
                    await receiving;
                }
            }
        });
    });

    [Test]
    public void DatagramBatches() => Run.OnLoop(async () =>
    {
        using var a = AsyncSocket.BindDatagram(new IPEndPoint(IPAddress.Loopback, 0));
        using var b = AsyncSocket.ConnectDatagram(a.LocalEndPoint!);
        var (outgoing, incoming) = (new DatagramBatch(16, 64), new DatagramBatch(16, 64));
        for (var i = 0; i < 16; i++) outgoing.Add(new byte[64]);
        await AssertNone(async rounds =>
        {
            for (var i = 0; i < rounds; i++)
            {
                var receiving = a.ReceiveAsync(incoming);
                await b.SendAsync(outgoing);
                for (var n = await receiving; n < 16;) n += await a.ReceiveAsync(incoming);
            }
        });
    });

    [Test]
    public void ScatterGatherPeek() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var segments = new ArraySegment<byte>[] { new(new byte[10]), new(new byte[10]) };
            var sequence = new System.Buffers.ReadOnlySequence<byte>(new byte[20]);
            var buffer = new byte[5];
            await AssertNone(async rounds =>
            {
                for (var i = 0; i < rounds; i++)
                {
                    var receiving = a.ReceiveAsync(segments);
                    await b.SendAsync(segments);
                    await receiving;
                    var peeking = a.ReceiveAsync(buffer, SocketFlags.Peek);
                    await b.SendAsync(sequence);
                    await peeking;
                    await a.ReceiveAsync(segments);
                }
            });
        }
    });

    [Test]
    public void SendFile() => Run.OnLoop(async () =>
    {
        var path = Path.GetTempFileName();
        File.WriteAllBytes(path, new byte[1000]);
        using var file = File.OpenHandle(path);
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var buffer = new byte[2000];
            await AssertNone(async rounds =>
            {
                for (var i = 0; i < rounds; i++)
                {
                    await a.SendFileAsync(file);
                    for (var n = 0; n < 1000;) n += await b.ReceiveAsync(buffer);
                }
            });
        }
        File.Delete(path);
    });

    [Test]
    public void ClosedWithToken() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            a.Shutdown(SocketShutdown.Send);
            await b.ReceiveAsync(new byte[1]);
            await AssertNone(async rounds =>
            {
                for (var i = 0; i < rounds; i++) await b.ClosedAsync();
            });
        }
    });

    [Test]
    public void Descriptors() => Run.OnLoop(async () =>
    {
        var (a, b) = Pair.Fds();
        using var closeA = a;
        using var closeB = b;
        b.ReadTimeout = TimeSpan.FromSeconds(30);
        var buffer = new byte[64];
        await AssertNone(async rounds =>
        {
            for (var i = 0; i < rounds; i++)
            {
                var reading = b.ReadAsync(buffer);
                await a.WriteAsync(buffer);
                await reading;
                var readable = a.ReadableAsync();
                await b.WriteAsync(buffer);
                await readable;
                await a.ReadAsync(buffer);
            }
        });
    });

    [Test]
    public void Priority() => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Tcp();
        using (x)
        using (y)
        {
            using var fd = new AsyncFd(y.SafeHandle, ownsHandle: false);
            var buffer = new byte[1];
            await AssertNone(async rounds =>
            {
                for (var i = 0; i < rounds; i++)
                {
                    var priority = fd.PriorityAsync();
                    x.Send(buffer, 0, 1, SocketFlags.OutOfBand);
                    await priority;
                    y.Receive(buffer, 0, 1, SocketFlags.OutOfBand);
                }
            });
        }
    });

#if !AMY_NETSTANDARD // there, a Stream is called by its array overloads, which make Tasks
    [Test]
    public void Streams() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using var x = a.AsStream();
        using var y = b.AsStream();
        var buffer = new byte[64];
        await AssertNone(async rounds =>
        {
            for (var i = 0; i < rounds; i++)
            {
                var reading = x.ReadAsync(buffer);
                await y.WriteAsync(buffer);
                await reading;
            }
        });
    });
#endif

    [TestCase(false)]
    [TestCase(true)]
    public void Pipes(bool threshold) => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var options = threshold ? new AsyncPipeOptions { PauseWriterThreshold = 0, ResumeWriterThreshold = 0 } : null;
            var (x, y) = (a.AsPipe(options), b.AsPipe(options));
            var large = new byte[threshold ? 3_000_000 : 100];
            async Task Rounds(int rounds)
            {
                for (var i = 0; i < rounds; i++)
                {
                    var flushing = y.Output.WriteAsync(large);
                    for (long n = 0; n < large.Length;)
                    {
                        var result = await x.Input.ReadAsync();
                        n += result.Buffer.Length;
                        x.Input.AdvanceTo(result.Buffer.End);
                    }
                    await flushing;
                    y.Output.GetSpan(50);
                    y.Output.Advance(50);
                    await y.Output.FlushAsync();
                    x.Input.AdvanceTo((await x.Input.ReadAsync()).Buffer.End);
                }
            }
            if (!threshold) await AssertNone(Rounds);
            else
            {
                // Large ones rent from a pool that is shared, and may grow at times: fewer rounds, less than one buffer's object.
                await Rounds(20);
                var before = GC.GetAllocatedBytesForCurrentThread();
                await Rounds(20);
                Assert.That(GC.GetAllocatedBytesForCurrentThread() - before, Is.LessThan(4_000_000));
            }
        }
    });
}
