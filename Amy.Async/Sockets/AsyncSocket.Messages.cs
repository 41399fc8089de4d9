using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async.Native;
using Microsoft.Win32.SafeHandles;

namespace Amy.Async;

// Messages with control data: time stamps, packet information, descriptors (recvmsg(2), sendmsg(2), cmsg(3)).
public sealed partial class AsyncSocket
{
    private const int MaxDescriptors = 253; // SCM_MAX_FD of the kernel

    /// <summary>Receives one datagram, or what is there of a stream, and what the kernel tells about it.</summary>
    /// <param name="data">Where to.</param>
    /// <param name="control">Where the control messages go: <see cref="ControlMessage.GetSpace"/> bytes for each one. May be
    /// empty; 256 bytes hold what the options of <see cref="AsyncSocketOptions"/> ask for. Must stay valid as long as the
    /// control messages of the result are looked at.</param>
    /// <param name="remote">Gets the sender's address; null: of no interest.</param>
    /// <param name="cancellationToken">Cancels the wait; nothing was taken.</param>
    /// <returns>Length, flags (truncated), control messages and descriptors that came with it.</returns>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="TimeoutException">It took longer than <see cref="ReceiveTimeout"/>.</exception>
    /// <exception cref="SocketException">The connection failed, …</exception>
    /// <exception cref="InvalidOperationException">Another operation of the reading direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public ValueTask<ReceivedMessage> ReceiveMessageAsync(Memory<byte> data, Memory<byte> control, SocketAddress? remote = null, CancellationToken cancellationToken = default)
    {
        if (cancellationToken.IsCancellationRequested) return new ValueTask<ReceivedMessage>(Task.FromCanceled<ReceivedMessage>(cancellationToken));
        var begun = _source.Begin(Direction.Read, out var deferred);
        var action = _source.Operation(Direction.Read).Action<ReceiveMessageAction>();
        action.Begin(data, control, remote);
        return action.Start(this, _source, Direction.Read, begun == StateWord.BeginResult.Attempt, deferred, cancellationToken);
    }

    /// <summary>
    /// Sends data and with it descriptors, over a Unix-domain socket: the receiving process gets descriptors of the same open
    /// files (SCM_RIGHTS of <c>unix(7)</c>), in <see cref="ReceivedMessage.Descriptors"/>.
    /// </summary>
    /// <param name="data">At least one byte on a stream; the descriptors arrive with the first.</param>
    /// <param name="handles">1 to 253 descriptors. They stay open here, and the caller's.</param>
    /// <param name="cancellationToken">Cancels the wait.</param>
    /// <returns>The length of the data.</returns>
    /// <exception cref="ArgumentException">No data, no descriptors, or too many.</exception>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="TimeoutException">It took longer than <see cref="SendTimeout"/>.</exception>
    /// <exception cref="SocketException">The connection failed; not a Unix-domain socket.</exception>
    /// <exception cref="InvalidOperationException">Another operation of the writing direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed (also one of the handles), or the loop has stopped.</exception>
    public ValueTask<int> SendDescriptorsAsync(ReadOnlyMemory<byte> data, IReadOnlyList<SafeHandle> handles, CancellationToken cancellationToken = default)
    {
        if (handles is null) throw new ArgumentNullException(nameof(handles));
        if (handles.Count is < 1 or > MaxDescriptors) throw new ArgumentException($"1 to {MaxDescriptors} descriptors go with one message, not {handles.Count}.", nameof(handles));
        if (data.IsEmpty) throw new ArgumentException("Descriptors travel with at least one byte of data.", nameof(data));
        if (cancellationToken.IsCancellationRequested) return new ValueTask<int>(Task.FromCanceled<int>(cancellationToken));
        var begun = _source.Begin(Direction.Write, out var deferred);
        var action = _source.Operation(Direction.Write).Action<SendDescriptorsAction>();
        action.Begin(data, handles);
        return action.Start(this, _source, Direction.Write, begun == StateWord.BeginResult.Attempt, deferred, cancellationToken);
    }

    private sealed class ReceiveMessageAction : SocketAction<ReceivedMessage>
    {
        private Memory<byte> _data;
        private Memory<byte> _control;
        private SocketAddress? _remote;

