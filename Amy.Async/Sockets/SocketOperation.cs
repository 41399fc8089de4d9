using System.Threading.Tasks.Sources;
using Amy.Async.Native;

namespace Amy.Async;

/// <summary>
/// The waiting operation of one direction of a socket. What it does when the edge comes depends on its kind; all of its
/// fields are set under Busy and let go of when it completes.
/// </summary>
internal sealed class SocketOperation : Operation, IValueTaskSource<int>, IValueTaskSource<Readiness>, IValueTaskSource<AsyncSocket>, IValueTaskSource
{
    private enum Kind : byte
    {
        Receive,
        Send,
        Accept,
        Connect,
        Readiness,
        ReceiveNothing,
    }

    private readonly SocketSource _socket;
    private readonly Direction _side;
    private Kind _kind;
    private Memory<byte> _receiveBuffer;
    private ReadOnlyMemory<byte> _sendBuffer;
    private EventLoop? _target; // accept: where the connection goes
    private AsyncSocket? _owner; // kept alive while the operation waits: the caller may have let go of it

    private int _count; // the result, or what has been sent so far
    private bool _ready; // whether the direction may still be ready after the result
    private Readiness _readiness;
    private AsyncSocket? _accepted;
    private bool _exhausted; // accept found no descriptors or memory
    private AcceptBackoff? _backoff;

    internal SocketOperation(SocketSource source, Direction direction) : base(source, direction)
    {
        _socket = source;
        _side = direction;
    }

    // An accept that was put off saw no drained queue: the next one must try.
    protected override bool RemainsReady => _ready || _exhausted;

    // ---- starting: the caller holds Busy, and has tried already if the direction was ready

    internal ValueTask<int> Receive(AsyncSocket owner, Memory<byte> buffer, bool deferred, CancellationToken token)
    {
        _receiveBuffer = buffer;
        var version = Begin(owner, buffer.IsEmpty ? Kind.ReceiveNothing : Kind.Receive);
        Start(deferred, token);
        return new ValueTask<int>(this, version);
    }

    internal ValueTask<int> Send(AsyncSocket owner, ReadOnlyMemory<byte> buffer, int sent, bool deferred, CancellationToken token)
    {
        _sendBuffer = buffer;
        var version = Begin(owner, Kind.Send);
        _count = sent;
        Start(deferred, token);
        return new ValueTask<int>(this, version);
    }

    internal ValueTask<AsyncSocket> Accept(AsyncSocket owner, EventLoop target, bool exhausted, bool deferred, CancellationToken token)
    {
        _target = target;
        var version = Begin(owner, Kind.Accept);
        _exhausted = exhausted;
        Start(deferred, token);
        return new ValueTask<AsyncSocket>(this, version);
    }

    internal ValueTask Connect(AsyncSocket owner, bool deferred, CancellationToken token)
    {
        var version = Begin(owner, Kind.Connect);
        Start(deferred, token);
        return new ValueTask(this, version);
    }

    internal ValueTask<Readiness> Wait(AsyncSocket owner, bool deferred, CancellationToken token)
    {
        var version = Begin(owner, Kind.Readiness);
        Start(deferred, token);
        return new ValueTask<Readiness>(this, version);
    }

    private short Begin(AsyncSocket owner, Kind kind)
    {
        _owner = owner;
        _kind = kind;
        _count = 0;
        _ready = false;
        _accepted = null;
        _exhausted = false;
        return Version;
    }

    // ---- trying: whoever holds Inside

    protected override bool Attempt()
    {
        try
        {
            return Try();
        }
        catch (Exception e) // a buffer whose owner has let go of it
        {
            Error = e;
            return _ready = true;
        }
    }

    private bool Try() => _kind switch
    {
        Kind.Receive => Received(_socket.Receive(_receiveBuffer.Span, out _ready)),
        Kind.Send => AttemptSend(),
        Kind.Accept => AttemptAccept(),
        Kind.Connect => Ended(_socket.Connected()),
        _ => Ended(_socket.Poll(_side, out _readiness)),
    };

    private bool Received(int n)
    {
        if (n >= 0) _count = n;
        return Ended(n);
    }

    private bool AttemptSend()
    {
        var n = _socket.SendAll(_sendBuffer.Span.Slice(_count));
        if (n < 0) return Ended(n);
        _count += n;
        return _count < _sendBuffer.Length ? Ended(-Errno.EAGAIN) : Ended(0);
    }

    private bool AttemptAccept()
    {
        if (_backoff is { IsWaiting: true }) return false; // edges do not shorten it
        var n = AsyncSocket.TryAccept(_socket, _target!, out _accepted);
        _exhausted = AcceptBackoff.IsExhaustion(n);
        if (!_exhausted)
        {
            if (n >= 0) _backoff?.Reset();
            return Ended(n);
        }
        if (Loop.IsCurrent) BackOff();
        return false;
    }

    private void BackOff()
    {
        _backoff ??= new AcceptBackoff(Source);
        _backoff.Start();
    }

    // The timer belongs to the loop: on another thread, have it look.
    protected override void OnArmed()
    {
        if (_exhausted) RequestLook();
    }

    protected override bool Examine()
    {
        if (_exhausted && _backoff is not { IsWaiting: true }) BackOff();
        return false;
    }

    // EAGAIN goes on waiting; everything else ends the operation, and what follows an error or an end may be there at once.
    private bool Ended(int n)
    {
        if (n == -Errno.EAGAIN) return false;
        if (n < 0) Error = Failure(n);
        if (_kind != Kind.Receive || n <= 0) _ready = true;
        return true;
    }

    internal static Exception Failure(int n) => n switch
    {
        -Errno.EBADF => new ObjectDisposedException(nameof(AsyncSocket)),
        -Errno.ECANCELED => EventLoop.StoppedError(), // only from an accept whose target loop has stopped
        _ => SystemError.Socket(-n),
    };

    protected override void OnCompleting()
    {
        _receiveBuffer = default;
        _sendBuffer = default;
        _target = null;
        _owner = null;
    }

    int IValueTaskSource<int>.GetResult(short token)
    {
        var count = _count;
        ThrowIf(Fetch(token));
        return count;
    }

    Readiness IValueTaskSource<Readiness>.GetResult(short token)
    {
        var readiness = _readiness;
        ThrowIf(Fetch(token));
        return readiness;
    }

    AsyncSocket IValueTaskSource<AsyncSocket>.GetResult(short token)
    {
        var accepted = _accepted;
        ThrowIf(Fetch(token));
        Interlocked.CompareExchange(ref _accepted, null, accepted); // the listener does not keep it alive
        return accepted!;
    }

    void IValueTaskSource.GetResult(short token) => ThrowIf(Fetch(token));
}
