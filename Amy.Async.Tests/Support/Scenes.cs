using System.Buffers;
using System.Diagnostics.CodeAnalysis;
using System.Net;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Amy.Async.Native;

namespace Amy.Async.Tests;

/// <summary>Where code runs, and what it sees there.</summary>
internal sealed record Place(int Thread, SynchronizationContext? Context, TaskScheduler Scheduler, bool OnPool, EventLoop? Loop, int Local)
{
    internal static readonly AsyncLocal<int> Flowing = new();

    internal static Place Here() => new(Environment.CurrentManagedThreadId, SynchronizationContext.Current, TaskScheduler.Current,
        System.Threading.Thread.CurrentThread.IsThreadPoolThread, EventLoop.Current, Flowing.Value);
}

/// <summary>One await: where it began, where it went on, and how it ended.</summary>
internal sealed record Trace(Place Before, Place After, bool Waited, Exception? Error);

/// <summary>How an operation is awaited.</summary>
internal enum Await
{
    Directly,
    Pooled,
    AsTask,
}

/// <summary>An operation that waits, and what makes it end.</summary>
internal abstract class Scene(Action complete, object[] disposables) : IDisposable
{
    /// <summary>Makes the operation end; from any thread, without waiting for the loop.</summary>
    internal void Complete() => complete();

    /// <summary>Starts the operation and awaits it, on the calling thread.</summary>
    internal Task<Trace> Await(Await how, bool capture, CancellationToken token = default)
    {
        return how switch
        {
            Tests.Await.Directly => Directly(capture, token),
            Tests.Await.Pooled => Pooled(capture, token).AsTask(),
            _ => AsTask(capture, token),
        };
    }

    protected abstract Task<Trace> Directly(bool capture, CancellationToken token);

    protected abstract ValueTask<Trace> Pooled(bool capture, CancellationToken token);

    protected abstract Task<Trace> AsTask(bool capture, CancellationToken token);

    public void Dispose()
    {
        foreach (var disposable in disposables)
        {
            if (disposable is string path) File.Delete(path);
            else ((IDisposable)disposable).Dispose();
        }
    }
}

/// <summary>An operation with a result.</summary>
internal sealed class Scene<T>(Func<CancellationToken, ValueTask<T>> start, Action complete, params object[] disposables) : Scene(complete, disposables)
{
    protected override async Task<Trace> Directly(bool capture, CancellationToken token)
    {
        Place.Flowing.Value++;
        var (before, waited, error) = (Place.Here(), false, default(Exception));
        try
        {
            var pending = start(token);
            waited = !pending.IsCompleted;
            (await pending.ConfigureAwait(capture) as IDisposable)?.Dispose();
        }
        catch (Exception e)
        {
            error = e;
        }
        return new Trace(before, Place.Here(), waited, error);
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    protected override async ValueTask<Trace> Pooled(bool capture, CancellationToken token)
    {
        Place.Flowing.Value++;
        var (before, waited, error) = (Place.Here(), false, default(Exception));
        try
        {
            var pending = start(token);
            waited = !pending.IsCompleted;
            (await pending.ConfigureAwait(capture) as IDisposable)?.Dispose();
        }
        catch (Exception e)
        {
            error = e;
        }
        return new Trace(before, Place.Here(), waited, error);
    }

    protected override async Task<Trace> AsTask(bool capture, CancellationToken token)
    {
        Place.Flowing.Value++;
        var (before, waited, error) = (Place.Here(), false, default(Exception));
        try
        {
            var pending = start(token).AsTask();
            waited = !pending.IsCompleted;
            (await pending.ConfigureAwait(capture) as IDisposable)?.Dispose();
        }
        catch (Exception e)
        {
            error = e;
        }
        return new Trace(before, Place.Here(), waited, error);
    }
}

/// <summary>An operation without a result.</summary>
internal sealed class PlainScene(Func<CancellationToken, ValueTask> start, Action complete, params object[] disposables) : Scene(complete, disposables)
{
    protected override async Task<Trace> Directly(bool capture, CancellationToken token)
    {
        Place.Flowing.Value++;
        var (before, waited, error) = (Place.Here(), false, default(Exception));
        try
        {
            var pending = start(token);
            waited = !pending.IsCompleted;
            await pending.ConfigureAwait(capture);
        }
        catch (Exception e)
        {
            error = e;
        }
        return new Trace(before, Place.Here(), waited, error);
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    protected override async ValueTask<Trace> Pooled(bool capture, CancellationToken token)
    {
        Place.Flowing.Value++;
        var (before, waited, error) = (Place.Here(), false, default(Exception));
        try
        {
            var pending = start(token);
            waited = !pending.IsCompleted;
            await pending.ConfigureAwait(capture);
        }
        catch (Exception e)
        {
            error = e;
        }
        return new Trace(before, Place.Here(), waited, error);
    }

    protected override async Task<Trace> AsTask(bool capture, CancellationToken token)
    {
        Place.Flowing.Value++;
        var (before, waited, error) = (Place.Here(), false, default(Exception));
        try
        {
            var pending = start(token).AsTask();
            waited = !pending.IsCompleted;
            await pending.ConfigureAwait(capture);
        }
        catch (Exception e)
        {
            error = e;
        }
        return new Trace(before, Place.Here(), waited, error);
    }
}

/// <summary>A loop, and a scene on it.</summary>
[System.Runtime.Versioning.UnsupportedOSPlatform("windows")]
internal sealed class Stage : IDisposable
{
    private readonly HoldingCalls _calls = new();
    private readonly VirtualTimeProvider _time = new();

