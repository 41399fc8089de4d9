using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async.Compat;
using Amy.Async.Native;

namespace Amy.Async;

/// <summary>What a short read on this kind of socket says.</summary>
internal enum ShortRead : byte // small: there is one of them in each connection
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
internal sealed partial class SocketSource : DescriptorSource
{
    private const int MaxAcceptSkips = 64;
    private static readonly Action<object, object?> s_acceptOn = static (source, _) => ((SocketSource)source).AcceptOn();

    private readonly int _descriptor;
    private readonly ShortRead _shortRead;
    private readonly bool _isDatagram;
    private volatile Socket? _socket; // null: the descriptor is ours alone; set once, under the lock on this
    private volatile SafeHandle? _handle; // the handle of _socket
    private bool _ownsSocket = true; // guarded by the lock on this
    private volatile bool _wasReset; // a send was told so
    private volatile bool _gone; // the number has another owner: not ours to close
    private bool _givenAway; // to a source of another loop (SocketSource.Moving.cs); guarded by the lock on this
    private volatile bool _shutdownOnClose; // set before Close, whose compare-exchange publishes it
    private HangUpSide? _hangUp;
    private volatile bool _acceptOnQueued; // AcceptOn waits in the loop's queue; any thread: queued twice does no harm
    private string? _unlink; // the file of a Unix-domain listener, removed on close

    private readonly bool _isForeign; // somebody else made the socket
    private short _family; // small, as the flags beside it: each connection has one of these

    internal AddressFamily Family { get => (AddressFamily)_family; set => _family = (short)value; }

    /// <summary>A descriptor of our own making.</summary>
    internal SocketSource(EventLoop loop, int descriptor, AddressFamily family, ShortRead shortRead, bool isDatagram = false) : base(loop)
    {
        _isDatagram = isDatagram;
        _descriptor = descriptor;
        Family = family;
        _shortRead = shortRead;
    }

    /// <summary>A socket that somebody else made.</summary>
    internal SocketSource(EventLoop loop, Socket socket, bool ownsSocket) : base(loop)
    {
        _isForeign = true;
        _socket = socket;
        _handle = SocketInterop.HandleOf(socket);
        _ownsSocket = ownsSocket;
        Family = socket.AddressFamily;
        if (!TryHold(out var held)) throw new ObjectDisposedException(nameof(Socket));
        try
        {
            _descriptor = (int)_handle.DangerousGetHandle();
            _shortRead = KindOf(SystemCalls, _descriptor, out _isDatagram);
        }
        finally
        {
            held?.DangerousRelease();
        }
    }

    protected override string ObjectName => nameof(AsyncSocket);

    internal override int FileDescriptor => _descriptor;

    internal ShortRead Kind => _shortRead;

    /// <summary>
    /// Whether an accepted connection must be told TCP_NODELAY. It inherits that from a listener of our own making, as on
    /// every system that the library runs on (on Linux the socket is cloned from the listener).
    /// </summary>
    internal bool MustSetNoDelay => _isForeign && _shortRead == ShortRead.MeansDrained;

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
    internal override int Receive(Span<byte> buffer, out bool ready)
    {
        ready = true;
        if (!TryHold(out var held)) return -Errno.EBADF;
        var ancillary = false;
        var n = _shortRead == ShortRead.MeansDrainedWithoutAncillary
            ? SystemCalls.ReceiveMessage(_descriptor, buffer, out ancillary)
            : SystemCalls.Receive(_descriptor, buffer);
        held?.DangerousRelease();
        if (n > 0) ready = CountReceived(n, n < buffer.Length && !ancillary);
        return n == 0 ? EndOrReset() : n;
    }

    /// <summary>
    /// What a receive that got nothing means. The kernel tells a reset once: if a send got it, a receive sees the end of the
    /// stream, and would take what has come for all there is.
    /// </summary>
    internal int EndOrReset() => _wasReset ? -Errno.ECONNRESET : 0;

