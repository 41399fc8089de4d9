using System.Diagnostics;
using System.Runtime.CompilerServices;
using Amy.Async.Native;

namespace Amy.Async.Tests;

/// <summary>One queue of <see cref="KqueueDouble"/>. Allocates nothing once it has had as many knotes, for tests that count.</summary>
internal sealed class KqueueImage
{
    private const int Filters = 3; // EVFILT_READ, EVFILT_WRITE, EVFILT_EXCEPT
    private const long Users = 1L << 62; // what the outer epoll says for the eventfd

    private const ushort Actions = Kqueue.EV_ADD | Kqueue.EV_DELETE | Kqueue.EV_ENABLE | Kqueue.EV_DISABLE;
    private const ushort Allowed = Actions | Kqueue.EV_ONESHOT | Kqueue.EV_CLEAR | Kqueue.EV_RECEIPT;

    private struct Knote
    {
        internal int Generation; // of the place; an event of an earlier one is dropped
        internal bool IsThere;
        internal int Descriptor;
        internal int Filter;
        internal (long Device, long Inode) File;
        internal long UserData;
        internal uint FilterFlags; // what was asked for
        internal bool IsDisabled;
    }

    private struct UserKnote
    {
        internal long UserData;
        internal bool IsTriggered, IsOneShot, IsDisabled;
    }

    private static readonly byte[] s_one = BitConverter.GetBytes(1UL);

    private readonly SystemCalls _calls;
    private readonly KqueueAbi _abi;
    private readonly bool _hasUserEvents;
    private readonly int[] _epolls = new int[Filters];
    private readonly int _userEvent;

    private readonly SpinGate _lock = new();
    private Knote[] _knotes = new Knote[64];
    private int _used;
    private readonly Stack<int> _free = new();
    private readonly Dictionary<(int Descriptor, int Filter), int> _places = [];
    private readonly Dictionary<long, UserKnote> _users = [];
    private readonly List<long> _triggered = []; // idents, in their order
    private bool _closed;

    private readonly byte[] _outer = new byte[(Filters + 1) * Epoll.EventSize]; // the waiting thread's
    private readonly byte[] _inner = new byte[1024 * Epoll.EventSize]; // under the lock, as is what follows
    private readonly byte[] _counter = new byte[sizeof(ulong)];
    private int _turn; // which filter is asked first: none starves another
    private int _waiting;

    internal KqueueImage(SystemCalls calls, KqueueAbi abi, bool hasUserEvents)
    {
        _calls = calls;
        _abi = abi;
        _hasUserEvents = hasUserEvents;
        Descriptor = Check(calls.EpollCreate());
        for (var f = 0; f < Filters; f++)
        {
            _epolls[f] = Check(calls.EpollCreate());
            Check(calls.EpollControl(Descriptor, Epoll.CTL_ADD, _epolls[f], Epoll.IN, f)); // level-triggered: what is left makes the next wait return
        }
        _userEvent = Check(calls.EventFdCreate());
        Check(calls.EpollControl(Descriptor, Epoll.CTL_ADD, _userEvent, Epoll.IN, Users));
    }

    internal int Descriptor { get; }

    /// <summary>The tables that grow with the most knotes there ever were, about.</summary>
    internal long Bytes
    {
        get
        {
            const int Entry = 20, Bucket = 4; // of a dictionary: hash, next, key and value
            using (_lock.Enter())
                return (long)_knotes.Length * Unsafe.SizeOf<Knote>() + (long)_places.EnsureCapacity(0) * (Entry + Bucket) + (long)_free.EnsureCapacity(0) * sizeof(int);
        }
    }

    internal int Kevent(byte[]? changes, int changeCount, byte[]? events, int capacity, long timeout)
    {
        CheckBuffer(changes, changeCount, "changes");
        CheckBuffer(events, capacity, "events");
        var answered = 0;
        for (var i = 0; i < changeCount; i++)
        {
            int error;
            ushort flags;
            using (_lock.Enter())
            {
                if (_closed) return -Errno.EBADF;
                flags = _abi.Flags(changes!, i);
                error = Apply(changes!, i, flags);
            }
            if (error == 0 && (flags & Kqueue.EV_RECEIPT) == 0) continue;
            if (answered == capacity)
            {
                if ((flags & Kqueue.EV_RECEIPT) != 0) throw KqueueDouble.Misuse($"no room for the receipt of change {i}");
                return -error;
            }
            var (ident, filter, filterFlags, data) = (_abi.Ident(changes!, i), _abi.Filter(changes!, i), _abi.FilterFlags(changes!, i), _abi.UserData(changes!, i));
            _abi.Set(events!, answered, (int)ident, filter, (ushort)(flags | Kqueue.EV_ERROR), filterFlags, data);
            _abi.SetData(events!, answered++, error);
        }
        return answered > 0 || capacity == 0 ? answered : Wait(events!, capacity, timeout);
    }

