namespace Amy.Async;

/// <summary>What one <see cref="Poller.Wait"/> tells about one registration, timer or channel.</summary>
/// <param name="Id">The id that <see cref="Registrar"/> gave.</param>
/// <param name="Readiness">Everything that the registration became ready for since its last notification; of a timer or a
/// channel <see cref="Readiness.Readable"/>.</param>
/// <param name="Count">Of an interval, how often it has expired since the last notification; else 1.</param>
public readonly record struct Notification(long Id, Readiness Readiness, int Count);
