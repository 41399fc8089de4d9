namespace Amy.Async.Native;

// The calls that the extras need: messages with addresses and control data, many at once, files, terminals.
internal unsafe partial class SystemCalls
{
    /// <summary>Where these calls are made; tests say that it were elsewhere.</summary>
    internal virtual PlatformDescription Machine => PlatformDescription.Current;

    /// <summary>
    /// recvmsg(2) into one buffer. <paramref name="address"/> and <paramref name="control"/> may be empty; what came of them
    /// is told in the lengths, and <paramref name="flags"/> goes in as the call's flags and comes out as the message's.
    /// </summary>
    internal virtual int ReceiveMessage(int socket, Span<byte> buffer, Span<byte> address, out int addressLength, Span<byte> control, out int controlLength, ref int flags)
    {
        fixed (byte* b = buffer)
        {
            var vector = new IoVector { Base = b, Length = (nuint)buffer.Length };
            return ReceiveMessage(socket, new ReadOnlySpan<IoVector>(&vector, 1), address, out addressLength, control, out controlLength, ref flags);
        }
    }

    /// <summary>recvmsg(2) into several buffers, one after the other.</summary>
    internal virtual int ReceiveMessage(int socket, ReadOnlySpan<IoVector> vectors, Span<byte> address, out int addressLength, Span<byte> control, out int controlLength, ref int flags)
    {
        fixed (IoVector* v = vectors)
        fixed (byte* a = address)
        fixed (byte* c = control)
        {
            MessageHeader header;
            int n;
            do
            {
                header = new MessageHeader { Name = a, NameLength = (uint)address.Length, Vectors = v, VectorCount = (nuint)vectors.Length, Control = c, ControlLength = (nuint)control.Length };
                n = Result(Libc.syscall(SystemCallNumber.Recvmsg, socket, &header, flags | SocketConstants.MSG_DONTWAIT | SocketConstants.MSG_CMSG_CLOEXEC, 0, null, 0));
            }
            while (n == -Errno.EINTR);
            addressLength = n < 0 ? 0 : (int)header.NameLength;
            controlLength = n < 0 ? 0 : (int)header.ControlLength;
            flags = n < 0 ? 0 : header.Flags & ~SocketConstants.MSG_CMSG_CLOEXEC;
            return n;
        }
    }

    /// <summary>sendmsg(2) of several buffers, never with a SIGPIPE. <paramref name="address"/> and <paramref name="control"/> may be empty.</summary>
    internal virtual int SendMessage(int socket, ReadOnlySpan<IoVector> vectors, ReadOnlySpan<byte> address, ReadOnlySpan<byte> control, int flags)
    {
        fixed (IoVector* v = vectors)
        fixed (byte* a = address)
        fixed (byte* c = control)
        {
            var header = new MessageHeader { Name = a, NameLength = (uint)address.Length, Vectors = v, VectorCount = (nuint)vectors.Length, Control = c, ControlLength = (nuint)control.Length };
            int n;
            do n = Result(Libc.syscall(SystemCallNumber.Sendmsg, socket, &header, flags | SocketConstants.MSG_NOSIGNAL | SocketConstants.MSG_DONTWAIT, 0, null, 0));
            while (n == -Errno.EINTR);
            return n;
        }
    }

    /// <summary>sendto(2), never with a SIGPIPE. <paramref name="address"/> may be empty.</summary>
    internal virtual int SendTo(int socket, ReadOnlySpan<byte> buffer, ReadOnlySpan<byte> address, int flags)
    {
        fixed (byte* b = buffer)
        fixed (byte* a = address)
        {
            int n;
            do n = Result(Libc.syscall(SystemCallNumber.Sendto, socket, b, buffer.Length, flags | SocketConstants.MSG_NOSIGNAL | SocketConstants.MSG_DONTWAIT, a, address.Length));
            while (n == -Errno.EINTR);
            return n;
        }
    }

    /// <summary>recvfrom(2). <paramref name="address"/> may be empty.</summary>
    internal virtual int ReceiveFrom(int socket, Span<byte> buffer, Span<byte> address, out int addressLength, int flags)
    {
        fixed (byte* b = buffer)
        fixed (byte* a = address)
        {
            uint length;
            int n;
            do
            {
                length = (uint)address.Length;
                n = Result(Libc.syscall(SystemCallNumber.Recvfrom, socket, b, buffer.Length, flags | SocketConstants.MSG_DONTWAIT, a, (nint)(&length)));
            }
            while (n == -Errno.EINTR);
            addressLength = n < 0 ? 0 : (int)length;
            return n;
        }
    }

