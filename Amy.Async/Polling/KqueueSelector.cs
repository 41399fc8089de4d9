using System.Diagnostics;
using Amy.Async.Native;

namespace Amy.Async;

// What kqueue really does, and what follows from it here:
//
// - A knote belongs to (descriptor number, filter), and dies when that number is closed, whatever dups there are. So a number
//   that was closed and opened anew behind our back answers ENOENT to a change of what was registered.
// - Reading and writing are two knotes and two events. What belongs to one registration is told by its id, which is the user
//   data of both: merged by descriptor, a timer's or a stale event's ident would hit a foreign registration.
// - EV_CLEAR makes an event per arrival, as EPOLLET does: the knote is activated by every arrival, and the filter asked again when
//   the event is taken. EV_ADD looks at the level once.
// - EV_ADD of a knote that exists succeeds, so nothing but a probe tells a double registration; EV_ENABLE and EV_DISABLE fail with
//   ENOENT where there is none. EV_ENABLE has the level reported again.
// - With EV_RECEIPT each change is answered by an EV_ERROR event of its own, in their order, and nothing else is taken from the
//   queue by that call. Without it, the first failure ends the list.
// - EINTR with changes: they were applied, their receipts are lost. Such a call does not sleep, so a signal hardly finds it; if
//   one does, the list is given again. An addition is idempotent, but for an edge too many. A deletion that is repeated finds
//   nothing, which is what it wanted; in Modify it finds what the first round has added, so a number that was closed and opened
//   anew is taken for the old one this once, and the additions stand for what is there now.
// - ENOENT on deletion: the descriptor was closed. EPIPE on addition (FreeBSD, and macOS up to 10.11): a pipe whose reader is gone
//   has no EVFILT_WRITE. Both are no failures.
// - Regular files are taken, and fire while there is something behind their position. They are refused here, so that the same
//   program is told the same on every system; one fstat(2) for each registration.
// - macOS refuses long time-outs with EINVAL. A wait of a day that returns early is taken up again by the caller.
// - macOS tells of out-of-band data (EVFILT_EXCEPT with NOTE_OOB; that filter fires for ordinary data and the end, too), FreeBSD
//   and libkqueue do not.

/// <summary>The selector on kqueue(2): one queue, wake-ups by EVFILT_USER or else a pipe.</summary>
/// <remarks>The registrar's lock keeps <see cref="Add"/>, <see cref="Modify"/> and <see cref="Remove"/> apart; they share
/// buffers and a note of what is registered.</remarks>
internal sealed class KqueueSelector : Selector
{
    private const int MaxChanges = 8; // of a Modify: three filters leave, three come
    private const long LongestWait = 86_400 * MonotonicClock.NanosecondsPerSecond;

    private static readonly byte[] s_one = [1];

    /// <summary>The knotes of a descriptor.</summary>
    [Flags]
    private enum Filters : byte
    {
        None = 0,
        Read = 1,
        Write = 2,
        Except = 4,

        /// <summary>EVFILT_READ, disabled: nobody wants anything, but the descriptor is known.</summary>
        Muted = 8,
    }

    private struct Watch
    {
        internal long Id;
        internal Filters Filters;
        internal bool IsMarked; // in _marks, too
    }

    private readonly SystemCalls _calls;
    private readonly KqueueAbi _abi;
    private readonly int _queue;
    private readonly byte[] _wakeChange; // written before the first wake-up, read by any thread
    private readonly int _wakeReader = -1; // the pipe's ends, or -1: user events
    private readonly int _wakeWriter = -1;

    // The waiting thread's.
    private readonly byte[] _events;
    private readonly long[] _ids = new long[Capacity]; // merged: the last wait's notifications
    private readonly Readiness[] _readiness = new Readiness[Capacity];
    private readonly byte[] _drained = new byte[64];
    private int[] _places = new int[64]; // by slot: where in _ids its id may stand; valid only if it does

    // The registrar's, under its lock.
    private readonly byte[] _changes;
    private readonly byte[] _receipts;
    private int _changeCount;
    private int _marks = -1; // a queue that nobody waits on; see IsThere
    private Watch[] _watches = new Watch[64]; // by descriptor
    private (long, long)[] _files = []; // likewise, where closes are not seen: which file was registered

