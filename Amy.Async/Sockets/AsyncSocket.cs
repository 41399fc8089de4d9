using System.Diagnostics;
using System.Diagnostics.CodeAnalysis;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async.Compat;
using Amy.Async.Native;

namespace Amy.Async;

/// <summary>
/// A socket attached to one event loop: TCP and UDP over IPv4 or IPv6, Unix-domain streams and datagrams. Awaiting its
/// operations on the loop's thread switches no thread and allocates nothing.
/// </summary>
/// <remarks>
/// <para>Members may be called from any thread; they are fastest on the loop's own. There is one operation at a time in each
/// direction: accept, receive and readable share the reading one; connect, send and writable the writing one. A second one
/// throws an <see cref="InvalidOperationException"/>. A <see cref="ValueTask"/> of theirs is awaited once, and at once.</para>
/// <para>On a datagram socket each send is one datagram, also an empty one, and each receive gets one; 0 is no end there.</para>
/// <para>Failures are <see cref="SocketException"/>s; an operation that is disposed under throws an
/// <see cref="ObjectDisposedException"/>, also when the loop stops.</para>
/// </remarks>
[DebuggerDisplay("AsyncSocket {_source.FileDescriptor}")]
public sealed partial class AsyncSocket : IDisposable, IAsyncDisposable
{
    private readonly SocketSource _source;

    private AsyncSocket(SocketSource source) => _source = source;

    /// <summary>Attaches a socket that is connected or listening. Makes it non-blocking, for good.</summary>
    /// <param name="socket">The socket. Its own operations may be used besides, but no pending ones.</param>
    /// <param name="loop">Null: the loop of the calling thread, else <see cref="EventLoop.Default"/>.</param>
    /// <param name="ownsSocket">Whether disposing this disposes the socket.</param>
    /// <exception cref="SocketException"><see cref="SocketError.NotConnected"/>: a stream socket that is neither connected nor
    /// listening. Attach it after it has connected.</exception>
    /// <exception cref="InvalidOperationException">It is attached to this loop already.</exception>
    /// <exception cref="ObjectDisposedException">The socket is closed or the loop has stopped.</exception>
    public AsyncSocket(Socket socket, EventLoop? loop = null, bool ownsSocket = true)
    {
        if (socket is null) throw new ArgumentNullException(nameof(socket));
        SocketChecks.Prepare(socket);
        var source = new SocketSource(loop ?? EventLoop.Current ?? EventLoop.Default, socket, ownsSocket);
        source.Attach();
        _source = source; // last: if this constructor throws, the finalizer finds nothing to close
    }

    /// <summary>
    /// A socket that was never disposed is closed when it is collected (one with a pending operation never is). If there is a
    /// <see cref="Socket"/>, that is left to its own finalizer: somebody may still use it.
    /// </summary>
    ~AsyncSocket() => _source?.Abandon();

    /// <summary>The loop it is attached to.</summary>
    public EventLoop Loop => _source.Loop;

    /// <summary>
    /// The socket as the platform's type, for options and synchronous calls. An accepted or connected one makes it when first
    /// asked for. Closing it under a pending operation ends that only with the next event; dispose this instead.
    /// </summary>
    /// <exception cref="ObjectDisposedException">Disposed.</exception>
    public Socket Socket => _source.GetSocket();

    /// <summary>The handle of <see cref="Socket"/>.</summary>
    /// <exception cref="ObjectDisposedException">Disposed.</exception>
    public SafeHandle Handle => SocketInterop.HandleOf(Socket);

    /// <summary>The address of this end, asked of the kernel; null if there is none.</summary>
    /// <exception cref="ObjectDisposedException">Disposed.</exception>
    public EndPoint? LocalEndPoint => _source.EndPoint(remote: false);

    /// <summary>The address of the other end, asked of the kernel; null if there is none.</summary>
    /// <exception cref="ObjectDisposedException">Disposed.</exception>
    public EndPoint? RemoteEndPoint => _source.EndPoint(remote: true);

    /// <summary>Bytes sent so far. After a cancelled or failed send it says how much of it went out.</summary>
    public long BytesSent => Volatile.Read(ref _source.BytesSent);

    /// <summary>Bytes received so far.</summary>
    public long BytesReceived => Volatile.Read(ref _source.BytesReceived);

    /// <summary>Receives what is there, or waits until something is.</summary>
    /// <param name="buffer">Where to; must stay valid until the operation has ended. If empty, waits for readability and takes
    /// nothing.</param>
    /// <param name="cancellationToken">Cancels the wait; a cancelled receive has taken no data.</param>
    /// <returns>The number of bytes; 0 at the end of the stream (or for an empty buffer).</returns>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="TimeoutException">It took longer than the time-out.</exception>
    /// <exception cref="SocketException">The connection failed.</exception>
    /// <exception cref="InvalidOperationException">Another operation of the reading direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public ValueTask<int> ReceiveAsync(Memory<byte> buffer, CancellationToken cancellationToken = default) =>
        _source.ReceiveAsync(this, buffer, cancellationToken);

