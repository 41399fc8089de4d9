using System.Runtime.InteropServices;

namespace Amy.Async;

// From one loop to another.
internal sealed partial class SocketSource
{
    /// <summary>Takes the place of a source of another loop; the caller holds both directions of that, and its lock.</summary>
    private SocketSource(EventLoop loop, SocketSource from) : base(loop)
    {
        _descriptor = from._descriptor;
        _shortRead = from._shortRead;
        _isDatagram = from._isDatagram;
        _isForeign = from._isForeign;
        _socket = from._socket;
        _handle = from._handle;
        _ownsSocket = from._ownsSocket;
        _wasReset = from._wasReset;
        _unlink = from._unlink;
        Family = from.Family;
        ContinueFrom(from);
    }

    /// <summary>
    /// Hands the descriptor to a source of another loop; this one ends without closing it. It is registered there before it is
    /// removed here: what is ready counts as an edge there, so none is lost.
    /// </summary>
    /// <remarks>Holding both directions (Inside) keeps the descriptor open and others out. The lock comes first, because
    /// <see cref="GetSocket"/> waits under it for those who are inside. Story: another thread disposes this meanwhile. Its Close
    /// leaves the descriptor to the last one inside, which is us; our own Close then finds that it came second, and the
    /// descriptor is closed by way of the new source.</remarks>
    internal SocketSource MoveTo(EventLoop target)
    {
        SocketSource moved;
        bool disposed;
        lock (this)
        {
            BeginMove(Direction.Read);
            try
            {
                BeginMove(Direction.Write);
            }
            catch
            {
                End(Direction.Read, ready: true);
                throw;
            }
            moved = new SocketSource(target, this);
            SafeHandle? held = null;
            try
            {
                if (!TryHold(out held)) throw new ObjectDisposedException(ObjectName);
                target.Attach(moved, _descriptor, Interest.Both | Interest.Priority);
                _givenAway = true;
            }
            catch
            {
                End(Direction.Read, ready: true);
                End(Direction.Write, ready: true);
                throw;
            }
            finally
            {
                held?.DangerousRelease();
            }
            disposed = !Close(); // under the lock: nobody makes a Socket of what is given away
        }
        End(Direction.Read, ready: false);
        End(Direction.Write, ready: false); // the last: CloseDescriptor finds it given away
        if (!disposed) return moved;
        moved.Close();
        throw new ObjectDisposedException(ObjectName);
    }

    private void BeginMove(Direction direction)
    {
        var result = State.Begin(direction, force: true, keep: true);
        if (result == StateWord.BeginResult.Attempt) return;
        if (result == StateWord.BeginResult.Busy && State.IsDone(direction, State.Version(direction)) == true)
            throw new InvalidOperationException($"The last {(direction == Direction.Read ? "reading" : "writing")} operation of this {ObjectName} has ended, but its result was not fetched and would be lost. Await it, then move.");
        throw CannotBegin(direction, result);
    }
}
