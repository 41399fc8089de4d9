using System.Net;
using System.Net.Sockets;
using Amy.Async.Compat;
using Amy.Async.Native;

namespace Amy.Async;

// How connections come to be: listening, accepting, connecting.
public sealed partial class AsyncSocket
{
    private static readonly AsyncSocketOptions s_defaultOptions = new();

    /// <summary>A listening socket, ready to accept.</summary>
    /// <param name="endPoint">An IP end point (port 0: the kernel chooses) or a Unix-domain one, whose file is removed again
    /// when the listener is disposed.</param>
    /// <param name="options">Null for the defaults; <see cref="AsyncSocketOptions.NoDelay"/> holds for the connections.</param>
    /// <param name="loop">Null: the loop of the calling thread, else <see cref="EventLoop.Default"/>.</param>
    /// <exception cref="SocketException">The address is in use, not ours, …</exception>
    /// <exception cref="NotSupportedException">The address family is not supported.</exception>
    public static AsyncSocket Listen(EndPoint endPoint, AsyncSocketOptions? options = null, EventLoop? loop = null)
    {
        if (endPoint is null) throw new ArgumentNullException(nameof(endPoint));
        options ??= s_defaultOptions;
        var source = Create(endPoint.AddressFamily, options, loop ?? EventLoop.Current ?? EventLoop.Default);
        try
        {
            Bind(source, endPoint, options);
            Check(source.Listen(options.Backlog));
            source.Attach();
        }
        catch
        {
            source.Close();
            throw;
        }
        return new AsyncSocket(source);
    }

    private static void Bind(SocketSource source, EndPoint endPoint, AsyncSocketOptions options)
    {
        if (source.Family != AddressFamily.Unix)
        {
            // SO_REUSEADDR of a listener means what it means everywhere but on Windows: not a port that somebody listens on.
            // Two UDP sockets with it share their port, which only receivers of multicast want.
            Check(source.SetOption(SocketConstants.SOL_SOCKET, SocketConstants.SO_REUSEADDR, options.ReuseAddress && (!source.SendsEmpty || options.ReusePort) ? 1 : 0));
            if (options.ReusePort) Check(source.SetOption(SocketConstants.SOL_SOCKET, SocketConstants.SO_REUSEPORT, 1));
        }
        Check(source.Bind(endPoint));
        if (SocketInterop.UnixPath(endPoint) is { Length: > 0 } path) source.UnlinkOnClose(Path.GetFullPath(path));
    }

    /// <summary>Connects to an address with the default options.</summary>
    /// <exception cref="SocketException">Refused, unreachable, …</exception>
    /// <exception cref="OperationCanceledException">Cancelled; nothing is left behind.</exception>
    public static ValueTask<AsyncSocket> ConnectAsync(EndPoint endPoint, EventLoop? loop = null, CancellationToken cancellationToken = default) =>
        ConnectAsync(endPoint, s_defaultOptions, loop, cancellationToken);

    /// <summary>Connects to an address.</summary>
    /// <param name="endPoint">An IP end point, a Unix-domain one, or a <see cref="DnsEndPoint"/>, whose addresses are tried as
    /// RFC 8305 (Happy Eyeballs) asks: IPv6 and IPv4 in turn, a new attempt each 250 ms or when one fails, the first to succeed
    /// wins.</param>
    /// <param name="options">How the socket is set up.</param>
    /// <param name="loop">Null: the loop of the calling thread, else <see cref="EventLoop.Default"/>.</param>
    /// <param name="cancellationToken">Gives the attempt up.</param>
    /// <returns>The connected socket, attached to the loop.</returns>
    /// <exception cref="SocketException">Refused, unreachable, …; <see cref="SocketError.WouldBlock"/>: the backlog of a
    /// Unix-domain listener is full, try again later.</exception>
    /// <exception cref="OperationCanceledException">Cancelled; nothing is left behind.</exception>
    /// <exception cref="NotSupportedException">The address family is not supported.</exception>
    public static ValueTask<AsyncSocket> ConnectAsync(EndPoint endPoint, AsyncSocketOptions options, EventLoop? loop = null, CancellationToken cancellationToken = default)
    {
        if (endPoint is null) throw new ArgumentNullException(nameof(endPoint));
        if (options is null) throw new ArgumentNullException(nameof(options));
        loop ??= EventLoop.Current ?? EventLoop.Default;
        return endPoint is DnsEndPoint name ? new HappyEyeballs(name, options, loop).ConnectAsync(cancellationToken) : Connect(endPoint, options, loop, cancellationToken);
    }

