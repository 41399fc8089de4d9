using System.Net;
using System.Net.Sockets;
using Amy.Async.Compat;
using Amy.Async.Native;

namespace Amy.Async;

// Datagrams: UDP and Unix-domain, with the address of the other end at each operation, one at a time or many at once.
public sealed partial class AsyncSocket
{
    /// <summary>A socket for datagrams (UDP, or Unix-domain), bound to an address: it receives from and sends to anybody.</summary>
    /// <param name="endPoint">An IP end point (port 0: the kernel chooses) or a Unix-domain one, whose file is removed again on
    /// dispose.</param>
    /// <param name="options">Null for the defaults.</param>
    /// <param name="loop">Null: the loop of the calling thread, else <see cref="EventLoop.Default"/>.</param>
    /// <remarks>For multicast use <see cref="JoinMulticastGroup"/>; for options not named in
    /// <see cref="AsyncSocketOptions"/>, <see cref="Socket"/>.</remarks>
    /// <exception cref="SocketException">The address is in use, not ours, …</exception>
    /// <exception cref="NotSupportedException">The address family is not supported.</exception>
    public static AsyncSocket BindDatagram(EndPoint endPoint, AsyncSocketOptions? options = null, EventLoop? loop = null)
    {
        if (endPoint is null) throw new ArgumentNullException(nameof(endPoint));
        return MakeDatagram(endPoint, null, options ?? s_defaultOptions, loop);
    }

    /// <summary>A socket for datagrams that sends to one address and receives from it only; its port of the other end being
    /// closed is told by <see cref="SocketError.ConnectionRefused"/> from a later operation.</summary>
    /// <param name="endPoint">The other end.</param>
    /// <param name="options">Null for the defaults; <see cref="AsyncSocketOptions.LocalEndPoint"/> is this end.</param>
    /// <param name="loop">Null: the loop of the calling thread, else <see cref="EventLoop.Default"/>.</param>
    /// <exception cref="SocketException">Unreachable, …</exception>
    /// <exception cref="NotSupportedException">The address family is not supported.</exception>
    public static AsyncSocket ConnectDatagram(EndPoint endPoint, AsyncSocketOptions? options = null, EventLoop? loop = null)
    {
        if (endPoint is null) throw new ArgumentNullException(nameof(endPoint));
        options ??= s_defaultOptions;
        return MakeDatagram(options.LocalEndPoint, endPoint, options, loop);
    }

    private static AsyncSocket MakeDatagram(EndPoint? local, EndPoint? remote, AsyncSocketOptions options, EventLoop? loop)
    {
        var source = Create((local ?? remote)!.AddressFamily, options, loop ?? EventLoop.Current ?? EventLoop.Default, SocketConstants.SOCK_DGRAM);
        try
        {
            if (local is not null) Bind(source, local, options);
            if (remote is not null) Check(source.Connect(remote));
            source.Attach();
        }
        catch
        {
            source.Close();
            throw;
        }
        return new AsyncSocket(source);
    }

    /// <summary>Receives one datagram, or waits for one, and where it came from.</summary>
    /// <param name="buffer">Where to; what does not fit of the datagram is lost (<see cref="ReceiveMessageAsync"/> tells).</param>
    /// <param name="remote">Gets the sender's address; reuse it, then nothing is allocated. Made with room for the largest
    /// address of the family (<c>new SocketAddress(family)</c>).</param>
    /// <param name="cancellationToken">Cancels the wait; no datagram was taken.</param>
    /// <returns>The number of bytes; 0: an empty datagram.</returns>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="TimeoutException">It took longer than <see cref="ReceiveTimeout"/>.</exception>
    /// <exception cref="SocketException">An earlier send was refused, …</exception>
    /// <exception cref="InvalidOperationException">Another operation of the reading direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public ValueTask<int> ReceiveFromAsync(Memory<byte> buffer, SocketAddress remote, CancellationToken cancellationToken = default)
    {
        if (remote is null) throw new ArgumentNullException(nameof(remote));
        return ReceiveWith(buffer, remote, SocketFlags.None, cancellationToken);
    }

