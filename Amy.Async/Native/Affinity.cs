namespace Amy.Async.Native;

/// <summary>Which processors a thread may run on, <c>sched_setaffinity(2)</c>.</summary>
internal static class Affinity
{
    private const int Capacity = 1024; // bytes: 8,192 processors

    /// <summary>Pins the calling thread to a processor; what it had before comes back.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There is no such processor for this process.</exception>
    /// <exception cref="PlatformNotSupportedException">This system cannot pin threads.</exception>
    internal static byte[] Pin(SystemCalls calls, int processor)
    {
        var before = Get(calls);
        if (processor < 0 || processor >= Capacity * 8) throw Unknown(processor);
        var mask = new byte[Capacity];
        mask[processor / 8] = (byte)(1 << processor % 8); // little-endian words: bytes will do
        var n = calls.SetAffinity(mask);
        if (n == -Errno.EINVAL) throw Unknown(processor);
        return n < 0 ? throw SystemError.Exception(-n, "sched_setaffinity") : before;
    }

    /// <summary>Gives the calling thread back what <see cref="Pin"/> took.</summary>
    internal static void Restore(SystemCalls calls, byte[] before) => calls.SetAffinity(before);

    /// <summary>Whether the calling thread could be pinned to a processor: throws what <see cref="Pin"/> would.</summary>
    internal static void Check(SystemCalls calls, int processor) => Restore(calls, Pin(calls, processor));

    /// <summary>The processors that the calling thread may use (or that a mask has), in turn from <paramref name="first"/> on,
    /// each once.</summary>
    internal static int[] From(SystemCalls calls, int first, byte[]? mask = null)
    {
        mask ??= Get(calls);
        var all = Enumerable.Range(0, mask.Length * 8).Where(i => (mask[i / 8] & 1 << i % 8) != 0).ToArray();
        var start = Array.IndexOf(all, first);
        return start < 0 ? throw Unknown(first) : [.. all.Skip(start), .. all.Take(start)];
    }

    private static byte[] Get(SystemCalls calls)
    {
        if (PlatformDescription.Current.Refusal() is { } refusal) throw new PlatformNotSupportedException($"No pinning of threads here: {refusal}.");
        var mask = new byte[Capacity];
        var n = calls.GetAffinity(mask);
        if (n == -Errno.ENOSYS) throw new PlatformNotSupportedException("No pinning of threads here: this system has no sched_setaffinity(2).");
        return n < 0 ? throw SystemError.Exception(-n, "sched_getaffinity") : mask;
    }

    private static ArgumentOutOfRangeException Unknown(int processor) =>
        new(nameof(processor), processor, "There is no such processor, or this process may not use it.");
}
