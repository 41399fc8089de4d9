namespace Amy.Async.Native;

/// <summary>What this platform can do. An unproven structure layout is refused, not tried.</summary>
internal static class Platform
{
    /// <summary>Why epoll cannot be used here, or null if it can.</summary>
    internal static string? EpollRefusal() => EpollRefusal(PlatformDescription.Current);

    internal static string? EpollRefusal(PlatformDescription platform) =>
        platform.System == PlatformDescription.Linux ? platform.Refusal() : "epoll exists on Linux only";

    /// <summary>Why kqueue cannot be used here, or null if it can.</summary>
    internal static string? KqueueRefusal(PlatformDescription platform) => platform.Refusal() ?? KqueueLibrary.Refusal;
}