    /// <summary>Sends all of the buffer, waiting as often as the kernel's buffer is full.</summary>
    /// <param name="buffer">What; must stay unchanged until the operation has ended.</param>
    /// <param name="cancellationToken">Cancels the wait. A part may have been sent (see <see cref="BytesSent"/>): the stream is
    /// broken then, and best closed.</param>
    /// <returns>The length of the buffer.</returns>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="TimeoutException">It took longer than the time-out.</exception>
    /// <exception cref="SocketException">The connection failed.</exception>
    /// <exception cref="InvalidOperationException">Another operation of the writing direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public ValueTask<int> SendAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default) =>
        _source.SendAsync(this, buffer, cancellationToken);

    /// <summary>Waits until a receive would not block; on a listener, until a connection is there.</summary>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="InvalidOperationException">Another operation of the reading direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public ValueTask<Readiness> ReadableAsync(CancellationToken cancellationToken = default) =>
        _source.WaitAsync(this, Direction.Read, cancellationToken);

    /// <summary>Waits until a send would not block.</summary>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="InvalidOperationException">Another operation of the writing direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public ValueTask<Readiness> WritableAsync(CancellationToken cancellationToken = default) =>
        _source.WaitAsync(this, Direction.Write, cancellationToken);

    /// <summary>Receives what is there, without waiting.</summary>
    /// <param name="buffer">Where to.</param>
    /// <param name="received">The number of bytes; 0 at the end of the stream.</param>
    /// <returns>False: nothing is there, a receive would block.</returns>
    /// <exception cref="SocketException">The connection failed.</exception>
    /// <exception cref="InvalidOperationException">An operation of the reading direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public bool TryReceive(Span<byte> buffer, out int received) => _source.TryReceive(buffer, out received);

    /// <summary>Sends what the kernel takes, without waiting.</summary>
    /// <param name="buffer">What.</param>
    /// <param name="sent">The number of bytes taken, possibly less than all.</param>
    /// <returns>False: the kernel's buffer is full, a send would block.</returns>
    /// <exception cref="SocketException">The connection failed.</exception>
    /// <exception cref="InvalidOperationException">An operation of the writing direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public bool TrySend(ReadOnlySpan<byte> buffer, out int sent) => _source.TrySend(buffer, out sent);

    /// <summary>
    /// How long a receive (an accept, a wait for readability) may wait, from its beginning; then it throws a
    /// <see cref="TimeoutException"/> and has taken no data. Holds for operations that begin later. Costs no allocation.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">Zero, or negative and not infinite.</exception>
    public TimeSpan ReceiveTimeout
    {
        get => _source.GetTimeout(Direction.Read);
        set => _source.SetTimeout(Direction.Read, value);
    }

    /// <summary>
    /// How long a send (a wait for writability) may take in all; then it throws a <see cref="TimeoutException"/>. A part may
    /// have been sent (see <see cref="BytesSent"/>): the stream is broken then, and best closed.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">Zero, or negative and not infinite.</exception>
    public TimeSpan SendTimeout
    {
        get => _source.GetTimeout(Direction.Write);
        set => _source.SetTimeout(Direction.Write, value);
    }

    /// <summary>Ends one or both directions of the connection; the peer sees the end of the stream.</summary>
    /// <exception cref="ObjectDisposedException">Disposed.</exception>
    public void Shutdown(SocketShutdown how) => _source.Shutdown(how switch
    {
        SocketShutdown.Receive => SocketConstants.SHUT_RD,
        SocketShutdown.Send => SocketConstants.SHUT_WR,
        SocketShutdown.Both => SocketConstants.SHUT_RDWR,
        _ => throw new ArgumentOutOfRangeException(nameof(how)),
    });

    /// <summary>Closes with a reset: the peer gets an error, and what was not sent is discarded.</summary>
    public void Abort()
    {
        _source.ResetOnClose();
        Dispose();
    }

    /// <summary>
    /// Gives the socket back, no longer attached, non-blocking, owned by the caller. Pending operations end with an
    /// <see cref="ObjectDisposedException"/> and have taken no data.
    /// </summary>
    /// <exception cref="ObjectDisposedException">Disposed.</exception>
    [SuppressMessage("Usage", "CA1816", Justification = "What the finalizer would close has been given away.")]
    public Socket Detach()
    {
        var socket = _source.Release();
        GC.SuppressFinalize(this);
        return socket;
    }

    /// <summary>
    /// Closes the socket. Pending operations end with an <see cref="ObjectDisposedException"/>, through the loop's queue. The
    /// descriptor is closed at once, or, if another thread is in a system call on it, by that thread. What was sent still
    /// goes out.
    /// </summary>
    public void Dispose()
    {
        _source.Close();
        GC.SuppressFinalize(this);
    }

    /// <summary>Like <see cref="Dispose"/>.</summary>
    public ValueTask DisposeAsync()
    {
        Dispose();
        GC.SuppressFinalize(this);
        return default;
    }
}
