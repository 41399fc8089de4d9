using System.Diagnostics;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Threading.Channels;
using Amy.Async.Compat;
using Amy.Async.Native;

namespace Amy.Async;

/// <summary>
/// Registers descriptors with a <see cref="Poller"/>, and makes its timers and channels. Every member may be called from any thread, also while another thread
/// is in <see cref="Poller.Wait"/>; registering, changing and removing talk to the kernel directly and never wake it.
/// </summary>
/// <remarks>
/// Registrations are edge-triggered: a notification comes when something arrives, so read or write until the operation
/// would block before waiting for the next one. One lock orders all changes; the kernel orders them anyway (the epoll
/// instance has a mutex), and the waiting thread never takes it.
/// </remarks>
[DebuggerDisplay("{Count} registrations")]
public sealed class Registrar
{
    private readonly object _lock = new();
    private readonly Selector _selector;
    private readonly Poller _poller;
    private readonly RegistrationTable _table = new();
    private readonly Stack<HandleRegistration> _pool = new();
    private bool _closed; // guarded by _lock

    internal Registrar(Poller poller, Selector selector)
    {
        _poller = poller;
        _selector = selector;
    }

    /// <summary>Registers a socket. It should be non-blocking and, if it is to be connected, connected already.</summary>
    /// <param name="socket">The socket. It is kept alive while it is registered; deregister it before closing it.</param>
    /// <param name="interest">What to be told of.</param>
    /// <returns>The id of the registration, positive and never used again.</returns>
    /// <exception cref="ArgumentException"><paramref name="interest"/> is empty or has unknown bits.</exception>
    /// <exception cref="InvalidOperationException">The socket is registered with this poller already.</exception>
    /// <exception cref="ObjectDisposedException">The socket or the poller is disposed.</exception>
    public long Register(Socket socket, Interest interest)
    {
        if (socket is null) throw new ArgumentNullException(nameof(socket));
        return Register(SocketInterop.HandleOf(socket), interest);
    }

    /// <summary>Registers any descriptor that can be polled.</summary>
    /// <param name="handle">The descriptor. It is kept alive while it is registered; deregister it before closing it.</param>
    /// <param name="interest">What to be told of.</param>
    /// <returns>The id of the registration, positive and never used again.</returns>
    /// <exception cref="ArgumentException"><paramref name="interest"/> is empty or has unknown bits.</exception>
    /// <exception cref="InvalidOperationException">The descriptor is registered with this poller already.</exception>
    /// <exception cref="NotSupportedException">The kernel cannot poll it: a regular file, a directory, /dev/null.</exception>
    /// <exception cref="ObjectDisposedException">The handle or the poller is disposed.</exception>
    public long Register(SafeHandle handle, Interest interest)
    {
        if (handle is null) throw new ArgumentNullException(nameof(handle));
        Check(interest);
        Registration? stale;
        long id;
        lock (_lock)
        {
            var registration = _pool.Count > 0 ? _pool.Pop() : new HandleRegistration();
            registration.Handle = handle;
            try
            {
                stale = Add(registration, Descriptor(handle), interest);
                id = registration.Id;
            }
            catch
            {
                Recycle(registration);
                throw;
            }
        }
        stale?.OnStale();
        return id;
    }

    /// <summary>Replaces the interest of a registration. What it is ready for already is notified again.</summary>
    /// <exception cref="ArgumentException"><paramref name="interest"/> is empty or has unknown bits.</exception>
    /// <exception cref="InvalidOperationException">The id is unknown, or its descriptor was closed while registered.</exception>
    public void Reregister(long id, Interest interest)
    {
        Check(interest);
        lock (_lock)
        {
            var registration = Known(id);
            var result = Modify(registration, interest);
            if (result < 0) throw new InvalidOperationException($"The descriptor of registration {id} was closed while it was registered.", SystemError.Exception(-result, "Changing the registration"));
        }
    }

    /// <summary>Ends a registration. No notification with its id comes out of a later <see cref="Poller.Wait"/>.</summary>
    /// <exception cref="InvalidOperationException">The id is unknown.</exception>
    public void Deregister(long id)
    {
        lock (_lock) Remove(Known(id));
    }

    /// <summary>
    /// Makes <see cref="Poller.Wait"/> return early, possibly empty: the one in progress, or else the next one. Any number
    /// of calls before that return count as one. Nothing happens after the poller was disposed.
    /// </summary>
    public void Wake() => _poller.AskToReturn();

    // ---- timers

