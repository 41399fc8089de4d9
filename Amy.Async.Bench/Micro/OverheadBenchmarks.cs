using Amy.Async.Native;
using BenchmarkDotNet.Attributes;

namespace Amy.Async.Bench.Micro;

/// <summary>
/// What one message costs of the library alone: receive, resume and send, over system calls that answer at once. Everything
/// else in a round trip is the kernel's.
/// </summary>
[MemoryDiagnoser]
public class OverheadBenchmarks
{
    private const int Messages = 100_000;

    private readonly AnsweringCalls _calls = new();
    private EventLoop _loop = null!;
    private AsyncSocket _listener = null!; // kept: closed, it would reset the connection
    private AsyncSocket _socket = null!;

    /// <summary>Connects a pair whose system calls are then no longer made.</summary>
    [GlobalSetup]
    public void Setup()
    {
        _loop = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero, SystemCalls = _calls });
        _listener = AsyncSocket.Listen(new System.Net.IPEndPoint(System.Net.IPAddress.Loopback, 0), loop: _loop);
        _socket = AsyncSocket.ConnectAsync(_listener.LocalEndPoint!, _loop).AsTask().GetAwaiter().GetResult();
    }

    /// <summary>Ends the loop.</summary>
    [GlobalCleanup]
    public void Cleanup()
    {
        _socket.Dispose();
        _listener.Dispose();
        _loop.Dispose();
    }

    /// <summary>Await a message, answer it.</summary>
    [Benchmark(OperationsPerInvoke = Messages)]
    public void ReceiveAndSend() => _loop.InvokeAsync(async () =>
    {
        var buffer = new byte[64];
        await _loop.Yield();
        _calls.Answers = true;
        for (var i = 0; i < Messages; i++)
        {
            await _socket.ReceiveAsync(buffer);
            await _socket.SendAsync(buffer.AsMemory(0, 1));
        }
        _calls.Answers = false;
    }).GetAwaiter().GetResult();

    /// <summary>The seam alone: a virtual call on the way to the kernel. A message makes three.</summary>
    [Benchmark(OperationsPerInvoke = Messages)]
    public int Seam()
    {
        SystemCalls calls = _calls;
        Span<byte> buffer = stackalloc byte[64];
        var sum = 0;
        _calls.Answers = true;
        for (var i = 0; i < Messages; i++) sum += calls.Receive(-1, buffer);
        _calls.Answers = false;
        return sum;
    }

    /// <summary>The last id that was registered is readable at every wait, and every receive gets one byte.</summary>
    private sealed class AnsweringCalls : SystemCalls
    {
        private long _id;

        internal bool Answers;

        internal override int EpollControl(int epoll, int operation, int descriptor, uint events, long data)
        {
            if (operation == Epoll.CTL_ADD) _id = data;
            return base.EpollControl(epoll, operation, descriptor, events, data);
        }

        internal override int EpollWait(int epoll, byte[] events, int capacity, long timeout)
        {
            if (!Answers) return base.EpollWait(epoll, events, capacity, timeout);
            BitConverter.TryWriteBytes(events, Epoll.IN);
            BitConverter.TryWriteBytes(events.AsSpan(Epoll.DataOffset), _id);
            return 1;
        }

        internal override int Receive(int socket, Span<byte> buffer) => Answers ? 1 : base.Receive(socket, buffer);

        internal override int Send(int socket, ReadOnlySpan<byte> buffer) => Answers ? buffer.Length : base.Send(socket, buffer);
    }
}
