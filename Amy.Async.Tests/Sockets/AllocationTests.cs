using System.Buffers;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace Amy.Async.Tests.Sockets;

/// <summary>Exactly 0 bytes per operation after warm-up, counted on the loop's thread.</summary>
[TestFixture]
internal sealed class AllocationTests
{
    private const int WarmUp = 3000;
    private const int Few = 1000;
    private const int Many = 4000;

    // The rounds are one async method, whose state machine is an object once it suspends: a run of few rounds has it too. What
    // many rounds take more than few is what the operations take.
    private static async Task AssertNone(Func<int, Task> rounds, int warmUp = WarmUp, int few = Few, int many = Many)
    {
        await rounds(warmUp);
        var forFew = await Count(rounds, few);
        var forMany = await Count(rounds, many);
        Assert.That(forMany - forFew, Is.Zero, $"{many} rounds against {few}, which took {forFew} bytes");
    }

    private static async Task<long> Count(Func<int, Task> rounds, int count)
    {
        await EventLoop.Current!.Yield(); // the same place for all
        var before = GC.GetAllocatedBytesForCurrentThread();
        await rounds(count);
        return GC.GetAllocatedBytesForCurrentThread() - before;
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
        Assert.That(count, Is.EqualTo(2 * (WarmUp + Few + Many)));
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
    public void UnixDatagrams() => Run.OnLoop(async () =>
    {
        var (pathA, pathB) = (Pair.TemporaryPath(), Pair.TemporaryPath());
        using (var a = AsyncSocket.BindDatagram(new UnixDomainSocketEndPoint(pathA)))
        using (var b = AsyncSocket.BindDatagram(new UnixDomainSocketEndPoint(pathB)))
        {
            var to = a.LocalEndPoint!.Serialize();
            var from = new SocketAddress(AddressFamily.Unix, 128);
            var buffer = new byte[64];
            await AssertNone(async rounds =>
            {
                for (var i = 0; i < rounds; i++)
                {
                    var receiving = a.ReceiveFromAsync(buffer, from);
                    await b.SendToAsync(buffer, to);
                    await receiving;
                    await b.SendToAsync(buffer, to); // it is there before it is received
                    await a.ReceiveAsync(buffer);
                }
            });
        }
        File.Delete(pathA);
        File.Delete(pathB);
    });

    [Test]
    public void Closed_WhenThePeerHasGone() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            using var source = new CancellationTokenSource();
            a.Shutdown(SocketShutdown.Send);
            await b.ReceiveAsync(new byte[1]);
            await AssertNone(async rounds =>
            {
                for (var i = 0; i < rounds; i++) await b.ClosedAsync(source.Token);
            });
        }
    });

    // A connection closes once: one for each round, which has waited before.
    [Test]
    public void Closed_WhenThePeerGoes() => Run.OnLoop(async () =>
    {
        using var source = new CancellationTokenSource();
        var connections = new List<(AsyncSocket A, AsyncSocket B)>();
        for (var i = 0; i < 300; i++)
        {
            var (a, b) = await Pair.Async();
            connections.Add((a, b));
            using var cancelled = new CancellationTokenSource();
            var waiting = b.ClosedAsync(cancelled.Token).AsTask();
            cancelled.Cancel();
            await Expect.Throws<OperationCanceledException>(() => waiting);
        }
        var next = 0;
        await AssertNone(async rounds =>
        {
            for (var i = 0; i < rounds; i++)
            {
                var (a, b) = connections[next++];
                var closing = b.ClosedAsync(source.Token);
                a.Shutdown(SocketShutdown.Send);
                await closing;
            }
        }, 50, 50, 200);
        foreach (var (a, b) in connections)
        {
            a.Dispose();
            b.Dispose();
        }
    });

#if !AMY_NETSTANDARD
    // The runtime's own thread calls the handler; counted is the loop's.
    [Test]
    [System.Runtime.Versioning.UnsupportedOSPlatform("windows")]
    public void Signals() => Run.OnLoop(async () =>
    {
        using var signals = new SignalReceiver(PosixSignal.SIGWINCH);
        await AssertNone(async rounds =>
        {
            for (var i = 0; i < rounds; i++)
            {
                var receiving = signals.ReceiveAsync();
                if (kill(Environment.ProcessId, SIGWINCH) != 0) throw new InvalidOperationException();
                await receiving;
            }
        }, 300, 100, 400);
    });

    private const int SIGWINCH = 28;

    [DllImport("libc")]
    private static extern int kill(int pid, int signal);
#endif

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
        TestPoller.SkipWithoutPriority();
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
            }, 1500, 100, 400);
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

    /// <summary>A pool that makes a buffer only if none is free; all are of one size, so that any will do.</summary>
    private sealed class KeepingPool : MemoryPool<byte>
    {
        private readonly Stack<Owner> _free = new();

        public override int MaxBufferSize => 65536;

        public override IMemoryOwner<byte> Rent(int minBufferSize = -1) => _free.Count > 0 ? _free.Pop() : new Owner(this);

        protected override void Dispose(bool disposing)
        {
        }

        private sealed class Owner(KeepingPool pool) : IMemoryOwner<byte>
        {
            public Memory<byte> Memory { get; } = new byte[65536];

            public void Dispose() => pool._free.Push(this);
        }
    }

    [TestCase(100, 65536)]
    [TestCase(100_000, 65536)]
    [TestCase(3_000_000, 0)]
    public void Pipes(int length, int threshold) => Run.OnLoop(async () =>
    {
        var (plainA, plainB) = Pair.Tcp();
        plainA.ReceiveBufferSize = plainB.SendBufferSize = 32768; // else the kernel takes it all at once
        using (var a = new AsyncSocket(plainA))
        using (var b = new AsyncSocket(plainB))
        {
            var options = new AsyncPipeOptions { Pool = new KeepingPool(), PauseWriterThreshold = threshold, ResumeWriterThreshold = threshold / 2 };
            var (x, y) = (a.AsPipe(options), b.AsPipe(options));
            var data = new byte[length];
            async Task Rounds(int rounds)
            {
                for (var i = 0; i < 2 * rounds; i++)
                {
                    var rest = i % 2 == 0 ? length : 50;
                    if (i % 2 != 0)
                    {
                        y.Output.GetSpan(rest);
                        y.Output.Advance(rest);
                    }
                    var flushing = i % 2 == 0 ? y.Output.WriteAsync(data) : y.Output.FlushAsync();
                    while (rest > 0) // no method of its own, which would be an object for each call
                    {
                        var result = await x.Input.ReadAsync();
                        rest -= (int)result.Buffer.Length;
                        x.Input.AdvanceTo(result.Buffer.End);
                    }
                    await flushing;
                }
            }
            if (length < 1000) await AssertNone(Rounds);
            else await AssertNone(Rounds, 60, 20, 40);
        }
    });
}
