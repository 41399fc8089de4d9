using System.Runtime.InteropServices;
using Amy.Async.Native;

namespace Amy.Async;

/// <summary>
/// A descriptor attached to a loop that is read and written through us: what <see cref="AsyncSocket"/> and
/// <see cref="AsyncFd"/> have in common. Holds no reference to the public object; an operation that waits does.
/// </summary>
internal abstract partial class DescriptorSource(EventLoop loop) : AwaitableSource(loop, StateWord.MaybeReady)
{
    private const int MaxSentAtOnce = 1 << 20; // bytes of one send before others on the loop have their turn
    private static readonly Action<object, object?> s_sendOn = static (source, _) => ((DescriptorSource)source).SendOn();

    internal SystemCalls SystemCalls => Loop.Calls;
    private bool _sendOnQueued; // loop only: SendOn waits in the queue
    private Timeouts? _timeouts; // made when the first one is set

    internal long BytesReceived; // written by the reading direction's owner
    internal long BytesSent; // written by the writing direction's owner

    /// <summary>In both directions; only differences matter, so a torn sum of two threads' counts does no harm.</summary>
    internal long BytesMoved => BytesReceived + BytesSent;

    internal abstract int FileDescriptor { get; }

    /// <summary>Like <see cref="Registration.TryHold(out SafeHandle?)"/>, for an operation's own call.</summary>
    internal virtual bool TryEnter(out SafeHandle? held) => TryHold(out held);

    // ---- one system call each: a value or -errno; the caller holds Inside

    /// <summary>Reads what is there. <paramref name="ready"/>: there may be more.</summary>
    internal abstract int Receive(Span<byte> buffer, out bool ready);

    /// <summary>Writes what the kernel takes.</summary>
    internal abstract int Send(ReadOnlySpan<byte> buffer);

    /// <summary>
    /// Writes until all is written: the number of bytes, less than all if the rest would block or must wait for its next turn
    /// on the loop; -EAGAIN if nothing was taken; or -errno.
    /// </summary>
    internal int SendAll(ReadOnlySpan<byte> buffer)
    {
        var sent = 0;
        do
        {
            var n = Send(buffer.Slice(sent));
            if (n == -Errno.EAGAIN && sent > 0) return sent;
            if (n < 0) return n;
            sent += n;
        }
        while (sent < buffer.Length && !MustYield(sent));
        return sent;
    }

    /// <summary>Whether a send that has sent so much at once must let others have their turn; it goes on by itself then.</summary>
    internal bool MustYield(long sent)
    {
        if (sent < MaxSentAtOnce || !Loop.IsCurrent) return false;
        if (!_sendOnQueued) Loop.EnqueueOrPool(s_sendOn, this); // once: an edge may come besides, and have another turn taken
        return _sendOnQueued = true;
    }

    private void SendOn()
    {
        _sendOnQueued = false;
        OnReady(Readiness.Writable); // as if an edge had come
    }

    /// <summary>poll(2): what the direction is ready for, or -EAGAIN.</summary>
    internal int Poll(Direction direction, out Readiness readiness)
    {
        readiness = Readiness.None;
        if (!TryEnter(out var held)) return -Errno.EBADF;
        var events = direction == Direction.Read ? (short)(PollEvents.IN | PollEvents.PRI | PollEvents.RDHUP) : PollEvents.OUT;
        var n = SystemCalls.Poll(FileDescriptor, events);
        held?.DangerousRelease();
        if (n < 0) return n;
        if ((n & PollEvents.NVAL) != 0) return -Errno.EBADF;
        if ((n & PollEvents.IN) != 0) readiness |= Readiness.Readable;
        if ((n & PollEvents.OUT) != 0) readiness |= Readiness.Writable;
        if ((n & PollEvents.PRI) != 0) readiness |= Readiness.Priority;
        if ((n & (PollEvents.RDHUP | PollEvents.HUP)) != 0) readiness |= Readiness.ReadClosed;
        if ((n & PollEvents.HUP) != 0) readiness |= Readiness.WriteClosed;
        if ((n & PollEvents.ERR) != 0) readiness |= Readiness.Error;
        return readiness == Readiness.None ? -Errno.EAGAIN : 0;
    }

