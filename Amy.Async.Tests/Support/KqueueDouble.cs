using Amy.Async.Native;

namespace Amy.Async.Tests;

// kqueue(2) as the manual pages of the BSDs describe it, played on Linux:
//
// - A knote is (descriptor, filter); EV_ADD of one that exists changes it and looks at the level again; EV_DELETE, EV_ENABLE and
//   EV_DISABLE of one that does not exist is ENOENT, of a closed descriptor EBADF.
// - EV_CLEAR: one event per arrival. Each filter has an epoll instance of its own, edge-triggered, because an entry there has one
//   edge for both directions; poll(2) could not show a second edge at all. The queue's own descriptor is an epoll instance that
//   watches those, and an eventfd for user events.
// - EV_RECEIPT and failures answer with EV_ERROR events in the order of the changes, and then nothing is taken from the queue.
// - EVFILT_EXCEPT is xnu's: ordinary data and the end fire it, too; only NOTE_OOB in fflags tells of out-of-band data.
// - Closing a descriptor removes its knotes. Closes by way of Close are seen at once. Those behind its back are found when the
//   number is used in a change (epoll knows another file), or when a dup of it still makes events (the inode is another).
//
// What it cannot do: the error at the end of a connection (fflags) is always ECONNRESET, because Linux tells an error only to
// somebody who takes it away. It refuses regular files (EPERM) instead of following their position.
//
// It is strict: what the manual pages do not allow, or what can only be a slip (an event of another system's size, an unknown
// flag, a receipt without room, a field that should be zero), throws, and is remembered for the end of the run.

/// <summary>System calls with a kqueue of our own making, in the layout of one of its systems; with none, the real calls.</summary>
internal class KqueueDouble : SystemCalls
{
    /// <summary>macOS's, for an implementation whose error numbers are Linux's.</summary>
    internal static readonly KqueueAbi Layout32 = new("the double of macOS", 32, userFilter: -10, exceptFilter: -15);

    /// <summary>FreeBSD's, likewise.</summary>
    internal static readonly KqueueAbi Layout64 = new("the double of FreeBSD", 64, userFilter: -11, exceptFilter: 0);

    /// <summary>What instances begin with: set once, before tests run, to have all of them on the double.</summary>
    internal static KqueueAbi? DefaultLayout { get; set; }

    /// <summary>All that was done wrong so far.</summary>
    internal static readonly List<string> Misuses = [];

    // The kernel's: descriptors of queues are the process's, whichever instance they came from.
    private static readonly Dictionary<int, KqueueImage> s_queues = [];
    private static readonly SpinGate s_gate = new();

    /// <summary>What all queues take of managed memory for what they know, a kernel's on a real system; for tests that count.</summary>
    internal static long Bytes
    {
        get
        {
            var bytes = 0L;
            using (s_gate.Enter())
                foreach (var queue in s_queues.Values) bytes += queue.Bytes;
            return bytes;
        }
    }

    internal KqueueAbi? Layout { get; set; } = DefaultLayout;

    /// <summary>Whether EVFILT_USER is there.</summary>
    internal bool HasUserEvents { get; init; } = true;

    internal override string? RequestedPoller => Layout is null ? base.RequestedPoller : "kqueue";

    internal override string? KqueueRefusal() => Layout is null ? base.KqueueRefusal() : null;

    internal override KqueueAbi KqueueAbi => Layout ?? base.KqueueAbi;

    internal override int KqueueCreate()
    {
        if (Layout is null) return base.KqueueCreate();
        var image = new KqueueImage(new SystemCalls(), Layout, HasUserEvents);
        using (s_gate.Enter()) s_queues.Add(image.Descriptor, image);
        return image.Descriptor;
    }

    internal override int Kevent(int queue, byte[]? changes, int changeCount, byte[]? events, int capacity, long timeout)
    {
        if (Layout is null) return base.Kevent(queue, changes, changeCount, events, capacity, timeout);
        KqueueImage? image;
        using (s_gate.Enter())
            if (!s_queues.TryGetValue(queue, out image)) return -Errno.EBADF;
        return image.Kevent(changes, changeCount, events, capacity, timeout);
    }

    internal override int Close(int descriptor)
    {
        if (Layout is not null) Forget(descriptor);
        return base.Close(descriptor);
    }

    private static void Forget(int descriptor)
    {
        using (s_gate.Enter())
        {
            if (s_queues.Remove(descriptor, out var closed)) closed.Close();
            foreach (var queue in s_queues.Values) queue.Forget(descriptor);
        }
    }

    internal static InvalidOperationException Misuse(string what)
    {
        lock (Misuses) Misuses.Add(what);
        return new InvalidOperationException("Misuse of kqueue: " + what);
    }
}

/// <summary>
/// A lock that spins and yields. The platform's own would tell the loop's context when it is contended, as if the loop's user
/// had waited; a kernel's locks are not seen.
/// </summary>
internal sealed class SpinGate
{
    private int _taken;

    internal Held Enter()
    {
        var wait = default(SpinWait);
        while (Interlocked.Exchange(ref _taken, 1) != 0) wait.SpinOnce();
        return new Held(this);
    }

    internal readonly struct Held(SpinGate gate) : IDisposable
    {
        public void Dispose() => Volatile.Write(ref gate._taken, 0);
    }
}
