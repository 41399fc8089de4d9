using System.Diagnostics.CodeAnalysis;
using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Connections;

namespace Amy.Async.Kestrel;

/// <summary>How connections are served by event loops of Amy.Async.</summary>
public sealed class AmyAsyncTransportOptions
{
    private int _loopCount = Math.Max(1, Environment.ProcessorCount / 2);
    private int _backlog = 512;
    private long? _maxReadBufferSize = 1024 * 1024;
    private long? _maxWriteBufferSize = 64 * 1024;

    /// <summary>
    /// How many loops, each with a thread of its own; half the processors by default, at least one. A connection stays on its
    /// loop.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">Less than one.</exception>
    public int LoopCount
    {
        get => _loopCount;
        set => _loopCount = value >= 1 ? value : throw new ArgumentOutOfRangeException(nameof(value), value, "There is at least one loop.");
    }

    /// <summary>
    /// Run the application on the loop's thread, where its data arrives, instead of on the thread pool. Off by default. The
    /// fastest way, but a handler that blocks or computes for long holds up all connections of its loop; one that is away for
    /// longer than <see cref="EventLoopOptions.BlockedThreshold"/> is named in the log.
    /// </summary>
    public bool UnsafePreferInlineScheduling { get; set; }

    /// <summary>
    /// Give each loop a listener of its own on the same port (SO_REUSEPORT), among which the kernel spreads connections by a
    /// hash of their addresses. Off by default: one listener hands the connections to the loops in turn, which is even, and
    /// fast enough unless many thousands of connections a second come. Only for IP end points.
    /// </summary>
    public bool ReusePort { get; set; }

    /// <summary>Small writes go out at once (TCP_NODELAY). On by default.</summary>
    public bool NoDelay { get; set; } = true;

    /// <summary>
    /// Makes the socket of an end point, bound and not listening, for options of your own; null (the default): the transport
    /// makes it. It belongs to the transport then, which listens on it (<see cref="Backlog"/>). There is one of each end point,
    /// whatever <see cref="ReusePort"/> says, and none for inherited descriptors, which are sockets already.
    /// </summary>
    /// <remarks>What it throws is what starting the application fails with; Kestrel knows an address in use by a
    /// <see cref="SocketException"/> of <see cref="SocketError.AddressAlreadyInUse"/>.</remarks>
    public Func<EndPoint, Socket>? CreateBoundListenSocket { get; set; }

    /// <summary>Connections that wait to be accepted at most; 512 by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">Less than one.</exception>
    public int Backlog
    {
        get => _backlog;
        set => _backlog = value >= 1 ? value : throw new ArgumentOutOfRangeException(nameof(value), value, "The backlog is positive.");
    }

    /// <summary>
    /// How many bytes that the application has not read may lie before the end of a connection for the end to be told
    /// (<c>ConnectionClosed</c>, <c>RequestAborted</c>) before they are read; 1 MiB by default, null: any number.
    /// </summary>
    /// <remarks>Nothing is read ahead of the application, however large this is: what it does not read stays in the kernel's
    /// buffer, and stops the peer.</remarks>
    /// <exception cref="ArgumentOutOfRangeException">Negative.</exception>
    public long? MaxReadBufferSize
    {
        get => _maxReadBufferSize;
        set => _maxReadBufferSize = value is null or >= 0 ? value : throw new ArgumentOutOfRangeException(nameof(value), value, "A size is not negative.");
    }

    /// <summary>
    /// How many bytes may be written and not taken by the kernel before a flush waits, until half of them are left; 64 KiB by
    /// default. 0: each flush waits until the kernel has all. Null: none waits.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">Negative.</exception>
    public long? MaxWriteBufferSize
    {
        get => _maxWriteBufferSize;
        set => _maxWriteBufferSize = value is null or >= 0 ? value : throw new ArgumentOutOfRangeException(nameof(value), value, "A size is not negative.");
    }

    /// <summary>
    /// Aborting a connection sends an end of stream, as closing does, instead of a reset. Off by default.
    /// </summary>
    public bool FinOnAbort { get; set; }

    /// <summary>How each loop is set up (polling before sleep, pinning, …). Its thread name and its handler of unhandled
    /// exceptions, if they are not set, are this transport's.</summary>
    [AllowNull]
    public EventLoopOptions Loop
    {
        get => field ??= new EventLoopOptions();
        set;
    }

    /// <summary>Where each loop's buffers come from; null: the application's <see cref="IMemoryPoolFactory{T}"/>, which is
    /// Kestrel's.</summary>
    public IMemoryPoolFactory<byte>? MemoryPoolFactory { get; set; }
}
