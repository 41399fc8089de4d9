using System.Buffers;
using System.IO.Pipelines;
using System.Threading.Tasks.Sources;

namespace Amy.Async.Kestrel;

/// <summary>
/// The application's reading side of a connection, without a pump and a <see cref="Pipe"/> in between: a read receives. The
/// loop receives for a read that waits, into a buffer that it rents when data is there.
/// </summary>
/// <remarks>
/// <para>Nothing is read ahead. What the application does not read stays in the kernel, which stops the peer.</para>
/// <para>A cancelled read leaves its receive behind, which the next read takes over. <c>_state</c> says whose the buffers are:</para>
/// <list type="table">
/// <item><term>Idle</term><description>no receive is in progress; all is the application's</description></item>
/// <item><term>Waiting</term><description>a receive is in progress, for a read; all is its</description></item>
/// <item><term>Orphan</term><description>a receive is in progress, for no read: the free part of the last buffer (which stays), <c>_next</c>
/// and <c>_received</c> are its, the rest is the application's</description></item>
/// <item><term>Arrived</term><description>it has ended; the application's next read takes the result. All is the application's</description></item>
/// <item><term>Ending</term><description>it has ended, and its result is being taken for the read that waits; all is the receive's</description></item>
/// </list>
/// <para>The application moves Idle to Waiting, Orphan to Waiting, Arrived to Idle; the receive's end moves Waiting to Ending to
/// Idle and Orphan to Arrived; whoever cancels, Waiting to Orphan. Each by a compare-exchange where two may want to: who succeeds goes
/// on.</para>
/// </remarks>
internal sealed class LoopPipeReader : PipeReader, IBufferWriter<byte>, IValueTaskSource<ReadResult>, IThreadPoolWorkItem
{
    private const int Idle = 0;
    private const int Waiting = 1;
    private const int Orphan = 2;
    private const int Arrived = 3;
    private const int Ending = 4;

    private const int WorthACall = 1024; // bytes: for less a fresh buffer is better than a receive of its own

    private static readonly Action<LoopPipeReader> s_complete = static reader => reader.CompleteRead();
    private static readonly Action<object?> s_tokenCancelled = static reader => ((LoopPipeReader)reader!).OnTokenCancelled();

    private readonly LoopConnection _connection;
    private readonly AsyncSocket _socket;
    private readonly LoopMemory _memory;
    private readonly Action _onReceived;

    private Segment? _head;
    private int _start; // of the data, in _head
    private Segment? _tail;
    private Segment? _spare; // an object to be used again
    private bool _examinedAll = true;
    private bool _end; // the peer sends no more
    private Exception? _failure;
    private volatile bool _completed;
    private int _released; // 1: the buffers were given back for good; Interlocked

    private int _state;
    private ValueTask<int> _receive; // the one in progress
    private Segment _next = new(); // has a buffer while something is received into it
    private bool _intoNext;
    private int _received;

    private int _cancel; // 1: the read that waits, or the next one, is cancelled; any thread, Interlocked
    private bool _cancelled; // how the read that waited ends: by CancelPendingRead,
    private bool _tokenCancelled; // or by its token
    private CancellationToken _token;
    private CancellationTokenRegistration _registration;
    private ManualResetValueTaskSourceCore<bool> _read; // mutable struct

    internal LoopPipeReader(LoopConnection connection, AsyncSocket socket, LoopMemory memory)
    {
        _connection = connection;
        _socket = socket;
        _memory = memory;
        _onReceived = OnReceived;
    }

    /// <summary>Whether the end of the stream, or a failure, was received. Any thread.</summary>
    internal bool HasEnded => Volatile.Read(ref _end) || Volatile.Read(ref _failure) is not null;

    // ---- PipeReader

    public override ValueTask<ReadResult> ReadAsync(CancellationToken cancellationToken = default)
    {
        if (cancellationToken.IsCancellationRequested) return ValueTask.FromCanceled<ReadResult>(cancellationToken);
        if (HasResult(out var result)) return new ValueTask<ReadResult>(result);
        if (_failure is not null) return ValueTask.FromException<ReadResult>(_failure);
        var state = Volatile.Read(ref _state);
        if (state is Waiting or Ending) throw new InvalidOperationException("Another read of this pipe is in progress.");
        _read.Reset(); // before it can be completed
        if (state == Idle)
        {
            if (Receive()) return Result();
        }
        else if (Interlocked.CompareExchange(ref _state, Waiting, Orphan) != Orphan)
        {
            _state = Idle; // Arrived
            Take();
            return Result();
        }
        if (cancellationToken.CanBeCanceled)
        {
            _token = cancellationToken;
            _registration = cancellationToken.UnsafeRegister(s_tokenCancelled, this);
        }
        if (Volatile.Read(ref _cancel) != 0) CancelWaiting(); // it came before this waited
        return new ValueTask<ReadResult>(this, _read.Version);
    }

