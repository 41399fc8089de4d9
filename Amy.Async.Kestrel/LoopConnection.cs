using System.Buffers;
using System.IO.Pipelines;
using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.Logging;

namespace Amy.Async.Kestrel;

/// <summary>
/// A connection on a loop. Its socket ends once, by <see cref="Shutdown"/>: the application has written all and it is sent, or
/// somebody aborts it, or a send fails. The reason is set before the socket is closed, so that whoever sees the closed socket
/// finds it.
/// </summary>
internal sealed partial class LoopConnection : ConnectionContext, IDuplexPipe, IThreadPoolWorkItem
{
    private static readonly ConnectionAbortedException s_gracefully = new("The connection was closed gracefully: all that the application wrote was sent.");

    private readonly AsyncSocket _socket;
    private readonly ILogger _logger;
    private readonly bool _finOnAbort;
    private readonly long _maxReadBufferSize;
    private readonly CancellationTokenSource _closed = new();
    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly LoopPipeReader _input;
    private readonly LoopPipeWriter _output;
    private Exception? _shutdownReason; // set once; any thread, Interlocked
    private int _closedFired; // 1: ConnectionClosed is cancelled, or about to be; any thread, Interlocked
    private int _parts = 2; // not done of: shutting down, firing ConnectionClosed; Interlocked
    private ValueTask _hangUp;

    internal LoopConnection(AsyncSocket socket, LoopMemory memory, AmyAsyncTransportOptions options, ILogger logger)
    {
        _socket = socket;
        _logger = logger;
        _finOnAbort = options.FinOnAbort;
        _maxReadBufferSize = options.MaxReadBufferSize ?? long.MaxValue;
        IsInline = options.UnsafePreferInlineScheduling;
        MemoryPool = memory.Pool;
        _input = new LoopPipeReader(this, socket, memory);
        _output = new LoopPipeWriter(this, socket, memory, options.MaxWriteBufferSize);
        Transport = this;
        ConnectionClosed = _closed.Token;
    }

    /// <summary>Whether the application runs on the loop.</summary>
    internal bool IsInline { get; }

    /// <summary>Why the socket is closed, or is about to be; null: it is not.</summary>
    internal Exception? ShutdownReason => Volatile.Read(ref _shutdownReason);

    public PipeReader Input => _input;

    public PipeWriter Output => _output;

    /// <summary>Begins to watch for the peer's hang-up, which an application that does not read would not see.</summary>
    internal void Start()
    {
        _localEndPoint = EndPointOf(_socket, remote: false); // now: of a connection that is over, the kernel knows them no more
        _remoteEndPoint = EndPointOf(_socket, remote: true);
        TransportLog.Accepted(_logger, ConnectionId);
        try
        {
#pragma warning disable CA2012 // awaited by hand: without a state machine for each connection
            _hangUp = _socket.ClosedAsync();
#pragma warning restore CA2012
        }
        catch (ObjectDisposedException e) // the loop has stopped
        {
            Shutdown(Translate(e), abort: true);
            return;
        }
        if (_hangUp.IsCompleted) OnHangUp();
        else _hangUp.ConfigureAwait(false).GetAwaiter().UnsafeOnCompleted(OnHangUp);
    }

    // Kestrel gives no reason when it has seen the client's end.
    public override void Abort(ConnectionAbortedException? abortReason) =>
        Shutdown(abortReason ?? new ConnectionAbortedException("The connection was aborted, for no reason that was told."), abort: true);

    public override async ValueTask DisposeAsync()
    {
        _input.Complete();
        _output.Complete();
        await _ended.Task.ConfigureAwait(false);
        _closed.Dispose();
        await base.DisposeAsync().ConfigureAwait(false);
    }

    // ---- what the pipes tell

    /// <summary>The peer sends no more, or receiving failed.</summary>
    internal void OnInputEnded()
    {
        if (Volatile.Read(ref _closedFired) != 0) return;
        TransportLog.EndReceived(_logger, ConnectionId);
        FireClosed();
    }

    /// <summary>All that the application wrote is sent.</summary>
    internal void OnOutputEnded() => Shutdown(s_gracefully, abort: false);

    internal void OnSendFailed(Exception exception) => Shutdown(Translate(exception), abort: true);

    internal void OnApplicationFailed(Exception exception) =>
        Shutdown(exception as ConnectionAbortedException ?? new ConnectionAbortedException(exception.Message, exception), abort: true);

    internal void OnPaused() => TransportLog.Paused(_logger, ConnectionId);

    /// <summary>What a failure of the socket is for Kestrel.</summary>
    internal Exception Translate(Exception exception)
    {
        if (ShutdownReason is { } reason) return reason;
        switch (exception)
        {
            case SocketException { SocketErrorCode: SocketError.ConnectionReset or SocketError.Shutdown or SocketError.ConnectionAborted }:
                TransportLog.Reset(_logger, ConnectionId);
                return new ConnectionResetException(exception.Message, exception);
            case SocketException:
                TransportLog.Failed(_logger, ConnectionId, exception);
                return new IOException(exception.Message, exception);
            case ObjectDisposedException:
                return new ConnectionAbortedException("The event loop of the connection has stopped.", exception);
            default:
                TransportLog.Failed(_logger, ConnectionId, exception);
                return exception;
        }
    }

    // ---- ending

    private void Shutdown(Exception reason, bool abort)
    {
        if (Interlocked.CompareExchange(ref _shutdownReason, reason, null) is not null) return;
        TransportLog.Closing(_logger, ConnectionId, reason.Message);
        if (abort && !_finOnAbort) _socket.Abort();
        else
        {
            try
            {
                _socket.Shutdown(SocketShutdown.Both); // first: closing with data unread alone would be a reset
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                // the connection is over already
            }
            _socket.Dispose();
        }
        FireClosed();
        EndPart();
    }

    // The peer has closed, at least its sending half. A pump would have read what is left, up to its limit, and found the end;
    // beyond that the application's reads will.
    private void OnHangUp()
    {
        if (ShutdownReason is not null || Volatile.Read(ref _closedFired) != 0 || _input.HasEnded) return;
        try
        {
            _hangUp.GetAwaiter().GetResult();
            if (_maxReadBufferSize < long.MaxValue && _socket.Socket.Available > _maxReadBufferSize) return;
        }
        catch (ObjectDisposedException e)
        {
            Shutdown(Translate(e), abort: true); // the loop has stopped (or this is closed already: then it does nothing)
            return;
        }
        catch (Exception e) when (e is SocketException or InvalidOperationException)
        {
            return; // closed meanwhile
        }
        FireClosed();
    }

    private void FireClosed()
    {
        if (Interlocked.Exchange(ref _closedFired, 1) == 0) ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
    }

    // User code hangs on the token: on the thread pool, whatever thread found the end.
    void IThreadPoolWorkItem.Execute()
    {
        try
        {
            _closed.Cancel();
        }
        catch (Exception e)
        {
            TransportLog.ClosedCallbackFailed(_logger, ConnectionId, e);
        }
        EndPart();
    }

    private void EndPart()
    {
        if (Interlocked.Decrement(ref _parts) == 0) _ended.TrySetResult();
    }
}
