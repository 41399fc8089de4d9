using System.Runtime.InteropServices;

namespace Amy.Async.Native;

/// <summary>What this platform can do. An unproven structure layout is refused, not tried.</summary>
internal static class Platform
{
    /// <summary>Why epoll cannot be used here, or null if it can.</summary>
    internal static string? EpollRefusal()
    {
        if (!RuntimeInformation.IsOSPlatform(OSPlatform.Linux)) return "epoll exists on Linux only";
        return RuntimeInformation.ProcessArchitecture is Architecture.X64 or Architecture.Arm64
            ? null
            : $"the structure layouts of {RuntimeInformation.ProcessArchitecture} are not proven, only those of X64 and Arm64";
    }

    /// <summary>Why kqueue cannot be used here, or null if it can.</summary>
    internal static string? KqueueRefusal() => KqueueLibrary.Refusal;
}
