using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async.Compat;
using Amy.Async.Native;

namespace Amy.Async;

/// <summary>What a short read on this kind of socket says.</summary>
internal enum ShortRead
{
    /// <summary>Nothing: only EAGAIN means drained (datagrams, and whatever is unknown).</summary>
    ProvesNothing,

    /// <summary>TCP: drained, unless out-of-band data or a hang-up was seen.</summary>
    MeansDrained,

    /// <summary>Unix-domain stream: likewise, if the kernel says that no ancillary data cut the read short.</summary>
    MeansDrainedWithoutAncillary,
}

/// <summary>
/// A socket attached to a loop: its descriptor, who owns it, and the system calls of its two directions. The part of
/// <see cref="AsyncSocket"/> that the loop knows; it keeps the public object alive only while an operation waits.
/// </summary>
/// <remarks>
/// <para>Who closes. The descriptor is ours alone until somebody asks for the <see cref="Socket"/> (or brought one). While it
/// is ours alone, the Inside bits of the state word keep it open during a system call. Once there is a Socket, whose owner
/// may close it behind our back, each system call also holds a reference on its handle; and since
/// <c>Socket.Dispose</c> forces such holders out and resets the connection, we dispose it only when nobody is inside.</para>
/// <para>A short read may be taken for "drained" on TCP because the kernel hands out all that is there, except: it stops at
/// out-of-band data (then EPOLLPRI has been or will be an event, which makes the reader look again), and after a hang-up no
/// further edge comes. Unix-domain streams also stop at ancillary data, which recvmsg tells.</para>
/// </remarks>
internal sealed class SocketSource : AwaitableSource
{
    private const int MaxAcceptSkips = 64;
    private const int MaxSentAtOnce = 1 << 20; // bytes of one send before others on the loop have their turn
    private static readonly Action<object, object?> s_sendOn = static (source, _) => ((SocketSource)source).OnReady(Readiness.Writable);

    private readonly SystemCalls _calls;
    private readonly int _descriptor;
    private readonly ShortRead _shortRead;
    private readonly object _ownerLock = new();
    private volatile Socket? _socket; // null: the descriptor is ours alone; set once, under _ownerLock
    private volatile SafeHandle? _handle; // the handle of _socket
    private bool _ownsSocket = true; // guarded by _ownerLock
    private volatile bool _gone; // the number has another owner: not ours to close
    private string? _unlink; // the file of a Unix-domain listener, removed on close

    internal AsyncSocketOptions Options = s_defaultOptions;
    internal AddressFamily Family;
    internal long BytesReceived; // written by the reading direction's owner
    internal long BytesSent; // written by the writing direction's owner

    private static readonly AsyncSocketOptions s_defaultOptions = new();

    /// <summary>A descriptor of our own making.</summary>
    internal SocketSource(EventLoop loop, int descriptor, AddressFamily family, ShortRead shortRead) : base(loop, StateWord.MaybeReady)
    {
        _calls = loop.Calls;
        _descriptor = descriptor;
        Family = family;
        _shortRead = shortRead;
    }

    /// <summary>A socket that somebody else made.</summary>
    internal SocketSource(EventLoop loop, Socket socket, bool ownsSocket) : base(loop, StateWord.MaybeReady)
    {
        _calls = loop.Calls;
        _socket = socket;
        _handle = SocketInterop.HandleOf(socket);
        _ownsSocket = ownsSocket;
        Family = socket.AddressFamily;
        if (!TryHold(out var held)) throw new ObjectDisposedException(nameof(Socket));
        try
        {
            _descriptor = (int)_handle.DangerousGetHandle();
            _shortRead = KindOf(_calls, _descriptor);
        }
        finally
        {
            held?.DangerousRelease();
        }
    }

    protected override string ObjectName => nameof(AsyncSocket);

    internal int FileDescriptor => _descriptor;

    internal ShortRead Kind => _shortRead;

    internal override bool TryHold(out SafeHandle? held)
    {
        held = null;
        var handle = _handle;
        return handle is null || TryHold(handle, out held);
    }

    /// <summary>Tells the kernel's poller of the socket. On failure a descriptor of our own is closed.</summary>
    internal void Attach()
    {
        try
        {
            Loop.Attach(this, _descriptor, Interest.Both | Interest.Priority);
        }
        catch
        {
            if (_handle is null) Close();
            throw;
        }
    }

    internal void UnlinkOnClose(string path) => _unlink = path;

    // ---- one system call each: a value or -errno; the caller holds Inside

