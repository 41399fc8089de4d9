namespace Amy.Async;

/// <summary>What a registration wants to be told of.</summary>
[Flags]
public enum Interest
{
    /// <summary>Data (or a connection to accept, or the end of the stream) can be read without blocking.</summary>
    Readable = 1,

    /// <summary>Something can be written without blocking.</summary>
    Writable = 2,

    /// <summary><see cref="Readable"/> and <see cref="Writable"/>.</summary>
    Both = Readable | Writable,

    /// <summary>
    /// Exceptional conditions: TCP out-of-band data, a change of a sysfs attribute (POLLPRI of <c>poll(2)</c>). With kqueue,
    /// macOS tells of out-of-band data, FreeBSD of nothing.
    /// </summary>
    Priority = 4,
}

/// <summary>What a descriptor is ready for. Hang-ups and errors are reported whether or not one asked for them.</summary>
[Flags]
public enum Readiness
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>A read does not block.</summary>
    Readable = 1,

    /// <summary>A write does not block.</summary>
    Writable = 2,

    /// <summary>The peer writes no more: after what is still to be read comes the end of the stream.</summary>
    ReadClosed = 4,

    /// <summary>The peer reads no more, or the connection is gone: a write fails.</summary>
    WriteClosed = 8,

    /// <summary>An error is pending; the next operation on the descriptor says which.</summary>
    Error = 16,

    /// <summary>Out-of-band data or another exceptional condition.</summary>
    Priority = 32,
}
