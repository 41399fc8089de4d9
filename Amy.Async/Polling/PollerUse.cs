namespace Amy.Async;

/// <summary>Who is in a poller, and who closes its kernel objects: whoever leaves last, after the wakers in flight.</summary>
/// <remarks>
/// <code>
/// _use                 next                 by             with
/// 0                    Waiting              waiting thread TryEnter
///                      Disposed             disposer       TryDispose (closes)
/// Waiting              0                    waiting thread Leave
///                      Waiting|Disposed     disposer       TryDispose (wakes the waiting thread)
/// Waiting|Disposed     Disposed             waiting thread Leave (closes)
/// </code>
/// <para><b>Nothing is written after closing</b> (netty#9362). A waker counts itself in _writers before it exchanges the wake
/// flag; whoever closes reads _writers after the last sleep has ended (an exchange of the flag). A waker that found Sleeping
/// came before that end: the closer sees it and waits until its write, which does not block, is over. One that comes later
/// finds nobody asleep and writes nothing.</para>
/// </remarks>
internal struct PollerUse
{
    private const int Waiting = 1;
    private const int Disposed = 2;

    private int _use;
    private int _writers; // wakers between AddWriter and RemoveWriter

    internal bool IsDisposed => (Volatile.Read(ref _use) & Disposed) != 0;

    /// <summary>For whoever closes, which it does only once this is false.</summary>
    internal bool HasWriters => Volatile.Read(ref _writers) != 0;

    internal void AddWriter() => Interlocked.Increment(ref _writers);

    internal void RemoveWriter() => Interlocked.Decrement(ref _writers);

    /// <summary>False: disposed, or another thread is waiting.</summary>
    internal bool TryEnter() => Interlocked.CompareExchange(ref _use, Waiting, 0) == 0;

    /// <summary>The waiting thread leaves. True: it closes.</summary>
    internal bool Leave()
    {
        if (Interlocked.CompareExchange(ref _use, 0, Waiting) == Waiting) return false;
        Volatile.Write(ref _use, Disposed); // it was Waiting | Disposed, which nobody else changes
        return true;
    }

    /// <summary>False: disposed before. <paramref name="close"/>: the caller closes; otherwise it wakes the thread that will.</summary>
    internal bool TryDispose(out bool close)
    {
        while (true)
        {
            var use = Volatile.Read(ref _use);
            close = use == 0;
            if ((use & Disposed) != 0) return false;
            if (Interlocked.CompareExchange(ref _use, use | Disposed, use) == use) return true;
        }
    }
}