    /// <summary>recvmmsg(2): the number of datagrams.</summary>
    internal virtual int ReceiveMessages(int socket, Span<BatchHeader> headers)
    {
        fixed (BatchHeader* h = headers)
        {
            int n;
            do n = Result(Libc.syscall(SystemCallNumber.Recvmmsg, socket, h, headers.Length, SocketConstants.MSG_DONTWAIT, null, 0));
            while (n == -Errno.EINTR);
            return n;
        }
    }

    /// <summary>sendmmsg(2): the number of datagrams. An error of a later one than the first is reported by the next call.</summary>
    internal virtual int SendMessages(int socket, Span<BatchHeader> headers)
    {
        fixed (BatchHeader* h = headers)
        {
            int n;
            do n = Result(Libc.syscall(SystemCallNumber.Sendmmsg, socket, h, headers.Length, SocketConstants.MSG_DONTWAIT | SocketConstants.MSG_NOSIGNAL, null, 0));
            while (n == -Errno.EINTR);
            return n;
        }
    }

    /// <summary>sendfile(2) from a place in a file, whose own position stays.</summary>
    internal virtual int SendFile(int socket, int file, long offset, int count)
    {
        int n;
        do n = Result(Libc.sendfile(socket, file, &offset, (nuint)count));
        while (n == -Errno.EINTR);
        return n;
    }

    /// <summary>A socket that somebody else made, before the first call on it: whatever keeps SIGPIPE away.</summary>
    internal virtual void Adopt(int socket)
    {
        // MSG_NOSIGNAL goes with each send.
    }

    // ---- descriptors of any kind

    /// <summary>fcntl(2), F_GETFL.</summary>
    internal virtual int GetFlags(int descriptor) => Result(Libc.fcntl(descriptor, FileConstants.F_GETFL, 0));

    /// <summary>fcntl(2), F_SETFL.</summary>
    internal virtual int SetFlags(int descriptor, int flags) => Result(Libc.fcntl(descriptor, FileConstants.F_SETFL, flags));

    /// <summary>open(2) of a path that exists, by its bytes with a zero behind.</summary>
    internal virtual int Open(ReadOnlySpan<byte> path, int flags)
    {
        fixed (byte* p = path)
        {
            int n;
            do n = Result(Libc.open(p, flags | FileConstants.O_CLOEXEC));
            while (n == -Errno.EINTR);
            return n;
        }
    }

    /// <summary>isatty(3), but for the master of a pseudo-terminal (pty(7)), which opened anew would be another terminal.</summary>
    internal virtual bool IsTerminal(int descriptor)
    {
        if (Libc.isatty(descriptor) != 1) return false;
        var name = stackalloc byte[64];
        return Libc.ptsname_r(descriptor, name, 64) != 0;
    }

    /// <summary>statx(2): which file a descriptor stands for, by device and inode; zeros if the kernel does not say.</summary>
    internal virtual (long Device, long Inode) GetFile(int descriptor)
    {
        var buffer = stackalloc byte[FileConstants.StatxSize];
        byte path = 0;
        if (Libc.syscall(SystemCallNumber.Statx, descriptor, &path, FileConstants.AT_EMPTY_PATH, FileConstants.STATX_INO, buffer, 0) < 0) return default;
        return (*(long*)(buffer + FileConstants.StatxDeviceOffset), *(long*)(buffer + FileConstants.StatxInodeOffset));
    }

    /// <summary>kcmp(2), KCMP_FILE: 0 if two descriptors of this process share one open file description, positive if not; -errno.</summary>
    internal virtual int CompareDescriptions(int first, int second)
    {
        nint process = Libc.getpid();
        return Result(Libc.syscall(SystemCallNumber.Kcmp, process, (void*)process, FileConstants.KCMP_FILE, first, (void*)second, 0));
    }

    /// <summary>
    /// Whether two descriptors that are no regular files share one open file description. Where the kernel does not say (built
    /// without kcmp, or a seccomp filter), a flag that means nothing to such files tells: changed on one, does it change on the other?
    /// </summary>
    internal bool IsSameDescription(int first, int second)
    {
        var order = CompareDescriptions(first, second);
        if (order >= 0) return order == 0;
        var (ours, theirs) = (GetFlags(first), GetFlags(second));
        if (ours < 0 || theirs < 0 || SetFlags(first, ours ^ FileConstants.O_APPEND) < 0) return false;
        var changed = GetFlags(second) ^ theirs;
        _ = SetFlags(first, ours);
        return (changed & FileConstants.O_APPEND) != 0;
    }
}