    internal KqueueSelector(SystemCalls calls, KqueueAbi abi)
    {
        _calls = calls;
        _abi = abi;
        _events = new byte[Capacity * abi.EventSize];
        _changes = new byte[MaxChanges * abi.EventSize];
        _receipts = new byte[MaxChanges * abi.EventSize];
        _wakeChange = new byte[abi.EventSize];
        _queue = calls.KqueueCreate();
        if (_queue < 0) throw SystemError.Exception(-_queue, "kqueue");
        if (HasUserEvents()) return;
        _wakeReader = calls.PipeCreate(out _wakeWriter);
        var error = _wakeReader;
        if (error >= 0)
        {
            Change(_wakeReader, Kqueue.EVFILT_READ, Kqueue.EV_ADD | Kqueue.EV_CLEAR, WakeId);
            error = Apply(_queue);
            if (error >= 0) error = -Receipt(0);
        }
        if (error >= 0) return;
        Close();
        throw SystemError.Exception(-error, "kevent");
    }

    internal override PollerKind Kind => PollerKind.Kqueue;

    internal override bool WatchesPriority => _abi.EVFILT_EXCEPT != 0;

    internal override int Add(int descriptor, long id, Interest interest)
    {
        if (descriptor < 0) return -Errno.EBADF;
        if (_calls.IsOnDisk(descriptor)) return -Errno.EPERM; // as epoll answers; kqueue would tell of the position in a file
        if (descriptor >= _watches.Length) Array.Resize(ref _watches, Math.Max(descriptor + 1, _watches.Length * 2));
        if (_watches[descriptor].Filters != 0 && IsThere(descriptor)) return -Errno.EEXIST;
        if (_watches[descriptor].Filters != 0 && !_abi.SeesCloses) Drop(descriptor);
        _watches[descriptor] = default;
        var filters = ToFilters(interest);
        ChangeAll(descriptor, filters, Kqueue.EV_ADD, id);
        return Finish(descriptor, id, filters, firstAddition: 0);
    }

    internal override int Modify(int descriptor, long id, Interest interest)
    {
        if ((uint)descriptor >= (uint)_watches.Length || _watches[descriptor].Filters == 0) return -Errno.ENOENT;
        if (!_abi.SeesCloses && !IsThere(descriptor))
        {
            Drop(descriptor);
            return -Errno.ENOENT;
        }
        var old = _watches[descriptor];
        var filters = ToFilters(interest);
        ChangeAll(descriptor, old.Filters, Kqueue.EV_DELETE, old.Id);
        var deletions = _changeCount;
        ChangeAll(descriptor, filters, Kqueue.EV_ADD, id);
        var result = Finish(descriptor, id, filters, deletions);
        if (result == 0) _watches[descriptor].IsMarked = old.IsMarked;
        if (result == 0) return 0;
        // The old knotes are gone: either they were before, or they come back.
        if (result is -Errno.ENOENT or -Errno.EBADF) return result;
        ChangeAll(descriptor, old.Filters, Kqueue.EV_ADD, old.Id);
        if (Finish(descriptor, old.Id, old.Filters, firstAddition: 0) == 0) _watches[descriptor].IsMarked = old.IsMarked;
        return result;
    }

    internal override int Remove(int descriptor)
    {
        if ((uint)descriptor >= (uint)_watches.Length || _watches[descriptor].Filters == 0) return -Errno.ENOENT;
        var old = _watches[descriptor];
        _watches[descriptor] = default;
        if (old.IsMarked) Mark(descriptor, Kqueue.EV_DELETE);
        ChangeAll(descriptor, old.Filters, Kqueue.EV_DELETE, old.Id);
        return Math.Min(Apply(_queue), 0); // what a receipt could refuse is gone already
    }

    internal override int Wait(long timeout)
    {
        var n = _calls.Kevent(_queue, null, 0, _events, Capacity, timeout > LongestWait ? LongestWait : timeout);
        return n <= 0 ? n : Merge(n);
    }

    internal override long Get(int index, out Readiness readiness)
    {
        readiness = _readiness[index];
        return _ids[index];
    }

    // EAGAIN of the pipe means that it is full: the event is there already.
    internal override void Wake()
    {
        if (_wakeWriter >= 0) _calls.Write(_wakeWriter, s_one);
        else _calls.Kevent(_queue, _wakeChange, 1, null, 0, 0);
    }

