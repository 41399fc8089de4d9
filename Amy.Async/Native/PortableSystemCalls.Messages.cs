using System.Runtime.InteropServices;

namespace Amy.Async.Native;

// recvmsg and sendmsg, whose header and control messages have other layouts than on Linux, and what is made of them.
internal sealed unsafe partial class PortableSystemCalls
{
    // More than any kernel sends along at once: BSDs keep a control message in one cluster of 2,048 bytes, Linux passes 253
    // descriptors.
    private const int ControlCapacity = 2560;

    internal override int ReceiveMessage(int socket, Span<byte> buffer, out bool ancillary)
    {
        fixed (byte* b = buffer)
        {
            var vector = new IoVector { Base = b, Length = (nuint)buffer.Length };
            var flags = 0;
            var n = ReceiveMessage(socket, &vector, 1, default, out _, default, out _, ref flags);
            ancillary = (flags & SocketConstants.MSG_CTRUNC) != 0;
            return n;
        }
    }

    internal override int ReceiveMessage(int socket, ReadOnlySpan<IoVector> vectors, Span<byte> address, out int addressLength, Span<byte> control, out int controlLength, ref int flags)
    {
        fixed (IoVector* v = vectors) return ReceiveMessage(socket, v, vectors.Length, address, out addressLength, control, out controlLength, ref flags);
    }

    private int ReceiveMessage(int socket, IoVector* vectors, int count, Span<byte> address, out int addressLength, Span<byte> control, out int controlLength, ref int flags)
    {
        var native = stackalloc byte[ControlCapacity];
        Span<byte> header = stackalloc byte[sizeof(MessageHeader)];
        var callFlags = ToNative(flags) | numbers.MSG_DONTWAIT;
        if (numbers.MSG_CMSG_CLOEXEC != PlatformNumbers.None) callFlags |= numbers.MSG_CMSG_CLOEXEC;
        (addressLength, controlLength, flags) = (0, 0, 0);
        fixed (byte* a = address)
        fixed (byte* h = header)
        {
            int n;
            do
            {
                PlatformNumbers.WriteHeader(header, (nint)a, address.Length, (nint)vectors, count, (nint)native, ControlCapacity);
                n = Result(Libc.recvmsg(socket, h, callFlags));
            }
            while (n == -Errno.EINTR);
            if (n < 0) return n;
            var told = numbers.ReadHeader(header);
            addressLength = a is null ? 0 : told.NameLength;
            flags = numbers.ToMessageFlags(told.Flags);
            if (told.ControlLength > 0) controlLength = TakeControl(new ReadOnlySpan<byte>(native, Math.Min(told.ControlLength, ControlCapacity)), control, ref flags);
            return n;
        }
    }

    // The control messages in Linux's layout. Descriptors become close-on-exec here; those that find no room are closed.
    private int TakeControl(ReadOnlySpan<byte> native, Span<byte> control, ref int flags)
    {
        var writer = new ControlWriter(control);
        foreach (var message in new NativeControlMessages(native, numbers))
        {
            if (message.Level == numbers.SOL_SOCKET && message.Type == SocketConstants.SCM_RIGHTS)
            {
                var taken = writer.WriteDescriptors(message.Data);
                for (var i = 0; i + sizeof(int) <= message.Data.Length; i += sizeof(int))
                {
                    var descriptor = MemoryMarshal.Read<int>(message.Data.Slice(i));
                    if (i >= taken) Close(descriptor);
                    else if (numbers.MSG_CMSG_CLOEXEC == PlatformNumbers.None) CloseOnExec(descriptor);
                }
            }
            else ControlTranslation.Write(message, native, numbers, ref writer);
        }
        if (writer.IsTruncated) flags |= SocketConstants.MSG_CTRUNC;
        return writer.Length;
    }

    internal override int SendMessage(int socket, ReadOnlySpan<IoVector> vectors, ReadOnlySpan<byte> address, ReadOnlySpan<byte> control, int flags)
    {
        var native = stackalloc byte[ControlCapacity];
        Span<byte> header = stackalloc byte[sizeof(MessageHeader)];
        var length = ControlTranslation.ToNative(control, new Span<byte>(native, ControlCapacity), numbers);
        if (length < 0) return length;
        fixed (IoVector* v = vectors)
        fixed (byte* a = address)
        fixed (byte* h = header)
        {
            int n;
            var tries = 0;
            do
            {
                PlatformNumbers.WriteHeader(header, (nint)a, address.Length, (nint)v, vectors.Length, length == 0 ? 0 : (nint)native, length);
                n = Result(Libc.sendmsg(socket, h, ToSendFlags(flags)));
            }
            while (n < 0 && MustSendAgain(ref n, ref tries));
            return n;
        }
    }

    /// <summary>
    /// One call for each datagram: macOS has no recvmmsg, and FreeBSD's is a loop in its libc. An error behind the first datagram
    /// ends the batch; as with that loop, the kernel does not tell it again.
    /// </summary>
    internal override int ReceiveMessages(int socket, Span<BatchHeader> headers)
    {
        for (var i = 0; i < headers.Length; i++)
        {
            ref var message = ref headers[i].Message;
            var flags = 0;
            var n = ReceiveMessage(socket, message.Vectors, (int)message.VectorCount, new Span<byte>(message.Name, (int)message.NameLength), out var addressLength, default, out _, ref flags);
            if (n < 0) return i > 0 ? i : n;
            message.NameLength = (uint)addressLength;
            message.Flags = flags;
            headers[i].Length = (uint)n;
        }
        return headers.Length;
    }

    /// <summary>One call for each datagram; an error behind the first is told when the next batch begins with the same one.</summary>
    internal override int SendMessages(int socket, Span<BatchHeader> headers)
    {
        for (var i = 0; i < headers.Length; i++)
        {
            ref var message = ref headers[i].Message;
            var n = SendMessage(socket, new ReadOnlySpan<IoVector>(message.Vectors, (int)message.VectorCount), new ReadOnlySpan<byte>(message.Name, (int)message.NameLength), default, 0);
            if (n < 0) return i > 0 ? i : n;
            headers[i].Length = (uint)n;
        }
        return headers.Length;
    }
}
