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

    /// <summary>The kernel probes an idle connection and ends it when the peer is gone (SO_KEEPALIVE; its times are the system's,
    /// <c>tcp(7)</c>). Also of accepted connections.</summary>
    public bool KeepAlive { get; init; }

    /// <summary>Datagrams may be sent to broadcast addresses (SO_BROADCAST).</summary>
    public bool Broadcast { get; init; }

    /// <summary>Datagrams come with the time at which the kernel got them (SO_TIMESTAMPNS), in <see cref="ReceivedMessage.Timestamp"/>.</summary>
    public bool ReceiveTimestamps { get; init; }

    /// <summary>Datagrams come with the address and the interface that they arrived at (IP_PKTINFO, IPV6_RECVPKTINFO), in
    /// <see cref="ReceivedMessage.PacketInformation"/>.</summary>
    public bool ReceivePacketInformation { get; init; }

    /// <summary>Datagrams come with the number of those that were dropped before for want of room (SO_RXQ_OVFL), in
    /// <see cref="ReceivedMessage.Drops"/>.</summary>
    public bool ReceiveDropCounts { get; init; }
}
