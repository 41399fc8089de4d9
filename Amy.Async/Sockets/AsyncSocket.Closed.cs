using Amy.Async.Native;

namespace Amy.Async;

// The peer's hang-up, told to somebody who does not read.
public sealed partial class AsyncSocket
{
    /// <summary>
    /// Waits until the peer has closed the connection, or its sending half, or the connection broke: also while data is there
    /// that nobody has read, and besides the operations of both directions. What it is for: to give up work whose client
    /// has gone.
    /// </summary>
    /// <remarks>TCP does not tell a client that has only finished sending (<see cref="Shutdown"/>) from one that has closed;
    /// both end this wait. A peer that vanished without a word ends it when the kernel finds out
    /// (<see cref="AsyncSocketOptions.KeepAlive"/>, or a send that is not acknowledged).</remarks>
    /// <param name="cancellationToken">Ends the wait.</param>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="InvalidOperationException">Another wait for the same is in progress.</exception>
    /// <exception cref="NotSupportedException">Datagrams have no connection that closes.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public ValueTask ClosedAsync(CancellationToken cancellationToken = default) => _source.HangUp().WaitAsyncFor(this, cancellationToken);
}

/// <summary>The hang-up of a connection: sticky, as the kernel reports it with every event from then on.</summary>
internal sealed class HangUpSide(SocketSource parent) : ReadinessSide(parent.Loop, Readiness.ReadClosed | Readiness.WriteClosed | Readiness.Error)
{
    protected override string ObjectName => nameof(AsyncSocket);

    // Story: a waiter looks here, then arms; the loop notes what it has seen, then gives this its edge. Whichever comes
    // later finds the other's trace: either this is true, or the wait is armed (or finds the edge, and does not arm).
    protected override bool IsMet => parent.State.HasSeen(StateWord.SeenReadClosed | StateWord.SeenWriteClosed | StateWord.SeenError);

    protected override InvalidOperationException Busy(Direction direction) => new("Another ClosedAsync of this AsyncSocket is in progress.");
}
