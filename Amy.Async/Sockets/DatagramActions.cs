using System.Net;
using Amy.Async.Compat;
using Amy.Async.Native;

namespace Amy.Async;

/// <summary>recvfrom(2): a datagram and its sender, or a receive with flags.</summary>
internal sealed class ReceiveFromAction : SocketAction<int>
{
    internal Memory<byte> Buffer;
    internal SocketAddress? Remote;
    internal int Flags;

    internal override int Attempt(SocketSource socket, out bool ready)
    {
        ready = true;
        if (!socket.TryHold(out var held)) return -Errno.EBADF;
        Span<byte> address = stackalloc byte[SocketConstants.AddressCapacity];
        try
        {
            Result = socket.SystemCalls.ReceiveFrom(socket.FileDescriptor, Buffer.Span, Remote is null ? default : address, out var length, Flags);
            if (Result == 0) Result = socket.EndOrReset();
            if (Result < 0) return Result;
            if (Remote is not null) SocketInterop.Assign(Remote, address.Slice(0, Math.Min(length, address.Length)));
        }
        finally
        {
            held?.DangerousRelease();
        }
        if ((Flags & SocketConstants.MSG_PEEK) == 0) socket.BytesReceived += Result;
        return Result;
    }

    internal override void Release()
    {
        Buffer = default;
        Remote = null;
    }
}

/// <summary>sendto(2): a datagram to an address, or a send with flags.</summary>
internal sealed class SendToAction : SocketAction<int>
{
    private ReadOnlyMemory<byte> _buffer;
    private SocketAddress? _remote;
    private int _flags;

    internal void Begin(ReadOnlyMemory<byte> buffer, SocketAddress? remote, int flags)
    {
        _buffer = buffer;
        _remote = remote;
        _flags = flags;
        Result = 0;
    }

    internal override int Attempt(SocketSource socket, out bool ready)
    {
        ready = true;
        if (!socket.TryHold(out var held)) return -Errno.EBADF;
        Span<byte> address = stackalloc byte[SocketConstants.AddressCapacity];
        var used = _remote is null ? 0 : _remote.Size;
        try
        {
            if (used > 0) SocketInterop.CopyTo(_remote!, address);
            do
            {
                // The kernel marks the last byte that it takes as urgent, of a part too: the others go first, without the flag.
                var rest = _buffer.Span.Slice(Result);
                var first = (_flags & SocketConstants.MSG_OOB) != 0 && !socket.SendsEmpty && rest.Length > 1;
                var n = socket.SystemCalls.SendTo(socket.FileDescriptor, first ? rest.Slice(0, rest.Length - 1) : rest, address.Slice(0, used), first ? 0 : _flags);
                if (socket.CountSent(n) < 0) return n;
                Result += n;
            }
            while (Result < _buffer.Length); // a stream may take a part
        }
        finally
        {
            held?.DangerousRelease();
        }
        return Result;
    }

    internal override void Release()
    {
        _buffer = default;
        _remote = null;
    }
}

/// <summary>recvmmsg(2).</summary>
internal sealed class ReceiveBatchAction : SocketAction<int>
{
    internal DatagramBatch? Batch;

    internal override int Attempt(SocketSource socket, out bool ready)
    {
        ready = true;
        if (!socket.TryHold(out var held)) return -Errno.EBADF;
        Result = Batch!.Receive(socket.SystemCalls, socket.FileDescriptor);
        held?.DangerousRelease();
        if (Result > 0) socket.BytesReceived += Batch.TotalLength;
        return Result;
    }

    internal override void Release() => Batch = null;
}

/// <summary>sendmmsg(2), until all are sent.</summary>
internal sealed class SendBatchAction : SocketAction<int>
{
    private DatagramBatch? _batch;

    internal void Begin(DatagramBatch batch)
    {
        _batch = batch;
        batch.BeginSending();
    }

    internal override int Attempt(SocketSource socket, out bool ready)
    {
        ready = true;
        var batch = _batch!;
        while (batch.Sent < batch.Count)
        {
            if (!socket.TryHold(out var held)) return -Errno.EBADF;
            var n = batch.Send(socket.SystemCalls, socket.FileDescriptor, out var bytes);
            held?.DangerousRelease();
            if (n < 0) return n;
            socket.BytesSent += bytes;
        }
        return Result = batch.Count;
    }

    internal override void Release() => _batch = null;
}
