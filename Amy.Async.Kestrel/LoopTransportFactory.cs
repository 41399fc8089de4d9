using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Connections;

namespace Amy.Async.Kestrel;

/// <summary>Binds Kestrel's end points to loops.</summary>
internal sealed class LoopTransportFactory(TransportLoops loops) : IConnectionListenerFactory, IConnectionListenerFactorySelector
{
    public bool CanBind(EndPoint endpoint) => endpoint is IPEndPoint or UnixDomainSocketEndPoint or FileHandleEndPoint;

    public ValueTask<IConnectionListener> BindAsync(EndPoint endpoint, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(endpoint);
        cancellationToken.ThrowIfCancellationRequested();
        var group = loops.Start();
        IReadOnlyList<AsyncSocket> sockets;
        var isForeign = true;
        try
        {
            if (endpoint is FileHandleEndPoint handle) sockets = [Attach(new Socket(new SafeSocketHandle((nint)handle.FileHandle, ownsHandle: true)), group.Next())];
            else if (loops.Options.CreateBoundListenSocket is { } create) sockets = [Attach(create(endpoint) ?? throw new InvalidOperationException("CreateBoundListenSocket has made none."), group.Next())];
            else
            {
                isForeign = false;
                sockets = Listen(endpoint, group);
            }
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.AddressAlreadyInUse)
        {
            throw new AddressInUseException(e.Message, e);
        }
        var bound = endpoint is UnixDomainSocketEndPoint ? endpoint : sockets[0].LocalEndPoint ?? endpoint;
        return new ValueTask<IConnectionListener>(new LoopListener(loops, sockets, bound, isForeign));
    }

    private IReadOnlyList<AsyncSocket> Listen(EndPoint endPoint, EventLoopGroup group)
    {
        var options = new AsyncSocketOptions
        {
            NoDelay = loops.Options.NoDelay,
            Backlog = loops.Options.Backlog,
            DualMode = endPoint is IPEndPoint ip && ip.Address.Equals(IPAddress.IPv6Any), // as Kestrel has it: any address means IPv4 too
        };
        if (!loops.Options.ReusePort || endPoint is not IPEndPoint || group.Loops.Count == 1) return [AsyncSocket.Listen(endPoint, options, group.Next())];
        // A shared port does not tell that somebody else has it: a socket that does not share does.
        AsyncSocket.Listen(endPoint, options, group.Loops[0]).Dispose();
        return AsyncSocket.ListenOnEach(endPoint, group, options);
    }

    // Somebody else's: bound, and listening or not (inherited ones, as systemd hands them over, may be).
    private AsyncSocket Attach(Socket socket, EventLoop loop)
    {
        try
        {
            socket.Listen(loops.Options.Backlog);
            return new AsyncSocket(socket, loop);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}
