using System.Buffers;
using System.Net.Sockets;

namespace Amy.Async;

// Receiving into memory that is asked for when there is something to receive.
public sealed partial class AsyncSocket
{
    /// <summary>
    /// Receives what is there into a writer's memory, or waits until something is. The writer is asked for memory just before
    /// each system call, so a receive that waits holds none.
    /// </summary>
    /// <param name="writer">Where to. After each call it is told by <see cref="IBufferWriter{T}.Advance"/> how many bytes came:
    /// 0 if there was nothing yet, at the end of the stream, and after a failure, so that one that rents its memory can give it
    /// back. It is called on the thread of the caller, or, for a receive that waits, on the loop's.</param>
    /// <param name="cancellationToken">Cancels the wait; a cancelled receive has taken no data.</param>
    /// <returns>The number of bytes; 0 at the end of the stream.</returns>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="TimeoutException">It took longer than <see cref="ReceiveTimeout"/>.</exception>
    /// <exception cref="SocketException">The connection failed.</exception>
    /// <exception cref="InvalidOperationException">Another operation of the reading direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public ValueTask<int> ReceiveAsync(IBufferWriter<byte> writer, CancellationToken cancellationToken = default)
    {
        if (writer is null) throw new ArgumentNullException(nameof(writer));
        if (cancellationToken.IsCancellationRequested) return new ValueTask<int>(Task.FromCanceled<int>(cancellationToken));
        var begun = _source.Begin(Direction.Read, out var deferred);
        var action = _source.Operation(Direction.Read).Action<ReceiveIntoWriterAction>();
        action.Writer = writer;
        return action.Start(this, _source, Direction.Read, begun == StateWord.BeginResult.Attempt, deferred, cancellationToken);
    }

    private sealed class ReceiveIntoWriterAction : SocketAction<int>
    {
        internal IBufferWriter<byte>? Writer;

        internal override int Attempt(SocketSource socket, out bool ready)
        {
            var n = socket.Receive(Writer!.GetSpan(), out ready);
            Result = Math.Max(n, 0);
            Writer.Advance(Result);
            return n;
        }

        internal override void Release() => Writer = null;
    }
}
