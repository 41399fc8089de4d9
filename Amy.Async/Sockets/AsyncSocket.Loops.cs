using System.Net;
using System.Net.Sockets;

namespace Amy.Async;

// Many loops: a listener for each, and connections that move.
public sealed partial class AsyncSocket
{
    /// <summary>A listener on each loop of a group, all on one port; the kernel spreads the connections (SO_REUSEPORT).</summary>
    /// <remarks>The kernel spreads by a hash of the addresses: with few connections, unevenly. To hand out connections in turn,
    /// accept on one loop with <see cref="AcceptAsync(EventLoop, CancellationToken)"/> and
    /// <see cref="EventLoopGroup.Next"/>.</remarks>
    /// <param name="endPoint">An IP end point; with port 0 the kernel chooses one for all.</param>
    /// <param name="group">The loops.</param>
    /// <param name="options">Null for the defaults; <see cref="AsyncSocketOptions.ReusePort"/> is taken for granted.</param>
    /// <exception cref="NotSupportedException">Not an IP end point: elsewhere no port can be shared. Accept on one loop
    /// instead.</exception>
    /// <exception cref="SocketException">The address is in use, not ours, …</exception>
    public static IReadOnlyList<AsyncSocket> ListenOnEach(EndPoint endPoint, EventLoopGroup group, AsyncSocketOptions? options = null)
    {
        if (endPoint is null) throw new ArgumentNullException(nameof(endPoint));
        if (group is null) throw new ArgumentNullException(nameof(group));
        if (endPoint is not IPEndPoint)
            throw new NotSupportedException("Only IP end points can be shared by several listeners. Listen on one loop and hand the connections to the others: AcceptAsync(group.Next()).");
        var shared = (options ?? s_defaultOptions) with { ReusePort = true };
        var listeners = new List<AsyncSocket>(group.Loops.Count);
        try
        {
            foreach (var loop in group.Loops)
            {
                listeners.Add(Listen(endPoint, shared, loop));
                endPoint = listeners[0].LocalEndPoint!; // the port that the kernel chose
            }
        }
        catch
        {
            foreach (var listener in listeners) listener.Dispose();
            throw;
        }
        return listeners;
    }

    /// <summary>
    /// Hands the socket over to another loop. What has arrived, or arrives meanwhile, is received there. This object ends, as
    /// if it were disposed, without closing the connection; waits for its hang-up (<see cref="ClosedAsync"/>) end with an
    /// <see cref="ObjectDisposedException"/>.
    /// </summary>
    /// <param name="target">The loop to move to; if it is this one, nothing happens.</param>
    /// <returns>The socket, attached to the target. It comes at once, on the calling thread: <c>await target.SwitchTo()</c> follows
    /// it.</returns>
    /// <remarks>Time-outs, counts and the <see cref="Socket"/>, if there is one, go along. Streams and pipes over this object end
    /// with it: move first.</remarks>
    /// <exception cref="InvalidOperationException">An operation is in progress, or one that had to wait has ended, but was not
    /// awaited: its result would be lost. Nothing has happened.</exception>
    /// <exception cref="ObjectDisposedException">Disposed; or one of the loops has stopped: then nothing has happened.</exception>
    public ValueTask<AsyncSocket> MoveToAsync(EventLoop target)
    {
        if (target is null) throw new ArgumentNullException(nameof(target));
        if (target == Loop) return new ValueTask<AsyncSocket>(this);
        var moved = new AsyncSocket(_source.MoveTo(target));
        GC.KeepAlive(this); // its finalizer closes
        return new ValueTask<AsyncSocket>(moved);
    }
}
