using System.Buffers;
using System.Diagnostics.CodeAnalysis;
using System.Net;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Amy.Async.Native;
using Microsoft.Win32.SafeHandles;

namespace Amy.Async.Tests.Regressions;

/// <summary>Bugs of descriptors, datagrams, messages and pipes that were found once, each as the test that found it.</summary>
[TestFixture]
[SuppressMessage("Usage", "CA1806", Justification = "What is closed in passing is looked at by its effect.")]
internal sealed class DescriptorAndPipeRegressionTests
{
    private static class C
    {
        internal const int F_GETFL = 3, O_NONBLOCK = 0x800, O_CLOEXEC = 0x80000;
        internal const int IPPROTO_IP = 0, IP_RECVERR = 11;

        [DllImport("libc", SetLastError = true)]
        internal static extern int openpty(out int master, out int slave, nint name, nint termios, nint size);

        [DllImport("libc", SetLastError = true)]
        internal static extern int close(int fd);

        [DllImport("libc", SetLastError = true)]
        internal static extern int dup(int fd);

        [DllImport("libc", SetLastError = true)]
        internal static extern int dup2(int from, int to);

        [DllImport("libc", SetLastError = true)]
        internal static extern int pipe2(int[] fds, int flags);

        [DllImport("libc", SetLastError = true)]
        internal static extern int fcntl(int fd, int command, nint argument);

        [DllImport("libc", SetLastError = true)]
        internal static extern int setsockopt(int fd, int level, int name, ref int value, int length);
    }

    private static (AsyncSocket A, AsyncSocket B) Sockets(string kind = "tcp")
    {
        var (x, y) = Pair.Of(kind);
        return (new AsyncSocket(x), new AsyncSocket(y));
    }

    private static int[] NewPipe(int flags = 0)
    {
        var fds = new int[2];
        Assert.That(C.pipe2(fds, C.O_CLOEXEC | flags), Is.Zero);
        return fds;
    }

    /// <summary>The number of a socket that no Socket, whose finalizer closes, stands behind any more.</summary>
    private static int Take(Socket socket)
    {
        var descriptor = (int)socket.SafeHandle.DangerousGetHandle();
        socket.SafeHandle.SetHandleAsInvalid();
        return descriptor;
    }

    /// <summary>Collects until what only finalizers close is closed.</summary>
    private static async Task Collected(Task effect, string what)
    {
        for (var i = 0; i < 500 && !effect.IsCompleted; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
            await EventLoop.Current!.Delay(TimeSpan.FromMilliseconds(1));
        }
        Assert.That(effect.IsCompleted, Is.True, what);
    }

    // ---- raw descriptors

    // The loop asks now and then whether the number is still what it was. It used to ask by a change of the registration, which
    // makes the kernel report again what is there: a condition that nobody takes away was a hot loop.
    private static async Task AssertQuiet(CountingCalls calls)
    {
        var loop = EventLoop.Current!;
        var (controls, events) = (calls.Controls, loop.Statistics.Events);
        while (calls.Controls < controls + 2) await loop.Delay(TimeSpan.FromMilliseconds(5)); // it has asked twice
        Assert.That(loop.Statistics.Events - events, Is.Zero, "events while nothing happened");
    }

    [Test]
    public void RawDescriptor_PriorityThatLasts_IsNoHotLoop()
    {
        TestPoller.SkipWithoutPriority();
        TestPoller.SkipOnLibkqueue("whether a number is still the same is asked without a change");
        var calls = new CountingCalls();
        Run.OnLoop(async () =>
        {
            var (x, y) = Pair.Tcp();
            var descriptor = Take(x);
            using (y)
            using (var fd = AsyncFd.FromDescriptor(descriptor))
            {
                var loop = EventLoop.Current!;
                var reading = fd.ReadAsync(new byte[10]).AsTask();
                for (var settled = loop.Statistics.Turns + 3; loop.Statistics.Turns < settled;) await loop.Yield(); // the first edges are in
                var events = loop.Statistics.Events;
                y.Send([1], SocketFlags.OutOfBand);
                while (loop.Statistics.Events == events) await loop.Yield();
                await AssertQuiet(calls);
                Assert.That(reading.IsCompleted, Is.False);
                y.Send([2]);
                Assert.That(await reading, Is.EqualTo(1));
            }
            C.close(descriptor);
        }, new EventLoopOptions { SystemCalls = calls, SpinDuration = TimeSpan.Zero });
    }

