using System.Net;

namespace Amy.Async;

/// <summary>How a socket that <see cref="AsyncSocket"/> makes is set up.</summary>
public sealed record AsyncSocketOptions
{
    /// <summary>Small writes go out at once (TCP_NODELAY), also on accepted connections. On by default.</summary>
    public bool NoDelay { get; init; } = true;

    /// <summary>Connections that wait to be accepted at most; the kernel caps it (net.core.somaxconn).</summary>
    public int Backlog { get; init; } = 512;

    /// <summary>Several listeners may share one port, and the kernel spreads the connections (SO_REUSEPORT).</summary>
    public bool ReusePort { get; init; }

    /// <summary>A listener may take a port whose old connections are still in TIME_WAIT (SO_REUSEADDR). On by default.</summary>
    public bool ReuseAddress { get; init; } = true;

    /// <summary>An IPv6 socket serves IPv4 as well, under mapped addresses.</summary>
    public bool DualMode { get; init; }

    /// <summary>Where a connecting socket is bound first; null: the kernel chooses.</summary>
    public EndPoint? LocalEndPoint { get; init; }

    /// <summary>The kernel's send buffer in bytes (SO_SNDBUF; Linux doubles it); null: its default.</summary>
    public int? SendBufferSize { get; init; }

    /// <summary>The kernel's receive buffer in bytes (SO_RCVBUF; Linux doubles it); null: its default.</summary>
    public int? ReceiveBufferSize { get; init; }
}
