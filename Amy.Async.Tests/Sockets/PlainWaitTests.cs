using System.IO.Pipes;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Amy.Async.Tests.Sockets;

/// <summary><c>ReadableAsync</c> and <c>WritableAsync</c> on the platform's own types.</summary>
[TestFixture]
internal class PlainWaitTests
{
    private static int Receive(Socket socket, byte[] buffer)
    {
        var n = socket.Receive(buffer, 0, buffer.Length, SocketFlags.None, out var error);
        return error switch
        {
            SocketError.Success => n,
            SocketError.WouldBlock => -1,
            _ => throw new SocketException((int)error),
        };
    }

    [TestCase("tcp")]
    [TestCase("unix")]
    public void PingPong_OnPlainSockets(string kind) => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Of(kind);
        using (x)
        using (y)
        {
            x.Blocking = y.Blocking = false;
            async Task Echo()
            {
                var b = new byte[64];
                while (true)
                {
                    var n = Receive(y, b);
                    if (n == 0) return;
                    if (n < 0) await y.ReadableAsync();
                    else y.Send(b, 0, n, SocketFlags.None);
                }
            }
            var echo = Echo();
            var buffer = new byte[64];
            for (var i = 0; i < 500; i++)
            {
                x.Send([(byte)i]);
                while (Receive(x, buffer) < 0) Assert.That((await x.ReadableAsync()).HasFlag(Readiness.Readable), Is.True);
                Assert.That(buffer[0], Is.EqualTo((byte)i));
            }
            x.Shutdown(SocketShutdown.Send);
            await echo;
        }
    });

    [Test]
    public void ReadableAsync_IsLevelTrue_WhileSomethingIsThere() => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Tcp();
        using (x)
        using (y)
        {
            y.Send(new byte[100]);
            for (var i = 0; i < 100; i++)
            {
                Assert.That((await x.ReadableAsync()).HasFlag(Readiness.Readable), Is.True);
                Assert.That(x.Receive(new byte[1]), Is.EqualTo(1)); // never drained until the last
            }
            var waiting = x.ReadableAsync();
            y.Send([1]);
            await waiting;
        }
    });

    [Test]
    public void WritableAsync_FullSocket_WaitsForRoom() => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Tcp();
        using (x)
        using (y)
        {
            await x.WritableAsync();
            var chunk = new byte[1 << 16];
            long sent = 0;
            while (true)
            {
                var n = x.Send(chunk, 0, chunk.Length, SocketFlags.None, out var error);
                if (error == SocketError.WouldBlock) break;
                sent += n;
            }
            ValueTask<Readiness> writable;
            do writable = x.WritableAsync(); // may be spurious once
            while (writable.IsCompleted && (await writable) != 0);
            for (long got = 0; got < sent;) got += y.Receive(chunk);
            await writable;
        }
    });

    [Test]
    public void BothDirections_AreIndependent() => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Tcp();
        using (x)
        using (y)
        {
            var readable = x.ReadableAsync().AsTask();
            Assert.That(await x.WritableAsync(), Is.EqualTo(Readiness.Writable));
            await x.WritableAsync();
            Assert.That(readable.IsCompleted, Is.False);
            Assert.Throws<InvalidOperationException>(() => _ = x.ReadableAsync());
            y.Send([1]);
            Assert.That((await readable).HasFlag(Readiness.Readable), Is.True);
        }
    });

    [Test]
    public void Listener_ReadableMeansAConnection() => Run.OnLoop(async () =>
    {
        using var listener = Pair.ListenPlain();
        var waiting = listener.ReadableAsync();
        using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        client.Connect(listener.LocalEndPoint!);
        await waiting;
        listener.Accept().Dispose();
    });

    [Test]
    public void Pipe_IsAwaitable() => Run.OnLoop(async () =>
    {
        using var server = new AnonymousPipeServerStream(PipeDirection.Out);
        using var reader = new SafeFileHandle(server.ClientSafePipeHandle.DangerousGetHandle(), ownsHandle: false);
        var waiting = reader.ReadableAsync().AsTask();
        await EventLoop.Current!.Delay(TimeSpan.FromMilliseconds(5));
        Assert.That(waiting.IsCompleted, Is.False);
        server.WriteByte(5);
        Assert.That((await waiting).HasFlag(Readiness.Readable), Is.True);
        Assert.That((await server.SafePipeHandle.WritableAsync()).HasFlag(Readiness.Writable), Is.True);
    });

    [Test]
    public void RegularFile_ThrowsNotSupported() => Run.OnLoop(() =>
    {
        using var file = File.OpenHandle(typeof(PlainWaitTests).Assembly.Location);
        Assert.Throws<NotSupportedException>(() => _ = file.ReadableAsync());
        return Task.CompletedTask;
    });

    [Test]
    public void BadArguments_Throw() => Run.OnLoop(() =>
    {
        Assert.Throws<ArgumentNullException>(() => _ = ((Socket)null!).ReadableAsync());
        Assert.Throws<ArgumentNullException>(() => _ = ((SafeHandle)null!).WritableAsync());
        using var unconnected = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        Assert.Throws<SocketException>(() => _ = unconnected.ReadableAsync());
        var (x, y) = Pair.Tcp();
        x.Dispose();
        y.Dispose();
        Assert.Throws<ObjectDisposedException>(() => _ = x.ReadableAsync());
        return Task.CompletedTask;
    });

    [Test]
    public void UnannouncedClose_UnderAWait_EndsIt([Values] bool dupElsewhere) => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Tcp();
        using (y)
        {
            using var dup = dupElsewhere ? new Socket(new SafeSocketHandle(Dup((int)x.Handle), ownsHandle: true)) : null;
            var waiting = x.ReadableAsync().AsTask();
            x.Dispose();
            using var thief = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp); // takes the number
            await Expect.Throws<ObjectDisposedException>(async () => await waiting);
        }
        await EventLoop.Current!.Yield();
    });

    [DllImport("libc", EntryPoint = "dup")]
    private static extern int Dup(int fd);

    [DllImport("libc", EntryPoint = "dup2")]
    private static extern int Dup2(int from, int to);

    /// <summary>A number that a C library closed and opened anew: the next wait is about what is there now.</summary>
    [Test]
    public void NumberReopenedBehindTheHandle_NextWaitSeesTheNewFile() => Run.OnLoop(async () =>
    {
        TestPoller.SkipOnLibkqueue("the old file lives on, its entry in epoll cannot be deleted by the number, and points to a knote that is freed");
        using var one = new AnonymousPipeServerStream(PipeDirection.Out);
        using var two = new AnonymousPipeServerStream(PipeDirection.Out);
        var number = Dup((int)one.ClientSafePipeHandle.DangerousGetHandle());
        using var handle = new SafeFileHandle(number, ownsHandle: true);
        one.WriteByte(1);
        await handle.ReadableAsync();
        Assert.That(Dup2((int)two.ClientSafePipeHandle.DangerousGetHandle(), number), Is.EqualTo(number));
        await DrainEdge(handle);
        var waiting = handle.ReadableAsync().AsTask();
        await EventLoop.Current!.Delay(TimeSpan.FromMilliseconds(5));
        Assert.That(waiting.IsCompleted, Is.False, "the new pipe is empty");
        two.WriteByte(2);
        await waiting;

        static async Task DrainEdge(SafeHandle h)
        {
            for (var i = 0; i < 3; i++)
            {
                using var source = new CancellationTokenSource();
                var wait = h.ReadableAsync(source.Token).AsTask();
                source.Cancel();
                try
                {
                    await wait;
                }
                catch (OperationCanceledException)
                {
                }
            }
        }
    });

    [Test]
    public void SecondLoop_IsRefusedUntilForgotten()
    {
        using var one = EventLoop.Start();
        using var two = EventLoop.Start();
        var (x, y) = Pair.Tcp();
        using (x)
        using (y)
        {
            var waiting = one.InvokeAsync(async () => await x.ReadableAsync());
            Run.Until(() => one.Statistics.Registrations == 1, "bound");
            Assert.Throws<InvalidOperationException>(() => Run.Wait(two.InvokeAsync(async () => await x.ReadableAsync())));
            Assert.Throws<InvalidOperationException>(() => two.Forget(x));
            one.Forget(x);
            one.Forget(x); // nothing to forget
            Assert.Throws<ObjectDisposedException>(() => Run.Wait(waiting));
            y.Send([1]);
            Run.Wait(two.InvokeAsync(async () => await x.ReadableAsync()));
            Assert.That(x.Receive(new byte[8]), Is.EqualTo(1));
        }
    }

    [Test]
    public void OffTheLoop_WaitsOnTheDefaultLoop()
    {
        var (x, y) = Pair.Tcp();
        using (x)
        using (y)
        {
            var waiting = Task.Run(async () =>
            {
                await x.ReadableAsync();
                return Thread.CurrentThread.IsThreadPoolThread;
            });
            y.Send([1]);
            Assert.That(Run.Wait(waiting), Is.True);
            EventLoop.Default.Forget(x);
        }
    }

    [Test]
    public void IdleBinding_DoesNotKeepTheSocketAlive() => Run.OnLoop(async () =>
    {
        var weak = await Bind();
        for (var i = 0; i < 50 && weak.IsAlive; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
            await EventLoop.Current!.Delay(TimeSpan.FromMilliseconds(2));
        }
        Assert.That(weak.IsAlive, Is.False);

        static async Task<WeakReference> Bind()
        {
            using var receiver = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
            socket.Bind(new IPEndPoint(IPAddress.Loopback, 0));
            await socket.WritableAsync();
            return new WeakReference(socket);
        }
    });

    [Test]
    public void Binding_OfADisposedSocket_LeavesTheLoopWithIt() => Run.OnLoop(async () =>
    {
        TestPoller.SkipWithoutFiles();
        var loop = EventLoop.Current!;
        for (var i = 0; i < 20; i++) await Bind();
        for (var i = 0; i < 50 && loop.Statistics.Registrations > 0; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
            await loop.Delay(TimeSpan.FromMilliseconds(2));
        }
        Assert.That(loop.Statistics.Registrations, Is.Zero);

        static async Task Bind()
        {
            using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
            socket.Bind(new IPEndPoint(IPAddress.Loopback, 0));
            await socket.WritableAsync();
        }
    });

    [Test]
    public void Cancel_EndsTheWait() => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Tcp();
        using (x)
        using (y)
        {
            for (var i = 0; i < 100; i++)
            {
                using var source = new CancellationTokenSource();
                var waiting = x.ReadableAsync(source.Token).AsTask();
                if (i % 2 == 0) source.Cancel();
                else _ = Task.Run(source.Cancel);
                await Expect.Throws<OperationCanceledException>(async () => await waiting);
            }
            var last = x.ReadableAsync();
            y.Send([1]);
            await last;
        }
    });

    [Test]
    public void ManyCycles_LeakNothing() => Run.OnLoop(async () =>
    {
        TestPoller.SkipWithoutFiles();
        var before = 0;
        for (var i = 0; i < 2000; i++)
        {
            if (i == 100) before = Descriptors.Settle();
            var (x, y) = Pair.Unix();
            var waiting = x.ReadableAsync();
            y.Send([1]);
            await waiting;
            x.Dispose();
            y.Dispose();
        }
        Assert.That(Descriptors.Settle(), Is.EqualTo(before));
        Assert.That(EventLoop.Current!.Statistics.Registrations, Is.LessThan(10), "stale bindings are found when their numbers are used again");
    });
}
