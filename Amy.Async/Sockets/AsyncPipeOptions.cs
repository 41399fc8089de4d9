using System.Buffers;

namespace Amy.Async;

/// <summary>How <see cref="AsyncSocket.AsPipe"/> buffers.</summary>
public sealed record AsyncPipeOptions
{
    /// <summary>Where buffers are rented; null: <see cref="ArrayPool{T}.Shared"/>, without an object for each.</summary>
    public MemoryPool<byte>? Pool { get; init; }

    /// <summary>The size of a buffer in bytes, at least.</summary>
    public int MinimumSegmentSize { get; init; } = 4096;

    /// <summary>
    /// A flush waits while more bytes than this were written and not taken by the kernel. 0: each flush waits until the kernel
    /// has all.
    /// </summary>
    public long PauseWriterThreshold { get; init; } = 65536;

    /// <summary>Such a flush goes on when no more bytes than this are left.</summary>
    public long ResumeWriterThreshold { get; init; } = 32768;

    /// <summary>Whether the socket is disposed once both sides of the pipe are completed.</summary>
    public bool OwnsSocket { get; init; } = true;

    internal void Check()
    {
        if (MinimumSegmentSize < 1) throw new ArgumentOutOfRangeException(nameof(MinimumSegmentSize), MinimumSegmentSize, "A buffer has at least one byte.");
        if (PauseWriterThreshold < 0) throw new ArgumentOutOfRangeException(nameof(PauseWriterThreshold), PauseWriterThreshold, "A threshold is zero or positive.");
        if (ResumeWriterThreshold < 0 || ResumeWriterThreshold > PauseWriterThreshold)
            throw new ArgumentOutOfRangeException(nameof(ResumeWriterThreshold), ResumeWriterThreshold, "The writer resumes between zero and the threshold at which it pauses.");
    }
}