    /// <summary>
    /// Receives like <see cref="ReceiveAsync(Memory{byte}, CancellationToken)"/>, with <see cref="SocketFlags.Peek"/>: what is
    /// received stays there; or <see cref="SocketFlags.OutOfBand"/>: TCP's urgent byte, once readiness has told
    /// <see cref="Readiness.Priority"/>.
    /// </summary>
    /// <exception cref="ArgumentException">Other flags.</exception>
    /// <exception cref="SocketException">The connection failed; <see cref="SocketError.InvalidArgument"/>: no urgent byte is
    /// there.</exception>
    /// <inheritdoc cref="ReceiveAsync(Memory{byte}, CancellationToken)"/>
    public ValueTask<int> ReceiveAsync(Memory<byte> buffer, SocketFlags socketFlags, CancellationToken cancellationToken = default)
    {
        if ((socketFlags & ~(SocketFlags.Peek | SocketFlags.OutOfBand)) != 0) throw new ArgumentException($"Of the flags, Peek and OutOfBand are possible, not {socketFlags}.", nameof(socketFlags));
        return socketFlags == SocketFlags.None ? ReceiveAsync(buffer, cancellationToken) : ReceiveWith(buffer, null, socketFlags, cancellationToken);
    }

    private ValueTask<int> ReceiveWith(Memory<byte> buffer, SocketAddress? remote, SocketFlags flags, CancellationToken token)
    {
        if (token.IsCancellationRequested) return new ValueTask<int>(Task.FromCanceled<int>(token));
        var begun = _source.Begin(Direction.Read, out var deferred);
        var action = _source.Operation(Direction.Read).Action<ReceiveFromAction>();
        action.Buffer = buffer;
        action.Remote = remote;
        action.Flags = (int)flags;
        return action.Start(this, _source, Direction.Read, begun == StateWord.BeginResult.Attempt, deferred, token);
    }

    /// <summary>Sends one datagram to an address.</summary>
    /// <param name="buffer">The datagram; may be empty.</param>
    /// <param name="remote">Where to: <c>endPoint.Serialize()</c>, kept and reused.</param>
    /// <param name="cancellationToken">Cancels the wait; nothing was sent.</param>
    /// <returns>The number of bytes.</returns>
    /// <exception cref="ArgumentException">The address is larger than any is.</exception>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="TimeoutException">It took longer than <see cref="SendTimeout"/>.</exception>
    /// <exception cref="SocketException"><see cref="SocketError.MessageSize"/>: too large; unreachable, …</exception>
    /// <exception cref="InvalidOperationException">Another operation of the writing direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public ValueTask<int> SendToAsync(ReadOnlyMemory<byte> buffer, SocketAddress remote, CancellationToken cancellationToken = default)
    {
        if (remote is null) throw new ArgumentNullException(nameof(remote));
        return SendWith(buffer, remote, SocketFlags.None, cancellationToken);
    }

    /// <summary>
    /// Sends like <see cref="SendAsync(ReadOnlyMemory{byte}, CancellationToken)"/>, with <see cref="SocketFlags.OutOfBand"/>: the
    /// last byte is TCP's urgent one.
    /// </summary>
    /// <exception cref="ArgumentException">Other flags.</exception>
    /// <inheritdoc cref="SendAsync(ReadOnlyMemory{byte}, CancellationToken)"/>
    public ValueTask<int> SendAsync(ReadOnlyMemory<byte> buffer, SocketFlags socketFlags, CancellationToken cancellationToken = default)
    {
        if ((socketFlags & ~SocketFlags.OutOfBand) != 0) throw new ArgumentException($"Of the flags, OutOfBand is possible, not {socketFlags}.", nameof(socketFlags));
        return socketFlags == SocketFlags.None ? SendAsync(buffer, cancellationToken) : SendWith(buffer, null, socketFlags, cancellationToken);
    }

    private ValueTask<int> SendWith(ReadOnlyMemory<byte> buffer, SocketAddress? remote, SocketFlags flags, CancellationToken token)
    {
        if (token.IsCancellationRequested) return new ValueTask<int>(Task.FromCanceled<int>(token));
        var begun = _source.Begin(Direction.Write, out var deferred);
        var action = _source.Operation(Direction.Write).Action<SendToAction>();
        action.Begin(buffer, remote, (int)flags);
        return action.Start(this, _source, Direction.Write, begun == StateWord.BeginResult.Attempt, deferred, token);
    }

