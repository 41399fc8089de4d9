using System.Globalization;
using System.Runtime.InteropServices;

namespace Amy.Async.Bench;

/// <summary>
/// Where the calling thread runs, so that a comparison is not one of placements; on Linux, nothing elsewhere. The runtime's
/// <see cref="System.Diagnostics.Process.ProcessorAffinity"/> will not do: it moves the main thread alone.
/// </summary>
internal static class Affinity
{
    private const int SCHED_IDLE = 5;
    private const int Words = 16; // 1,024 processors
    private const int WordBits = 64;

    private static readonly int[] s_processors = Allowed();

    /// <summary>The processors that the process may use; none: threads cannot be pinned here.</summary>
    internal static int[] Processors => s_processors;

    /// <summary>Keeps the calling thread, and those that it starts from now on, on these; on all if there are none.</summary>
    internal static void Pin(params int[] processors)
    {
        if (s_processors.Length == 0) return;
        var mask = new ulong[Words];
        foreach (var processor in processors.Length == 0 ? s_processors : processors)
            mask[processor / WordBits] |= 1UL << (processor % WordBits);
        if (sched_setaffinity(0, Words * sizeof(ulong), mask) != 0)
            throw new InvalidOperationException($"The processors {Format(processors)} are refused (errno {Marshal.GetLastPInvokeError()}).");
    }

    /// <summary>Whether <see cref="GiveWay"/> works here.</summary>
    internal static bool CanGiveWay()
    {
        var can = false;
        var thread = new Thread(() => can = GiveWay()); // of its own, because there may be no way back
        thread.Start();
        thread.Join();
        return can;
    }

    /// <summary>The calling thread takes what others leave of its processor, and makes room for them at once. False: refused.</summary>
    internal static bool GiveWay()
    {
        if (s_processors.Length == 0) return false;
        var priority = 0;
        return sched_setscheduler(0, SCHED_IDLE, ref priority) == 0;
    }

    internal static string Format(IEnumerable<int> processors) => string.Join(',', processors);

    internal static int[] Parse(string processors) =>
        [.. processors.Split(',', StringSplitOptions.RemoveEmptyEntries).Select(p => int.Parse(p, CultureInfo.InvariantCulture))];

    private static int[] Allowed()
    {
        var mask = new ulong[Words];
        if (!OperatingSystem.IsLinux() || sched_getaffinity(0, Words * sizeof(ulong), mask) < 0) return [];
        return [.. Enumerable.Range(0, Words * WordBits).Where(p => (mask[p / WordBits] >> (p % WordBits) & 1) != 0)];
    }

    [DllImport("libc", SetLastError = true)]
    private static extern int sched_setaffinity(int pid, nint size, ulong[] mask);

    [DllImport("libc", SetLastError = true)]
    private static extern int sched_getaffinity(int pid, nint size, [Out] ulong[] mask);

    [DllImport("libc", SetLastError = true)]
    private static extern int sched_setscheduler(int pid, int policy, ref int priority);
}