    /// <param name="name">One of <see cref="Scenes.All"/>.</param>
    /// <param name="onDefault">For the waits that choose their loop by the thread: elsewhere than on a loop that is
    /// <see cref="EventLoop.Default"/>.</param>
    internal Stage(string name, bool onDefault = true)
    {
        Scenes.SkipIfImpossible(name); // before there is a loop
        Loop = onDefault && Scenes.ChooseTheirLoop(name)
            ? EventLoop.Default
            : EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero, SystemCalls = _calls, TimeProvider = Scenes.UseTime(name) ? _time : null });
        Scene = Scenes.Make(name, Loop, _time, _calls);
    }

    internal EventLoop Loop { get; }

    internal Scene Scene { get; }

    public void Dispose()
    {
        Scene.Dispose();
        if (Loop != EventLoop.Default) Loop.Dispose();
    }

    /// <summary>Has attempts to connect last until they are let go: they only begin then.</summary>
    internal sealed class HoldingCalls : CountingCalls
    {
        private readonly object _lock = new();
        private (int Socket, byte[] Address)? _held;
        private bool _holds;

        internal void HoldConnects()
        {
            lock (_lock) _holds = true;
        }

        internal void LetConnectsGo()
        {
            lock (_lock)
            {
                _holds = false;
                if (_held is { } held) base.Connect(held.Socket, held.Address);
                _held = null;
            }
        }

        internal override int Connect(int socket, ReadOnlySpan<byte> address)
        {
            lock (_lock)
            {
                if (!_holds) return base.Connect(socket, address);
                _held = (socket, address.ToArray());
                return -Errno.EINPROGRESS;
            }
        }

        internal override int Close(int descriptor)
        {
            lock (_lock)
            {
                if (_held?.Socket == descriptor) _held = null;
            }
            return base.Close(descriptor);
        }
    }
}

/// <summary>Every operation of the library that one can await.</summary>
[System.Runtime.Versioning.UnsupportedOSPlatform("windows")]
internal static class Scenes
{
    private const int Much = 4_000_000;