    /// <summary>
    /// Starts a timer that fires once: one notification with the returned id and <see cref="Readiness.Readable"/>, not before
    /// the time is up. Wakes the waiting thread only if it would sleep longer than that. Allocates nothing after the first few.
    /// </summary>
    /// <param name="dueTime">From now, in steps of 100 ns. Zero: the next <see cref="Poller.Wait"/> tells. Centuries are never.</param>
    /// <returns>The id of the timer: positive, never used again.</returns>
    /// <exception cref="ArgumentOutOfRangeException">Negative (also infinite: a time-out that never comes is none).</exception>
    /// <exception cref="ObjectDisposedException">The poller is disposed.</exception>
    public long SetTimeout(TimeSpan dueTime)
    {
        if (dueTime < TimeSpan.Zero) throw new ArgumentOutOfRangeException(nameof(dueTime), dueTime, "A time-out is zero or positive.");
        return _poller.Timers.Set(Poller.Nanoseconds(dueTime), 0);
    }

    /// <summary>
    /// Starts a timer that fires again and again, after each period from now on. It keeps its phase: no expiration is early,
    /// and lateness does not add up. <see cref="Notification.Count"/> says how many expirations one notification tells of.
    /// </summary>
    /// <param name="period">Positive, in steps of 100 ns.</param>
    /// <returns>The id of the timer: positive, never used again.</returns>
    /// <exception cref="ArgumentOutOfRangeException">Zero or negative.</exception>
    /// <exception cref="ObjectDisposedException">The poller is disposed.</exception>
    public long SetInterval(TimeSpan period)
    {
        if (period <= TimeSpan.Zero) throw new ArgumentOutOfRangeException(nameof(period), period, "An interval is positive.");
        var nanoseconds = Poller.Nanoseconds(period);
        return _poller.Timers.Set(nanoseconds, nanoseconds);
    }

    /// <summary>Stops a timer. No notification with its id comes out of a later <see cref="Poller.Wait"/>.</summary>
    /// <returns>False: it has fired (a time-out), was cancelled before, or never was one.</returns>
    public bool CancelTimeout(long timerId) => _poller.Timers.Cancel(timerId);

    // ---- channels

    /// <summary>Makes a channel that takes any number of items and notifies this poller.</summary>
    /// <exception cref="ObjectDisposedException">The poller is disposed.</exception>
    public PollerChannel<T> CreateUnboundedChannel<T>() => new(_poller.Signals, Channel.CreateUnbounded<T>());

    /// <summary>Makes a channel that holds a number of items, lets its writers wait for room, and notifies this poller.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The capacity is less than 1.</exception>
    /// <exception cref="ObjectDisposedException">The poller is disposed.</exception>
    public PollerChannel<T> CreateBoundedChannel<T>(int capacity)
    {
        // A channel of 0, which newer platforms have, hands over to a reader that waits: the poller's never does.
        if (capacity < 1) throw new ArgumentOutOfRangeException(nameof(capacity), capacity, "A bounded channel holds at least one item.");
        return new(_poller.Signals, Channel.CreateBounded<T>(capacity));
    }

    // ---- for the loop

    internal int Count
    {
        get { lock (_lock) return _table.Count; }
    }

    /// <summary>Registers an object of the loop's. The caller keeps the descriptor open during the call.</summary>
    internal void Register(Registration registration, int descriptor, Interest interest)
    {
        Registration? stale;
        lock (_lock) stale = Add(registration, descriptor, interest);
        stale?.OnStale();
    }

    /// <summary>
    /// Reports again what is ready. The interest is asked for under the lock, so that of two threads the last one in sees
    /// what both want. False: the descriptor was closed.
    /// </summary>
    internal bool Rearm<T>(T registration, Func<T, Interest> interest) where T : Registration
    {
        lock (_lock)
        {
            if (registration.Id == 0) return false;
            var wanted = interest(registration);
            var result = Modify(registration, wanted);
            if (result != -Errno.ENOENT) return result >= 0;
            // The kernel forgot it: the file was closed and the number opened anew, behind the handle's back (a handle
            // that does not own its descriptor). What is there now is what the handle stands for.
            if (!registration.TryHold(out var held)) return false;
            try
            {
                return _selector.Add(registration.Descriptor, registration.Id, wanted) >= 0;
            }
            finally
            {
                held?.DangerousRelease();
            }
        }
    }

    /// <summary>
    /// Reports again what is ready. False: the kernel knows no such registration, because the descriptor was closed, whether or
    /// not its number stands for another file now.
    /// </summary>
    internal bool Refresh(Registration registration, Interest interest)
    {
        lock (_lock) return registration.Id != 0 && Modify(registration, interest) >= 0;
    }

