namespace Amy.Async;

/// <summary>
/// The handshake between the sleeper (a poller's waiting thread, S) and wakers (any thread, W), in one field that changes by
/// Interlocked only.
/// </summary>
/// <remarks>
/// <code>
/// state      meaning                                               next       by   with
/// Awake      S is not in the kernel, or only looks (zero timeout)  Sleeping   S    TrySleep
///                                                                  Notified   W    Notify
/// Sleeping   S is about to sleep or asleep: a waker must write     Awake      S    EndSleep
///                                                                  Notified   W    Notify (true: W writes)
/// Notified   somebody woke: the next sleep does not happen         Awake      S    TrySleep (refused), Clear, EndSleep
/// </code>
/// <para><b>No wake-up is lost.</b> W has made its work visible, then exchanges the flag for Notified (a full fence). S exchanges
/// nothing before it has looked for work; to sleep it compare-exchanges Awake for Sleeping (a full fence).</para>
/// <para>W's exchange before S's: S's fails, S does not sleep, and sees the work (W published it before its exchange).
/// W's exchange after S's: W finds Sleeping and writes to the wake descriptor; S wakes.</para>
/// <para>A waker whose work S looks at once more between its exchange and the kernel need not touch the flag unless it reads
/// Sleeping behind a fence of its own: see WorkQueue, whose adders are many.</para>
/// <para>Of many wakers only the first finds Sleeping, so a burst costs one write; while S is awake it costs none. The write may
/// arrive after S has woken for another reason. S then meets it in a later wait while the flag says Sleeping: the event is
/// acknowledged and is not a wake of its own.</para>
/// <para><b>Every transition is one step for the others.</b> TrySleep and Clear have two accesses, but a flag that S has seen as
/// Notified stays so until S itself changes it. A waker must not save its exchange when it reads Notified: without the fence
/// its work may still be on its way when S has taken the wake-up back and looks.</para>
/// </remarks>
internal struct WakeFlag
{
    private const int Awake = 0;
    private const int Sleeping = 1;
    private const int Notified = 2;

    private int _state;

    internal bool IsSleeping => Volatile.Read(ref _state) == Sleeping;

    /// <summary>Sleeper only, after its last look for work. False: woken meanwhile; look again instead.</summary>
    internal bool TrySleep()
    {
        if (Interlocked.CompareExchange(ref _state, Sleeping, Awake) != Notified) return true;
        EndSleep();
        return false;
    }

    /// <summary>Sleeper only: awake. A fence: the next look for work sees what a waker has published before its exchange.</summary>
    internal void EndSleep() => Interlocked.Exchange(ref _state, Awake);

    /// <summary>Sleeper only: takes back a wake-up that nobody needs any more because the caller looks for work next.</summary>
    internal void Clear()
    {
        if (Volatile.Read(ref _state) == Notified) EndSleep();
    }

    /// <summary>Any thread, after it has published its work. True: the caller writes to the wake descriptor.</summary>
    internal bool Notify() => Interlocked.Exchange(ref _state, Notified) == Sleeping;
}