    // EV_CLEAR has reset the user event. A pipe is edge-triggered like any other: read, so that it does not fill up.
    internal override void AcknowledgeWake()
    {
        if (_wakeReader < 0) return;
        while (_calls.Read(_wakeReader, _drained) == _drained.Length)
        {
        }
    }

    internal override void Close()
    {
        if (_wakeReader >= 0) _calls.Close(_wakeReader);
        if (_wakeWriter >= 0) _calls.Close(_wakeWriter);
        if (_marks >= 0) _calls.Close(_marks);
        _calls.Close(_queue);
    }

    // ---- wake-ups

    // Tried out: it must be accepted, triggered and seen. Some systems have no EVFILT_USER (nor does every emulation).
    private bool HasUserEvents()
    {
        var user = _abi.EVFILT_USER;
        _changeCount = 0;
        _abi.Set(_changes, _changeCount++, 0, user, Kqueue.EV_ADD | Kqueue.EV_CLEAR | Kqueue.EV_RECEIPT, 0, WakeId);
        if (Apply(_queue) < 0 || Receipt(0) != 0) return false;
        _abi.Set(_wakeChange, 0, 0, user, 0, Kqueue.NOTE_TRIGGER, WakeId);
        Wake();
        return Wait(0) == 1 && Get(0, out _) == WakeId;
    }

    // ---- changes: the registrar's lock is held

    private static Filters ToFilters(Interest interest)
    {
        var filters = Filters.None;
        if ((interest & Interest.Readable) != 0) filters |= Filters.Read;
        if ((interest & Interest.Writable) != 0) filters |= Filters.Write;
        if ((interest & Interest.Priority) != 0) filters |= Filters.Except;
        return filters == 0 ? Filters.Muted : filters;
    }

    private void ChangeAll(int descriptor, Filters filters, int flags, long id)
    {
        if ((flags & Kqueue.EV_ADD) != 0) flags |= Kqueue.EV_CLEAR;
        if ((filters & Filters.Muted) != 0) ChangeMuted(descriptor, flags, id);
        // Writing first: libkqueue forgets, with a later filter, that it was to be told of the peer's end (EPOLLRDHUP).
        if ((filters & Filters.Write) != 0) Change(descriptor, Kqueue.EVFILT_WRITE, flags, id);
        if ((filters & Filters.Read) != 0) Change(descriptor, Kqueue.EVFILT_READ, flags, id);
        if ((filters & Filters.Except) != 0 && WatchesPriority) Change(descriptor, _abi.EVFILT_EXCEPT, flags, id);
        // Priority alone, where nothing tells of it: known, and silent.
        if (filters == Filters.Except && !WatchesPriority) ChangeAll(descriptor, Filters.Muted, flags, id);
    }

    private void ChangeMuted(int descriptor, int flags, long id)
    {
        if ((flags & Kqueue.EV_ADD) == 0)
        {
            Change(descriptor, Kqueue.EVFILT_READ, flags, id);
            return;
        }
        Change(descriptor, Kqueue.EVFILT_READ, _abi.AddsDisabled ? flags | Kqueue.EV_DISABLE : flags, id);
        if (!_abi.AddsDisabled) Change(descriptor, Kqueue.EVFILT_READ, Kqueue.EV_DISABLE, id);
    }

    private void Change(int descriptor, short filter, int flags, long id)
    {
        var filterFlags = filter == _abi.EVFILT_EXCEPT && WatchesPriority ? Kqueue.NOTE_OOB : 0;
        _abi.Set(_changes, _changeCount++, descriptor, filter, (ushort)(flags | Kqueue.EV_RECEIPT), filterFlags, id);
    }

    // Gives the list to the kernel, and empties it. 0, or why the kernel took none of it.
    private int Apply(int queue)
    {
        var count = _changeCount;
        _changeCount = 0;
        int n;
        do n = _calls.Kevent(queue, _changes, count, _receipts, count, 0);
        while (n == -Errno.EINTR); // see above
        Debug.Assert(n < 0 || n == count, "kevent did not answer each change");
        return n < 0 ? n : n == count ? 0 : -Errno.EIO;
    }

    // What the kernel said to a change: 0, or an errno.
    private int Receipt(int index) =>
        (_abi.Flags(_receipts, index) & Kqueue.EV_ERROR) == 0 ? 0 : _abi.ToErrno(_abi.Data(_receipts, index));

