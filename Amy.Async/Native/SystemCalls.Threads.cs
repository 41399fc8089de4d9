namespace Amy.Async.Native;

// What concerns threads: which processors they run on.
internal unsafe partial class SystemCalls
{
    /// <summary>sched_getaffinity(2) of the calling thread: 0 or -errno.</summary>
    internal virtual int GetAffinity(Span<byte> mask)
    {
        fixed (byte* m = mask) return Result(Libc.sched_getaffinity(0, (nuint)mask.Length, m));
    }

    /// <summary>sched_setaffinity(2) of the calling thread; <c>-EINVAL</c>: it may use none of these processors.</summary>
    internal virtual int SetAffinity(ReadOnlySpan<byte> mask)
    {
        fixed (byte* m = mask) return Result(Libc.sched_setaffinity(0, (nuint)mask.Length, m));
    }

    /// <summary>sched_getcpu(3): where the calling thread is, or was a moment ago.</summary>
    internal virtual int CurrentProcessor() => Libc.sched_getcpu();
}
