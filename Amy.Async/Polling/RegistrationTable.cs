using System.Diagnostics;
using System.Runtime.InteropServices;

namespace Amy.Async;

/// <summary>
/// What the poller knows of one registered descriptor. The loop derives from it and finds its own object again when an
/// event comes; the plain registrar reuses its objects.
/// </summary>
internal class Registration
{
    private long _id;

    /// <summary>
    /// The id while registered, 0 before and after. Written under the registrar's lock; read by the waiting thread without
    /// it, which compares it with an event's id and drops the event if they differ.
    /// </summary>
    internal long Id
    {
        get => Volatile.Read(ref _id);
        set => Volatile.Write(ref _id, value);
    }

    /// <summary>The descriptor's number. Guarded by the registrar's lock.</summary>
    internal int Descriptor = -1;

    /// <summary>
    /// Makes sure that the number cannot be closed (and given to another file) during a system call: <paramref name="held"/>
    /// has a reference that the caller gives back right after the call. False: it is closed already. Here nothing has to be
    /// held: the owner of such a registration removes it before it closes.
    /// </summary>
    internal virtual bool TryHold(out SafeHandle? held)
    {
        held = null;
        return true;
    }

    /// <summary>
    /// The descriptor was closed behind our back and its number has a new owner. Called after the registration was forgotten,
    /// outside the registrar's lock.
    /// </summary>
    internal virtual void OnStale()
    {
    }

    /// <summary>Holds a handle that may be closed at any time.</summary>
    protected static bool TryHold(SafeHandle? handle, out SafeHandle? held)
    {
        held = null;
        if (handle is null || handle.IsClosed) return false;
        var success = false;
        try
        {
            handle.DangerousAddRef(ref success);
        }
        catch (ObjectDisposedException)
        {
            return false; // closed since the look at IsClosed
        }
        if (success) held = handle;
        return success;
    }
}

/// <summary>A registration made through <see cref="Registrar"/> itself. Pooled by it: registering allocates nothing.</summary>
internal sealed class HandleRegistration : Registration
{
    /// <summary>Kept alive while registered. Guarded by the registrar's lock.</summary>
    internal SafeHandle? Handle;

    internal override bool TryHold(out SafeHandle? held) => TryHold(Handle, out held);
}

/// <summary>
/// Slots with generations: an id is <c>generation &lt;&lt; 32 | slot</c>, so ids are never reused although slots are. A poller
/// has three tables (descriptors, timers, channels), each with slot numbers of its own, so that no id is given twice.
/// </summary>
/// <remarks>
/// Everything but <see cref="Find"/> runs under its owner's lock (for descriptors the registrar's). <see cref="Find"/> is called by the waiting thread
/// without it. Two-thread story: W looks up an event of id A while R removes A and puts B into the same slot. W loads the
/// slot's object once; it is A's (then its id is A, or 0 if R has come further: the event is delivered as one that came
/// just before the removal, or dropped), null (dropped), or B's, whose id is not A (dropped: generations differ). A pooled
/// object that is registered anew under another id compares unequal as well. So no event reaches a foreign id.
/// </remarks>
internal sealed class RegistrationTable(int firstSlot = 0)
{
    private const int MaxGeneration = int.MaxValue;

    private Registration?[] _slots = new Registration?[64]; // replaced when full; old arrays stay valid for readers
    private int[] _generations = new int[64];
    private int[] _free = new int[64];
    private int _freeCount;
    private int _used;
    private long[] _idByDescriptor = new long[64];

    internal int Count { get; private set; }

    /// <summary>The registration with this id, or null. Any thread, without a lock.</summary>
    internal Registration? Find(long id)
    {
        var slots = Volatile.Read(ref _slots);
        var slot = (int)id - firstSlot;
        if ((uint)slot >= (uint)slots.Length) return null;
        var registration = Volatile.Read(ref slots[slot]);
        return registration is not null && registration.Id == id ? registration : null;
    }

    /// <summary>What stands in a slot, if anything; false behind the last slot. Any thread, without a lock.</summary>
    internal bool TryGetSlot(int slot, out Registration? registration)
    {
        var slots = Volatile.Read(ref _slots);
        registration = slot < slots.Length ? Volatile.Read(ref slots[slot]) : null;
        return slot < slots.Length;
    }

    /// <summary>Gives the registration a fresh id; events find it from here on.</summary>
    internal void Add(Registration registration)
    {
        Debug.Assert(registration.Id == 0);
        int slot;
        if (_freeCount > 0) slot = _free[--_freeCount];
        else
        {
            slot = _used++;
            if (slot == _slots.Length) Grow();
        }
        var id = (long)++_generations[slot] << 32 | (uint)(firstSlot + slot);
        registration.Id = id;
        Volatile.Write(ref _slots[slot], registration); // after the id: a reader of the slot sees it
        Count++;
    }

    /// <summary>Forgets the registration; its id is never given again. A slot without generations left is retired.</summary>
    internal void Remove(Registration registration)
    {
        var id = registration.Id;
        var slot = (int)id - firstSlot;
        Debug.Assert(ReferenceEquals(_slots[slot], registration));
        Volatile.Write(ref _slots[slot], null);
        registration.Id = 0;
        if ((uint)registration.Descriptor < (uint)_idByDescriptor.Length && _idByDescriptor[registration.Descriptor] == id)
            _idByDescriptor[registration.Descriptor] = 0;
        if (_generations[slot] < MaxGeneration) _free[_freeCount++] = slot;
        Count--;
    }

    /// <summary>
    /// Notes who owns a descriptor's number since the kernel accepted it. A registration that still stands there is stale:
    /// its file was closed behind our back (else the kernel had refused with EEXIST), and it is returned to be forgotten.
    /// </summary>
    internal Registration? Own(Registration registration)
    {
        var descriptor = registration.Descriptor;
        if (descriptor >= _idByDescriptor.Length)
            Array.Resize(ref _idByDescriptor, Math.Max(descriptor + 1, _idByDescriptor.Length * 2));
        var previous = _idByDescriptor[descriptor];
        _idByDescriptor[descriptor] = registration.Id;
        return previous == 0 ? null : Find(previous);
    }

    /// <summary>Whether the kernel's entry for the number is this registration's, not that of a later owner.</summary>
    internal bool IsOwner(Registration registration) =>
        (uint)registration.Descriptor < (uint)_idByDescriptor.Length && _idByDescriptor[registration.Descriptor] == registration.Id;

    internal Registration[] Snapshot()
    {
        var all = new List<Registration>(Count);
        foreach (var registration in _slots)
            if (registration is not null) all.Add(registration);
        return [.. all];
    }

    // For the test of retirement: makes the next registration in a fresh slot start at this generation.
    internal void SetGeneration(int slot, int generation) => _generations[slot] = generation;

    private void Grow()
    {
        var size = _slots.Length * 2;
        Array.Resize(ref _generations, size);
        Array.Resize(ref _free, size);
        var slots = new Registration?[size];
        Array.Copy(_slots, slots, _slots.Length);
        Volatile.Write(ref _slots, slots);
    }
}