    /// <summary>Accepts a connection, or waits for one. It is attached to this socket's loop.</summary>
    /// <remarks>When descriptors or memory run out, it tries again after a while by itself, and
    /// <see cref="EventLoopStatistics.AcceptBackoffs"/> counts that; connections that failed while they waited are passed
    /// over.</remarks>
    /// <exception cref="OperationCanceledException">Cancelled; no connection was taken.</exception>
    /// <exception cref="SocketException">This socket does not listen.</exception>
    /// <exception cref="InvalidOperationException">Another operation of the reading direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public ValueTask<AsyncSocket> AcceptAsync(CancellationToken cancellationToken = default) => AcceptAsync(Loop, cancellationToken);

    /// <summary>Like <see cref="AcceptAsync(CancellationToken)"/>, with the connection attached to another loop.</summary>
    /// <exception cref="ObjectDisposedException">Disposed, or one of the loops has stopped.</exception>
    public ValueTask<AsyncSocket> AcceptAsync(EventLoop target, CancellationToken cancellationToken = default)
    {
        if (target is null) throw new ArgumentNullException(nameof(target));
        if (cancellationToken.IsCancellationRequested) return new ValueTask<AsyncSocket>(Task.FromCanceled<AsyncSocket>(cancellationToken));
        var exhausted = false;
        if (_source.Begin(Direction.Read, out var deferred) == StateWord.BeginResult.Attempt)
        {
            var n = TryAccept(_source, target, out var accepted);
            exhausted = AcceptBackoff.IsExhaustion(n);
            if (n != -Errno.EAGAIN && !exhausted)
            {
                _source.End(Direction.Read, ready: true);
                Loop.SpendUnits(EventLoop.AcceptUnits);
                return n >= 0 ? new ValueTask<AsyncSocket>(accepted!) : _source.Failed<AsyncSocket>(n, asStream: false);
            }
        }
        return _source.Operation(Direction.Read).Accept(this, target, exhausted, deferred, cancellationToken);
    }

    /// <summary>One try; the caller holds Inside. 0 or -errno.</summary>
    internal static int TryAccept(SocketSource listener, EventLoop target, out AsyncSocket? accepted)
    {
        accepted = null;
        var descriptor = listener.Accept();
        if (descriptor < 0) return descriptor;
        var source = new SocketSource(target, descriptor, listener.Family, listener.Kind, listener.SendsEmpty);
        if (listener.MustSetNoDelay)
            _ = source.SetOption(SocketConstants.IPPROTO_TCP, SocketConstants.TCP_NODELAY, 1); // fails only if the peer is gone: the first receive says so
        try
        {
            source.Attach();
        }
        catch (IOException) // no memory, or no more watches for this user: a shortage like any other
        {
            return -Errno.ENOMEM;
        }
        catch (ObjectDisposedException) // the target loop has stopped; the connection is closed
        {
            return -Errno.ECANCELED;
        }
        accepted = new AsyncSocket(source);
        return 0;
    }

