using System.Diagnostics;
using Amy.Async.Native;

namespace Amy.Async;

/// <summary>
/// Waits for readiness on behalf of one thread, while any thread registers descriptors through <see cref="Registrar"/>.
/// Usable alone, without an event loop and without async/await.
/// </summary>
/// <remarks><see cref="Wait"/> belongs to one thread at a time; the other members may be called from any thread.</remarks>
[DebuggerDisplay("{Kind} poller, {Registrar.Count} registrations")]
public sealed class Poller : IDisposable
{
    // _wake: the handshake between the sleeper (the waiting thread, S) and wakers (W).
    //
    //   Awake      S is not in the kernel, or only looks (zero timeout)
    //   Sleeping   S is about to sleep or asleep: a waker must write
    //   Notified   somebody woke: the next sleep does not happen
    //
    // Story. W has made its work visible, then exchanges _wake for Notified (a full fence). S exchanges nothing before it
    // has looked for work; to sleep it compare-exchanges Awake -> Sleeping (a full fence).
    //   - W's exchange before S's: S's fails, S does not sleep, and sees the work (W published it before its exchange).
    //   - W's exchange after S's: W reads Sleeping and writes to the wake descriptor; S wakes.
    // Of many wakers only the first reads Sleeping, so a burst costs one write; while S is awake it costs none.
    // The write may arrive after S has woken for another reason. S then meets it in a later wait while _wake says
    // Sleeping: the event is acknowledged and is not a wake of its own.
    private const int Awake = 0;
    private const int Sleeping = 1;
    private const int Notified = 2;
    private int _wake;

    // _use: bit 0, a thread is in Wait; bit 1, disposed. Whoever leaves last closes the kernel's objects.
    private const int Waiting = 1;
    private const int Disposed = 2;
    private int _use;

    // Wakers that may be about to write to the wake descriptor: closing waits for them (netty#9362). Only counted between
    // reading Sleeping and the end of the write, which does not block.
    private int _writers;
    private long _wakesWritten;

    // 1: somebody asked that a wait return. Written before _wake by the asker; taken by the wait that returns.
    private int _returnAsked;

    private readonly Selector _selector;
    private readonly MonotonicClock _clock;
    private readonly Notification[] _notifications = new Notification[3 * Selector.Capacity]; // events, channels, timers: a share for each, so that none starves another

    /// <summary>Creates a poller.</summary>
    /// <param name="kind">The kernel's mechanism; <see cref="PollerKind.Auto"/> takes the best of this platform.</param>
    /// <exception cref="PlatformNotSupportedException">It does not exist here; the message says what was tried.</exception>
    public Poller(PollerKind kind = PollerKind.Auto) : this(kind, SystemCalls.Instance, MonotonicClock.Instance)
    {
    }

    internal Poller(PollerKind kind, SystemCalls calls, MonotonicClock clock)
        : this(CreateSelector(kind, calls), clock)
    {
    }

    internal Poller(Selector selector, MonotonicClock clock)
    {
        _selector = selector;
        _clock = clock;
        Timers = new PollerTimers(this, clock);
        Signals = new PollerSignals(this);
        Registrar = new Registrar(this, selector);
    }

    /// <summary>Whether this platform has the mechanism.</summary>
    public static bool IsSupported(PollerKind kind) => kind switch
    {
        PollerKind.Auto or PollerKind.Epoll => Platform.EpollRefusal() is null,
        PollerKind.Kqueue => false,
        _ => throw new ArgumentOutOfRangeException(nameof(kind)),
    };

    /// <summary>The mechanism in use, never <see cref="PollerKind.Auto"/>.</summary>
    public PollerKind Kind => _selector.Kind;

    /// <summary>Where descriptors are registered.</summary>
    public Registrar Registrar { get; }

