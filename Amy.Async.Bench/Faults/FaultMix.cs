using Amy.Async.Native;

namespace Amy.Async.Bench;

/// <summary>Which faults go together, and how often.</summary>
internal static class FaultMix
{
    /// <summary>The poller's, without untruths: what it tells comes late or in another order; it is interrupted, and refuses.</summary>
    internal static SeededFaults Late(ulong seed) => new SeededFaults(seed)
        .With(FaultPoint.Wait, 5, FaultKind.Interrupted)
        .With(FaultPoint.Event, 10, FaultKind.Delayed)
        .With(FaultPoint.Remove, 10, FaultKind.Refused, Errno.ENOENT, Errno.EBADF, Errno.ENOMEM)
        .With(FaultPoint.Close, 5, FaultKind.Interrupted);

    /// <summary>The poller's, without delays: what it tells comes twice or is not true; it refuses.</summary>
    internal static SeededFaults Untrue(ulong seed) => new SeededFaults(seed)
        .With(FaultPoint.Wait, 20, FaultKind.Spurious)
        .With(FaultPoint.Event, 10, FaultKind.Duplicated)
        .With(FaultPoint.Remove, 10, FaultKind.Refused, Errno.ENOENT, Errno.EBADF, Errno.ENOMEM);

    /// <summary>All of the poller's.</summary>
    internal static SeededFaults Events(ulong seed) => Late(seed)
        .With(FaultPoint.Wait, 20, FaultKind.Spurious)
        .With(FaultPoint.Event, 10, FaultKind.Duplicated)
        .With(FaultPoint.Add, 50, FaultKind.Refused, Errno.EPIPE); // kqueue's, of pipes without a reader

    /// <summary>What whoever awaits does not see: the above, and calls that do less than they could, or nothing, for now.</summary>
    /// <remarks>An interrupted list of kqueue's changes does not tell of a number that was closed and opened anew just then, so
    /// it is not among <see cref="Events"/>, with which that is tested.</remarks>
    internal static SeededFaults Transparent(ulong seed) => Events(seed)
        .With(FaultPoint.Change, 10, FaultKind.Interrupted)
        .With(FaultPoint.Receive, 10, FaultKind.WouldBlock)
        .With(FaultPoint.Receive, 10, FaultKind.Short)
        .With(FaultPoint.Send, 10, FaultKind.WouldBlock)
        .With(FaultPoint.Send, 10, FaultKind.Short)
        .With(FaultPoint.Poll, 20, FaultKind.WouldBlock)
        .With(FaultPoint.Connect, 20, FaultKind.Interrupted)
        .With(FaultPoint.Accept, 20, FaultKind.WouldBlock)
        .With(FaultPoint.Accept, 10, FaultKind.Error, Errno.ECONNABORTED)
        .With(FaultPoint.Accept, 4, FaultKind.Error, Errno.EMFILE, Errno.ENFILE, Errno.ENOBUFS, Errno.ENOMEM);

    /// <summary>The above, and connections that fail.</summary>
    internal static SeededFaults All(ulong seed, double percent) => Transparent(seed)
        .With(FaultPoint.Receive, percent, FaultKind.Error, Errno.ECONNRESET, Errno.ETIMEDOUT)
        .With(FaultPoint.Send, percent, FaultKind.Error, Errno.ECONNRESET, Errno.EPIPE, Errno.ETIMEDOUT);
}
