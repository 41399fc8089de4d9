using Amy.Async.Native;

namespace Amy.Async;

/// <summary>How an <see cref="EventLoop"/> is set up.</summary>
public sealed class EventLoopOptions
{
    /// <summary>The kernel's mechanism; <see cref="PollerKind.Auto"/> by default.</summary>
    public PollerKind Poller { get; init; }

    /// <summary>The name of the thread of <see cref="EventLoop.Start"/>.</summary>
    public string? ThreadName { get; init; }

    /// <summary>
    /// How long the loop polls at most before it sleeps, when the recent past says that it pays: 50 µs by default, zero
    /// if the process's CPU quota is less than one core. <see cref="TimeSpan.Zero"/>: never, but for the few microseconds in which
    /// the loop looks whether another thread that has just posted posts more.
    /// <see cref="Timeout.InfiniteTimeSpan"/>: the loop never sleeps and uses a whole core.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">Negative and not infinite.</exception>
    public TimeSpan SpinDuration
    {
        get => _spinDuration;
        init
        {
            if (value < TimeSpan.Zero && value != Timeout.InfiniteTimeSpan)
                throw new ArgumentOutOfRangeException(nameof(value), value, "The spin duration is zero, positive or infinite.");
            _spinDuration = value;
        }
    }

    /// <summary>
    /// Receives the exceptions of posted work and of <c>async void</c> methods, on the loop's thread. True: handled, the loop
    /// goes on. False, or no handler: the exception comes out of <see cref="EventLoop.Run(Func{Task}, EventLoopOptions?)"/>;
    /// on a loop with a thread of its own it ends the process, like any unhandled exception. Work that came too late for a loop
    /// that stopped runs on the thread pool, where this is called too, and where an exception that is not handled ends the process.
    /// </summary>
    public Func<Exception, bool>? UnhandledException { get; init; }

    /// <summary>
    /// How long the loop may be away from its poller before <see cref="EventLoop.Blocked"/> is raised and
    /// <see cref="EventLoopStatistics.BlockedTurns"/> counts it: one second by default. The time is that of the system, looked
    /// at four times per threshold. <see cref="Timeout.InfiniteTimeSpan"/>: the loop is not watched.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">Less than a millisecond and not infinite, or more than a day.</exception>
    public TimeSpan BlockedThreshold
    {
        get => _blockedThreshold;
        init
        {
            if (value != Timeout.InfiniteTimeSpan && (value < TimeSpan.FromMilliseconds(1) || value > TimeSpan.FromDays(1)))
                throw new ArgumentOutOfRangeException(nameof(value), value, "The threshold is between a millisecond and a day, or infinite.");
            _blockedThreshold = value;
        }
    }

    /// <summary>
    /// Whether a synchronous wait for a Task on the loop's thread (<c>Wait</c>, <c>Result</c>) throws an
    /// <see cref="InvalidOperationException"/> instead of blocking. Off by default. Only waits that
    /// <see cref="EventLoop.SynchronousWait"/> is told of, and of those only the ones for a Task: a contended lock never throws.
    /// </summary>
    public bool ThrowOnTaskWait { get; init; }

    /// <summary>
    /// The loop's time: what <see cref="EventLoop.Delay"/>, timers and time-outs run on. Null: the kernel's monotonic clock.
    /// For tests, a <see cref="VirtualTimeProvider"/>, or <c>FakeTimeProvider</c> of Microsoft.Extensions.TimeProvider.Testing;
    /// the loop does not spin then, whatever <see cref="SpinDuration"/> says.
    /// </summary>
    public TimeProvider? TimeProvider { get; init; }

    /// <summary>
    /// The processor that the loop's thread is pinned to, counted from 0 as the system does; null: the system chooses. A thread
    /// that <see cref="EventLoop.Run(Func{Task}, EventLoopOptions?)"/> uses gets its processors back at the end.
    /// <c>sched_setaffinity(2)</c>.
    /// </summary>
    /// <remarks>Whoever makes the loop gets an <see cref="ArgumentOutOfRangeException"/> if the process may not use that
    /// processor, or a <see cref="PlatformNotSupportedException"/> where threads cannot be pinned.
    /// <para>Do not use it with <see cref="EventLoop.Run(Func{Task}, EventLoopOptions?)"/> on the main thread of a process: the
    /// .NET runtime gives each new thread, also of the thread pool, the processors of the main thread, so all that start
    /// meanwhile would share that one, and keep it. Use <see cref="EventLoop.Start"/>, or <c>Run</c> on a thread of your own:
    /// the threads that code there starts are not confined.</para></remarks>
    public int? Processor { get; init; }

    /// <summary>For a loop of a group.</summary>
    internal EventLoopOptions ForGroup(int index, int? processor) => new()
    {
        Poller = Poller,
        ThreadName = $"{ThreadName ?? "Amy.Async loop"} {index}",
        SpinDuration = SpinDuration,
        BlockedThreshold = BlockedThreshold,
        ThrowOnTaskWait = ThrowOnTaskWait,
        UnhandledException = UnhandledException,
        TimeProvider = TimeProvider,
        Processor = processor,
        SystemCalls = SystemCalls,
        Clock = Clock,
    };

    // The seams, for tests.
    internal SystemCalls SystemCalls { get; init; } = SystemCalls.Instance;

    internal MonotonicClock Clock { get; init; } = MonotonicClock.Instance;

    private readonly TimeSpan _blockedThreshold = TimeSpan.FromSeconds(1);
    private readonly TimeSpan _spinDuration = CpuQuota.AllowsSpinning ? TimeSpan.FromTicks(SpinPolicy.DefaultBound / 100) : TimeSpan.Zero;
}
