using System.Diagnostics;

namespace Amy.Async.Native;

/// <summary>
/// The seam at the clock: monotonic time in nanoseconds since an arbitrary start (CLOCK_MONOTONIC on Linux).
/// Tests put a clock of their own here; nothing else in the library asks what time it is.
/// </summary>
internal class MonotonicClock
{
    internal static readonly MonotonicClock Instance = new();

    internal const long NanosecondsPerMillisecond = 1_000_000;
    internal const long NanosecondsPerSecond = 1_000_000_000;

    private static readonly double s_nanosecondsPerTick = (double)NanosecondsPerSecond / Stopwatch.Frequency;

    internal virtual long Now() => Stopwatch.Frequency == NanosecondsPerSecond
        ? Stopwatch.GetTimestamp()
        : (long)(Stopwatch.GetTimestamp() * s_nanosecondsPerTick);
}
