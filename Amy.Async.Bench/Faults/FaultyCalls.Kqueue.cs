using Amy.Async.Native;

namespace Amy.Async.Bench;

// The same on kqueue: a registration is up to three knotes, which are deleted and added to be told of anew. A list of changes may
// be interrupted, with the changes applied and their receipts lost; an addition may be refused in its receipt.
internal partial class FaultyCalls
{
    private const uint ReadKnote = 1, WriteKnote = 2, ExceptKnote = 4; // in Entry.Events

    internal override int KqueueCreate()
    {
        if (Fails(FaultPoint.Create, out var error)) return error;
        var queue = base.KqueueCreate();
        if (IsTracked(queue)) _late[queue] = new Late(KqueueAbi.EventSize, KqueueAbi);
        return queue;
    }

    internal override int PipeCreate(out int writer)
    {
        writer = -1;
        if (Fails(FaultPoint.Create, out var error)) return error;
        var reader = base.PipeCreate(out writer);
        if (IsTracked(reader)) _isWake[reader] = true;
        if (IsTracked(writer)) _isWake[writer] = true;
        return reader;
    }

    internal override int Kevent(int queue, byte[]? changes, int changeCount, byte[]? events, int capacity, long timeout)
    {
        if (!IsTracked(queue) || _late[queue] is not { } late) return base.Kevent(queue, changes, changeCount, events, capacity, timeout);
        if (changeCount == 0) return late.HasBegun ? Wait(queue, late, events!, capacity, timeout) : base.Kevent(queue, null, 0, events, capacity, timeout);
        var abi = late.Abi!;
        var descriptor = DescriptorOf(abi, changes!, changeCount);
        if (capacity == 0 || !IsTracked(descriptor) || IsWake(descriptor)) return base.Kevent(queue, changes, changeCount, events, capacity, timeout);
        late.HasBegun = true; // what comes before is the selector trying out user events, which no signal finds

        var (adds, deletes) = (Has(abi, changes!, changeCount, Kqueue.EV_ADD), Has(abi, changes!, changeCount, Kqueue.EV_DELETE));
        var point = adds == deletes ? (FaultPoint?)null : adds ? FaultPoint.Add : FaultPoint.Remove;
        var fault = point is { } p ? source.Next(p) : default;
        if (fault.Kind == FaultKind.Error)
        {
            Count(point!.Value, fault.Kind);
            return Refuse(abi, changes!, changeCount, events!, fault.Errno);
        }
        Enter(descriptor);
        var n = base.Kevent(queue, changes, changeCount, events, capacity, timeout);
        for (var i = 0; i < n; i++) Note(queue, abi, descriptor, events!, i);
        if (fault.Kind == FaultKind.Refused && (point == FaultPoint.Remove || RefusePipe(queue, abi, descriptor, events!, n)))
        {
            Count(point!.Value, fault.Kind);
            for (var i = 0; i < n && point == FaultPoint.Remove; i++) abi.SetData(events!, i, fault.Errno);
        }
        Exit(descriptor);
        if (n < 0 || source.Next(FaultPoint.Change).Kind != FaultKind.Interrupted) return n;
        Count(FaultPoint.Change, FaultKind.Interrupted);
        return -Errno.EINTR;
    }

    // What a list of changes is about; -1: user events alone.
    private static int DescriptorOf(KqueueAbi abi, byte[] changes, int count)
    {
        for (var i = 0; i < count; i++)
            if (abi.Filter(changes, i) != abi.EVFILT_USER) return (int)abi.Ident(changes, i);
        return -1;
    }

    private static bool Has(KqueueAbi abi, byte[] changes, int count, int flag)
    {
        for (var i = 0; i < count; i++)
            if ((abi.Flags(changes, i) & flag) != 0) return true;
        return false;
    }

    private static int Refuse(KqueueAbi abi, byte[] changes, int count, byte[] receipts, int error)
    {
        for (var i = 0; i < count; i++)
        {
            abi.Set(receipts, i, (int)abi.Ident(changes, i), abi.Filter(changes, i), (ushort)(abi.Flags(changes, i) | Kqueue.EV_ERROR), abi.FilterFlags(changes, i), abi.UserData(changes, i));
            abi.SetData(receipts, i, error);
        }
        return count;
    }