    /// <summary>Receives as many datagrams as are there and as the batch holds, at least one, with one system call
    /// (<c>recvmmsg(2)</c>).</summary>
    /// <param name="batch">Gets the datagrams and their senders; not to be touched until the operation has ended.</param>
    /// <param name="cancellationToken">Cancels the wait; no datagram was taken.</param>
    /// <returns>The number of datagrams, <see cref="DatagramBatch.Count"/>.</returns>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="TimeoutException">It took longer than <see cref="ReceiveTimeout"/>.</exception>
    /// <exception cref="SocketException">An earlier send was refused, …</exception>
    /// <exception cref="NotSupportedException">A stream.</exception>
    /// <exception cref="InvalidOperationException">Another operation of the reading direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public ValueTask<int> ReceiveAsync(DatagramBatch batch, CancellationToken cancellationToken = default)
    {
        if (batch is null) throw new ArgumentNullException(nameof(batch));
        if (!_source.SendsEmpty) throw new NotSupportedException("A batch is of datagrams; this socket is a stream.");
        if (cancellationToken.IsCancellationRequested) return new ValueTask<int>(Task.FromCanceled<int>(cancellationToken));
        var begun = _source.Begin(Direction.Read, out var deferred);
        var action = _source.Operation(Direction.Read).Action<ReceiveBatchAction>();
        action.Batch = batch;
        return action.Start(this, _source, Direction.Read, begun == StateWord.BeginResult.Attempt, deferred, cancellationToken);
    }

    /// <summary>Sends the datagrams of a batch, each to its address, with as few system calls as the kernel's buffer allows
    /// (<c>sendmmsg(2)</c>).</summary>
    /// <param name="batch">What; not to be touched until the operation has ended.</param>
    /// <param name="cancellationToken">Cancels the wait; <see cref="DatagramBatch.Sent"/> tells how many were sent.</param>
    /// <returns>The number of datagrams, all of them.</returns>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="TimeoutException">It took longer than <see cref="SendTimeout"/>.</exception>
    /// <exception cref="SocketException">The datagram with the number <see cref="DatagramBatch.Sent"/> failed.</exception>
    /// <exception cref="NotSupportedException">A stream.</exception>
    /// <exception cref="InvalidOperationException">Another operation of the writing direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public ValueTask<int> SendAsync(DatagramBatch batch, CancellationToken cancellationToken = default)
    {
        if (batch is null) throw new ArgumentNullException(nameof(batch));
        if (!_source.SendsEmpty) throw new NotSupportedException("A batch is of datagrams; this socket is a stream.");
        if (cancellationToken.IsCancellationRequested) return new ValueTask<int>(Task.FromCanceled<int>(cancellationToken));
        var begun = _source.Begin(Direction.Write, out var deferred);
        var action = _source.Operation(Direction.Write).Action<SendBatchAction>();
        action.Begin(batch);
        return action.Start(this, _source, Direction.Write, begun == StateWord.BeginResult.Attempt, deferred, cancellationToken);
    }

    /// <summary>Receives what is sent to a multicast group, too.</summary>
    /// <param name="group">The group's address, of this socket's family.</param>
    /// <param name="interfaceIndex">The network interface (<c>if_nametoindex(3)</c>); 0: the kernel chooses.</param>
    /// <exception cref="SocketException">Not a multicast address, no such interface, joined already, …</exception>
    /// <exception cref="ObjectDisposedException">Disposed.</exception>
    public void JoinMulticastGroup(IPAddress group, int interfaceIndex = 0) => SetMembership(group, interfaceIndex, SocketOptionName.AddMembership);

    /// <summary>Leaves a multicast group.</summary>
    /// <param name="group">The group's address.</param>
    /// <param name="interfaceIndex">The interface on which it was joined.</param>
    /// <exception cref="SocketException">It was not joined there.</exception>
    /// <exception cref="ObjectDisposedException">Disposed.</exception>
    public void LeaveMulticastGroup(IPAddress group, int interfaceIndex = 0) => SetMembership(group, interfaceIndex, SocketOptionName.DropMembership);

    private void SetMembership(IPAddress group, int interfaceIndex, SocketOptionName name)
    {
        if (group is null) throw new ArgumentNullException(nameof(group));
        if (interfaceIndex < 0) throw new ArgumentOutOfRangeException(nameof(interfaceIndex), interfaceIndex, "An interface's index is zero or positive.");
        if (group.AddressFamily == AddressFamily.InterNetworkV6)
            Socket.SetSocketOption(SocketOptionLevel.IPv6, name, new IPv6MulticastOption(group, interfaceIndex));
        else
            Socket.SetSocketOption(SocketOptionLevel.IP, name, interfaceIndex == 0 ? new MulticastOption(group) : new MulticastOption(group, interfaceIndex));
    }
}
