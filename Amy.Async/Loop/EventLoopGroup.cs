using System.Diagnostics;
using Amy.Async.Native;

namespace Amy.Async;

/// <summary>Several loops, each on a background thread of its own: one per core, say.</summary>
/// <remarks>
/// A connection belongs to one loop, so nothing of it is shared. For a server, let each loop have a listener of its own
/// (<see cref="AsyncSocket.ListenOnEach"/>), or accept on one loop and hand
/// each connection to the <see cref="Next"/> (<see cref="AsyncSocket.AcceptAsync(EventLoop, CancellationToken)"/>).
/// </remarks>
[DebuggerDisplay("{Loops.Count} loops")]
public sealed class EventLoopGroup : IAsyncDisposable
{
    private readonly EventLoop[] _loops;
    private int _next = -1; // any thread, Interlocked

    /// <summary>Starts the loops.</summary>
    /// <param name="count">How many, at least one.</param>
    /// <param name="options">Of each. The thread names get a number. With <see cref="EventLoopOptions.Processor"/> the first loop
    /// is pinned to that processor and the others to those that follow it among the ones the process may use, round and
    /// round.</param>
    /// <exception cref="ArgumentOutOfRangeException">Less than one, or a processor that the process may not use.</exception>
    /// <exception cref="PlatformNotSupportedException">There is no poller for this platform, or no pinning.</exception>
    public EventLoopGroup(int count, EventLoopOptions? options = null)
    {
        if (count < 1) throw new ArgumentOutOfRangeException(nameof(count), count, "A group has at least one loop.");
        options ??= new EventLoopOptions();
        var processors = options.Processor is { } first ? Affinity.From(options.SystemCalls, first, EventLoop.Current?.Unpinned) : null;
        _loops = new EventLoop[count];
        try
        {
            for (var i = 0; i < count; i++) _loops[i] = EventLoop.Start(options.ForGroup(i, processors?[i % processors.Length]));
        }
        catch
        {
            foreach (var loop in _loops) loop?.Dispose();
            throw;
        }
    }

    /// <summary>The loops.</summary>
    public IReadOnlyList<EventLoop> Loops => _loops;

    /// <summary>The next loop, in turn. Any thread.</summary>
    public EventLoop Next() => _loops[(uint)Interlocked.Increment(ref _next) % (uint)_loops.Length];

    /// <summary>Stops all loops; see <see cref="EventLoop.StopAsync"/>.</summary>
    public ValueTask DisposeAsync() => new(Task.WhenAll(Array.ConvertAll(_loops, static loop => loop.StopAsync())));
}