    /// <summary>The descriptor is about to be closed.</summary>
    internal void Forget(int descriptor)
    {
        using (_lock.Enter())
        {
            if (_closed) return;
            for (var f = 0; f < Filters; f++)
                if (_places.TryGetValue((descriptor, f), out var place)) Drop(place, close: true);
        }
    }

    internal void Close()
    {
        using (_lock.Enter())
        {
            _closed = true;
            foreach (var epoll in _epolls) _calls.Close(epoll);
            _calls.Close(_userEvent);
        }
    }

    // ---- changes

    private int Apply(byte[] changes, int i, ushort flags)
    {
        var (ident, filter, filterFlags) = (_abi.Ident(changes, i), _abi.Filter(changes, i), _abi.FilterFlags(changes, i));
        if ((flags & ~Allowed) != 0) throw KqueueDouble.Misuse($"unknown flags in {flags:x}");
        if (_abi.Data(changes, i) != 0) throw KqueueDouble.Misuse("data that no filter here knows");
        for (var b = 32; b < _abi.EventSize; b++)
            if (changes[i * _abi.EventSize + b] != 0) throw KqueueDouble.Misuse("something behind the user data");
        if ((flags & (Kqueue.EV_ADD | Kqueue.EV_DELETE)) == (Kqueue.EV_ADD | Kqueue.EV_DELETE)) throw KqueueDouble.Misuse("EV_ADD and EV_DELETE at once");
        if ((flags & Kqueue.EV_ADD) != 0 && (flags & Kqueue.EV_CLEAR) == 0) throw KqueueDouble.Misuse("an addition that is not edge-triggered would spin");
        if (filter == _abi.EVFILT_USER) return ApplyUser(ident, flags, filterFlags, _abi.UserData(changes, i));
        var f = filter switch { Kqueue.EVFILT_READ => 0, Kqueue.EVFILT_WRITE => 1, _ => filter == _abi.EVFILT_EXCEPT && filter != 0 ? 2 : -1 };
        if (f < 0) throw KqueueDouble.Misuse($"{_abi.Name} has no filter {filter}");
        if (ident is < 0 or > int.MaxValue) throw KqueueDouble.Misuse($"{ident:x} is no descriptor");
        if ((flags & Actions) == 0) throw KqueueDouble.Misuse("a change that changes nothing");
        if (filterFlags != (f == 2 ? Kqueue.NOTE_OOB : 0)) throw KqueueDouble.Misuse($"fflags {filterFlags:x} for filter {filter}");
        if (_abi.UserData(changes, i) < 0) throw KqueueDouble.Misuse("user data that is no id");
        return ApplyDescriptor((int)ident, f, flags, filterFlags, _abi.UserData(changes, i));
    }