    /// <summary>recv(2). <paramref name="ready"/>: there may be more.</summary>
    internal int Receive(Span<byte> buffer, out bool ready)
    {
        ready = true;
        if (!TryHold(out var held)) return -Errno.EBADF;
        var ancillary = false;
        var n = _shortRead == ShortRead.MeansDrainedWithoutAncillary
            ? _calls.ReceiveMessage(_descriptor, buffer, out ancillary)
            : _calls.Receive(_descriptor, buffer);
        held?.DangerousRelease();
        if (n <= 0) return n;
        BytesReceived += n;
        if (n < buffer.Length && !ancillary && _shortRead != ShortRead.ProvesNothing
            && !State.HasSeen(StateWord.SeenReadClosed | StateWord.SeenError | StateWord.SeenUrgent))
            ready = false;
        return n;
    }

    /// <summary>send(2).</summary>
    internal int Send(ReadOnlySpan<byte> buffer)
    {
        if (!TryHold(out var held)) return -Errno.EBADF;
        var n = _calls.Send(_descriptor, buffer);
        held?.DangerousRelease();
        if (n > 0) BytesSent += n;
        return n;
    }

    /// <summary>
    /// send(2) until all is sent: the number of bytes, less than all if the rest would block or must wait for its next turn
    /// on the loop, or -errno.
    /// </summary>
    internal int SendAll(ReadOnlySpan<byte> buffer)
    {
        var sent = 0;
        do
        {
            var n = Send(buffer.Slice(sent));
            if (n == -Errno.EAGAIN) return sent;
            if (n < 0) return n;
            sent += n;
            if (sent < MaxSentAtOnce || sent == buffer.Length || !Loop.IsCurrent) continue;
            Loop.EnqueueOrPool(s_sendOn, this); // as if an edge had come
            return sent;
        }
        while (sent < buffer.Length);
        return sent;
    }

    /// <summary>poll(2): what the direction is ready for, or -EAGAIN.</summary>
    internal int Poll(Direction direction, out Readiness readiness)
    {
        readiness = Readiness.None;
        if (!TryHold(out var held)) return -Errno.EBADF;
        var events = direction == Direction.Read ? (short)(PollEvents.IN | PollEvents.PRI | PollEvents.RDHUP) : PollEvents.OUT;
        var n = _calls.Poll(_descriptor, events);
        held?.DangerousRelease();
        if (n < 0) return n;
        if ((n & PollEvents.NVAL) != 0) return -Errno.EBADF;
        if ((n & PollEvents.IN) != 0) readiness |= Readiness.Readable;
        if ((n & PollEvents.OUT) != 0) readiness |= Readiness.Writable;
        if ((n & PollEvents.PRI) != 0) readiness |= Readiness.Priority;
        if ((n & (PollEvents.RDHUP | PollEvents.HUP)) != 0) readiness |= Readiness.ReadClosed;
        if ((n & PollEvents.HUP) != 0) readiness |= Readiness.WriteClosed;
        if ((n & PollEvents.ERR) != 0) readiness |= Readiness.Error;
        return readiness == Readiness.None ? -Errno.EAGAIN : 0;
    }

    /// <summary>Whether the connection attempt in progress has ended: 0, -EAGAIN or what it failed with.</summary>
    internal int Connected()
    {
        var n = _calls.GetOption(_descriptor, SocketConstants.SOL_SOCKET, SocketConstants.SO_ERROR, out var error);
        if (n < 0) return n;
        if (error != 0) return -error;
        Span<byte> address = stackalloc byte[SocketConstants.AddressCapacity];
        n = _calls.GetPeerName(_descriptor, address); // writable alone does not mean connected (mio#1942)
        return n == -Errno.ENOTCONN ? -Errno.EAGAIN : Math.Min(n, 0);
    }

    /// <summary>
    /// accept4(2) until a connection is there. Connections that failed while they waited are passed over, as accept(2)
    /// advises for Linux.
    /// </summary>
    internal int Accept()
    {
        if (!TryHold(out var held)) return -Errno.EBADF;
        var n = 0;
        for (var i = 0; i < MaxAcceptSkips; i++)
        {
            n = _calls.Accept(_descriptor);
            if (n is not (-Errno.ECONNABORTED or -Errno.EPROTO or -Errno.ENETDOWN or -Errno.ENOPROTOOPT or -Errno.EHOSTDOWN
                or -Errno.ENONET or -Errno.EHOSTUNREACH or -Errno.ENETUNREACH or -Errno.EPERM)) break;
        }
        held?.DangerousRelease();
        return n;
    }

    // ---- setting up: the maker's thread, before anybody else knows the socket

    internal int Bind(EndPoint endPoint) => _calls.Bind(_descriptor, Address.Write(endPoint, stackalloc byte[SocketConstants.AddressCapacity]));

    internal int Listen(int backlog) => _calls.Listen(_descriptor, backlog);

    internal int Connect(EndPoint endPoint) => _calls.Connect(_descriptor, Address.Write(endPoint, stackalloc byte[SocketConstants.AddressCapacity]));

    // ---- calls that are no operation of a direction: under the lock under which the descriptor is closed

    internal int SetOption(int level, int name, int value)
    {
        lock (_ownerLock)
        {
            using var held = HoldOpen();
            return _calls.SetOption(_descriptor, level, name, value);
        }
    }

