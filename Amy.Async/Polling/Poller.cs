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
    private WakeFlag _wake; // mutable structs: the handshake with wakers, and that with who disposes
    private PollerUse _use;
    private long _wakesWritten;

    // 1: somebody asked that a wait return. Written before _wake by the asker; taken by the wait that returns.
    private int _returnAsked;

    private readonly Selector _selector;
    private readonly MonotonicClock _clock;
    private readonly Notification[] _notifications = new Notification[3 * Selector.Capacity]; // events, channels, timers: a share for each, so that none starves another

    /// <summary>Creates a poller.</summary>
    /// <param name="kind">The kernel's mechanism; <see cref="PollerKind.Auto"/> takes the best of this platform.</param>
    /// <exception cref="PlatformNotSupportedException">It does not exist here; the message says what was tried.</exception>
    /// <exception cref="InvalidOperationException"><c>AMY_ASYNC_POLLER</c> names an unknown one.</exception>
    public Poller(PollerKind kind = PollerKind.Auto) : this(kind, SystemCalls.Instance, MonotonicClock.Instance)
    {
    }

    internal Poller(PollerKind kind, SystemCalls calls, MonotonicClock clock)
        : this(SelectorChoice.Create(kind, calls), clock)
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
    /// <exception cref="ArgumentOutOfRangeException">No such kind.</exception>
    /// <exception cref="InvalidOperationException">Asked for <see cref="PollerKind.Auto"/>, and AMY_ASYNC_POLLER is neither "epoll" nor "kqueue".</exception>
    public static bool IsSupported(PollerKind kind) => SelectorChoice.IsSupported(kind, SystemCalls.Instance);

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
        if (!_use.TryDispose(out var close)) return;
        if (close) CloseAll();
        else Wake();
    }

    // ---- for the loop: the raw parts of a wait

    internal bool WatchesPriority => _selector.WatchesPriority;

    internal PollerTimers Timers { get; }

    internal PollerSignals Signals { get; }

    /// <summary>Whether the waiting thread is in the kernel, or will be in a moment.</summary>
    internal bool IsSleeping => _wake.IsSleeping;

    internal long WakesWritten => Interlocked.Read(ref _wakesWritten);

    /// <summary>
    /// Says that the waiting thread is about to sleep, with a full fence; the caller looks for work once more, then calls
    /// <see cref="Sleep"/>. False: it was woken; it looks for work instead.
    /// </summary>
    internal bool TrySleep() => _wake.TrySleep();

    /// <summary>
    /// After <see cref="TrySleep"/>: waits up to <paramref name="timeout"/> nanoseconds (negative: for ever), less if woken, and
    /// says how many events <see cref="Event"/> has. May return 0 early.
    /// </summary>
    internal int Sleep(long timeout)
    {
        var count = _selector.Wait(timeout);
        _wake.EndSleep();
        return Checked(count);
    }

    /// <summary>Looks at the kernel without waiting, and says how many events <see cref="Event"/> has.</summary>
    internal int Look() => Checked(_selector.Wait(0));

    private static int Checked(int count)
    {
        if (count >= 0) return count;
        return count == -Errno.EINTR ? 0 : throw SystemError.Exception(-count, "The poller's wait");
    }

    /// <summary>
    /// Takes back a wake-up that nobody needs any more because the caller looks for work next: what was published before
    /// <see cref="Wake"/> is seen after this.
    /// </summary>
    internal void ClearWake() => _wake.Clear();

    /// <summary>
    /// Event <paramref name="index"/> of the last wait. Null: a wake-up, or the event of a registration
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
        _use.AddWriter(); // before the flag is exchanged: see PollerUse
        if (_wake.Notify())
        {
            Interlocked.Increment(ref _wakesWritten);
            _selector.Wake();
        }
        _use.RemoveWriter();
    }

    internal static long Nanoseconds(TimeSpan timeout)
    {
        if (timeout == Timeout.InfiniteTimeSpan) return -1;
        if (timeout < TimeSpan.Zero) throw new ArgumentOutOfRangeException(nameof(timeout), timeout, "A time-out is zero, positive or infinite.");
        return timeout.Ticks > long.MaxValue / 100 ? long.MaxValue : timeout.Ticks * 100;
    }

    // ---- private

    // Every pass looks at all there is: the kernel, the channels, the timers. It ends with something to tell, when it was
    // asked to, or when the time is up; a wake-up on behalf of a timer or a channel only leads to the next pass.
    private int WaitFor(long timeout)
    {
        var deadline = timeout switch { 0 => long.MinValue, < 0 => long.MaxValue, _ => PollerTimers.Sum(_clock.Now(), timeout) };
        while (true)
        {
            var wait = timeout == 0 || Signals.Any ? 0 : TimeToSleep(deadline);
            var events = wait != 0 && TrySleep() ? Sleep(wait) : Look();
            if (_use.IsDisposed) throw new ObjectDisposedException(nameof(Poller));
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
        if (_use.TryEnter()) return;
        if (_use.IsDisposed) throw new ObjectDisposedException(nameof(Poller));
        throw new InvalidOperationException("Another thread is waiting on this poller.");
    }

    private void Leave()
    {
        if (_use.Leave()) CloseAll();
    }

    private void CloseAll()
    {
        var wait = default(SpinWait);
        while (_use.HasWriters) wait.SpinOnce();
        Timers.Close();
        Signals.Close();
        Registrar.Close();
    }
}