    /// <summary>
    /// Waits until something is ready (a descriptor, a timer, a channel), until <see cref="Registrar.Wake"/>, or until the
    /// time is up.
    /// </summary>
    /// <param name="timeout">
    /// How long at most, in steps of 100 ns; zero only looks, <see cref="Timeout.InfiniteTimeSpan"/> waits for ever. Never
    /// shorter than asked for. Signals do not end it.
    /// </param>
    /// <returns>
    /// The notifications, at most one for each registration; empty after the time-out or a wake-up. The span is valid until
    /// the next call.
    /// </returns>
    /// <exception cref="ArgumentOutOfRangeException">The time-out is negative and not infinite.</exception>
    /// <exception cref="InvalidOperationException">Another thread is waiting.</exception>
    /// <exception cref="ObjectDisposedException">The poller is disposed, possibly during the wait.</exception>
    public ReadOnlySpan<Notification> Wait(TimeSpan timeout)
    {
        var nanoseconds = Nanoseconds(timeout);
        Enter();
        try
        {
            return new ReadOnlySpan<Notification>(_notifications, 0, WaitFor(nanoseconds));
        }
        finally
        {
            Leave();
        }
    }

    /// <summary>
    /// Closes the poller; its registrations end, the descriptors stay open. A thread in <see cref="Wait"/> gets an
    /// <see cref="ObjectDisposedException"/>.
    /// </summary>
    public void Dispose()
    {
        int use;
        do
        {
            use = Volatile.Read(ref _use);
            if ((use & Disposed) != 0) return;
        }
        while (Interlocked.CompareExchange(ref _use, use | Disposed, use) != use);
        if (use == 0) CloseAll();
        else Wake();
    }

    // ---- for the loop: the raw parts of a wait

    internal PollerTimers Timers { get; }

    internal PollerSignals Signals { get; }

    /// <summary>Whether the waiting thread is in the kernel, or will be in a moment; for tests.</summary>
    internal bool IsSleeping => Volatile.Read(ref _wake) == Sleeping;

    internal long WakesWritten => Interlocked.Read(ref _wakesWritten);

    /// <summary>
    /// One look at the kernel: waits up to <paramref name="timeout"/> nanoseconds (negative: for ever), less if woken, and
    /// says how many events <see cref="Event"/> has. May return 0 early.
    /// </summary>
    internal int Collect(long timeout)
    {
        var sleeps = timeout != 0;
        if (sleeps && Interlocked.CompareExchange(ref _wake, Sleeping, Awake) == Notified)
        {
            Interlocked.Exchange(ref _wake, Awake); // a fence: the caller's next look for work sees what the waker published
            timeout = 0;
            sleeps = false;
        }
        var count = _selector.Wait(timeout);
        if (sleeps) Interlocked.Exchange(ref _wake, Awake); // likewise
        if (count >= 0) return count;
        return count == -Errno.EINTR ? 0 : throw SystemError.Exception(-count, "epoll_wait");
    }

    /// <summary>
    /// Takes back a wake-up that nobody needs any more because the caller looks for work next. Pairs with the exchange in
    /// <see cref="Wake"/>: what was published before it is seen after this.
    /// </summary>
    internal void ClearWake()
    {
        if (Volatile.Read(ref _wake) == Notified) Interlocked.Exchange(ref _wake, Awake);
    }

    /// <summary>
    /// Event <paramref name="index"/> of the last <see cref="Collect"/>. Null: a wake-up, or the event of a registration
    /// that has been removed.
    /// </summary>
    internal Registration? Event(int index, out Readiness readiness)
    {
        var id = Acknowledge(index, out readiness);
        return id == Selector.WakeId ? null : Registrar.Find(id);
    }

    private long Acknowledge(int index, out Readiness readiness)
    {
        var id = _selector.Get(index, out readiness);
        if (id == Selector.WakeId) _selector.AcknowledgeWake();
        return id;
    }

    /// <summary>Makes the wait in progress return, or else the next one.</summary>
    internal void AskToReturn()
    {
        Volatile.Write(ref _returnAsked, 1); // before the exchange in Wake, a full fence
        Wake();
    }

    /// <summary>Makes the waiting thread look for work that was published before.</summary>
    internal void Wake()
    {
        Interlocked.Increment(ref _writers); // before the look at _use: pairs with CloseAll
        if ((Volatile.Read(ref _use) & (Disposed | Waiting)) != Disposed && Interlocked.Exchange(ref _wake, Notified) == Sleeping)
        {
            Interlocked.Increment(ref _wakesWritten);
            _selector.Wake();
        }
        Interlocked.Decrement(ref _writers);
    }

