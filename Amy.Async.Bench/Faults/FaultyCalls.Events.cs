using System.Runtime.CompilerServices;
using Amy.Async.Native;

namespace Amy.Async.Bench;

// What the poller is told: late, twice, in another order, or not truly. A held back event is given out within three waits, and
// while one is held back no wait is longer than a moment, so nobody sleeps on it.
internal partial class FaultyCalls
{
    private const int MostDescriptors = 1 << 17; // numbers beyond that are left in peace
    private const long Moment = 100_000; // ns

    /// <summary>What a poller was told of a descriptor, so that it can be told anew.</summary>
    private sealed class Entry
    {
        internal int Epoll; // or the kqueue
        internal uint Events; // or which knotes
        internal long Data;
        internal Entry? Next; // the same descriptor's in another poller, while a connection moves
    }

    /// <summary>Events held back by one epoll instance or kqueue. Only the thread that waits there.</summary>
    private sealed class Late(int eventSize, KqueueAbi? abi)
    {
        internal readonly int EventSize = eventSize;
        internal readonly KqueueAbi? Abi = abi; // null: epoll
        internal volatile bool HasBegun;
        internal readonly byte[] Events = new byte[Selector.Capacity * 2 * eventSize];
        internal readonly int[] Waits = new int[Selector.Capacity * 2];
        internal int Count;
    }

    // By descriptor number. Entries change, and are told anew, under the number's lock: else an old registration could be told
    // anew over a newer one. A lock of its own kind, since a Monitor's would show in the loop's statistics of waits.
    private readonly Entry?[] _entries = new Entry?[MostDescriptors];
    private readonly int[] _locks = new int[MostDescriptors];
    private readonly Late?[] _late = new Late?[MostDescriptors];
    private readonly bool[] _isWake = new bool[MostDescriptors];
    private int _highest; // descriptor with an entry so far, about

    private static bool IsTracked(int descriptor) => (uint)descriptor < MostDescriptors;

    private bool IsWake(int descriptor) => IsTracked(descriptor) && _isWake[descriptor];

    internal override int EpollControl(int epoll, int operation, int descriptor, uint events, long data)
    {
        if (!IsTracked(descriptor)) return base.EpollControl(epoll, operation, descriptor, events, data);
        var point = operation switch { Epoll.CTL_ADD => FaultPoint.Add, Epoll.CTL_DEL => FaultPoint.Remove, _ => (FaultPoint?)null };
        var fault = point is { } p && !IsWake(descriptor) ? source.Next(p) : default;
        if (point == FaultPoint.Add && fault.Kind == FaultKind.Refused) fault = default; // kqueue's
        if (fault.Kind is FaultKind.Error or FaultKind.Refused) Count(point!.Value, fault.Kind);
        if (fault.Kind == FaultKind.Error) return -fault.Errno;
        Enter(descriptor);
        var n = base.EpollControl(epoll, operation, descriptor, events, data);
        if (operation == Epoll.CTL_DEL) Remove(descriptor, epoll);
        else if (n >= 0) Set(descriptor, epoll, events, data);
        Exit(descriptor);
        return fault.Kind == FaultKind.Refused ? -fault.Errno : n;
    }

    internal override int EpollWait(int epoll, byte[] events, int capacity, long timeout)
    {
        if (!IsTracked(epoll) || _late[epoll] is not { } late) return base.EpollWait(epoll, events, capacity, timeout);
        return Wait(epoll, late, events, capacity, timeout);
    }

    private int Wait(int poller, Late late, byte[] events, int capacity, long timeout)
    {
        switch (source.Next(FaultPoint.Wait).Kind)
        {
            case FaultKind.Interrupted:
                Count(FaultPoint.Wait, FaultKind.Interrupted);
                return -Errno.EINTR;
            case FaultKind.Spurious when MakeUp(poller, late.Abi, events):
                Count(FaultPoint.Wait, FaultKind.Spurious);
                return 1;
        }
        if (late.Count > 0 && timeout is < 0 or > Moment) timeout = Moment;
        var room = Math.Max(1, capacity - late.Count);
        var n = late.Abi is null ? base.EpollWait(poller, events, room, timeout) : base.Kevent(poller, null, 0, events, room, timeout);
        if (n < 0) return n;
        var given = 0;
        var held = late.Count;
        for (var i = 0; i < n; i++)
        {
            var fault = source.Next(FaultPoint.Event).Kind;
            if (fault is FaultKind.Delayed or FaultKind.Duplicated && Keep(late, events, i)) Count(FaultPoint.Event, fault);
            else fault = FaultKind.None;
            if (fault != FaultKind.Delayed) Copy(events, i, events, given++, late.EventSize);
        }
        given = GiveOut(late, held, events, given, capacity);
        if (given > 1 && source.IsOn) Exchange(events, source.Choose(given), source.Choose(given), late.EventSize);
        return given;
    }

