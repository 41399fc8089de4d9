using System.Runtime.InteropServices;

namespace Amy.Async.Native;

/// <summary>
/// An operating system and the architecture of the process: what decides which numbers and layouts hold. Tests describe
/// others than the machine at hand.
/// </summary>
/// <param name="System">In the spelling of <see cref="OSPlatform"/>, upper case.</param>
/// <param name="Architecture">Of the process.</param>
internal readonly record struct PlatformDescription(string System, Architecture Architecture)
{
    internal const string Linux = "LINUX";
    internal const string MacOS = "OSX";
    internal const string FreeBsd = "FREEBSD";

    internal static readonly PlatformDescription Current = new(Name(), RuntimeInformation.ProcessArchitecture);

    /// <summary>
    /// Why the structures that cross the P/Invoke boundary cannot be relied on here, or null where each of their sizes,
    /// offsets and constants was compared with the platform's headers (the tests have the table).
    /// </summary>
    internal string? Refusal() => (System, Architecture) switch
    {
        (Linux or MacOS, Architecture.X64 or Architecture.Arm64) => null,
        (FreeBsd, Architecture.X64) => null,
        _ => $"the structure layouts and constants of {this} are not proven, only those of Linux and macOS on X64 and Arm64 and of FreeBSD on X64",
    };

    public override string ToString() => $"{System} on {Architecture}";

    private static string Name()
    {
        foreach (var name in new[] { Linux, MacOS, FreeBsd, "NETBSD", "OPENBSD", "ILLUMOS", "SOLARIS", "WINDOWS" })
            if (RuntimeInformation.IsOSPlatform(OSPlatform.Create(name))) return name;
        return RuntimeInformation.OSDescription.Trim(); // only to be named in a refusal
    }
}
