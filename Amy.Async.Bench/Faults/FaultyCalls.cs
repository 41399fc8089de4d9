using Amy.Async.Native;

namespace Amy.Async.Bench;

/// <summary>
/// System calls that go wrong as a <see cref="FaultSource"/> says, in ways that a kernel may. One instance may serve several
/// loops. It is a subclass: not in use it costs nothing.
/// </summary>
/// <remarks>
/// <para><b>A kernel keeps its promise of edges</b>, and so must its double. After EAGAIN there is an edge as soon as the call could
/// go on, which it could at once; after a short read an edge tells of the rest. So each of these is followed, still within
/// the call, by a registration anew, which makes the kernel report what holds. A descriptor that no poller knows gets no
/// such fault: nobody would tell of it.</para>
/// <para>Only stream sockets are cut short: half a datagram is a datagram lost, and half a signalfd_siginfo is an error.</para>
/// </remarks>
internal sealed partial class FaultyCalls(FaultSource source) : CallsBelow
{
    private static readonly int s_kinds = Enum.GetValues<FaultKind>().Length;

    private readonly long[] _struck = new long[Enum.GetValues<FaultPoint>().Length * s_kinds];

    internal FaultSource Source => source;

    /// <summary>How often a kind of fault has struck at a point.</summary>
    internal long Struck(FaultPoint point, FaultKind kind) => Interlocked.Read(ref _struck[(int)point * s_kinds + (int)kind]);

    internal long TotalStruck => Enumerable.Range(0, _struck.Length).Sum(i => Interlocked.Read(ref _struck[i]));

    /// <summary>How often each has struck, for a report.</summary>
    internal string Summary() => string.Join(", ",
        from point in Enum.GetValues<FaultPoint>()
        from kind in Enum.GetValues<FaultKind>()
        where Struck(point, kind) > 0
        select $"{point} {kind} {Struck(point, kind)}");

    private void Count(FaultPoint point, FaultKind kind) => Interlocked.Increment(ref _struck[(int)point * s_kinds + (int)kind]);

    // ---- making and closing

    internal override int EpollCreate()
    {
        if (Fails(FaultPoint.Create, out var error)) return error;
        var epoll = base.EpollCreate();
        if (IsTracked(epoll)) _late[epoll] = new Late(Epoll.EventSize, abi: null) { HasBegun = true };
        return epoll;
    }

    internal override int EventFdCreate()
    {
        if (Fails(FaultPoint.Create, out var error)) return error;
        var descriptor = base.EventFdCreate();
        if (IsTracked(descriptor)) _isWake[descriptor] = true;
        return descriptor;
    }

    internal override int Socket(int domain, int type, int protocol) =>
        Fails(FaultPoint.Socket, out var error) ? error : base.Socket(domain, type, protocol);

    internal override int Close(int descriptor)
    {
        if (IsTracked(descriptor)) Forget(descriptor); // before the number has another owner
        var n = base.Close(descriptor);
        if (source.Next(FaultPoint.Close).Kind != FaultKind.Interrupted) return n;
        Count(FaultPoint.Close, FaultKind.Interrupted);
        return -Errno.EINTR;
    }

    // ---- reading and writing

    internal override int Read(int descriptor, Span<byte> buffer)
    {
        if (IsWake(descriptor)) return base.Read(descriptor, buffer);
        if (Strikes(FaultPoint.Receive, descriptor, buffer.Length, out var result, out var cut)) return result;
        return Cut(descriptor, cut, base.Read(descriptor, cut ? buffer[..1] : buffer));
    }

    // A wake-up may fail only in one way, and then it has been there before.
    internal override int Write(int descriptor, ReadOnlySpan<byte> buffer)
    {
        if (IsWake(descriptor)) return base.Write(descriptor, buffer);
        if (Strikes(FaultPoint.Send, descriptor, buffer.Length, out var result, out var cut)) return result;
        return base.Write(descriptor, cut ? buffer[..1] : buffer);
    }

    internal override int Receive(int socket, Span<byte> buffer)
    {
        if (Strikes(FaultPoint.Receive, socket, buffer.Length, out var result, out var cut)) return result;
        return Cut(socket, cut, base.Receive(socket, cut ? buffer[..1] : buffer));
    }

    internal override int ReceiveMessage(int socket, Span<byte> buffer, out bool ancillary)
    {
        ancillary = false;
        if (Strikes(FaultPoint.Receive, socket, buffer.Length, out var result, out var cut)) return result;
        return Cut(socket, cut, base.ReceiveMessage(socket, cut ? buffer[..1] : buffer, out ancillary));
    }

    internal override int ReceiveMessage(int socket, ReadOnlySpan<IoVector> vectors, Span<byte> address, out int addressLength, Span<byte> control, out int controlLength, ref int flags)
    {
        if (!Strikes(FaultPoint.Receive, socket, vectors.Length == 0 ? 0 : (int)vectors[0].Length, out var result, out var cut))
            return Cut(socket, cut, base.ReceiveMessage(socket, cut ? [First(vectors)] : vectors, address, out addressLength, control, out controlLength, ref flags));
        addressLength = controlLength = flags = 0;
        return result;
    }

