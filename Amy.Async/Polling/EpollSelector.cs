using System.Runtime.CompilerServices;
using Amy.Async.Native;

namespace Amy.Async;

// What epoll really does, and what follows from it here:
//
// - An entry belongs to the pair (open file description, descriptor number). It lives until the *description* is closed,
//   so a dup (or a forked child) keeps it alive after close(2): therefore remove before close. After the close it can
//   not be removed any more: EPOLL_CTL_DEL looks the number up first.
// - Edge-triggered means: an event per *arrival* (of data, of room, of a state change), not per change of level. All that
//   arrived since the last epoll_wait is one event, and the event's mask is the level at the time of the wait: a readable
//   edge also says that the socket is writable.
// - EPOLL_CTL_ADD and EPOLL_CTL_MOD look at the level once and report it as an edge.
// - EPOLLERR and EPOLLHUP are always reported, asked for or not.
// - epoll_ctl wakes a waiting thread only if what it adds is ready already.

/// <summary>The selector on epoll(7): one epoll instance, one eventfd(2) for wake-ups.</summary>
internal sealed class EpollSelector : Selector
{
    private static readonly byte[] s_one = BitConverter.GetBytes(1UL);

    private readonly SystemCalls _calls;
    private readonly byte[] _events = new byte[Capacity * Epoll.EventSize];
    private readonly byte[] _counter = new byte[sizeof(ulong)];
    private readonly int _epoll;
    private readonly int _wakeUp;

    internal EpollSelector(SystemCalls calls)
    {
        _calls = calls;
        _epoll = calls.EpollCreate();
        if (_epoll < 0) throw SystemError.Exception(-_epoll, "epoll_create1");
        _wakeUp = calls.EventFdCreate();
        var error = _wakeUp;
        if (error >= 0) error = calls.EpollControl(_epoll, Epoll.CTL_ADD, _wakeUp, Epoll.IN | Epoll.ET, WakeId);
        if (error >= 0) return;
        Close();
        throw SystemError.Exception(-error, "eventfd");
    }

    internal override PollerKind Kind => PollerKind.Epoll;

    internal override int Add(int descriptor, long id, Interest interest) =>
        _calls.EpollControl(_epoll, Epoll.CTL_ADD, descriptor, Flags(interest), id);

    internal override int Modify(int descriptor, long id, Interest interest) =>
        _calls.EpollControl(_epoll, Epoll.CTL_MOD, descriptor, Flags(interest), id);

    internal override int Remove(int descriptor) =>
        _calls.EpollControl(_epoll, Epoll.CTL_DEL, descriptor, 0, 0);

    internal override int Wait(long timeout) => _calls.EpollWait(_epoll, _events, Capacity, timeout);

    internal override long Get(int index, out Readiness readiness)
    {
        ref var e = ref _events[index * Epoll.EventSize];
        readiness = ToReadiness(Unsafe.ReadUnaligned<uint>(ref e));
        return Unsafe.ReadUnaligned<long>(ref Unsafe.Add(ref e, Epoll.DataOffset));
    }

    // EAGAIN means that the counter is at its maximum: the event is there already.
    internal override void Wake() => _calls.Write(_wakeUp, s_one);

    // Read although edge-triggered: some kernels make no second edge while the counter is not zero (libuv#4400).
    internal override void AcknowledgeWake() => _calls.Read(_wakeUp, _counter);

    internal override void Close()
    {
        if (_wakeUp >= 0) _calls.Close(_wakeUp);
        _calls.Close(_epoll);
    }

    private static uint Flags(Interest interest)
    {
        var flags = Epoll.ET;
        if ((interest & Interest.Readable) != 0) flags |= Epoll.IN | Epoll.RDHUP;
        if ((interest & Interest.Writable) != 0) flags |= Epoll.OUT;
        if ((interest & Interest.Priority) != 0) flags |= Epoll.PRI;
        return flags;
    }

    // A hang-up (both directions closed, or a pipe without writers) closes reading and writing; RDHUP (the peer's FIN)
    // only reading. An error beside OUT, or alone, is how a pipe or socket without a reader shows itself (as mio reads it).
    private static Readiness ToReadiness(uint events)
    {
        var r = Readiness.None;
        if ((events & Epoll.IN) != 0) r |= Readiness.Readable;
        if ((events & Epoll.OUT) != 0) r |= Readiness.Writable;
        if ((events & ~(Epoll.IN | Epoll.OUT)) == 0) return r;
        if ((events & Epoll.PRI) != 0) r |= Readiness.Priority;
        if ((events & Epoll.ERR) != 0) r |= Readiness.Error;
        if ((events & (Epoll.RDHUP | Epoll.HUP)) != 0) r |= Readiness.ReadClosed;
        if ((events & Epoll.HUP) != 0 || (events & (Epoll.ERR | Epoll.OUT)) == (Epoll.ERR | Epoll.OUT) || events == Epoll.ERR)
            r |= Readiness.WriteClosed;
        return r;
    }
}