    internal EndPoint? EndPoint(bool remote)
    {
        Span<byte> address = stackalloc byte[SocketConstants.AddressCapacity];
        int n;
        lock (_ownerLock)
        {
            using var held = HoldOpen();
            n = remote ? _calls.GetPeerName(_descriptor, address) : _calls.GetSocketName(_descriptor, address);
        }
        return n < 0 ? null : Address.Read(address.Slice(0, Math.Min(n, address.Length)), Address.Prototype(Family));
    }

    internal void Shutdown(int how)
    {
        lock (_ownerLock)
        {
            using var held = HoldOpen();
            var n = _calls.Shutdown(_descriptor, how);
            if (n < 0 && n != -Errno.ENOTCONN) throw SystemError.Socket(-n); // ENOTCONN: the connection is over already
        }
    }

    /// <summary>Makes the close that follows reset the connection.</summary>
    internal void ResetOnClose()
    {
        lock (_ownerLock)
        {
            if (State.IsClosed || !TryHold(out var held)) return;
            _ = _calls.SetResetOnClose(_descriptor);
            held?.DangerousRelease();
        }
    }

    private Held HoldOpen() => !State.IsClosed && TryHold(out var held) ? new Held(held) : throw new ObjectDisposedException(ObjectName);

    private readonly ref struct Held(SafeHandle? handle)
    {
        private readonly SafeHandle? _handle = handle;

        public void Dispose() => _handle?.DangerousRelease();
    }

    // ---- owning

    /// <summary>The Socket of this descriptor, made (and given the descriptor) when first asked for.</summary>
    internal Socket GetSocket()
    {
        lock (_ownerLock)
        {
            if (_socket is { } existing) return existing;
            if (State.IsClosed) throw new ObjectDisposedException(ObjectName);
            var socket = SocketInterop.FromDescriptor(_descriptor);
            socket.Blocking = false;
            _handle = SocketInterop.HandleOf(socket);
            _socket = socket;
            // Whoever is in a system call now may not hold the handle, which the caller could close in a moment. Story: an
            // operation sets Inside, then reads _handle; we write _handle, then look at Inside. Either it holds the handle,
            // or we wait for the end of its (non-blocking) call.
            Interlocked.MemoryBarrier();
            var wait = default(SpinWait);
            while (State.IsAnyInside) wait.SpinOnce();
            return socket;
        }
    }

    /// <summary>Ends the attachment and leaves the Socket to the caller.</summary>
    internal Socket Release()
    {
        Socket socket;
        lock (_ownerLock)
        {
            if (State.IsClosed) throw new ObjectDisposedException(ObjectName);
            socket = GetSocket();
            _ownsSocket = false;
            _unlink = null;
        }
        Close();
        return socket;
    }

    /// <summary>Ends the attachment because the AsyncSocket was collected; a Socket has a finalizer of its own.</summary>
    internal void Abandon()
    {
        lock (_ownerLock)
        {
            if (_socket is not null) _ownsSocket = false;
        }
        Close();
    }

    internal override void OnStale()
    {
        _gone = true;
        base.OnStale();
    }

    internal override void CloseDescriptor()
    {
        lock (_ownerLock)
        {
            if (_gone) _handle?.SetHandleAsInvalid();
            else if (_socket is null) _calls.Close(_descriptor);
            if (_ownsSocket) _socket?.Dispose();
            if (_unlink is not null) Unlink(_unlink);
        }
    }

    private static void Unlink(string path)
    {
        try
        {
            File.Delete(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The directory is gone or no longer ours: the file is not in the way of anybody who could have bound it.
        }
    }

    /// <summary>What a short read proves on an unknown socket.</summary>
    private static ShortRead KindOf(SystemCalls calls, int descriptor)
    {
        if (Option(SocketConstants.SO_TYPE) != SocketConstants.SOCK_STREAM) return ShortRead.ProvesNothing;
        return Option(SocketConstants.SO_DOMAIN) switch
        {
            SocketConstants.AF_INET or SocketConstants.AF_INET6 when Option(SocketConstants.SO_PROTOCOL) == SocketConstants.IPPROTO_TCP => ShortRead.MeansDrained,
            SocketConstants.AF_UNIX => ShortRead.MeansDrainedWithoutAncillary,
            _ => ShortRead.ProvesNothing,
        };

        int Option(int name)
        {
            var n = calls.GetOption(descriptor, SocketConstants.SOL_SOCKET, name, out var value);
            return n < 0 ? throw SystemError.Socket(-n) : value;
        }
    }

    // ---- the operations' objects

    internal SocketOperation ReadOperation => (SocketOperation)(Reader ??= new SocketOperation(this, Direction.Read));

    internal SocketOperation WriteOperation => (SocketOperation)(Writer ??= new SocketOperation(this, Direction.Write));
}
