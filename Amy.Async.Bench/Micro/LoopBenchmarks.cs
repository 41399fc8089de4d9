using System.Net.Sockets;
using System.Threading.Channels;
using BenchmarkDotNet.Attributes;

namespace Amy.Async.Bench.Micro;

/// <summary>What the loop's own services cost: posting, waking, yielding, registering.</summary>
[MemoryDiagnoser]
public class LoopBenchmarks
{
    private const int Count = 10_000;

    private readonly EventLoop _loop = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
    private readonly EventLoop _other = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
    private readonly SemaphoreSlim _done = new(0);
    private readonly Channel<Action> _channel = Channel.CreateUnbounded<Action>(new UnboundedChannelOptions { SingleReader = true });
    private int _left;
    private Action _countDown = null!;
    private Action _ping = null!;
    private Action _pong = null!;
    private Poller _poller = null!;
    private Socket _socket = null!;

    /// <summary>Makes the delegates, so that posting is all that is measured.</summary>
    [GlobalSetup]
    public void Setup()
    {
        _countDown = () => { if (--_left == 0) _done.Release(); };
        _ping = () => _other.Post(_pong);
        _pong = () => { if (--_left == 0) _done.Release(); else _loop.Post(_ping); };
        _poller = new Poller();
        _socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        _ = Task.Run(async () => { await foreach (var action in _channel.Reader.ReadAllAsync()) action(); });
    }

    /// <summary>Post on the loop's own thread, and the run.</summary>
    [Benchmark(OperationsPerInvoke = Count)]
    public void PostFromTheLoop() => _loop.InvokeAsync(async () =>
    {
        _left = int.MaxValue;
        for (var i = 0; i < Count; i++)
        {
            _loop.Post(_countDown);
            if (i % 256 == 255) await _loop.Yield();
        }
        await _loop.Yield();
    }).GetAwaiter().GetResult();

    /// <summary>Post from another thread, and the run.</summary>
    [Benchmark(OperationsPerInvoke = Count)]
    public void PostFromAnotherThread()
    {
        _left = Count;
        for (var i = 0; i < Count; i++) _loop.Post(_countDown);
        _done.Wait();
    }

    /// <summary>The same through an unbounded channel with one reader, for comparison.</summary>
    [Benchmark(OperationsPerInvoke = Count)]
    public void ChannelFromAnotherThread()
    {
        _left = Count;
        for (var i = 0; i < Count; i++) _channel.Writer.TryWrite(_countDown);
        _done.Wait();
    }

    /// <summary>Two sleeping loops wake each other in turn; per wake.</summary>
    [Benchmark(OperationsPerInvoke = 2000)]
    public void Wake()
    {
        _left = 1000;
        _loop.Post(_ping);
        _done.Wait();
    }

    /// <summary>await loop.Yield().</summary>
    [Benchmark(OperationsPerInvoke = Count)]
    public void Yield() => _loop.InvokeAsync(async () =>
    {
        for (var i = 0; i < Count; i++) await _loop.Yield();
    }).GetAwaiter().GetResult();

    /// <summary>Register and deregister with a poller that nobody waits on: two system calls.</summary>
    [Benchmark(OperationsPerInvoke = Count)]
    public void RegisterAndDeregister()
    {
        for (var i = 0; i < Count; i++) _poller.Registrar.Deregister(_poller.Registrar.Register(_socket, Interest.Readable));
    }
}