    internal static IEnumerable<string> All =>
    [
        "receive tcp", "receive unix", "receive nothing", "receive vectors", "receive message", "receive peek",
        "receive from", "receive batch", "readable", "accept", "accept to another loop", "closed",
        "connect", "send tcp", "send unix", "send sequence", "send list", "send flags", "send file", "send descriptors",
        "send to", "send batch", "writable",
        "fd read", "fd write", "fd readable", "fd writable", "fd priority",
        "plain socket readable", "plain socket writable", "plain handle readable", "plain handle writable",
        "delay", "tick",
        "stream read", "stream write", "fd stream read", "fd stream write",
        "pipe read", "pipe flush",
#if !AMY_NETSTANDARD
        "signal",
#endif
    ];

    internal static bool ChooseTheirLoop(string name) => name.StartsWith("plain", StringComparison.Ordinal);

    internal static bool UseTime(string name) => name is "delay" or "tick";

    /// <summary>Ends the test as skipped where the poller cannot tell of what the operation waits for.</summary>
    internal static void SkipIfImpossible(string name)
    {
        if (name == "fd priority") TestPoller.SkipWithoutPriority();
    }

    [SuppressMessage("Reliability", "CA2000", Justification = "The scene disposes them.")]
    internal static Scene Make(string name, EventLoop loop, VirtualTimeProvider time, Stage.HoldingCalls calls)
    {
        SkipIfImpossible(name);
        switch (name)
        {
            case "receive from" or "receive batch":
                return Datagrams(name, loop);
            case "send to" or "send batch":
                return UnixDatagrams(name, loop);
            case "accept":
                {
                    var listener = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0), loop: loop);
                    var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
                    return new Scene<AsyncSocket>(t => listener.AcceptAsync(t), () => client.Connect(listener.LocalEndPoint!), client, listener);
                }
            case "accept to another loop":
                {
                    var other = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
                    var listener = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0), loop: loop);
                    var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
                    return new Scene<AsyncSocket>(t => listener.AcceptAsync(other, t), () => client.Connect(listener.LocalEndPoint!), client, listener, other);
                }
            case "connect":
                {
                    var listener = Pair.ListenPlain();
                    var (end, open) = (listener.LocalEndPoint!, new List<Socket>());
                    calls.HoldConnects();
                    return new Scene<AsyncSocket>(t => AsyncSocket.ConnectAsync(end, loop, t), () =>
                    {
                        calls.LetConnectsGo();
                        open.Add(listener.Accept());
                    }, listener, new Closing(open));
                }
            case "delay":
                return new PlainScene(t => loop.Delay(TimeSpan.FromSeconds(10), t), () => time.Advance(TimeSpan.FromSeconds(10)));
            case "tick":
                {
                    var timer = loop.CreateTimer(TimeSpan.FromSeconds(10));
                    return new Scene<bool>(t => timer.WaitForNextTickAsync(t), () => time.Advance(TimeSpan.FromSeconds(10)), timer);
                }
#if !AMY_NETSTANDARD
            case "signal":
                {
                    var signals = new SignalReceiver(loop, PosixSignal.SIGWINCH);
                    return new Scene<PosixSignal>(t => signals.ReceiveAsync(t), () => Raise(28), signals);
                }