    // Applies deletions, then additions. 0: what was asked for is registered, and noted. ENOENT: all that was to be deleted was
    // gone. After any error nothing of it is registered.
    private int Finish(int descriptor, long id, Filters filters, int firstAddition)
    {
        _watches[descriptor] = default;
        var count = _changeCount;
        var result = Apply(_queue);
        if (result < 0) return result;
        var missing = 0;
        for (var i = 0; i < firstAddition; i++)
        {
            var error = Receipt(i);
            if (error == Errno.ENOENT) missing++;
            else if (error == Errno.EBADF) result = -error;
        }
        if (firstAddition > 0 && missing == firstAddition) result = -Errno.ENOENT;
        var endOfPipe = false;
        for (var i = firstAddition; i < count && result == 0; i++)
        {
            var (filter, error) = (_abi.Filter(_receipts, i), Receipt(i));
            if (error == 0) continue;
            if (filter == Kqueue.EVFILT_WRITE && error == Errno.EPIPE) endOfPipe = true;
            // Only sockets have out-of-band data: beside other filters, its refusal is none of the descriptor.
            else if (filter == _abi.EVFILT_EXCEPT && filters != Filters.Except) filters &= ~Filters.Except;
            else result = -error;
        }
        if (result < 0)
        {
            Undo(descriptor, id, firstAddition, count);
            return result;
        }
        if (endOfPipe) filters = TellOfEndOfPipe(descriptor, id, filters & ~Filters.Write);
        _watches[descriptor] = new Watch { Id = id, Filters = filters };
        if (_abi.SeesCloses) return 0;
        if (_files.Length < _watches.Length) Array.Resize(ref _files, _watches.Length);
        _files[descriptor] = _calls.GetFile(descriptor);
        return 0;
    }

    // What is noted of a number that stands for another file by now, where the knotes have not gone by themselves.
    private void Drop(int descriptor)
    {
        ChangeAll(descriptor, _watches[descriptor].Filters, Kqueue.EV_DELETE, _watches[descriptor].Id);
        _watches[descriptor] = default;
        _ = Apply(_queue);
    }

    // Takes back the additions that succeeded.
    private void Undo(int descriptor, long id, int firstAddition, int count)
    {
        for (var i = firstAddition; i < count; i++)
            if (Receipt(i) == 0) Change(descriptor, _abi.Filter(_receipts, i), Kqueue.EV_DELETE, id);
        if (_changeCount > 0) _ = Apply(_queue);
    }

    // A pipe without a reader is ready for writing (the write fails), but has no knote to say so. A user event of the registration
    // says it instead: once, as an edge. FreeBSD forgets a trigger that comes with the addition (kqueue_register clears fflags of a
    // new knote), so it comes after. Without user events it goes unsaid; who writes finds out. Returns the knotes there are: at
    // least a muted one, so that the descriptor stays known.
    private Filters TellOfEndOfPipe(int descriptor, long id, Filters others)
    {
        if (others == 0)
        {
            others = Filters.Muted;
            ChangeAll(descriptor, others, Kqueue.EV_ADD, id);
        }
        if (_wakeWriter < 0)
        {
            _abi.Set(_changes, _changeCount++, descriptor + 1, _abi.EVFILT_USER, Kqueue.EV_ADD | Kqueue.EV_ONESHOT | Kqueue.EV_CLEAR | Kqueue.EV_RECEIPT, 0, id);
            _abi.Set(_changes, _changeCount++, descriptor + 1, _abi.EVFILT_USER, Kqueue.EV_RECEIPT, Kqueue.NOTE_TRIGGER, id);
        }
        if (_changeCount > 0) _ = Apply(_queue);
        return others;
    }