    /// <summary>Counts what was sent, and notes a reset.</summary>
    internal int CountSent(int n)
    {
        if (n > 0) BytesSent += n;
        else if (n == -Errno.ECONNRESET && !_isDatagram) _wasReset = true;
        return n;
    }

    /// <summary>Counts what was received; whether there may be more.</summary>
    internal bool CountReceived(int n, bool isShort)
    {
        BytesReceived += n;
        return !isShort || _shortRead == ShortRead.ProvesNothing
            || State.HasSeen(StateWord.SeenReadClosed | StateWord.SeenError | StateWord.SeenUrgent);
    }

    /// <summary>send(2).</summary>
    internal override int Send(ReadOnlySpan<byte> buffer)
    {
        if (!TryHold(out var held)) return -Errno.EBADF;
        var n = SystemCalls.Send(_descriptor, buffer);
        held?.DangerousRelease();
        return CountSent(n);
    }

    internal override bool SendsEmpty => _isDatagram;

    /// <summary>Whether the connection attempt in progress has ended: 0, -EAGAIN or what it failed with.</summary>
    internal int Connected()
    {
        var n = SystemCalls.GetOption(_descriptor, SocketConstants.SOL_SOCKET, SocketConstants.SO_ERROR, out var error);
        if (n < 0) return n;
        if (error != 0) return -error;
        Span<byte> address = stackalloc byte[SocketConstants.AddressCapacity];
        n = SystemCalls.GetPeerName(_descriptor, address); // writable alone does not mean connected (mio#1942)
        return n == -Errno.ENOTCONN ? -Errno.EAGAIN : Math.Min(n, 0);
    }

    /// <summary>
    /// accept4(2) until a connection is there. Connections that failed while they waited are passed over, as accept(2)
    /// advises for Linux; after many of them in a row others on the loop go first.
    /// </summary>
    internal int Accept()
    {
        if (!TryHold(out var held)) return -Errno.EBADF;
        var n = SystemCalls.Accept(_descriptor);
        for (var i = 1; i < MaxAcceptSkips && IsOfFailedConnection(n); i++) n = SystemCalls.Accept(_descriptor);
        held?.DangerousRelease();
        if (!IsOfFailedConnection(n)) return n;
        if (_acceptOnQueued) return -Errno.EAGAIN;
        _acceptOnQueued = true; // first: it may run, and take this back, at once
        Loop.EnqueueOrPool(s_acceptOn, this);
        return -Errno.EAGAIN;
    }

    private void AcceptOn()
    {
        _acceptOnQueued = false; // before the try, which may queue it again
        OnReady(Readiness.Readable); // as if an edge had come
    }

    private static bool IsOfFailedConnection(int n) => n is -Errno.ECONNABORTED or -Errno.EPROTO or -Errno.ENETDOWN or -Errno.ENOPROTOOPT
        or -Errno.EHOSTDOWN or -Errno.ENONET or -Errno.EHOSTUNREACH or -Errno.ENETUNREACH or -Errno.EPERM;

    // ---- setting up: the maker's thread, before anybody else knows the socket

    internal int Bind(EndPoint endPoint) => SystemCalls.Bind(_descriptor, Address.Write(endPoint, stackalloc byte[SocketConstants.AddressCapacity]));

    internal int Listen(int backlog) => SystemCalls.Listen(_descriptor, backlog);

    internal int Connect(EndPoint endPoint) => SystemCalls.Connect(_descriptor, Address.Write(endPoint, stackalloc byte[SocketConstants.AddressCapacity]));

    // ---- calls that are no operation of a direction: under the lock under which the descriptor is closed

    internal int SetOption(int level, int name, int value)
    {
        lock (this)
        {
            using var held = HoldOpen();
            return SystemCalls.SetOption(_descriptor, level, name, value);
        }
    }

