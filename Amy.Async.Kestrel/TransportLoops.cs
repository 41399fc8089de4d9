using System.Buffers;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;

namespace Amy.Async.Kestrel;

/// <summary>The loops of an application, with their memory. They start when the first end point is bound or connected to, and
/// stop with the application's services.</summary>
internal sealed class TransportLoops : IAsyncDisposable, IDisposable
{
    private readonly Lock _lock = new();
    private readonly IMemoryPoolFactory<byte>? _pools;
    private EventLoopGroup? _group; // guarded by the lock; never changes again
    private LoopMemory[] _memories = [];
    private bool _disposed;
    private int _next = -1; // any thread, Interlocked

    public TransportLoops(IOptions<AmyAsyncTransportOptions> options, ILoggerFactory loggerFactory, IMemoryPoolFactory<byte>? pools = null)
    {
        Options = options.Value;
        Logger = loggerFactory.CreateLogger(TransportLog.Category);
        _pools = Options.MemoryPoolFactory ?? pools;
    }

    internal AmyAsyncTransportOptions Options { get; }

    internal ILogger Logger { get; }

    internal EventLoopGroup Start()
    {
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_disposed, typeof(TransportLoops));
            if (_group is not null) return _group;
            _group = new EventLoopGroup(Options.LoopCount, LoopOptions(Options.Loop));
            foreach (var loop in _group.Loops) loop.Blocked += (_, e) => TransportLog.LoopBlocked(Logger, (long)e.Duration.TotalMilliseconds, e.Work ?? "something that has no name");
            _memories = [.. _group.Loops.Select(loop => new LoopMemory(loop, _pools?.Create() ?? MemoryPool<byte>.Shared))];
            return _group;
        }
    }

    /// <summary>The next loop in turn; once started.</summary>
    internal LoopMemory Next() => _memories[(uint)Interlocked.Increment(ref _next) % (uint)_memories.Length];

    /// <summary>What belongs to a loop of these.</summary>
    internal LoopMemory Of(EventLoop loop) => Array.Find(_memories, m => m.Loop == loop)!;

    public async ValueTask DisposeAsync()
    {
        EventLoopGroup? group;
        lock (_lock)
        {
            if (_disposed) return;
            _disposed = true;
            group = _group;
        }
        if (group is null) return;
        await group.DisposeAsync().ConfigureAwait(false);
        foreach (var memory in _memories) memory.Dispose();
    }

    /// <summary>For containers that know nothing of the asynchronous one. The loops' own threads cannot wait for their end.</summary>
    public void Dispose()
    {
        var disposing = DisposeAsync().AsTask();
        if (EventLoop.Current is null) disposing.GetAwaiter().GetResult();
    }

    private EventLoopOptions LoopOptions(EventLoopOptions given) => new()
    {
        Poller = given.Poller,
        ThreadName = given.ThreadName ?? "Amy.Async.Kestrel",
        // With one processor, a loop that polls keeps the thread pool, which is to answer, from it.
        SpinDuration = Options.UnsafePreferInlineScheduling || Environment.ProcessorCount > 1 ? given.SpinDuration : TimeSpan.Zero,
        BlockedThreshold = given.BlockedThreshold,
        ThrowOnTaskWait = given.ThrowOnTaskWait,
        TimeProvider = given.TimeProvider,
        Processor = given.Processor,
        UnhandledException = given.UnhandledException ?? (exception =>
        {
            TransportLog.Unhandled(Logger, exception);
            return true;
        }),
    };
}
