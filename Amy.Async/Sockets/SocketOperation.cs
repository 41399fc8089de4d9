using System.Buffers;
using System.Runtime.InteropServices;
using System.Threading.Tasks.Sources;

namespace Amy.Async;

/// <summary>What only a socket's operations can be: accepting, connecting, and whatever a <see cref="SocketAction"/> does.</summary>
internal sealed class SocketOperation : TransferOperation, IValueTaskSource<AsyncSocket>
{
    private AcceptState? _accept; // made by the first accept that waits
    private SocketAction? _action;
    private SocketAction? _actions; // those that this direction has had, a list

    internal SocketOperation(SocketSource source, Direction direction) : base(source, direction)
    {
    }

    private SocketSource Socket => (SocketSource)Source;

    // An accept that was put off saw no drained queue: the next one must try.
    protected override bool RemainsReady => Ready || What == Kind.Accept && _accept!.Exhausted;

    // ---- starting: the caller holds Busy, and has tried already if the direction was ready

    internal ValueTask<AsyncSocket> Accept(AsyncSocket owner, EventLoop target, bool exhausted, bool deferred, CancellationToken token)
    {
        _accept ??= new AcceptState();
        _accept.Target = target;
        _accept.Accepted = null;
        _accept.Exhausted = exhausted;
        return new ValueTask<AsyncSocket>(this, Begin(owner, Kind.Accept, deferred, token));
    }

    internal ValueTask Connect(AsyncSocket owner, bool deferred, CancellationToken token) =>
        new(this, Begin(owner, Kind.Connect, deferred, token));

    internal short Act(AsyncSocket owner, SocketAction action, bool deferred, CancellationToken token)
    {
        _action = action;
        return Begin(owner, Kind.Action, deferred, token);
    }

    /// <summary>This direction's object for a kind of action, made when first asked for. The caller holds Busy.</summary>
    internal T Action<T>() where T : SocketAction, new()
    {
        for (var action = _actions; action is not null; action = action.Next)
            if (action is T found) return found;
        var made = new T { Operation = this, Next = _actions };
        _actions = made;
        return made;
    }

    // ---- trying: whoever holds Inside

    // The common case outside of a try, where the runtime calls the kernel without a stub, and in the one method of
    // EventLoop.SomeTurns (a round trip over a Unix-domain pair takes 2 % less). Nothing in it throws: only a memory manager runs
    // code of its own (its TryGetArray too), and a socket's handle is the platform's.
    protected override bool Attempt() =>
        What == Kind.Receive && !MemoryMarshal.TryGetMemoryManager<byte, MemoryManager<byte>>(Buffer, out _) ? TryReceive(Buffer.Span) : base.Attempt();

    protected override bool Try() => What switch
    {
        Kind.Accept => TryAccept(),
        Kind.Connect => Ended(Socket.Connected(), ready: true),
        Kind.Action => TryAction(),
        _ => base.Try(),
    };

    private bool TryAction()
    {
        var n = _action!.Attempt(Socket, out var ready);
        return Ended(n, ready || n < 0);
    }

    private bool TryAccept()
    {
        var accept = _accept!;
        if (accept.Backoff is { IsWaiting: true }) return false; // edges do not shorten it
        var n = AsyncSocket.TryAccept(Socket, accept.Target!, out accept.Accepted);
        accept.Exhausted = AcceptBackoff.IsExhaustion(n);
        if (!accept.Exhausted)
        {
            if (n >= 0) accept.Backoff?.Reset();
            if (n >= 0 && Loop.IsCurrent) Loop.CountAccept();
            return Ended(n, ready: true);
        }
        if (Loop.IsCurrent) BackOff(accept);
        return false;
    }

    private void BackOff(AcceptState accept)
    {
        accept.Backoff ??= new AcceptBackoff(Source);
        accept.Backoff.Start();
    }

    // The timer belongs to the loop: on another thread, have it look.
    protected override void OnArmed()
    {
        if (What == Kind.Accept && _accept!.Exhausted || What == Kind.Action && _action is { MustLook: true }) RequestLook();
    }

    protected override bool Examine()
    {
        if (What == Kind.Action) return _action!.Examine();
        if (What == Kind.Accept && _accept!.Exhausted && _accept.Backoff is not { IsWaiting: true }) BackOff(_accept);
        return false;
    }

    protected override void OnCompleting()
    {
        base.OnCompleting();
        if (What == Kind.Accept) _accept!.Target = null;
        _action?.Release();
        _action = null;
    }

    AsyncSocket IValueTaskSource<AsyncSocket>.GetResult(short token)
    {
        var accept = _accept!;
        var accepted = accept.Accepted;
        Finish(token);
        Interlocked.CompareExchange(ref accept.Accepted, null, accepted); // the listener does not keep it alive
        return accepted!;
    }

    /// <summary>What only accepting needs.</summary>
    private sealed class AcceptState
    {
        internal EventLoop? Target; // where the connection goes
        internal AsyncSocket? Accepted;
        internal bool Exhausted; // no descriptors or memory were left
        internal AcceptBackoff? Backoff;
    }
}