#endif
            default:
                return OnAConnection(name, loop);
        }
    }

    private static Scene<int> Datagrams(string name, EventLoop loop)
    {
        var socket = AsyncSocket.BindDatagram(new IPEndPoint(IPAddress.Loopback, 0), loop: loop);
        var peer = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        void Send() => peer.SendTo([1], socket.LocalEndPoint!);
        if (name == "receive from")
            return new Scene<int>(t => socket.ReceiveFromAsync(new byte[8], new SocketAddress(AddressFamily.InterNetwork), t), Send, peer, socket);
        var batch = new DatagramBatch(4, 8);
        return new Scene<int>(t => socket.ReceiveAsync(batch, t), Send, peer, socket);
    }

    private static Scene<int> UnixDatagrams(string name, EventLoop loop)
    {
        var end = new UnixDomainSocketEndPoint(Pair.TemporaryPath());
        var peer = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        peer.Bind(end);
        var socket = AsyncSocket.ConnectDatagram(end, loop: loop);
        var queued = 0;
        while (socket.TrySend(new byte[1], out _)) queued++;
        void Drain()
        {
            for (var i = 0; i < queued; i++) peer.Receive(new byte[1]);
        }
        if (name == "send to") return new Scene<int>(t => socket.SendToAsync(new byte[1], end.Serialize(), t), Drain, socket, peer);
        var batch = new DatagramBatch(2, 8);
        batch.Add(new byte[1]);
        batch.Add(new byte[1]);
        return new Scene<int>(t => socket.SendAsync(batch, t), Drain, socket, peer);
    }

    private static Scene OnAConnection(string name, EventLoop loop)
    {
        var (x, y) = name is "receive tcp" or "send tcp" or "closed" or "fd priority" ? Pair.Tcp() : Pair.Unix();
        var buffer = new byte[8];
        void Send() => y.Send([1]);
        switch (name)
        {
            case "plain socket readable":
                return new Scene<Readiness>(t => x.ReadableAsync(t), Send, x, y);
            case "plain handle readable":
                return new Scene<Readiness>(t => x.SafeHandle.ReadableAsync(t), Send, x, y);
            case "plain socket writable" or "plain handle writable":
                {
                    var sent = Fill(x);
                    return new Scene<Readiness>(t => name == "plain socket writable" ? x.WritableAsync(t) : x.SafeHandle.WritableAsync(t), () => Drain(y, sent), x, y);
                }
        }
        if (name.StartsWith("fd", StringComparison.Ordinal))
        {
            var fd = new AsyncFd(x.SafeHandle, loop, ownsHandle: false);
            var stream = name.Contains("stream", StringComparison.Ordinal) ? fd.AsStream() : null;
            if (name.Contains("writ", StringComparison.Ordinal))
            {
                while (fd.TryWrite(new byte[1000], out _)) continue;
                var sent = fd.BytesWritten;
                return name switch
                {
                    "fd write" => new Scene<int>(t => fd.WriteAsync(buffer, t), () => Drain(y, sent), fd, x, y),
                    "fd writable" => new Scene<Readiness>(t => fd.WritableAsync(t), () => Drain(y, sent), fd, x, y),
                    _ => new PlainScene(t => stream!.WriteAsync(buffer, t), () => Drain(y, sent), fd, x, y),
                };
            }
            return name switch
            {
                "fd read" => new Scene<int>(t => fd.ReadAsync(buffer, t), Send, fd, x, y),
                "fd readable" => new Scene<Readiness>(t => fd.ReadableAsync(t), Send, fd, x, y),
                "fd priority" => new Scene<Readiness>(t => fd.PriorityAsync(t), () => y.Send([1], SocketFlags.OutOfBand), fd, x, y),
                _ => new Scene<int>(t => stream!.ReadAsync(buffer, t), Send, fd, x, y),
            };
        }
        var a = new AsyncSocket(x, loop);
        switch (name)
        {
            case "receive tcp" or "receive unix":
                return new Scene<int>(t => a.ReceiveAsync(buffer, t), Send, a, y);
            case "receive nothing":
                return new Scene<int>(t => a.ReceiveAsync(Memory<byte>.Empty, t), Send, a, y);
            case "receive vectors":
                return new Scene<int>(t => a.ReceiveAsync(new[] { new ArraySegment<byte>(buffer) }, t), Send, a, y);
            case "receive message":
                return new Scene<ReceivedMessage>(t => a.ReceiveMessageAsync(buffer, new byte[64], null, t), Send, a, y);
            case "receive peek":
                return new Scene<int>(t => a.ReceiveAsync(buffer, SocketFlags.Peek, t), Send, a, y);
            case "readable":
                return new Scene<Readiness>(t => a.ReadableAsync(t), Send, a, y);
            case "closed":
                return new PlainScene(t => a.ClosedAsync(t), y.Dispose, a, y);
            case "stream read":
                {
                    var stream = a.AsStream();
                    return new Scene<int>(t => stream.ReadAsync(buffer, t), Send, a, y);
                }
            case "pipe read":
                {
                    var pipe = a.AsPipe();
                    return new Scene<System.IO.Pipelines.ReadResult>(t => pipe.Input.ReadAsync(t), Send, a, y);
                }
            case "pipe flush":
                {
                    var output = a.AsPipe().Output;
                    BuffersExtensions.Write(output, new byte[Much]);
                    return new Scene<System.IO.Pipelines.FlushResult>(t => output.FlushAsync(t), () => DrainElsewhere(y, Much), a, y);
                }
            case "send tcp":
                return new Scene<int>(t => a.SendAsync(new byte[4 * Much], t), () => DrainElsewhere(y, 4 * Much), a, y);
        }
        while (a.TrySend(new byte[1000], out _)) continue;
        var full = a.BytesSent;
        void Empty() => Drain(y, full);
        switch (name)
        {
            case "send unix":
                return new Scene<int>(t => a.SendAsync(buffer, t), Empty, a, y);
            case "send sequence":
                return new Scene<long>(t => a.SendAsync(new ReadOnlySequence<byte>(buffer), t), Empty, a, y);
            case "send list":
                return new Scene<long>(t => a.SendAsync(new[] { new ArraySegment<byte>(buffer) }, t), Empty, a, y);
            case "send flags":
                return new Scene<int>(t => a.SendAsync(buffer, SocketFlags.None, t), Empty, a, y);
            case "send file":
                {
                    var path = Pair.TemporaryPath();
                    File.WriteAllBytes(path, new byte[1000]);
                    var file = File.OpenHandle(path);
                    return new Scene<long>(t => a.SendFileAsync(file, cancellationToken: t), Empty, a, y, file, path);
                }
            case "send descriptors":
                return new Scene<int>(t => a.SendDescriptorsAsync(buffer, [y.SafeHandle], t), Empty, a, y);
            case "writable":
                return new Scene<Readiness>(t => a.WritableAsync(t), Empty, a, y);
            case "stream write":
                {
                    var stream = a.AsStream();
                    return new PlainScene(t => stream.WriteAsync(buffer, t), Empty, a, y);
                }
            default:
                throw new ArgumentOutOfRangeException(nameof(name), name, "No such scene.");
        }
    }

    private static long Fill(Socket socket)
    {
        socket.Blocking = false;
        var sent = 0L;
        while (true)
        {
            var n = socket.Send(new byte[1000], SocketFlags.None, out var error);
            if (error != SocketError.Success) return sent;
            sent += n;
        }
    }

    private static void Drain(Socket socket, long count)
    {
        var buffer = new byte[65536];
        while (count > 0)
        {
            var n = socket.Receive(buffer, 0, (int)Math.Min(buffer.Length, count), SocketFlags.None);
            if (n == 0) return;
            count -= n;
        }
    }

    // What the loop has to go on sending. A scene that is over by then closes the socket under it.
    private static void DrainElsewhere(Socket socket, long count) => Run.Waiter(() =>
    {
        try
        {
            Drain(socket, count);
        }
        catch (SocketException)
        {
        }
    });

    /// <summary>What a scene has opened by its end.</summary>
    private sealed class Closing(List<Socket> sockets) : IDisposable
    {
        public void Dispose() => sockets.ForEach(s => s.Dispose());
    }

#if !AMY_NETSTANDARD
    [SuppressMessage("Usage", "CA1806", Justification = "A signal to this process.")]
    private static void Raise(int signal) => kill(getpid(), signal);

    [DllImport("libc")]
    private static extern int kill(int pid, int signal);

    [DllImport("libc")]
    private static extern int getpid();
#endif
}