    internal override int ReceiveFrom(int socket, Span<byte> buffer, Span<byte> address, out int addressLength, int flags)
    {
        addressLength = 0;
        if (Strikes(FaultPoint.Receive, socket, buffer.Length, out var result, out var cut)) return result;
        return Cut(socket, cut, base.ReceiveFrom(socket, cut ? buffer[..1] : buffer, address, out addressLength, flags));
    }

    internal override int ReceiveMessages(int socket, Span<BatchHeader> headers) =>
        Strikes(FaultPoint.Receive, socket, headers.Length, out var result, out var cut, isBatch: true) ? result : Cut(socket, cut, base.ReceiveMessages(socket, cut ? headers[..1] : headers));

    internal override int Send(int socket, ReadOnlySpan<byte> buffer) =>
        Strikes(FaultPoint.Send, socket, buffer.Length, out var result, out var cut) ? result : base.Send(socket, cut ? buffer[..1] : buffer);

    internal override int SendTo(int socket, ReadOnlySpan<byte> buffer, ReadOnlySpan<byte> address, int flags) =>
        Strikes(FaultPoint.Send, socket, buffer.Length, out var result, out var cut) ? result : base.SendTo(socket, cut ? buffer[..1] : buffer, address, flags);

    internal override int SendMessage(int socket, ReadOnlySpan<IoVector> vectors, ReadOnlySpan<byte> address, ReadOnlySpan<byte> control, int flags)
    {
        if (Strikes(FaultPoint.Send, socket, vectors.Length == 0 ? 0 : (int)vectors[0].Length, out var result, out var cut)) return result;
        return base.SendMessage(socket, cut ? [First(vectors)] : vectors, address, control, flags);
    }

    internal override int SendMessages(int socket, Span<BatchHeader> headers)
    {
        if (Strikes(FaultPoint.Send, socket, headers.Length, out var result, out var cut, isBatch: true)) return result;
        return base.SendMessages(socket, cut ? headers[..1] : headers);
    }

    internal override int SendFile(int socket, int file, long offset, int count) =>
        Strikes(FaultPoint.Send, socket, count, out var result, out var cut) ? result : base.SendFile(socket, file, offset, cut ? 1 : count);

    // ---- connections

    internal override int Accept(int listener) =>
        Strikes(FaultPoint.Accept, listener, 0, out var result, out _) ? result : base.Accept(listener);

    /// <summary>Interrupted, an attempt goes on by itself.</summary>
    internal override int Connect(int socket, ReadOnlySpan<byte> address)
    {
        var fault = source.Next(FaultPoint.Connect);
        if (fault.Kind == FaultKind.Error)
        {
            Count(FaultPoint.Connect, fault.Kind);
            return -fault.Errno;
        }
        var n = base.Connect(socket, address);
        if (fault.Kind != FaultKind.Interrupted || n is not (0 or -Errno.EINPROGRESS)) return n;
        Count(FaultPoint.Connect, fault.Kind);
        return -Errno.EINTR;
    }

    internal override int Poll(int descriptor, short events) =>
        Strikes(FaultPoint.Poll, descriptor, 0, out var result, out _) ? result == -Errno.EAGAIN ? 0 : result : base.Poll(descriptor, events);

    // ---- private

    private bool Fails(FaultPoint point, out int error)
    {
        var fault = source.Next(point);
        error = -fault.Errno;
        if (fault.Kind != FaultKind.Error) return false;
        Count(point, fault.Kind);
        return true;
    }

    /// <summary>Whether a call ends before it begins. Else <paramref name="cut"/> says whether it is one byte only.</summary>
    private bool Strikes(FaultPoint point, int descriptor, int length, out int result, out bool cut, bool isBatch = false)
    {
        var fault = source.Next(point);
        result = 0;
        cut = false;
        switch (fault.Kind)
        {
            case FaultKind.Error:
                result = -fault.Errno;
                break;
            case FaultKind.WouldBlock when ReportAgain(descriptor):
                result = -Errno.EAGAIN;
                break;
            case FaultKind.Short when length > 1 && (isBatch || IsStream(descriptor)):
                cut = true;
                break;
            default:
                return false;
        }
        Count(point, fault.Kind);
        return !cut;
    }

    // A short read without an edge for the rest would be a lie; where nobody tells of edges, nobody trusts short reads either.
    private int Cut(int descriptor, bool cut, int n)
    {
        if (cut && n > 0) _ = ReportAgain(descriptor);
        return n;
    }

    private static IoVector First(ReadOnlySpan<IoVector> vectors)
    {
        var first = vectors[0];
        first.Length = 1;
        return first;
    }

    private bool IsStream(int descriptor) =>
        GetOption(descriptor, SocketConstants.SOL_SOCKET, SocketConstants.SO_TYPE, out var type) >= 0 && type == SocketConstants.SOCK_STREAM;
}