    // Whether the knotes that we noted are still there, by one of them. That costs a needless edge if it is ready, and whoever asks
    // after each edge would ask for ever. So the first to ask leaves a mark, in a queue that nobody waits on: a disabled knote,
    // which dies with the number like the others and can be asked without an edge. The mark comes first: it is then of the file
    // that the knote is found to be of. libkqueue's knotes do not die; there the file itself is looked at.
    private bool IsThere(int descriptor)
    {
        if (!_abi.SeesCloses) return _calls.GetFile(descriptor) == _files[descriptor];
        var watch = _watches[descriptor];
        if (watch.IsMarked) return Mark(descriptor, Kqueue.EV_DISABLE);
        var marked = Mark(descriptor, Kqueue.EV_ADD | Kqueue.EV_CLEAR | Kqueue.EV_DISABLE);
        var silent = (watch.Filters & Filters.Muted) != 0 || watch.Filters == Filters.Except && !WatchesPriority;
        var filter = silent || (watch.Filters & Filters.Read) != 0 ? Kqueue.EVFILT_READ
            : (watch.Filters & Filters.Write) != 0 ? Kqueue.EVFILT_WRITE : _abi.EVFILT_EXCEPT;
        Change(descriptor, filter, silent ? Kqueue.EV_DISABLE : Kqueue.EV_ENABLE | Kqueue.EV_CLEAR, watch.Id);
        var there = Apply(_queue) == 0 && Receipt(0) == 0;
        if (there) _watches[descriptor].IsMarked = marked;
        else if (marked) Mark(descriptor, Kqueue.EV_DELETE);
        return there;
    }

    private bool Mark(int descriptor, int flags)
    {
        if (_marks < 0) _marks = _calls.KqueueCreate();
        if (_marks < 0) return false;
        if ((flags & Kqueue.EV_ADD) != 0) ChangeMuted(descriptor, flags & ~Kqueue.EV_DISABLE, WakeId);
        else Change(descriptor, Kqueue.EVFILT_READ, flags, WakeId);
        return Apply(_marks) == 0 && Receipt(0) == 0;
    }

    // ---- events: the waiting thread's

    // Two events of one id become one. An id is found again by its slot (its lower half): a place that does not hold this very id
    // is of an earlier batch, or of another registration. O(1), nothing to clear, and it allocates only while slots become more.
    private int Merge(int count)
    {
        var merged = 0;
        for (var i = 0; i < count; i++)
        {
            var id = _abi.UserData(_events, i);
            var readiness = ToReadiness(i);
            if (readiness == Readiness.None) continue;
            if (id != WakeId)
            {
                var slot = (int)id & int.MaxValue;
                if (slot >= _places.Length) Array.Resize(ref _places, Math.Max(slot + 1, _places.Length * 2));
                ref var place = ref _places[slot];
                if (place < merged && _ids[place] == id)
                {
                    _readiness[place] |= readiness;
                    continue;
                }
                place = merged;
            }
            _ids[merged] = id;
            _readiness[merged++] = readiness;
        }
        return merged;
    }

    // EV_EOF: of reading, the peer writes no more; of writing, it reads no more. With an error the connection is gone, which both
    // directions must hear although only one may have been asked for (as mio reads it, and more: there an error wakes anyway).
    private Readiness ToReadiness(int index)
    {
        var (filter, flags, filterFlags) = (_abi.Filter(_events, index), _abi.Flags(_events, index), _abi.FilterFlags(_events, index));
        if (filter == _abi.EVFILT_USER) return _abi.UserData(_events, index) == WakeId ? Readiness.Readable : Readiness.Writable | Readiness.WriteClosed;
        if ((flags & Kqueue.EV_ERROR) != 0) return Readiness.Error;
        var ended = (flags & Kqueue.EV_EOF) != 0;
        var failed = ended && _abi.ToErrno(filterFlags) != 0;
        if (filter == Kqueue.EVFILT_WRITE)
        {
            if (!ended) return Readiness.Writable;
            return failed ? Readiness.Writable | Readiness.ReadClosed | Readiness.WriteClosed | Readiness.Error : Readiness.Writable | Readiness.WriteClosed;
        }
        if (filter != Kqueue.EVFILT_READ) return ExceptReadiness(ended, filterFlags);
        if (!ended) return Readiness.Readable;
        return failed ? Readiness.Readable | Readiness.ReadClosed | Readiness.WriteClosed | Readiness.Error : Readiness.Readable | Readiness.ReadClosed;
    }

    // What EVFILT_READ tells as well is left to it.
    private static Readiness ExceptReadiness(bool ended, uint filterFlags)
    {
        if (!ended && (filterFlags & Kqueue.NOTE_OOB) != 0) return Readiness.Priority;
        return ended ? Readiness.ReadClosed : Readiness.None;
    }
}
