using System.Buffers;
using System.Net.Sockets;
using Amy.Async.Native;

namespace Amy.Async;

// Scatter and gather: several buffers as if they were one (readv(2), writev(2)).
public sealed partial class AsyncSocket
{
    /// <summary>Sends all of the buffers, one after the other, with as few system calls as the kernel's buffer allows.</summary>
    /// <param name="buffers">What; must stay unchanged until the operation has ended. On a datagram socket they are one
    /// datagram, of at most 64 buffers.</param>
    /// <param name="cancellationToken">Cancels the wait. A part may have been sent (see <see cref="BytesSent"/>): the stream is
    /// broken then, and best closed.</param>
    /// <returns>The length of all.</returns>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="TimeoutException">It took longer than <see cref="SendTimeout"/>.</exception>
    /// <exception cref="SocketException">The connection failed.</exception>
    /// <exception cref="InvalidOperationException">Another operation of the writing direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public ValueTask<long> SendAsync(ReadOnlySequence<byte> buffers, CancellationToken cancellationToken = default) =>
        SendVectors(buffers, null, cancellationToken);

    /// <inheritdoc cref="SendAsync(ReadOnlySequence{byte}, CancellationToken)"/>
    public ValueTask<long> SendAsync(IList<ArraySegment<byte>> buffers, CancellationToken cancellationToken = default)
    {
        if (buffers is null) throw new ArgumentNullException(nameof(buffers));
        return SendVectors(default, buffers, cancellationToken);
    }

    private ValueTask<long> SendVectors(ReadOnlySequence<byte> sequence, IList<ArraySegment<byte>>? list, CancellationToken token)
    {
        if (token.IsCancellationRequested) return new ValueTask<long>(Task.FromCanceled<long>(token));
        var begun = _source.Begin(Direction.Write, out var deferred);
        var action = _source.Operation(Direction.Write).Action<SendVectorsAction>();
        action.Begin(sequence, list);
        return action.Start(this, _source, Direction.Write, begun == StateWord.BeginResult.Attempt, deferred, token);
    }

    /// <summary>Receives what is there into several buffers, which are filled one after the other, or waits until something
    /// is.</summary>
    /// <param name="buffers">Where to; must stay valid until the operation has ended. Of more than 64 the rest is not
    /// used.</param>
    /// <param name="cancellationToken">Cancels the wait; a cancelled receive has taken no data.</param>
    /// <returns>The number of bytes in all; 0 at the end of the stream.</returns>
    /// <exception cref="ArgumentException">There is no room in the buffers.</exception>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="TimeoutException">It took longer than <see cref="ReceiveTimeout"/>.</exception>
    /// <exception cref="SocketException">The connection failed.</exception>
    /// <exception cref="InvalidOperationException">Another operation of the reading direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public ValueTask<int> ReceiveAsync(IList<ArraySegment<byte>> buffers, CancellationToken cancellationToken = default)
    {
        if (buffers is null) throw new ArgumentNullException(nameof(buffers));
        if (!HasRoom(buffers)) throw new ArgumentException("There is no room in the buffers.", nameof(buffers));
        if (cancellationToken.IsCancellationRequested) return new ValueTask<int>(Task.FromCanceled<int>(cancellationToken));
        var begun = _source.Begin(Direction.Read, out var deferred);
        var action = _source.Operation(Direction.Read).Action<ReceiveVectorsAction>();
        action.Buffers = buffers;
        return action.Start(this, _source, Direction.Read, begun == StateWord.BeginResult.Attempt, deferred, cancellationToken);
    }

    private static bool HasRoom(IList<ArraySegment<byte>> buffers)
    {
        for (var i = 0; i < buffers.Count; i++)
            if (buffers[i].Count > 0) return true;
        return false;
    }

    /// <summary>sendmsg(2) of one window of buffers after the other.</summary>
    private sealed class SendVectorsAction : SocketAction<long>
    {
        private readonly PinnedVectors _vectors = new();
        private ReadOnlySequence<byte> _sequence; // what is left of it
        private IList<ArraySegment<byte>>? _list;
        private int _index; // the buffer of the list that is next
        private int _offset; // and what has been sent of it

        internal void Begin(ReadOnlySequence<byte> sequence, IList<ArraySegment<byte>>? list)
        {
            _sequence = sequence;
            _list = list;
            _index = _offset = 0;
            Result = 0;
        }

        internal override int Attempt(SocketSource socket, out bool ready)
        {
            ready = true;
            var sent = 0L;
            while (true)
            {
                try
                {
                    Collect();
                    if (_vectors.Count == 0 && (Result > 0 || !socket.SendsEmpty)) return 0;
                    if (socket.SendsEmpty && _vectors.IsFull && _vectors.Length < Length()) return -Errno.EMSGSIZE; // one datagram: all or nothing
                    if (!socket.TryHold(out var held)) return -Errno.EBADF;
                    var n = socket.SystemCalls.SendMessage(socket.FileDescriptor, _vectors.Vectors, default, default, 0);
                    held?.DangerousRelease();
                    if (socket.CountSent(n) < 0) return n;
                    Result += n;
                    sent += n;
                    if (socket.SendsEmpty) return 0; // one datagram
                    if (!Advance(n)) return 0;
                }
                finally
                {
                    _vectors.Clear();
                }
                if (socket.MustYield(sent)) return -Errno.EAGAIN;
            }
        }

        private long Length()
        {
            if (_list is null) return _sequence.Length;
            var length = 0L;
            foreach (var segment in _list) length += segment.Count;
            return length;
        }

        private void Collect()
        {
            if (_list is null)
            {
                foreach (var segment in _sequence)
                {
                    if (_vectors.IsFull) return;
                    _vectors.Add(segment);
                }
                return;
            }
            for (var i = _index; i < _list.Count && !_vectors.IsFull; i++)
                _vectors.Add(i == _index ? _list[i].AsMemory(_offset) : _list[i].AsMemory());
        }

        // False: all is sent.
        private bool Advance(int n)
        {
            if (_list is null)
            {
                _sequence = _sequence.Slice(n);
                return !_sequence.IsEmpty;
            }
            while (_index < _list.Count && n >= _list[_index].Count - _offset)
            {
                n -= _list[_index++].Count - _offset;
                _offset = 0;
            }
            _offset += n;
            return _index < _list.Count;
        }

        internal override void Release()
        {
            _sequence = default;
            _list = null;
        }
    }

    /// <summary>recvmsg(2) into several buffers.</summary>
    private sealed class ReceiveVectorsAction : SocketAction<int>
    {
        private readonly PinnedVectors _vectors = new();

        internal IList<ArraySegment<byte>>? Buffers;

        internal override int Attempt(SocketSource socket, out bool ready)
        {
            ready = true;
            try
            {
                for (var i = 0; i < Buffers!.Count && !_vectors.IsFull; i++) _vectors.Add(Buffers[i].AsMemory());
                if (!socket.TryHold(out var held)) return -Errno.EBADF;
                var flags = 0;
                Result = socket.SystemCalls.ReceiveMessage(socket.FileDescriptor, _vectors.Vectors, default, out _, default, out _, ref flags);
                held?.DangerousRelease();
                if (Result > 0) ready = socket.CountReceived(Result, Result < _vectors.Length && (flags & SocketConstants.MSG_CTRUNC) == 0);
                return Result == 0 ? socket.EndOrReset() : Result;
            }
            finally
            {
                _vectors.Clear();
            }
        }

        internal override void Release() => Buffers = null;
    }
}