    internal EndPoint? EndPoint(bool remote)
    {
        Span<byte> address = stackalloc byte[SocketConstants.AddressCapacity];
        int n;
        lock (this)
        {
            using var held = HoldOpen();
            n = remote ? SystemCalls.GetPeerName(_descriptor, address) : SystemCalls.GetSocketName(_descriptor, address);
        }
        return n < 0 ? null : Address.Read(address.Slice(0, Math.Min(n, address.Length)), Address.Prototype(Family));
    }

    internal void Shutdown(int how)
    {
        lock (this)
        {
            using var held = HoldOpen();
            var n = SystemCalls.Shutdown(_descriptor, how);
            if (n < 0 && n != -Errno.ENOTCONN) throw SystemError.Socket(-n); // ENOTCONN: the connection is over already
        }
    }

    /// <summary>Makes the close that follows reset the connection.</summary>
    internal void ResetOnClose()
    {
        lock (this)
        {
            if (State.IsClosed || !TryHold(out var held)) return;
            _ = SystemCalls.SetResetOnClose(_descriptor);
            held?.DangerousRelease();
        }
    }

    internal override void ShutdownOnClose() => _shutdownOnClose = true;

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
        lock (this)
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
        lock (this)
        {
            if (State.IsClosed) throw new ObjectDisposedException(ObjectName);
            socket = GetSocket();
            _ownsSocket = false;
            _unlink = null;
        }
        Close();
        return socket;
    }

    /// <summary>How many were collected without having been disposed of; for tests, where that is a leak.</summary>
    internal static int Abandoned;

    /// <summary>Ends the attachment because the AsyncSocket was collected; a Socket has a finalizer of its own.</summary>
    internal void Abandon()
    {
        if (!State.IsClosed) Interlocked.Increment(ref Abandoned); // closed: moved away
        lock (this)
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
        lock (this)
        {
            if (_givenAway) return;
            if (_gone) _handle?.SetHandleAsInvalid();
            else if (_shutdownOnClose && _ownsSocket && TryHold(out var held))
            {
                _ = SystemCalls.Shutdown(_descriptor, SocketConstants.SHUT_RDWR);
                held?.DangerousRelease();
            }
            if (_socket is null && !_gone) SystemCalls.Close(_descriptor);
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
    private static ShortRead KindOf(SystemCalls calls, int descriptor, out bool isDatagram)
    {
        calls.Adopt(descriptor);
        isDatagram = Option(SocketConstants.SO_TYPE) != SocketConstants.SOCK_STREAM;
        if (isDatagram) return ShortRead.ProvesNothing;
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

    // ---- failures and the operations' objects

    internal override Exception Failure(int result) => result switch
    {
        -Errno.EBADF => new ObjectDisposedException(ObjectName),
        -Errno.ECANCELED => EventLoop.StoppedError(), // only from an accept whose target loop has stopped
        _ => SystemError.Socket(-result),
    };

    protected override TransferOperation NewOperation(Direction direction) => new SocketOperation(this, direction);

    internal void CheckIsStream()
    {
        if (_isDatagram) throw new NotSupportedException("A datagram socket is no stream: each receive gets one datagram.");
        if (State.IsClosed) throw new ObjectDisposedException(ObjectName);
    }

    /// <summary>The side that waits for the peer's hang-up, made when first asked for. Any thread.</summary>
    internal HangUpSide HangUp()
    {
        if (_isDatagram) throw new NotSupportedException("A datagram socket has no connection that closes.");
        if (Volatile.Read(ref _hangUp) is { } side) return side;
        lock (this)
        {
            if (_hangUp is not null) return _hangUp;
            if (State.IsEnded) throw EndedError();
            side = new HangUpSide(this);
            Add(side); // before anybody waits on it
            Volatile.Write(ref _hangUp, side);
            return side;
        }
    }

    internal SocketOperation Operation(Direction direction) => (SocketOperation)Transfers(direction);
}
