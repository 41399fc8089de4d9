using System.Net;
using System.Net.Sockets;
using System.Threading.Channels;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.Logging;

namespace Amy.Async.Kestrel;

/// <summary>Accepts on one loop and hands the connections to all in turn, or, with a listener for each, on every loop.</summary>
internal sealed class LoopListener : IConnectionListener
{
    private const int MaxUntaken = 1024; // connections that Kestrel has not taken, before accepting waits

    private readonly TransportLoops _loops;
    private readonly IReadOnlyList<AsyncSocket> _sockets;
    private readonly bool _perLoop;
    private readonly bool _delays; // the library switches TCP_NODELAY on for what a foreign listener accepts
    private readonly CancellationTokenSource _unbind = new();
    private readonly Task _accepting;
    private readonly Channel<LoopConnection> _accepted = Channel.CreateBounded<LoopConnection>(
        new BoundedChannelOptions(MaxUntaken) { SingleReader = true, FullMode = BoundedChannelFullMode.Wait });

    internal LoopListener(TransportLoops loops, IReadOnlyList<AsyncSocket> sockets, EndPoint endPoint, bool isForeign)
    {
        _loops = loops;
        _sockets = sockets;
        _perLoop = sockets.Count > 1;
        _delays = isForeign && !loops.Options.NoDelay && sockets[0].LocalEndPoint is IPEndPoint;
        EndPoint = endPoint;
        _accepting = Task.WhenAll(sockets.Select(socket => socket.Loop.InvokeAsync(() => AcceptOn(socket))));
    }

    public EndPoint EndPoint { get; }

    public async ValueTask<ConnectionContext?> AcceptAsync(CancellationToken cancellationToken = default)
    {
        while (await _accepted.Reader.WaitToReadAsync(cancellationToken).ConfigureAwait(false))
            if (_accepted.Reader.TryRead(out var connection)) return connection;
        return null;
    }

    public async ValueTask UnbindAsync(CancellationToken cancellationToken = default)
    {
        await _unbind.CancelAsync().ConfigureAwait(false);
        await AcceptingEnds().ConfigureAwait(false); // soon, whatever the token: Kestrel unbinds under a cancelled one, too
        foreach (var socket in _sockets) socket.Dispose();
        _accepted.Writer.TryComplete();
    }

    public async ValueTask DisposeAsync()
    {
        await _unbind.CancelAsync().ConfigureAwait(false);
        _accepted.Writer.TryComplete(); // before waiting: nobody takes any more
        await AcceptingEnds().ConfigureAwait(false);
        foreach (var socket in _sockets) socket.Dispose();
        while (_accepted.Reader.TryRead(out var connection))
        {
            connection.Abort(new ConnectionAbortedException("The listener was disposed before the connection was taken."));
            await connection.DisposeAsync().ConfigureAwait(false);
        }
        _unbind.Dispose();
    }

    private async Task AcceptingEnds()
    {
        try
        {
            await _accepting.ConfigureAwait(false);
        }
        catch (ObjectDisposedException)
        {
            // the loops have stopped
        }
    }

    // On the listener's loop, under its context.
    private async Task AcceptOn(AsyncSocket listener)
    {
        try
        {
            while (await AcceptOne(listener, _unbind.Token))
            {
            }
            // What has come in by now is served: whoever connected before the port was closed has a connection, and may have
            // sent a request. Two turns, so that the poller has been asked.
            await listener.Loop.Yield();
            await listener.Loop.Yield();
            while (true)
            {
                using var none = new CancellationTokenSource();
                var accepting = AcceptOne(listener, none.Token);
                if (!accepting.IsCompleted) none.Cancel();
                if (!await accepting) break;
            }
        }
        catch (ChannelClosedException)
        {
            // disposed: the connection was aborted
        }
        catch (ObjectDisposedException)
        {
            // so is the loop, or the listener
        }
        catch (Exception e)
        {
            TransportLog.AcceptFailed(_loops.Logger, EndPoint, e);
            _accepted.Writer.TryComplete(e);
        }
    }

    private async Task<bool> AcceptOne(AsyncSocket listener, CancellationToken token)
    {
        var target = _perLoop ? _loops.Of(listener.Loop) : _loops.Next();
        AsyncSocket socket;
        try
        {
            socket = await listener.AcceptAsync(target.Loop, token);
        }
        catch (OperationCanceledException)
        {
            return false;
        }
        if (_delays) Delay(socket);
        var connection = new LoopConnection(socket, target, _loops.Options, _loops.Logger);
        connection.Start();
        if (_accepted.Writer.TryWrite(connection)) return true;
        try
        {
            await _accepted.Writer.WriteAsync(connection, CancellationToken.None);
        }
        catch (ChannelClosedException)
        {
            connection.Abort(new ConnectionAbortedException("The listener was disposed before the connection was taken."));
            throw;
        }
        return true;
    }

    private static void Delay(AsyncSocket socket)
    {
        try
        {
            socket.Socket.NoDelay = false;
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // the peer is gone already, or the loop has stopped: the connection will say so
        }
    }
}