    [Test]
    public void RawDescriptor_ErrorThatLasts_IsNoHotLoop()
    {
        TestPoller.SkipOnLibkqueue("whether a number is still the same is asked without a change");
        var calls = new CountingCalls();
        Run.OnLoop(async () =>
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
            using (var closed = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp))
            {
                closed.Bind(new IPEndPoint(IPAddress.Loopback, 0));
                socket.Connect(closed.LocalEndPoint!);
            }
            var descriptor = Take(socket);
            var one = 1; // refusals stay in a queue, which nobody reads here: EPOLLERR for good
            Assert.That(C.setsockopt(descriptor, C.IPPROTO_IP, C.IP_RECVERR, ref one, sizeof(int)), Is.Zero);
            using (var fd = AsyncFd.FromDescriptor(descriptor))
            {
                await fd.WriteAsync(new byte[1]);
                await Expect.Throws<IOException>(async () => await fd.ReadAsync(new byte[1]));
                var reading = fd.ReadAsync(new byte[1]).AsTask();
                var loop = EventLoop.Current!;
                for (var settled = loop.Statistics.Turns + 3; loop.Statistics.Turns < settled;) await loop.Yield();
                await AssertQuiet(calls);
                Assert.That(reading.IsCompleted, Is.False);
                fd.Dispose();
                await Expect.Throws<ObjectDisposedException>(() => reading);
            }
            C.close(descriptor);
        }, new EventLoopOptions { SystemCalls = calls, SpinDuration = TimeSpan.Zero });
    }

    // A terminal is opened anew, so that the number that was given is another descriptor than the one that is read.
    [Test]
    public void RawTerminal_ClosedByItsOwner_EndsTheWait_AndTheMasterSeesTheHangUp() => Run.OnLoop(async () =>
    {
        Assert.That(C.openpty(out var m, out var s, 0, 0, 0), Is.Zero);
        using var master = AsyncFd.FromDescriptor(m, ownsHandle: true);
        using var terminal = AsyncFd.FromDescriptor(s);
        var reading = terminal.ReadAsync(new byte[1]).AsTask();
        C.close(s);
        await Expect.Throws<ObjectDisposedException>(() => reading);
        await Expect.Throws<IOException>(async () => await master.ReadAsync(new byte[1]));
    });

    [Test]
    public void RawTerminal_ClosedByItsOwner_EndsTheWait_AlsoOneThatBeganBeyondTheBudget() => Run.OnLoop(async () =>
    {
        Assert.That(C.openpty(out var m, out var s, 0, 0, 0), Is.Zero);
        using var master = AsyncFd.FromDescriptor(m, ownsHandle: true);
        using var terminal = AsyncFd.FromDescriptor(s);
        EventLoop.Current!.SpendUnits(int.MaxValue / 2);
        var reading = terminal.ReadAsync(new byte[1]).AsTask();
        C.close(s);
        await Expect.Throws<ObjectDisposedException>(() => reading);
        await Expect.Throws<IOException>(async () => await master.ReadAsync(new byte[1]));
    });

    [Test]
    public void RawDescriptor_NumberReusedAfterItsLoopStopped_KeepsItsFlags()
    {
        var fds = NewPipe();
        var loop = EventLoop.Start();
        var fd = AsyncFd.FromDescriptor(fds[0], loop);
        loop.Dispose();
        var others = NewPipe(C.O_NONBLOCK);
        Assert.That(C.dup2(others[0], fds[0]), Is.EqualTo(fds[0]));
        fd.Dispose(); // takes back O_NONBLOCK, but not another file's
        Assert.That(C.fcntl(others[0], C.F_GETFL, 0) & C.O_NONBLOCK, Is.Not.Zero);
        foreach (var descriptor in fds.Concat(others)) C.close(descriptor);
    }

    private sealed class NoKcmp : CountingCalls
    {
        internal override int CompareDescriptions(int first, int second) => -Errno.EPERM; // as under a container's seccomp filter
    }

    [Test]
    public void SharedDescription_WithoutKcmp_StaysNonBlockingUntilTheLastIsDisposed() => Run.OnLoop(() =>
    {
        var fds = NewPipe();
        var copy = C.dup(fds[0]);
        var one = AsyncFd.FromDescriptor(fds[0], ownsHandle: true);
        var two = AsyncFd.FromDescriptor(copy, ownsHandle: true);
        var third = C.dup(copy);
        one.Dispose();
        Assert.That(C.fcntl(third, C.F_GETFL, 0) & C.O_NONBLOCK, Is.Not.Zero, "a read would block the loop");
        two.Dispose();
        Assert.That(C.fcntl(third, C.F_GETFL, 0) & C.O_NONBLOCK, Is.Zero, "given back as it was");
        C.close(third);
        C.close(fds[1]);
        return Task.CompletedTask;
    }, new EventLoopOptions { SystemCalls = new NoKcmp(), SpinDuration = TimeSpan.Zero });

    // ---- connecting and accepting

    [Test]
    public void HappyEyeballs_CancelledDuringTheLookUp_IsCancelled() => Run.OnLoop(async () =>
    {
        using var source = new CancellationTokenSource();
        var asked = new TaskCompletionSource();
        var eyes = new HappyEyeballs(new DnsEndPoint("name.test", 1), new AsyncSocketOptions(), EventLoop.Current!)
        {
            Resolve = async (_, _, token) =>
            {
                asked.TrySetResult();
                await Task.Delay(Timeout.Infinite, token);
                return [];
            },
        };
        var connecting = eyes.ConnectAsync(source.Token).AsTask();
        await asked.Task;
        source.Cancel();
        await Expect.Throws<OperationCanceledException>(() => connecting); // not: no address was found
    });

    [Test]
    public void AcceptedSequencedPacket_IsNoStream() => Run.OnLoop(async () =>
    {
        var endPoint = new UnixDomainSocketEndPoint(Pair.TemporaryPath());
        var listener = new Socket(AddressFamily.Unix, SocketType.Seqpacket, ProtocolType.Unspecified);
        listener.Bind(endPoint);
        listener.Listen(1);
        using var server = new AsyncSocket(listener);
        using var client = new Socket(AddressFamily.Unix, SocketType.Seqpacket, ProtocolType.Unspecified);
        client.Connect(endPoint);
        using var accepted = await server.AcceptAsync();
        Assert.That(() => accepted.AsStream(), Throws.TypeOf<NotSupportedException>());
        File.Delete(endPoint.ToString()!);
    });

    // ---- datagrams and messages

    private sealed class Segment : ReadOnlySequenceSegment<byte>
    {
        internal Segment(byte value, Segment? before)
        {
            Memory = new[] { value };
            if (before is null) return;
            RunningIndex = before.RunningIndex + 1;
            before.Next = this;
        }
    }

    // A stream sends the rest with the next call; a datagram would lose it without a word.
    [Test]
    public void DatagramOfMoreBuffersThanOneCallTakes_IsRefused([Values] bool sequence) => Run.OnLoop(async () =>
    {
        using var b = AsyncSocket.BindDatagram(new IPEndPoint(IPAddress.Loopback, 0));
        using var a = AsyncSocket.ConnectDatagram(b.LocalEndPoint!);
        var refused = await Expect.Throws<SocketException>(async () => await Send(100));
        Assert.That(refused.SocketErrorCode, Is.EqualTo(SocketError.MessageSize));
        await Send(64);
        Assert.That(await b.ReceiveAsync(new byte[200]), Is.EqualTo(64), "nothing of the one that was refused");

        async Task Send(int count)
        {
            if (!sequence)
            {
                await a.SendAsync(Enumerable.Range(0, count).Select(i => new ArraySegment<byte>([(byte)i])).ToList());
                return;
            }
            var first = new Segment(0, null);
            var last = first;
            for (var i = 1; i < count; i++) last = new Segment((byte)i, last);
            await a.SendAsync(new ReadOnlySequence<byte>(first, 0, last, 1));
        }
    });

    [Test]
    public void DatagramBatch_OnAStream_IsRefused() => Run.OnLoop(async () =>
    {
        var (a, b) = Sockets();
        using (a)
        using (b)
        {
            var batch = new DatagramBatch(4, 16);
            await Expect.Throws<NotSupportedException>(async () => await b.ReceiveAsync(batch)); // the end would be received for ever
            batch.Add(new byte[1]);
            await Expect.Throws<NotSupportedException>(async () => await a.SendAsync(batch));
        }
    });

    // The kernel marks the last byte of what it takes: of each part, if it does not take all at once.
    [Test]
    public void OutOfBand_OfMoreThanTheKernelTakes_HasOneUrgentByte() => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Tcp();
        x.SendBufferSize = y.ReceiveBufferSize = 16384;
        using var a = new AsyncSocket(x);
        using var b = new AsyncSocket(y);
        var data = new byte[1 << 20];
        for (var i = 0; i < data.Length; i++) data[i] = (byte)(i / 251 + i);
        var sending = Send();
        var inLine = new MemoryStream();
        var buffer = new byte[10000];
        for (int n; (n = await b.ReceiveAsync(buffer)) > 0;) inLine.Write(buffer, 0, n);
        await sending;
        Assert.That(inLine.Length, Is.EqualTo(data.Length - 1));
        Assert.That(inLine.ToArray().AsSpan().SequenceEqual(data.AsSpan(0, data.Length - 1)), Is.True);

        async Task Send()
        {
            await a.SendAsync(data, SocketFlags.OutOfBand);
            a.Shutdown(SocketShutdown.Send);
        }
    });

    [Test]
    public void ReceivedDescriptors_ThatNobodyTakes_AreClosedWhenTheyAreCollected([Values] bool waits) => Run.OnLoop(async () =>
    {
        var (a, b) = Sockets("unix");
        using (a)
        using (b)
        {
            var fds = NewPipe(C.O_NONBLOCK);
            using var end = AsyncFd.FromDescriptor(fds[0], ownsHandle: true);
            await Pass(a, b, fds[1], waits);
            C.close(fds[1]);
            var reading = end.ReadAsync(new byte[1]).AsTask(); // ends when the last writer is closed
            await Collected(reading, "the received descriptor is still open");
            Assert.That(await reading, Is.Zero);
        }
    });

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static async Task Pass(AsyncSocket a, AsyncSocket b, int fd, bool waits)
    {
        var receiving = waits ? b.ReceiveMessageAsync(new byte[10], new byte[64]) : default;
        using (var handle = new SafeFileHandle(fd, ownsHandle: false)) await a.SendDescriptorsAsync(new byte[1], [handle]);
        if (!waits) receiving = b.ReceiveMessageAsync(new byte[10], new byte[64]);
        Assert.That((await receiving).Descriptors, Has.Count.EqualTo(1));
    }

    // ---- pipes

    // One operation of the direction sends all that is flushed while it is under way; it used to have the time-out of one.
    [Test]
    public void Pipe_SendTimeout_IsForStandingStill()
    {
        var time = new VirtualTimeProvider();
        Run.OnLoop(async () =>
        {
            var (x, y) = Pair.Tcp();
            x.SendBufferSize = y.ReceiveBufferSize = 65536;
            using var a = new AsyncSocket(x);
            using var b = new AsyncSocket(y);
            var loop = EventLoop.Current!;
            a.SendTimeout = TimeSpan.FromSeconds(10);
            var pipe = a.AsPipe(new AsyncPipeOptions { PauseWriterThreshold = 0, ResumeWriterThreshold = 0 });
            pipe.Output.GetMemory(16 << 20);
            pipe.Output.Advance(16 << 20);
            var flushing = pipe.Output.FlushAsync().AsTask();
            var buffer = new byte[65536];
            for (var round = 0; round < 10; round++)
            {
                time.Advance(TimeSpan.FromSeconds(6));
                await loop.Yield();
                for (var sent = a.BytesSent; a.BytesSent == sent;)
                {
                    Assert.That(flushing.IsCompleted, Is.False, $"after {round} rounds in which it got on");
                    if (!b.TryReceive(buffer, out _)) await loop.Yield();
                }
            }
            time.Advance(TimeSpan.FromSeconds(11));
            await Expect.Throws<TimeoutException>(() => flushing);
        }, new EventLoopOptions { TimeProvider = time });
    }

    // The flush that has waited is kept by the loop's side of the socket, and must not keep the pipe.
    [Test]
    public void DroppedPipe_IsCollected_AndThePeerSeesTheEnd([Values] bool hasWaitedInAFlush) => Run.OnLoop(async () =>
    {
        using var listener = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0));
        var accepting = listener.AcceptAsync();
        using var peer = await AsyncSocket.ConnectAsync(listener.LocalEndPoint!);
        await UseAndDrop(accepting, peer, hasWaitedInAFlush);
        await Collected(peer.ReceiveAsync(new byte[1]).AsTask(), "the connection leaks");
    });

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static async Task UseAndDrop(ValueTask<AsyncSocket> accepting, AsyncSocket peer, bool wait)
    {
        var pipe = (await accepting).AsPipe(new AsyncPipeOptions { PauseWriterThreshold = 1000, ResumeWriterThreshold = 0 });
        var length = wait ? 8 << 20 : 100;
        pipe.Output.GetMemory(length);
        pipe.Output.Advance(length);
        var flush = pipe.Output.FlushAsync();
        Assert.That(flush.IsCompleted, Is.EqualTo(!wait));
        var buffer = new byte[65536];
        for (var n = 0; n < length;) n += await peer.ReceiveAsync(buffer);
        await flush;
    }

    [Test]
    public void Pipe_ReaderCompletedUnderARead_GivesAllBack() => Run.OnLoop(async () =>
    {
        var pool = new CountingPool();
        var (a, b) = Sockets();
        using (a)
        using (b)
        {
            var pipe = b.AsPipe(new AsyncPipeOptions { Pool = pool });
            var reading = pipe.Input.ReadAsync().AsTask();
            pipe.Input.Complete();
            await a.SendAsync(new byte[10]);
            Assert.That((await reading).Buffer.IsEmpty, Is.True);
            pipe.Output.Complete();
            Assert.That(pool.Rented, Is.Zero);
        }
    });

    // A buffer that is nearly full is not worth a system call: the second read used to bring 6 bytes.
    [Test]
    public void Pipe_ReadWithLittleRoomLeft_TakesAFreshBuffer() => Run.OnLoop(async () =>
    {
        var (a, b) = Sockets();
        using (a)
        using (b)
        {
            var input = b.AsPipe().Input;
            await a.SendAsync(new byte[4090]);
            var result = await input.ReadAsync();
            Assert.That(result.Buffer.Length, Is.EqualTo(4090));
            input.AdvanceTo(result.Buffer.Start, result.Buffer.End);
            await a.SendAsync(new byte[4000]);
            result = await input.ReadAsync();
            Assert.That(result.Buffer.Length, Is.EqualTo(8090));
            input.AdvanceTo(result.Buffer.End);
        }
    });

#if !AMY_NETSTANDARD
    // The reading direction was taken for its receive before the hang-up's waiter ran, and making the Socket waited for it.
    [Test]
    public void Closed_WaiterAsksForTheSocket_WhileAReceiveWaits() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        var receiving = b.ReceiveAsync(new byte[8]);
        var closed = Ask();
        async Task<int> Ask()
        {
            await b.ClosedAsync();
            return b.Socket.Available;
        }
        a.Dispose();
        Assert.That(await closed, Is.Zero);
        Assert.That(await receiving, Is.Zero);
        b.Dispose();
    });
#endif
}