    internal static async ValueTask<AsyncSocket> Connect(EndPoint endPoint, AsyncSocketOptions options, EventLoop loop, CancellationToken token)
    {
        token.ThrowIfCancellationRequested();
        var source = Create(endPoint.AddressFamily, options, loop);
        var socket = new AsyncSocket(source); // closes the descriptor from here on, whatever happens
        try
        {
            if (options.LocalEndPoint is { } local) Check(source.Bind(local));
            var n = source.Connect(endPoint);
            if (n is < 0 and not (-Errno.EINPROGRESS or -Errno.EINTR)) throw SystemError.Socket(-n);
            source.Attach(); // after connect: before, the kernel reports a hang-up
            if (n < 0) await FinishConnecting(socket, token).ConfigureAwait(false);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private static ValueTask FinishConnecting(AsyncSocket socket, CancellationToken token)
    {
        var source = socket._source;
        if (source.Begin(Direction.Write, out var deferred) == StateWord.BeginResult.Attempt)
        {
            var n = source.Connected();
            if (n != -Errno.EAGAIN)
            {
                source.End(Direction.Write, ready: true);
                return n >= 0 ? default : new ValueTask(Task.FromException(SystemError.Socket(-n)));
            }
        }
        return source.Operation(Direction.Write).Connect(socket, deferred, token);
    }

    private static SocketSource Create(AddressFamily family, AsyncSocketOptions options, EventLoop loop, int type = SocketConstants.SOCK_STREAM)
    {
        var domain = Address.Domain(family);
        loop.ThrowIfStopping();
        var descriptor = loop.Calls.Socket(domain, type, 0);
        if (descriptor < 0) throw SystemError.Socket(-descriptor);
        var stream = type == SocketConstants.SOCK_STREAM;
        var tcp = stream && domain != SocketConstants.AF_UNIX;
        var shortRead = tcp ? ShortRead.MeansDrained : stream ? ShortRead.MeansDrainedWithoutAncillary : ShortRead.ProvesNothing;
        var source = new SocketSource(loop, descriptor, family, shortRead, isDatagram: !stream);
        try
        {
            if (tcp && options.NoDelay) Check(source.SetOption(SocketConstants.IPPROTO_TCP, SocketConstants.TCP_NODELAY, 1));
            if (domain == SocketConstants.AF_INET6) Check(source.SetOption(SocketConstants.IPPROTO_IPV6, SocketConstants.IPV6_V6ONLY, options.DualMode ? 0 : 1));
            if (tcp && options.KeepAlive) Check(source.SetOption(SocketConstants.SOL_SOCKET, SocketConstants.SO_KEEPALIVE, 1));
            if (!stream) SetDatagramOptions(source, domain, options);
            if (options.SendBufferSize is { } send) Check(source.SetOption(SocketConstants.SOL_SOCKET, SocketConstants.SO_SNDBUF, send));
            if (options.ReceiveBufferSize is { } receive) Check(source.SetOption(SocketConstants.SOL_SOCKET, SocketConstants.SO_RCVBUF, receive));
            return source;
        }
        catch
        {
            source.Close();
            throw;
        }
    }

    private static void SetDatagramOptions(SocketSource source, int domain, AsyncSocketOptions options)
    {
        if (options.ReceiveTimestamps) Check(source.SetOption(SocketConstants.SOL_SOCKET, SocketConstants.SO_TIMESTAMPNS, 1));
        if (domain == SocketConstants.AF_UNIX) return;
        if (options.Broadcast) Check(source.SetOption(SocketConstants.SOL_SOCKET, SocketConstants.SO_BROADCAST, 1));
        if (options.ReceiveDropCounts) Check(source.SetOption(SocketConstants.SOL_SOCKET, SocketConstants.SO_RXQ_OVFL, 1));
        if (!options.ReceivePacketInformation) return;
        if (domain == SocketConstants.AF_INET) Check(source.SetOption(SocketConstants.IPPROTO_IP, SocketConstants.IP_PKTINFO, 1));
        else Check(source.SetOption(SocketConstants.IPPROTO_IPV6, SocketConstants.IPV6_RECVPKTINFO, 1));
    }

    private static void Check(int result)
    {
        if (result < 0) throw SystemError.Socket(-result);
    }
}
