using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async.Native;

namespace Amy.Async;

// Files to a socket without a copy through this process (sendfile(2)).
public sealed partial class AsyncSocket
{
    /// <summary>Sends a part of a file, which the kernel copies from its cache to the connection.</summary>
    /// <param name="file">A regular file, open for reading. Its own position stays.</param>
    /// <param name="offset">Where to begin, in bytes.</param>
    /// <param name="count">How many bytes at most; the end of the file ends it earlier.</param>
    /// <param name="cancellationToken">Cancels the wait. A part may have been sent (see <see cref="BytesSent"/>).</param>
    /// <returns>The number of bytes sent.</returns>
    /// <remarks>What of the file is not in the kernel's cache is read from its disk, and the calling thread or the loop waits
    /// for that: there is no readiness of files.</remarks>
    /// <exception cref="ArgumentOutOfRangeException">Offset or count is negative.</exception>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="TimeoutException">It took longer than <see cref="SendTimeout"/>.</exception>
    /// <exception cref="SocketException">The connection failed; <see cref="SocketError.InvalidArgument"/>: not a file that can be
    /// sent.</exception>
    /// <exception cref="InvalidOperationException">Another operation of the writing direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed (also the file), or the loop has stopped.</exception>
    public ValueTask<long> SendFileAsync(SafeHandle file, long offset = 0, long count = long.MaxValue, CancellationToken cancellationToken = default)
    {
        if (file is null) throw new ArgumentNullException(nameof(file));
        if (offset < 0) throw new ArgumentOutOfRangeException(nameof(offset), offset, "An offset is zero or positive.");
        if (count < 0) throw new ArgumentOutOfRangeException(nameof(count), count, "A count is zero or positive.");
        if (cancellationToken.IsCancellationRequested) return new ValueTask<long>(Task.FromCanceled<long>(cancellationToken));
        var begun = _source.Begin(Direction.Write, out var deferred);
        var action = _source.Operation(Direction.Write).Action<SendFileAction>();
        action.Begin(file, offset, count);
        return action.Start(this, _source, Direction.Write, begun == StateWord.BeginResult.Attempt, deferred, cancellationToken);
    }

    private sealed class SendFileAction : SocketAction<long>
    {
        private const int MaxAtOnce = 1 << 20; // bytes of one call

        private SafeHandle? _file;
        private long _offset;
        private long _count;

        internal void Begin(SafeHandle file, long offset, long count)
        {
            _file = file;
            _offset = offset;
            _count = count;
            Result = 0;
        }

        internal override int Attempt(SocketSource socket, out bool ready)
        {
            ready = true;
            var sent = 0L;
            while (Result < _count)
            {
                var n = Send(socket, (int)Math.Min(_count - Result, MaxAtOnce));
                if (socket.CountSent(n) < 0) return n;
                if (n == 0) return 0; // the end of the file
                Result += n;
                sent += n;
                if (Result < _count && socket.MustYield(sent)) return -Errno.EAGAIN;
            }
            return 0;
        }

        private int Send(SocketSource socket, int count)
        {
            var added = false;
            _file!.DangerousAddRef(ref added); // throws if it is closed
            try
            {
                if (!socket.TryHold(out var held)) return -Errno.EBADF;
                var n = socket.SystemCalls.SendFile(socket.FileDescriptor, (int)_file.DangerousGetHandle(), _offset + Result, count);
                held?.DangerousRelease();
                return n == -Errno.EBADF ? -Errno.EINVAL : n; // both are open: the file is, but not for reading
            }
            finally
            {
                if (added) _file.DangerousRelease();
            }
        }

        internal override void Release() => _file = null;
    }
}
