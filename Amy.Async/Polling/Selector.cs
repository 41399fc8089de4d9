namespace Amy.Async;

/// <summary>
/// The contract between <see cref="Poller"/> and one kernel mechanism; implementations stand beside each other with the
/// same members in the same order.
/// </summary>
/// <remarks>
/// <para>Registrations are edge-triggered, keyed by descriptor, and carry an id that comes back with every event. Results
/// are a value or <c>-errno</c>.</para>
/// <para>Threads: <see cref="Wait"/>, <see cref="Get"/> and <see cref="AcknowledgeWake"/> belong to the waiting thread;
/// <see cref="Add"/>, <see cref="Modify"/>, <see cref="Remove"/> (one at a time: the registrar's lock) and <see cref="Wake"/>
/// come from any thread, and none but <see cref="Wake"/> may wake the waiting thread (a registration that is ready at once does so by being ready).
/// <see cref="Close"/> comes last, when nobody is inside any other member.</para>
/// </remarks>
internal abstract class Selector
{
    /// <summary>The id of the wake-up's own events. Ids of registrations begin with a generation of 1, so never 0.</summary>
    internal const long WakeId = 0;

    /// <summary>The most events one wait returns; more stay in the kernel for the next one.</summary>
    internal const int Capacity = 512;

    internal abstract PollerKind Kind { get; }

    /// <summary>Whether out-of-band data is told of. Where not, data behind it has no edge of its own.</summary>
    internal virtual bool WatchesPriority => true;

    /// <summary>Begins to watch a descriptor. What is ready already counts as an edge.</summary>
    internal abstract int Add(int descriptor, long id, Interest interest);

    /// <summary>Replaces interest and id. What is ready already counts as an edge again.</summary>
    internal abstract int Modify(int descriptor, long id, Interest interest);

    /// <summary>Stops watching. Must be called while the descriptor is still open.</summary>
    internal abstract int Remove(int descriptor);

    /// <summary>
    /// Waits up to <paramref name="timeout"/> nanoseconds (0: only looks; negative: for ever); the number of events, or
    /// <c>-EINTR</c>.
    /// </summary>
    internal abstract int Wait(long timeout);

    /// <summary>Event <paramref name="index"/> of the last <see cref="Wait"/>; each id at most once per wait.</summary>
    internal abstract long Get(int index, out Readiness readiness);

    /// <summary>Makes the current or the next <see cref="Wait"/> return an event with <see cref="WakeId"/>.</summary>
    internal abstract void Wake();

    /// <summary>Takes note of that event, so that the next <see cref="Wake"/> makes a new one.</summary>
    internal abstract void AcknowledgeWake();

    internal abstract void Close();
}