    private int ApplyDescriptor(int descriptor, int f, ushort flags, uint filterFlags, long userData)
    {
        var found = _places.TryGetValue((descriptor, f), out var place);
        if (found)
        {
            // epoll finds an entry by number and file: another file's answer is ENOENT, a closed number's EBADF.
            var disabled = (flags & Kqueue.EV_DISABLE) != 0 || (flags & (Kqueue.EV_ADD | Kqueue.EV_ENABLE)) == 0 && _knotes[place].IsDisabled;
            var error = (flags & Kqueue.EV_DELETE) != 0
                ? _calls.EpollControl(_epolls[f], Epoll.CTL_DEL, descriptor, 0, 0)
                : _calls.EpollControl(_epolls[f], Epoll.CTL_MOD, descriptor, Events(f, disabled), Token(place));
            if (error == 0)
            {
                if ((flags & Kqueue.EV_DELETE) != 0) Drop(place, close: false);
                else (_knotes[place].UserData, _knotes[place].IsDisabled) = (userData, disabled);
                return 0;
            }
            Drop(place, close: false);
            if (error != -Errno.ENOENT) return -error;
        }
        if ((flags & Kqueue.EV_ADD) == 0) return _calls.Poll(descriptor, 0) is var p and > 0 && (p & PollEvents.NVAL) != 0 ? Errno.EBADF : Errno.ENOENT;
        place = Take();
        _knotes[place] = new Knote
        {
            Generation = _knotes[place].Generation + 1,
            IsThere = true,
            Descriptor = descriptor,
            Filter = f,
            File = _calls.GetFile(descriptor),
            UserData = userData,
            FilterFlags = filterFlags,
            IsDisabled = (flags & Kqueue.EV_DISABLE) != 0,
        };
        var added = _calls.EpollControl(_epolls[f], Epoll.CTL_ADD, descriptor, Events(f, _knotes[place].IsDisabled), Token(place));
        // Left by a number that was closed behind our back while a dup of it lives, and that now stands for the same file again.
        if (added == -Errno.EEXIST) added = _calls.EpollControl(_epolls[f], Epoll.CTL_MOD, descriptor, Events(f, _knotes[place].IsDisabled), Token(place));
        if (added == 0) _places[(descriptor, f)] = place;
        else
        {
            _knotes[place].IsThere = false;
            _free.Push(place);
        }
        return -added;
    }

    private int ApplyUser(long ident, ushort flags, uint filterFlags, long userData)
    {
        if (!_hasUserEvents) return Errno.EINVAL;
        if ((filterFlags & ~Kqueue.NOTE_TRIGGER) != 0) throw KqueueDouble.Misuse($"fflags {filterFlags:x} for a user event");
        var found = _users.TryGetValue(ident, out var knote);
        if ((flags & Kqueue.EV_DELETE) != 0) return found && _users.Remove(ident) ? 0 : Errno.ENOENT;
        if (!found && (flags & Kqueue.EV_ADD) == 0) return Errno.ENOENT;
        if ((flags & Kqueue.EV_ADD) != 0) knote.IsOneShot = (flags & Kqueue.EV_ONESHOT) != 0;
        if ((flags & (Kqueue.EV_ADD | Kqueue.EV_ENABLE)) != 0) knote.IsDisabled = false;
        if ((flags & Kqueue.EV_DISABLE) != 0) knote.IsDisabled = true;
        knote.UserData = userData;
        // kqueue_register of FreeBSD clears what an addition says of a new knote; xnu heeds it.
        var isHeeded = found || _abi.EventSize == KqueueDouble.Layout32.EventSize;
        if ((filterFlags & Kqueue.NOTE_TRIGGER) != 0 && isHeeded && !knote.IsTriggered)
        {
            knote.IsTriggered = true;
            _triggered.Add(ident);
            _calls.Write(_userEvent, s_one);
        }
        _users[ident] = knote;
        return 0;
    }

    private static uint Events(int f, bool disabled)
    {
        if (disabled) return Epoll.ET; // errors and hang-ups come all the same, and are dropped
        return Epoll.ET | f switch { 0 => Epoll.IN | Epoll.RDHUP, 1 => Epoll.OUT, _ => Epoll.PRI | Epoll.IN | Epoll.RDHUP };
    }

    private long Token(int place) => (long)_knotes[place].Generation << 32 | (uint)place;

    private int Take()
    {
        if (_free.Count > 0) return _free.Pop();
        if (_used == _knotes.Length) Array.Resize(ref _knotes, _used * 2);
        return _used++;
    }

    private void Drop(int place, bool close)
    {
        ref var knote = ref _knotes[place];
        if (close) _calls.EpollControl(_epolls[knote.Filter], Epoll.CTL_DEL, knote.Descriptor, 0, 0);
        _places.Remove((knote.Descriptor, knote.Filter));
        knote.IsThere = false;
        _free.Push(place);
    }

    // ---- events

    private int Wait(byte[] events, int capacity, long timeout)
    {
        if (Interlocked.Exchange(ref _waiting, 1) != 0) throw KqueueDouble.Misuse("two threads wait on one queue");
        try
        {
            var deadline = timeout <= 0 ? 0 : MonotonicClock.Instance.Now() + timeout;
            while (true)
            {
                var n = _calls.EpollWait(Descriptor, _outer, Filters + 1, timeout);
                if (n < 0) return n;
                if (n > 0)
                {
                    using (_lock.Enter()) n = Collect(events, capacity);
                    if (n > 0) return n;
                }
                if (timeout < 0) continue;
                timeout = Math.Max(0, deadline - MonotonicClock.Instance.Now());
                if (timeout == 0) return 0;
            }
        }
        finally
        {
            Volatile.Write(ref _waiting, 0);
        }
    }