    public override bool TryRead(out ReadResult result)
    {
        if (HasResult(out result)) return true;
        if (_failure is not null) throw _failure;
        switch (Volatile.Read(ref _state))
        {
            case Idle:
                if (!TryReceive()) return false;
                break;
            case Arrived:
                _state = Idle;
                Take();
                break;
            default:
                return false;
        }
        if (_failure is null) return HasResult(out result);
        _connection.OnInputEnded();
        throw _failure;
    }

    public override void AdvanceTo(SequencePosition consumed) => AdvanceTo(consumed, consumed);

    public override void AdvanceTo(SequencePosition consumed, SequencePosition examined)
    {
        if (_completed) throw Completed();
        var last = _tail;
        var target = consumed.GetObject() as Segment;
        if (last is not null && target is not null) Check(target, consumed.GetInteger()); // before anything changes
        _examinedAll = last is null || examined.GetObject() == last && examined.GetInteger() == last.End;
        if (last is null || target is null) return; // an empty buffer's position
        while (_head != target) DropHead();
        _start = consumed.GetInteger();
        if (_start < target.End) return;
        // All of it is consumed. The last one stays while a receive may go into it.
        if (target != last || Volatile.Read(ref _state) == Idle) DropHead();
    }

    public override void CancelPendingRead()
    {
        Interlocked.Exchange(ref _cancel, 1); // before the look at the state: the reader sets that, and then looks here
        CancelWaiting();
    }

    public override void Complete(Exception? exception = null)
    {
        if (_completed) return;
        _completed = true;
        // Story: this sets the flag, then looks at the state; the receive's end sets the state, then looks at the flag. Whichever
        // comes later gives the buffers back, or both try to.
        Interlocked.MemoryBarrier();
        ReleaseIfMine();
    }

    // ---- receiving: IBufferWriter, called around each system call, on the loop's thread or the application's

    Memory<byte> IBufferWriter<byte>.GetMemory(int sizeHint)
    {
        var last = _tail;
        _intoNext = last is null || last.FreeLength < WorthACall;
        if (!_intoNext) return last!.Free;
        _next.Rent(_memory, 1);
        return _next.Free;
    }

    Span<byte> IBufferWriter<byte>.GetSpan(int sizeHint) => ((IBufferWriter<byte>)this).GetMemory(sizeHint).Span;

    void IBufferWriter<byte>.Advance(int count)
    {
        _received = count;
        if (count == 0 && _intoNext) _next.Release(_memory);
    }

    /// <summary>Starts a receive. True: it has ended at once, and its result is taken; false: it waits.</summary>
    private bool Receive()
    {
        ValueTask<int> receive;
        try
        {
            receive = _socket.ReceiveAsync(this);
        }
        catch (Exception e)
        {
            Fail(e);
            return true;
        }
        if (receive.IsCompleted)
        {
            Take(receive);
            return true;
        }
        _receive = receive;
        Volatile.Write(ref _state, Waiting); // before it can end
        if (_connection.IsInline && !_memory.Loop.IsCurrent) HookToLoop(receive);
        else receive.ConfigureAwait(false).GetAwaiter().UnsafeOnCompleted(_onReceived);
        return false;
    }

    // From another thread, the only way onto the loop that does not wake it now is that the receive captures its context.
    private void HookToLoop(ValueTask<int> receive)
    {
        var context = SynchronizationContext.Current;
        SynchronizationContext.SetSynchronizationContext(_memory.Loop.SynchronizationContext);
        try
        {
            receive.GetAwaiter().UnsafeOnCompleted(_onReceived);
        }
        finally
        {
            SynchronizationContext.SetSynchronizationContext(context);
        }
    }

    private bool TryReceive()
    {
        try
        {
            var writer = (IBufferWriter<byte>)this;
            var isThere = _socket.TryReceive(writer.GetSpan(), out var count);
            writer.Advance(count);
            if (!isThere) return false;
            Take(new ValueTask<int>(count));
        }
        catch (Exception e)
        {
            ((IBufferWriter<byte>)this).Advance(0);
            Fail(e);
        }
        return true;
    }

    /// <summary>The receive that waited has ended: on the loop's thread, or, where the application is not inline, on the pool's.</summary>
    private void OnReceived()
    {
        while (true)
        {
            switch (Volatile.Read(ref _state))
            {
                case Waiting:
                    if (Interlocked.CompareExchange(ref _state, Ending, Waiting) != Waiting) continue; // cancelled
                    Take();
                    Interlocked.Exchange(ref _state, Idle);
                    if (_connection.IsInline || !_memory.Loop.IsCurrent) CompleteRead();
                    else ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
                    if (_completed) ReleaseIfMine(); // under a read that waited
                    return;
                default:
                    if (Interlocked.CompareExchange(ref _state, Arrived, Orphan) != Orphan) continue; // the next read waits for it
                    if (_completed) ReleaseIfMine();
                    return;
            }
        }
    }

    private void Take() => Take(_receive);