    /// <summary>Registers anew what is registered, so that the kernel tells what holds. False: nobody has registered it.</summary>
    private bool ReportAgain(int descriptor)
    {
        if (!IsTracked(descriptor) || Volatile.Read(ref _entries[descriptor]) is null) return false;
        var told = false;
        Enter(descriptor);
        for (var entry = _entries[descriptor]; entry is not null; entry = entry.Next)
            told |= _late[entry.Epoll]?.Abi is { } abi
                ? ReportAgain(entry.Epoll, abi, descriptor, entry.Events, entry.Data)
                : base.EpollControl(entry.Epoll, Epoll.CTL_MOD, descriptor, entry.Events, entry.Data) >= 0;
        Exit(descriptor);
        return told;
    }

    // ---- the books

    private void Forget(int descriptor)
    {
        Enter(descriptor);
        _entries[descriptor] = null;
        _late[descriptor] = null;
        _isWake[descriptor] = false;
        Exit(descriptor);
    }

    private void Set(int descriptor, int epoll, uint events, long data)
    {
        var entry = _entries[descriptor];
        while (entry is not null && entry.Epoll != epoll) entry = entry.Next;
        if (entry is null) Volatile.Write(ref _entries[descriptor], entry = new Entry { Epoll = epoll, Next = _entries[descriptor] });
        entry.Events = events;
        entry.Data = data;
        if (descriptor > _highest) _highest = descriptor;
    }

    private void Remove(int descriptor, int epoll)
    {
        Entry? before = null;
        for (var entry = _entries[descriptor]; entry is not null; before = entry, entry = entry.Next)
            if (entry.Epoll == epoll)
            {
                if (before is null) Volatile.Write(ref _entries[descriptor], entry.Next);
                else before.Next = entry.Next;
                return;
            }
    }

    private void Enter(int descriptor)
    {
        var wait = default(SpinWait);
        while (Interlocked.CompareExchange(ref _locks[descriptor], 1, 0) != 0) wait.SpinOnce();
    }

    private void Exit(int descriptor) => Volatile.Write(ref _locks[descriptor], 0);

    // ---- events

    // Readable and writable, which may be told of anything at any time; a hang-up or an error is told for good.
    private bool MakeUp(int poller, KqueueAbi? abi, byte[] events)
    {
        var count = _highest + 1;
        var start = source.Choose(count);
        for (var i = 0; i < Math.Min(count, 256); i++)
        {
            var descriptor = (start + i) % count;
            if (Volatile.Read(ref _entries[descriptor]) is not { } entry || IsWake(descriptor)) continue;
            Enter(descriptor);
            entry = _entries[descriptor];
            while (entry is not null && entry.Epoll != poller) entry = entry.Next;
            var (interest, data) = entry is null ? default : (entry.Events, entry.Data);
            Exit(descriptor);
            if (entry is null) continue;
            // Once in four: an id of that slot whose time is over, or has not come.
            if (source.Choose(4) == 0) data += (source.Choose(7) - 3L) << 32;
            var made = interest & (source.Choose(3) switch { 0 => Epoll.IN, 1 => Epoll.OUT, _ => Epoll.IN | Epoll.OUT });
            if (abi is not null) return MakeUp(abi, descriptor, interest, data, events);
            if (made == 0 || data <= 0) return false;
            Unsafe.WriteUnaligned(ref events[0], made);
            Unsafe.WriteUnaligned(ref events[Epoll.DataOffset], data);
            return true;
        }
        return false;
    }

    private bool Keep(Late late, byte[] events, int index)
    {
        if (late.Count == late.Waits.Length) return false;
        late.Waits[late.Count] = 1 + source.Choose(3);
        Copy(events, index, late.Events, late.Count++, late.EventSize);
        return true;
    }

    // Of those held back before this wait, and in their order.
    private static int GiveOut(Late late, int held, byte[] events, int given, int capacity)
    {
        var kept = 0;
        for (var i = 0; i < late.Count; i++)
        {
            if (i < held && --late.Waits[i] <= 0 && given < capacity)
            {
                Copy(late.Events, i, events, given++, late.EventSize);
                continue;
            }
            late.Waits[kept] = late.Waits[i];
            Copy(late.Events, i, late.Events, kept++, late.EventSize);
        }
        late.Count = kept;
        return given;
    }

    private static void Copy(byte[] from, int index, byte[] to, int place, int size)
    {
        if (from == to && index == place) return;
        from.AsSpan(index * size, size).CopyTo(to.AsSpan(place * size));
    }

    private static void Exchange(byte[] events, int i, int k, int size)
    {
        Span<byte> one = stackalloc byte[64]; // the largest
        one = one[..size];
        events.AsSpan(i * size, size).CopyTo(one);
        Copy(events, k, events, i, size);
        one.CopyTo(events.AsSpan(k * size));
    }
}