    private int Collect(byte[] events, int capacity)
    {
        if (_closed) return 0;
        var count = CollectUsers(events, capacity);
        _turn++;
        for (var i = 0; i < Filters && count < capacity; i++)
        {
            var f = (int)((uint)(_turn + i) % Filters);
            var n = _calls.EpollWait(_epolls[f], _inner, Math.Min(1024, capacity - count), 0);
            for (var e = 0; e < n; e++)
            {
                var mask = BitConverter.ToUInt32(_inner, e * Epoll.EventSize);
                var token = BitConverter.ToInt64(_inner, e * Epoll.EventSize + Epoll.DataOffset);
                if (Report(events, count, (int)token, (int)(token >> 32), mask)) count++;
            }
        }
        return count;
    }

    private int CollectUsers(byte[] events, int capacity)
    {
        var count = 0;
        var kept = 0;
        for (var i = 0; i < _triggered.Count; i++)
        {
            var ident = _triggered[i];
            if (!_users.TryGetValue(ident, out var knote)) continue; // deleted meanwhile
            if (count == capacity || knote.IsDisabled)
            {
                _triggered[kept++] = ident;
                continue;
            }
            _abi.Set(events, count++, (int)ident, _abi.EVFILT_USER, Kqueue.EV_CLEAR, 0, knote.UserData);
            knote.IsTriggered = false;
            if (knote.IsOneShot) _users.Remove(ident);
            else _users[ident] = knote;
        }
        _triggered.RemoveRange(kept, _triggered.Count - kept);
        if (kept == 0) _calls.Read(_userEvent, _counter);
        return count;
    }

    private bool Report(byte[] events, int index, int place, int generation, uint mask)
    {
        ref var knote = ref _knotes[place];
        if (!knote.IsThere || knote.Generation != generation || knote.IsDisabled) return false;
        if (_calls.GetFile(knote.Descriptor) != knote.File)
        {
            Drop(place, close: false); // closed behind our back; a dup keeps the file
            return false;
        }
        ushort flags = Kqueue.EV_CLEAR | Kqueue.EV_RECEIPT;
        uint filterFlags = 0;
        if ((mask & Epoll.ERR) != 0)
        {
            // A datagram socket's error ends nothing; a pipe's end has none.
            var error = _calls.GetOption(knote.Descriptor, SocketConstants.SOL_SOCKET, SocketConstants.SO_TYPE, out var type);
            var isDatagram = error == 0 && type == SocketConstants.SOCK_DGRAM;
            if (!isDatagram) flags |= Kqueue.EV_EOF;
            if (error == 0 && !isDatagram) filterFlags = Errno.ECONNRESET;
        }
        if ((mask & (Epoll.HUP | Epoll.RDHUP)) != 0) flags |= Kqueue.EV_EOF;
        if (knote.Filter == 2 && (mask & Epoll.PRI) != 0) (flags, filterFlags) = ((ushort)(flags & ~Kqueue.EV_EOF), Kqueue.NOTE_OOB);
        var filter = knote.Filter switch { 0 => Kqueue.EVFILT_READ, 1 => Kqueue.EVFILT_WRITE, _ => _abi.EVFILT_EXCEPT };
        _abi.Set(events, index, knote.Descriptor, filter, flags, filterFlags, knote.UserData);
        return true;
    }

    private void CheckBuffer(byte[]? buffer, int count, string what)
    {
        if (count < 0 || count > 0 && buffer is null) throw KqueueDouble.Misuse($"{count} {what} in no buffer");
        if (buffer is null) return;
        if (buffer.Length % _abi.EventSize != 0) throw KqueueDouble.Misuse($"the buffer of {what} is for events of another size than {_abi.EventSize}");
        if (buffer.Length < count * _abi.EventSize) throw KqueueDouble.Misuse($"the buffer of {what} has no room for {count}");
    }

    private static int Check(int result) => result >= 0 ? result : throw SystemError.Exception(-result, "The double of kqueue");
}
