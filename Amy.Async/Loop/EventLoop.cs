using System.Diagnostics;
using System.IO.Pipelines;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async.Compat;
using Amy.Async.Native;

namespace Amy.Async;

/// <summary>
/// One thread that waits for the kernel's events and runs what awaits them, as well as posted work and timers. Code on a
/// loop is single-threaded by construction: nothing else of the same loop runs between two awaits.
/// </summary>
/// <remarks>
/// <para>What awaits an operation of a loop on the loop's own thread is resumed there, in the dispatch of the event,
/// without a thread switch and without allocating. What awaits it elsewhere is resumed where any .NET await would: see
/// "Who resumes where" in ARCHITECTURE.md.</para>
/// <para>Members may be called from any thread unless they say otherwise. Never block the loop's thread: everything on the
/// loop waits.</para>
/// </remarks>
[DebuggerDisplay("EventLoop {_name}: {_registrar.Count} registrations, {_timers.Count} timers")]
public sealed partial class EventLoop : IDisposable, IAsyncDisposable
{
    [ThreadStatic]
    private static EventLoop? t_current;

    private static readonly Lazy<EventLoop> s_default = new(static () => StartThread(new EventLoopOptions { ThreadName = "Amy.Async default loop" }, isDefault: true));

    private readonly Poller _poller;
    private readonly Registrar _registrar;
    private readonly SystemCalls _calls;
    private readonly Func<Exception, bool>? _unhandledException;
    private readonly string _name;
    private readonly bool _isDefault;
    private readonly LoopSynchronizationContext _context;

    private EventLoop(EventLoopOptions? options, bool ownsThread, bool isDefault = false)
    {
        options ??= new EventLoopOptions();
        _calls = options.SystemCalls;
        _processor = options.Processor;
        if (_processor is { } processor) Affinity.Check(_calls, processor);
        _unhandledException = options.UnhandledException;
        _name = options.ThreadName ?? "Amy.Async loop";
        _ownsThread = ownsThread;
        _isDefault = isDefault;
        var foreign = options.TimeProvider is not null && options.TimeProvider != TimeProvider.System ? options.TimeProvider : null;
        _spin = new SpinPolicy(foreign is null ? Poller.Nanoseconds(options.SpinDuration) : 0);
        _blockedThreshold = options.BlockedThreshold;
        _throwOnTaskWait = options.ThrowOnTaskWait;
        _isWatched = _blockedThreshold != Timeout.InfiniteTimeSpan;
        Tag = new KeyValuePair<string, object?>("amy.loop.name", _name);
        _context = new LoopSynchronizationContext(this);
        TaskScheduler = new LoopTaskScheduler(this);
        Sweep = new PlainSweep(this);
        _poller = new Poller(options.Poller, options.SystemCalls, options.Clock);
        _registrar = _poller.Registrar;
        _kernelClock = options.Clock;
        _foreign = foreign is null ? null : CreateForeignTime(foreign);
        _clock = _foreign ?? options.Clock;
        _housekeeping = _foreign is null ? _timers : new TimerQueue<ILoopTimer>();
        TimeProvider = new LoopTimeProvider(this, foreign ?? TimeProvider.System);
    }

    private ForeignTime CreateForeignTime(TimeProvider provider)
    {
        try
        {
            return new ForeignTime(provider, _poller);
        }
        catch // somebody else's code
        {
            _poller.Dispose();
            throw;
        }
    }

    /// <summary>The loop of the calling thread, or null.</summary>
    public static EventLoop? Current => t_current;

    /// <summary>
    /// A loop on a background thread, shared by the process, started on first use. It cannot be stopped or disposed.
    /// </summary>
    public static EventLoop Default => s_default.Value;

    /// <summary>Whether the calling thread is this loop's.</summary>
    public bool IsCurrent => t_current == this;

    /// <summary>The context that is current on the loop's thread; posting to it queues to the loop.</summary>
    public SynchronizationContext SynchronizationContext => _context;