    // ---- operations: try at once, else wait. Any thread

    /// <summary>What a started operation came to: its value, -errno, or the version under which it waits.</summary>
    internal readonly struct Started(int result, short version, bool isWaiting)
    {
        internal readonly int Result = result;
        internal readonly short Version = version;
        internal readonly bool IsWaiting = isWaiting;

        internal Started(int result) : this(result, 0, false)
        {
        }
    }

    internal Started Receive(object owner, Memory<byte> buffer, bool asStream, CancellationToken token)
    {
        var span = buffer.Span; // first: it throws if the buffer's owner has let go of it
        if (Begin(Direction.Read, out var deferred) == StateWord.BeginResult.Attempt)
        {
            var ready = true;
            var n = span.IsEmpty ? Poll(Direction.Read, out _) : Receive(span, out ready);
            if (n != -Errno.EAGAIN)
            {
                End(Direction.Read, ready);
                Loop.SpendBytes(n);
                return new Started(n);
            }
        }
        return new Started(0, Transfers(Direction.Read).Receive(owner, buffer, asStream, deferred, token), true);
    }

    internal Started Send(object owner, ReadOnlyMemory<byte> buffer, bool asStream, CancellationToken token)
    {
        var span = buffer.Span; // first: it throws if the buffer's owner has let go of it
        var sent = 0;
        if (Begin(Direction.Write, out var deferred) == StateWord.BeginResult.Attempt)
        {
            var n = span.IsEmpty && !SendsEmpty ? 0 : SendAll(span);
            if (n == buffer.Length || n is < 0 and not -Errno.EAGAIN)
            {
                End(Direction.Write, ready: true);
                Loop.SpendBytes(n);
                return new Started(n);
            }
            sent = Math.Max(n, 0);
        }
        return new Started(0, Transfers(Direction.Write).Send(owner, buffer, sent, asStream, deferred, token), true);
    }

    /// <summary>Whether each send is a message of its own, also an empty one; else the bytes are a stream.</summary>
    internal virtual bool SendsEmpty => false;

    internal ValueTask<int> ReceiveAsync(object owner, Memory<byte> buffer, CancellationToken token, bool asStream = false)
    {
        if (token.IsCancellationRequested) return new ValueTask<int>(Task.FromCanceled<int>(token));
        var started = Receive(owner, buffer, asStream, token);
        if (started.IsWaiting) return new ValueTask<int>((TransferOperation)Reader!, started.Version);
        return started.Result >= 0 ? new ValueTask<int>(started.Result) : Failed<int>(started.Result, asStream);
    }

    internal ValueTask<int> SendAsync(object owner, ReadOnlyMemory<byte> buffer, CancellationToken token)
    {
        if (token.IsCancellationRequested) return new ValueTask<int>(Task.FromCanceled<int>(token));
        var started = Send(owner, buffer, asStream: false, token);
        if (started.IsWaiting) return new ValueTask<int>((TransferOperation)Writer!, started.Version);
        return started.Result >= 0 ? new ValueTask<int>(started.Result) : Failed<int>(started.Result, asStream: false);
    }

    /// <summary>For <see cref="DescriptorStream"/>: no count, and failures are IOExceptions.</summary>
    internal ValueTask WriteAsync(object owner, ReadOnlyMemory<byte> buffer, CancellationToken token)
    {
        if (token.IsCancellationRequested) return new ValueTask(Task.FromCanceled(token));
        var started = Send(owner, buffer, asStream: true, token);
        if (started.IsWaiting) return new ValueTask((TransferOperation)Writer!, started.Version);
        return started.Result >= 0 ? default : new ValueTask(Task.FromException(Failure(started.Result, asStream: true)));
    }

    internal ValueTask<Readiness> WaitAsync(object owner, Direction direction, CancellationToken token)
    {
        if (token.IsCancellationRequested) return new ValueTask<Readiness>(Task.FromCanceled<Readiness>(token));
        if (Begin(direction, out var deferred) == StateWord.BeginResult.Attempt)
        {
            var n = Poll(direction, out var readiness);
            if (n != -Errno.EAGAIN)
            {
                End(direction, ready: true);
                return n >= 0 ? new ValueTask<Readiness>(readiness) : Failed<Readiness>(n, asStream: false);
            }
        }
        var operation = Transfers(direction);
        return new ValueTask<Readiness>(operation, operation.Wait(owner, deferred, token));
    }

