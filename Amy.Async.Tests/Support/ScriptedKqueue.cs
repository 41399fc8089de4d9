using Amy.Async.Native;

namespace Amy.Async.Tests;

/// <summary>The double with faults: what kernels answer in rare moments, or other kernels always.</summary>
internal sealed class ScriptedKqueue : CountingCalls
{
    /// <summary>Fills the events of the next waits instead of the double; returns their number or -errno.</summary>
    internal Func<byte[], KqueueAbi, int>? Answer;

    /// <summary>Replaces what a receipt says: filter and flags of the change, and its error or 0.</summary>
    internal Func<short, ushort, int, int>? OnReceipt;

    /// <summary>Additions of this filter are undone at once.</summary>
    internal short Drops;

    /// <summary>How many of the next calls with changes apply them, and fail with EINTR.</summary>
    internal int Interruptions;

    internal bool IgnoresTriggers;

    internal long LastTimeout;

    internal int Pipes;

    internal int OpenPipeEnds;

    private readonly HashSet<int> _pipeEnds = [];
    private int _queue;

    internal override int KqueueCreate() => _queue = base.KqueueCreate();

    internal override int PipeCreate(out int writer)
    {
        var reader = base.PipeCreate(out writer);
        Pipes++;
        OpenPipeEnds += 2;
        _pipeEnds.UnionWith([reader, writer]);
        return reader;
    }

    internal override int Close(int descriptor)
    {
        if (_pipeEnds.Remove(descriptor)) OpenPipeEnds--;
        return base.Close(descriptor);
    }

    internal override int Kevent(int queue, byte[]? changes, int changeCount, byte[]? events, int capacity, long timeout)
    {
        LastTimeout = timeout;
        if (changeCount == 0) return Answer is null ? base.Kevent(queue, changes, changeCount, events, capacity, timeout) : Answer(events!, KqueueAbi);
        if (capacity == 0 && IgnoresTriggers) return 0;
        var n = base.Kevent(queue, changes, changeCount, events, capacity, timeout);
        if (Interruptions > 0 && n >= 0 && capacity > 0)
        {
            Interruptions--;
            return -Errno.EINTR;
        }
        for (var i = 0; i < n; i++)
        {
            var (filter, flags) = (KqueueAbi.Filter(changes!, i), KqueueAbi.Flags(changes!, i));
            if (OnReceipt is not null) KqueueAbi.SetData(events!, i, OnReceipt(filter, flags, (int)KqueueAbi.Data(events!, i)));
            if (Drops != 0 && filter == Drops && (flags & Kqueue.EV_ADD) != 0) Drop((int)KqueueAbi.Ident(changes!, i), filter);
        }
        return n;
    }

    /// <summary>As if the descriptor had been closed and opened again behind our back.</summary>
    internal void DropKnotes(int descriptor)
    {
        Drop(descriptor, Kqueue.EVFILT_READ);
        Drop(descriptor, Kqueue.EVFILT_WRITE);
        if (KqueueAbi.EVFILT_EXCEPT != 0) Drop(descriptor, KqueueAbi.EVFILT_EXCEPT);
    }

    /// <summary>That filter's knote alone.</summary>
    /// <returns>Whether there was one.</returns>
    internal bool Drop(int descriptor, short filter)
    {
        var change = new byte[KqueueAbi.EventSize];
        var receipt = new byte[KqueueAbi.EventSize];
        var filterFlags = filter == KqueueAbi.EVFILT_EXCEPT ? Kqueue.NOTE_OOB : 0;
        KqueueAbi.Set(change, 0, descriptor, filter, Kqueue.EV_DELETE | Kqueue.EV_RECEIPT, filterFlags, 0);
        return base.Kevent(_queue, change, 1, receipt, 1, 0) == 1 && KqueueAbi.Data(receipt, 0) == 0;
    }
}