    /// <summary>Runs tasks on the loop's thread, one at a time.</summary>
    public TaskScheduler TaskScheduler { get; }

    /// <summary>Has the continuations of a <see cref="Pipe"/> run on the loop's thread.</summary>
    public PipeScheduler PipeScheduler => _context.PipeScheduler;

    /// <summary>What the loop has done so far.</summary>
    public EventLoopStatistics Statistics => new()
    {
        Turns = Volatile.Read(ref _now.Turns),
        PostsRun = Volatile.Read(ref _now.PostsRun),
        Events = Volatile.Read(ref _now.Events),
        Resumes = Volatile.Read(ref _now.Resumes),
        TimersFired = Volatile.Read(ref _now.TimersFired),
        WakesWritten = _poller.WakesWritten,
        WakesSaved = Volatile.Read(ref _now.WakesSaved),
        SpinsPaid = _spin.Paid,
        SpinsInVain = _spin.InVain,
        BudgetYields = Volatile.Read(ref _now.BudgetYields),
        AcceptBackoffs = Interlocked.Read(ref _acceptBackoffs),
        BlockedTurns = Interlocked.Read(ref _blockedTurns),
        SynchronousWaits = Volatile.Read(ref _synchronousWaits),
        TimersPending = _timers.Count,
        Registrations = _registrar.Count,
    };

    /// <summary>
    /// Ends the binding that a wait (<c>ReadableAsync</c>, <c>WritableAsync</c>) has made between this handle and this loop,
    /// for example to wait on another loop. Pending waits end with an <see cref="ObjectDisposedException"/>; the descriptor
    /// stays open. Does nothing if there is no binding.
    /// </summary>
    /// <exception cref="InvalidOperationException">The handle is bound to another loop.</exception>
    public void Forget(SafeHandle handle)
    {
        if (handle is null) throw new ArgumentNullException(nameof(handle));
        PlainSource.Forget(handle, this);
    }

    /// <summary>Like <see cref="Forget(SafeHandle)"/>, for a socket.</summary>
    /// <exception cref="InvalidOperationException">The socket is bound to another loop.</exception>
    public void Forget(Socket socket)
    {
        if (socket is null) throw new ArgumentNullException(nameof(socket));
        Forget(SocketInterop.HandleOf(socket));
    }

    /// <summary>The loop's name, for the meter.</summary>
    internal KeyValuePair<string, object?> Tag { get; }

    /// <summary>Whether the thread is in the kernel, or about to be. Any thread.</summary>
    internal bool IsSleeping => _poller.IsSleeping;

    // ---- for Sockets

    internal Registrar Registrar => _registrar;

    internal SystemCalls Calls => _calls;

    internal PlainSweep Sweep { get; }

    internal PoolQueue Pool { get; } = new();

    /// <summary>Loop only: an accept that waited has got its connection.</summary>
    internal void CountAccept() => _now.Accepts++;

    internal void CountAcceptBackoff() => Interlocked.Increment(ref _acceptBackoffs);

    /// <summary>Registers a source with the kernel; the caller keeps the descriptor open during the call.</summary>
    /// <exception cref="ObjectDisposedException">The loop has stopped.</exception>
    internal void Attach(AwaitableSource source, int descriptor, Interest interest)
    {
        ThrowIfStopping();
        if (!_poller.WatchesPriority) source.State.Edge(read: false, write: false, StateWord.SeenUrgent, out _); // a short read proves nothing
        try
        {
            _registrar.Register(source, descriptor, interest);
        }
        catch (ObjectDisposedException) when (IsStopping)
        {
            throw StoppedError();
        }
        if (!IsStopping) return;
        // The loop began to stop meanwhile and may have missed this one when it stopped all others.
        _registrar.Deregister(source);
        throw StoppedError();
    }

    internal static ObjectDisposedException StoppedError() => new(nameof(EventLoop), "The event loop has stopped.");
}