    internal bool TryReceive(Span<byte> buffer, out int received)
    {
        BeginTry(Direction.Read);
        var n = Receive(buffer, out var ready);
        End(Direction.Read, ready && n != -Errno.EAGAIN);
        return Tried(n, out received);
    }

    internal bool TrySend(ReadOnlySpan<byte> buffer, out int sent)
    {
        BeginTry(Direction.Write);
        var n = buffer.IsEmpty && !SendsEmpty ? 0 : Send(buffer);
        End(Direction.Write, ready: n != -Errno.EAGAIN);
        return Tried(n, out sent);
    }

    private bool Tried(int result, out int count)
    {
        count = Math.Max(result, 0);
        if (result >= 0) return true;
        return result == -Errno.EAGAIN ? false : throw Failure(result);
    }

    /// <summary>
    /// Has the close that follows end the connection first, as a stream's does: closing a TCP socket with unread data alone
    /// would be a reset. Not at once: a reader who waits would take the shutdown for the end of the peer's data.
    /// </summary>
    internal virtual void ShutdownOnClose()
    {
    }

    // ---- failures

    /// <summary>The exception for an errno.</summary>
    internal abstract Exception Failure(int result);

    internal Exception Failure(int result, bool asStream) => asStream ? DescriptorStream.Translate(Failure(result)) : Failure(result);

    internal ValueTask<T> Failed<T>(int result, bool asStream) => new(Task.FromException<T>(Failure(result, asStream)));

    // ---- time-outs

    internal TimeSpan GetTimeout(Direction direction) => Volatile.Read(ref _timeouts)?.Get(direction) ?? Timeout.InfiniteTimeSpan;

    internal void SetTimeout(Direction direction, TimeSpan value)
    {
        if (value <= TimeSpan.Zero && value != Timeout.InfiniteTimeSpan)
            throw new ArgumentOutOfRangeException(nameof(value), value, "A time-out is positive or infinite.");
        var timeouts = Volatile.Read(ref _timeouts);
        if (timeouts is null) timeouts = Interlocked.CompareExchange(ref _timeouts, timeouts = new Timeouts(), null) ?? timeouts;
        timeouts.Set(direction, value);
    }

    /// <summary>Nanoseconds, or -1. Asked for when an operation begins to wait.</summary>
    internal long TimeoutOf(Direction direction) =>
        Volatile.Read(ref _timeouts) is { } timeouts && timeouts.Get(direction) is var value && value != Timeout.InfiniteTimeSpan ? Poller.Nanoseconds(value) : -1;

    /// <summary>Counts and time-outs of a source whose place this one takes; the caller holds both directions of it.</summary>
    protected void ContinueFrom(DescriptorSource from)
    {
        BytesReceived = from.BytesReceived;
        BytesSent = from.BytesSent;
        _timeouts = Volatile.Read(ref from._timeouts);
    }

    private sealed class Timeouts
    {
        private long _read = Timeout.InfiniteTimeSpan.Ticks; // any thread; each operation looks once
        private long _write = Timeout.InfiniteTimeSpan.Ticks;

        internal TimeSpan Get(Direction direction) => new(Volatile.Read(ref direction == Direction.Read ? ref _read : ref _write));

        internal void Set(Direction direction, TimeSpan value) => Volatile.Write(ref direction == Direction.Read ? ref _read : ref _write, value.Ticks);
    }

    // ---- the operations' objects

    /// <summary>The object of a direction; the caller holds Busy.</summary>
    internal TransferOperation Transfers(Direction direction)
    {
        if (direction == Direction.Read) return (TransferOperation)(Reader ??= NewOperation(direction));
        return (TransferOperation)(Writer ??= NewOperation(direction));
    }

    protected virtual TransferOperation NewOperation(Direction direction) => new(this, direction);
}