    internal static long Nanoseconds(TimeSpan timeout)
    {
        if (timeout == Timeout.InfiniteTimeSpan) return -1;
        if (timeout < TimeSpan.Zero) throw new ArgumentOutOfRangeException(nameof(timeout), timeout, "A time-out is zero, positive or infinite.");
        return timeout.Ticks > long.MaxValue / 100 ? long.MaxValue : timeout.Ticks * 100;
    }

    // ---- private

    private static EpollSelector CreateSelector(PollerKind kind, SystemCalls calls)
    {
        var epoll = Platform.EpollRefusal();
        if (kind is PollerKind.Auto or PollerKind.Epoll && epoll is null) return new EpollSelector(calls);
        throw kind switch
        {
            PollerKind.Auto => new PlatformNotSupportedException($"No poller for this platform. epoll: {epoll}; kqueue: {Platform.KqueueRefusal()}."),
            PollerKind.Epoll => new PlatformNotSupportedException($"No epoll here: {epoll}."),
            PollerKind.Kqueue => new PlatformNotSupportedException($"No kqueue here: {Platform.KqueueRefusal()}."),
            _ => new ArgumentOutOfRangeException(nameof(kind)),
        };
    }

    // Every pass looks at all there is: the kernel, the channels, the timers. It ends with something to tell, when it was
    // asked to, or when the time is up; a wake-up on behalf of a timer or a channel only leads to the next pass.
    private int WaitFor(long timeout)
    {
        var deadline = timeout switch { 0 => long.MinValue, < 0 => long.MaxValue, _ => PollerTimers.Sum(_clock.Now(), timeout) };
        while (true)
        {
            var events = Collect(timeout == 0 || Signals.Any ? 0 : TimeToSleep(deadline));
            if (Volatile.Read(ref _use) != Waiting) throw new ObjectDisposedException(nameof(Poller));
            var count = Translate(events);
            count += Signals.Take(_notifications.AsSpan(count, Selector.Capacity));
            count += Timers.TakeDue(_notifications.AsSpan(count));
            if (Interlocked.Exchange(ref _returnAsked, 0) != 0 || count > 0 || timeout == 0) return count;
            if (deadline != long.MaxValue && _clock.Now() >= deadline) return 0;
        }
    }

    private long TimeToSleep(long deadline)
    {
        var until = Timers.SleepUntil(deadline);
        return until == long.MaxValue ? -1 : Math.Max(0, until - _clock.Now());
    }

    private int Translate(int events)
    {
        var count = 0;
        for (var i = 0; i < events; i++)
        {
            var id = Acknowledge(i, out var readiness);
            // The id as the kernel gave it: the object found may serve another registration in a moment.
            if (id != Selector.WakeId && Registrar.Find(id) is not null) _notifications[count++] = new Notification(id, readiness, 1);
        }
        return count;
    }

    private void Enter()
    {
        var use = Interlocked.CompareExchange(ref _use, Waiting, 0);
        if ((use & Disposed) != 0) throw new ObjectDisposedException(nameof(Poller));
        if (use != 0) throw new InvalidOperationException("Another thread is waiting on this poller.");
    }

    private void Leave()
    {
        if (Interlocked.CompareExchange(ref _use, 0, Waiting) == Waiting) return;
        Volatile.Write(ref _use, Disposed); // it was Waiting | Disposed, which nobody else changes
        CloseAll();
    }

    // Story: a waker counts itself in _writers, then reads _use; we set Disposed, then read _writers. Either it sees
    // Disposed and writes nothing, or we see it and wait until its write, which does not block, is over.
    private void CloseAll()
    {
        Interlocked.MemoryBarrier();
        var wait = default(SpinWait);
        while (Volatile.Read(ref _writers) != 0) wait.SpinOnce();
        Timers.Close();
        Signals.Close();
        Registrar.Close();
    }
}