    /// <summary>
    /// Whether the number still stands for the file that was registered: adding it again is refused as a double then, and
    /// unlike a change that makes no event.
    /// </summary>
    internal bool IsStillThere(Registration registration, Interest interest)
    {
        lock (_lock)
        {
            if (registration.Id == 0 || !_table.IsOwner(registration) || !registration.TryHold(out var held)) return false;
            var result = _selector.Add(registration.Descriptor, registration.Id, interest);
            if (result >= 0) _selector.Remove(registration.Descriptor); // another file
            held?.DangerousRelease();
            return result == -Errno.EEXIST;
        }
    }

    /// <summary>Ends a registration of the loop's, if it is still there. The kernel's refusal changes nothing.</summary>
    internal void Deregister(Registration registration)
    {
        lock (_lock)
        {
            if (registration.Id != 0) Remove(registration);
        }
    }

    internal Registration? Find(long id) => _table.Find(id);

    /// <summary>Walks all slots, from 0 until false; any thread, without a lock and without allocating.</summary>
    internal bool TryGetSlot(int slot, out Registration? registration) => _table.TryGetSlot(slot, out registration);

    internal Registration[] Snapshot()
    {
        lock (_lock) return _table.Snapshot();
    }

    internal RegistrationTable Table => _table;

    /// <summary>Forgets everything and refuses what comes later. The kernel's side ends with the selector.</summary>
    internal void Close()
    {
        lock (_lock)
        {
            if (_closed) return;
            _closed = true;
            foreach (var registration in _table.Snapshot()) Forget(registration);
            _selector.Close(); // under the lock: nobody is inside Add, Modify or Remove
        }
    }

    // Returns a registration whose number this one has taken over, to be told so outside the lock.
    private Registration? Add(Registration registration, int descriptor, Interest interest)
    {
        if (_closed) throw new ObjectDisposedException(nameof(Poller));
        registration.Descriptor = descriptor;
        if (!registration.TryHold(out var held)) throw new ObjectDisposedException(nameof(SafeHandle));
        try
        {
            _table.Add(registration); // before the kernel knows: an event may come at once
            var result = _selector.Add(descriptor, registration.Id, interest);
            if (result < 0)
            {
                _table.Remove(registration);
                throw Refused(-result, descriptor);
            }
            var stale = _table.Own(registration);
            if (stale is not null) Forget(stale);
            return stale;
        }
        finally
        {
            held?.DangerousRelease();
        }
    }

    private int Modify(Registration registration, Interest interest)
    {
        if (!_table.IsOwner(registration) || !registration.TryHold(out var held)) return -Errno.EBADF;
        try
        {
            return _selector.Modify(registration.Descriptor, registration.Id, interest);
        }
        finally
        {
            held?.DangerousRelease();
        }
    }

    // Our own state goes first and whatever the kernel says (tokio#7563). The kernel is asked only if the number is still
    // this registration's: otherwise a later owner would lose its entry. ENOENT and EBADF mean that it is gone already.
    private void Remove(Registration registration)
    {
        var owner = _table.IsOwner(registration) & registration.TryHold(out var held);
        var descriptor = registration.Descriptor;
        Forget(registration);
        if (owner) _selector.Remove(descriptor);
        held?.DangerousRelease();
    }

    private void Forget(Registration registration)
    {
        _table.Remove(registration);
        if (registration is HandleRegistration plain) Recycle(plain);
    }

    private void Recycle(HandleRegistration registration)
    {
        registration.Handle = null;
        registration.Descriptor = -1;
        _pool.Push(registration);
    }

    private Registration Known(long id) => _table.Find(id) ?? throw new InvalidOperationException($"Registration {id} is unknown to this poller.");

    private static int Descriptor(SafeHandle handle)
    {
        if (handle.IsClosed || handle.IsInvalid) throw new ObjectDisposedException(handle.GetType().Name);
        return (int)handle.DangerousGetHandle(); // used only while Add holds a reference
    }

    private static void Check(Interest interest)
    {
        if (interest == 0 || (interest & ~(Interest.Both | Interest.Priority)) != 0)
            throw new ArgumentException($"'{interest}' is not an interest: at least one of Readable, Writable and Priority is needed.", nameof(interest));
    }

    private static Exception Refused(int errno, int descriptor) => errno switch
    {
        Errno.EEXIST => new InvalidOperationException($"Descriptor {descriptor} is registered with this poller already."),
        Errno.EPERM or Errno.EINVAL or Errno.ENODEV or Errno.EOPNOTSUPP => new NotSupportedException($"Descriptor {descriptor} cannot be polled: regular files, directories and devices such as /dev/null are always ready for the kernel, and kqueue refuses some terminals and devices. Read and write them directly."),
        Errno.EBADF => new ObjectDisposedException(nameof(SafeHandle), $"Descriptor {descriptor} is closed."),
        _ => SystemError.Exception(errno, "Registering the descriptor"),
    };
}