    private void Take(ValueTask<int> receive)
    {
        _receive = default;
        if (_connection.ShutdownReason is { } reason)
        {
            if (_received > 0 && _intoNext) _next.Release(_memory);
            _received = 0;
            Volatile.Write(ref _failure, reason); // without an exception thrown and caught
            return;
        }
        try
        {
            var count = receive.GetAwaiter().GetResult();
            if (count == 0) Volatile.Write(ref _end, true);
            else Append(count);
        }
        catch (Exception e)
        {
            Fail(e);
        }
    }

    private void Append(int count)
    {
        if (_intoNext)
        {
            if (_tail is null)
            {
                _head = _next;
                _start = 0;
            }
            else _tail.Append(_next);
            _tail = _next;
            _next = _spare ?? new Segment();
            _spare = null;
        }
        _tail!.Grow(count);
        _received = 0;
        _examinedAll = false;
    }

    private void Fail(Exception exception) => Volatile.Write(ref _failure, _connection.Translate(exception));

    // ---- results

    private bool HasResult(out ReadResult result)
    {
        if (_completed) throw Completed();
        var cancelled = Volatile.Read(ref _cancel) != 0 && Interlocked.Exchange(ref _cancel, 0) != 0;
        if (cancelled || _end || !_examinedAll)
        {
            result = Current(cancelled);
            if (_end) _connection.OnInputEnded();
            return true;
        }
        result = default;
        return false;
    }

    private ValueTask<ReadResult> Result()
    {
        if (_end || _failure is not null) _connection.OnInputEnded();
        return _failure is null ? new ValueTask<ReadResult>(Current(isCanceled: false)) : ValueTask.FromException<ReadResult>(_failure);
    }

    private ReadResult Current(bool isCanceled) => new(
        _head is null ? ReadOnlySequence<byte>.Empty : new ReadOnlySequence<byte>(_head, _start, _tail!, _tail!.End), isCanceled, _end);

    private void CancelWaiting()
    {
        if (Interlocked.CompareExchange(ref _state, Orphan, Waiting) != Waiting) return;
        Interlocked.Exchange(ref _cancel, 0);
        _cancelled = true;
        Schedule();
    }

    private void OnTokenCancelled()
    {
        if (Interlocked.CompareExchange(ref _state, Orphan, Waiting) != Waiting) return;
        _tokenCancelled = true;
        Schedule();
    }

    // Whoever cancels does not run what it cancels.
    private void Schedule()
    {
        if (_connection.IsInline)
        {
            try
            {
                _memory.Loop.Post(s_complete, this);
                return;
            }
            catch (ObjectDisposedException)
            {
                // the loop has stopped: what is left runs on the thread pool
            }
        }
        ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
    }

    void IThreadPoolWorkItem.Execute() => CompleteRead();

    private void CompleteRead()
    {
        if (SynchronizationContext.Current is not null) SynchronizationContext.SetSynchronizationContext(null); // the loop sets its own again
        var ended = _end || _failure is not null;
        if (_tokenCancelled)
        {
            _tokenCancelled = false;
            _read.SetException(new OperationCanceledException(_token));
        }
        else if (_failure is not null) _read.SetException(_failure);
        else _read.SetResult(true);
        if (ended) _connection.OnInputEnded(); // after the reader knows, as a pump would
    }

    ReadResult IValueTaskSource<ReadResult>.GetResult(short token)
    {
        var isMine = _read.GetStatus(token) != ValueTaskSourceStatus.Pending;
        if (isMine && _token.CanBeCanceled)
        {
            _registration.Dispose(); // none of this read's may reach the next
            _registration = default;
            _token = default;
        }
        _read.GetResult(token);
        if (_completed) throw Completed(); // under this read: the buffers are gone
        var cancelled = _cancelled;
        _cancelled = false;
        return Current(cancelled);
    }

    ValueTaskSourceStatus IValueTaskSource<ReadResult>.GetStatus(short token) => _read.GetStatus(token);

    // The application goes on where the options say, not in a context of its own.
    void IValueTaskSource<ReadResult>.OnCompleted(Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _read.OnCompleted(continuation, state, token, flags & ~ValueTaskSourceOnCompletedFlags.UseSchedulingContext);

    // ---- buffers

    private void Check(Segment target, int index)
    {
        var segment = _head;
        while (segment is not null && segment != target) segment = segment.NextSegment;
        if (segment is null || index > segment.End || segment == _head && index < _start)
            throw new InvalidOperationException("The position is not of the buffer that was read last.");
    }

    private void DropHead()
    {
        var head = _head!;
        _head = head.NextSegment;
        _start = 0;
        if (_head is null) _tail = null;
        head.Release(_memory);
        _spare = head;
    }

    // Once completed, no receive begins any more: of one that is in progress, the end does this.
    private void ReleaseIfMine()
    {
        if (Volatile.Read(ref _state) is not (Idle or Arrived)) return;
        if (Interlocked.Exchange(ref _released, 1) != 0) return;
        while (_head is not null) DropHead();
        if (_received > 0 && _intoNext) _next.Release(_memory);
    }

    private static InvalidOperationException Completed() => new("The reader is completed.");
}