    // FreeBSD has no EVFILT_WRITE for a pipe whose reader is gone. True: that is one, and the addition is taken back.
    private bool RefusePipe(int queue, KqueueAbi abi, int descriptor, byte[] receipts, int count)
    {
        for (var i = 0; i < count; i++)
        {
            if (abi.Filter(receipts, i) != Kqueue.EVFILT_WRITE || abi.Data(receipts, i) != 0) continue;
            if (base.Poll(descriptor, 0) is var ready && (ready <= 0 || (ready & PollEvents.ERR) == 0)) return false;
            if (GetOption(descriptor, SocketConstants.SOL_SOCKET, SocketConstants.SO_TYPE, out _) >= 0) return false;
            var (change, receipt) = (new byte[abi.EventSize], new byte[abi.EventSize]);
            abi.Set(change, 0, descriptor, Kqueue.EVFILT_WRITE, Kqueue.EV_DELETE | Kqueue.EV_RECEIPT, 0, abi.UserData(receipts, i));
            _ = base.Kevent(queue, change, 1, receipt, 1, 0);
            Note(queue, abi, descriptor, receipt, 0);
            abi.SetData(receipts, i, Errno.EPIPE);
            return true;
        }
        return false;
    }

    // ---- the books, under the descriptor's lock

    private static uint KnoteOf(KqueueAbi abi, short filter) =>
        filter == Kqueue.EVFILT_READ ? ReadKnote : filter == Kqueue.EVFILT_WRITE ? WriteKnote : filter == abi.EVFILT_EXCEPT && filter != 0 ? ExceptKnote : 0;

    private static short FilterOf(KqueueAbi abi, uint knote) =>
        knote switch { ReadKnote => Kqueue.EVFILT_READ, WriteKnote => Kqueue.EVFILT_WRITE, _ => abi.EVFILT_EXCEPT };

    // A disabled knote has nothing to tell anew.
    private void Note(int queue, KqueueAbi abi, int descriptor, byte[] receipts, int index)
    {
        var knote = KnoteOf(abi, abi.Filter(receipts, index));
        if (knote == 0) return;
        var flags = abi.Flags(receipts, index);
        var entry = _entries[descriptor];
        while (entry is not null && entry.Epoll != queue) entry = entry.Next;
        var knotes = entry?.Events ?? 0;
        if ((flags & (Kqueue.EV_DELETE | Kqueue.EV_DISABLE)) != 0) knotes &= ~knote;
        else if ((flags & Kqueue.EV_ADD) != 0 && abi.Data(receipts, index) == 0) knotes |= knote;
        else return;
        if (knotes == 0) Remove(descriptor, queue);
        else Set(descriptor, queue, knotes, abi.UserData(receipts, index));
    }

    // Only what was there comes back: if the number was closed behind our back, what it stands for now was never registered here.
    private bool ReportAgain(int queue, KqueueAbi abi, int descriptor, uint knotes, long data)
    {
        knotes = Give(queue, abi, descriptor, knotes, Kqueue.EV_DELETE, data);
        return knotes != 0 && Give(queue, abi, descriptor, knotes, Kqueue.EV_ADD | Kqueue.EV_CLEAR, data) == knotes;
    }

    // One change for each knote. Those that took it.
    private uint Give(int queue, KqueueAbi abi, int descriptor, uint knotes, int action, long data)
    {
        var (changes, receipts) = (new byte[3 * abi.EventSize], new byte[3 * abi.EventSize]);
        var count = 0;
        for (var knote = ExceptKnote; knote != 0; knote >>= 1) // in the selector's order, which matters to libkqueue
            if ((knotes & knote) != 0)
                abi.Set(changes, count++, descriptor, FilterOf(abi, knote), (ushort)(action | Kqueue.EV_RECEIPT), knote == ExceptKnote ? Kqueue.NOTE_OOB : 0, data);
        if (base.Kevent(queue, changes, count, receipts, count, 0) != count) return 0;
        var taken = 0u;
        for (var i = 0; i < count; i++)
            if (abi.Data(receipts, i) == 0) taken |= KnoteOf(abi, abi.Filter(receipts, i));
        return taken;
    }

    // One knote's event, or none.
    private bool MakeUp(KqueueAbi abi, int descriptor, uint knotes, long data, byte[] events)
    {
        var knote = ReadKnote << source.Choose(2);
        if ((knotes & knote) == 0 || data <= 0) return false;
        abi.Set(events, 0, descriptor, FilterOf(abi, knote), Kqueue.EV_CLEAR, 0, data);
        return true;
    }
}