        internal void Begin(Memory<byte> data, Memory<byte> control, SocketAddress? remote)
        {
            _data = data;
            _control = control;
            _remote = remote;
            Result = default;
        }

        internal override int Attempt(SocketSource socket, out bool ready)
        {
            ready = true;
            if (!socket.TryHold(out var held)) return -Errno.EBADF;
            Span<byte> address = stackalloc byte[SocketConstants.AddressCapacity];
            var flags = 0;
            int n, addressLength, controlLength;
            try
            {
                n = socket.SystemCalls.ReceiveMessage(socket.FileDescriptor, _data.Span, _remote is null ? default : address, out addressLength, _control.Span, out controlLength, ref flags);
            }
            finally
            {
                held?.DangerousRelease();
            }
            if (n < 0) return n;
            var control = _control.Slice(0, controlLength);
            Result = new ReceivedMessage(n, flags, control, TakeDescriptors(control.Span)); // first: from here on the descriptors have an owner
            if (_remote is not null) Compat.SocketInterop.Assign(_remote, address.Slice(0, Math.Min(addressLength, address.Length)));
            if (n > 0) ready = socket.CountReceived(n, n < _data.Length && controlLength == 0 && (flags & SocketConstants.MSG_CTRUNC) == 0);
            return n == 0 ? socket.EndOrReset() : n;
        }

        private static SafeFileHandle[] TakeDescriptors(ReadOnlySpan<byte> control)
        {
            var handles = Array.Empty<SafeFileHandle>();
            foreach (var message in new ControlMessages(control))
            {
                if (message.Level != SocketConstants.SOL_SOCKET || message.Type != SocketConstants.SCM_RIGHTS) continue;
                var numbers = MemoryMarshal.Cast<byte, int>(message.Data);
                var start = handles.Length;
                Array.Resize(ref handles, start + numbers.Length);
                for (var i = 0; i < numbers.Length; i++) handles[start + i] = new SafeFileHandle((IntPtr)numbers[i], ownsHandle: true);
            }
            return handles;
        }

        internal override void Release()
        {
            _data = default;
            _control = default;
            _remote = null;
        }
    }

    private sealed class SendDescriptorsAction : SocketAction<int>
    {
        private readonly PinnedVectors _vectors = new();
        private ReadOnlyMemory<byte> _data;
        private IReadOnlyList<SafeHandle>? _handles;

        internal void Begin(ReadOnlyMemory<byte> data, IReadOnlyList<SafeHandle> handles)
        {
            _data = data;
            _handles = handles;
            Result = 0;
        }

        internal override int Attempt(SocketSource socket, out bool ready)
        {
            ready = true;
            while (Result < _data.Length)
            {
                var n = Result == 0 ? SendWithDescriptors(socket) : socket.SendAll(_data.Span.Slice(Result));
                if (n < 0) return n;
                Result += n;
                if (Result < _data.Length && n > 0 && socket.MustYield(n)) return -Errno.EAGAIN;
            }
            return Result;
        }

        private int SendWithDescriptors(SocketSource socket)
        {
            var handles = _handles!;
            Span<byte> control = stackalloc byte[ControlMessage.GetSpace(handles.Count * sizeof(int))];
            ControlMessage.Write(control, SocketConstants.SOL_SOCKET, SocketConstants.SCM_RIGHTS, handles.Count * sizeof(int), out var payload);
            var numbers = MemoryMarshal.Cast<byte, int>(payload);
            var holding = 0;
            SafeHandle? held = null;
            try
            {
                for (; holding < handles.Count; holding++)
                {
                    var added = false;
                    handles[holding].DangerousAddRef(ref added); // throws if it is closed
                    numbers[holding] = (int)handles[holding].DangerousGetHandle();
                }
                if (!socket.TryHold(out held)) return -Errno.EBADF;
                _vectors.Add(_data);
                var n = socket.SystemCalls.SendMessage(socket.FileDescriptor, _vectors.Vectors, default, control, 0);
                return socket.CountSent(n);
            }
            finally
            {
                _vectors.Clear();
                held?.DangerousRelease();
                while (holding > 0) handles[--holding].DangerousRelease();
            }
        }

        internal override void Release()
        {
            _data = default;
            _handles = null;
        }
    }
}
