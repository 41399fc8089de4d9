namespace Amy.Async;

/// <summary>What one <see cref="Poller.Wait"/> tells about one registration.</summary>
/// <param name="Id">The id that <see cref="Registrar"/> gave.</param>
/// <param name="Readiness">Everything that the registration became ready for since its last notification.</param>
/// <param name="Count">How many events are told at once: 1 for a descriptor.</param>
public readonly record struct Notification(long Id, Readiness Readiness, int Count);
