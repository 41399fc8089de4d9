using System.Buffers;
using System.IO.Pipelines;
using System.Threading.Tasks.Sources;

namespace Amy.Async.Kestrel;

/// <summary>
/// The application's writing side of a connection: a flush sends, on the thread that flushes. What the kernel does not take
/// at once is sent on by the loop, and a flush waits for it only beyond the threshold.
/// </summary>
/// <remarks>
/// <para>While nothing is being sent on (<c>_sending</c> is false), everything belongs to the writing thread, and there is no lock
/// on the way of a message. When the kernel's buffer is full, the buffers that were flushed change hands: they are in flight,
/// and what is flushed meanwhile is queued behind them. Both, and what the two sides tell each other, are guarded by the lock.</para>
/// <para><b>Joining.</b> Where flushes come in swarms (the answers to many streams of HTTP/2), a send for each costs more than
/// all else. There a flush is only queued, and an item that is posted to the thread pool (or to the loop, for a flush made there)
/// sends what has been queued by the time it runs, in one. When they are <see cref="MostJoined"/> and it has not run yet, the
/// writing thread sends them itself. Whichever of the two clears <c>_awaitsItem</c> under the lock sends; the other finds it
/// cleared, and the writing thread only queues, while the item goes. An item that came too late for its own flushes may find it
/// set again for later ones: it sends those, as no second item is posted while one is (<c>_isPosted</c>).</para>
/// <para>Whether joining pays shows when it is done: so once in a while a flush is joined for trial, ever more seldom as long as
/// it stays alone, and after one that met company all are, until one stays alone again. An application that answers one by one
/// pays for a hop of a flush in a thousand.</para>
/// </remarks>
internal sealed class LoopPipeWriter : PipeWriter, IValueTaskSource<FlushResult>, IThreadPoolWorkItem
{
    private const int FirstTrial = 16; // flushes
    private const int LastTrial = 1024;

    private const int MostJoined = 32; // flushes
    private const int MostRounds = 16; // sends on end, before others have their turn on this thread

    private static readonly Action<LoopPipeWriter> s_sendJoined = static writer => writer.SendJoined();
    private static readonly Action<LoopPipeWriter> s_completeFlush = static writer => writer.CompleteFlush();
    private static readonly Action<object?> s_tokenCancelled = static writer => ((LoopPipeWriter)writer!).OnTokenCancelled();

    private readonly LoopConnection _connection;
    private readonly AsyncSocket _socket;
    private readonly LoopMemory _memory;
    private readonly long _pauseAbove;
    private readonly long _resumeAt;
    private readonly Lock _lock = new();
    private readonly Action _onSent;

    // The writing thread's.
    private Segment? _head;
    private Segment? _tail;
    private Segment? _spare; // an object to be used again
    private long _unflushed;
    private bool _completed;

    private int _untilTrial = FirstTrial; // flushes that are sent at once before the next is joined; 0: it is
    private int _trials = FirstTrial; // how many the next time
    private Joined? _join;

    private volatile bool _sending; // set by the writing thread, cleared under the lock by whoever has sent all

    // Guarded by the lock.
    private Segment? _inFlight;
    private long _inFlightBytes;
    private Segment? _queued;
    private Segment? _queuedLast;
    private long _queuedBytes;
    private int _joined; // flushes that are queued
    private bool _awaitsItem; // what is queued is not being sent yet: the item that is posted will, or the writing thread
    private bool _isPosted; // the item is in its queue
    private bool _waitsOnLoop; // where the flush that waits was made
    private bool _waiting; // a flush waits
    private bool _cancelFlush; // the next flush is cancelled
    private bool _ended; // the connection was told that all is sent

    private ValueTask<long> _send; // the one in progress
    private CancellationToken _token;
    private CancellationTokenRegistration _registration;
    private ManualResetValueTaskSourceCore<FlushResult> _flush; // mutable struct

    internal LoopPipeWriter(LoopConnection connection, AsyncSocket socket, LoopMemory memory, long? maxBufferSize)
    {
        _connection = connection;
        _socket = socket;
        _memory = memory;
        _pauseAbove = maxBufferSize ?? long.MaxValue;
        _resumeAt = _pauseAbove / 2;
        _onSent = OnSent;
    }

    public override bool CanGetUnflushedBytes => true;

    public override long UnflushedBytes => _unflushed;

    public override Memory<byte> GetMemory(int sizeHint = 0)
    {
        if (_completed) throw Completed();
        ArgumentOutOfRangeException.ThrowIfNegative(sizeHint);
        if (_tail is { } last && last.FreeLength >= Math.Max(sizeHint, 1)) return last.Free;
        var segment = _spare ?? new Segment();
        segment.Rent(_memory, Math.Max(sizeHint, 1));
        _spare = null;
        if (_tail is null) _head = segment;
        else _tail.Append(segment);
        _tail = segment;
        return segment.Free;
    }

    public override Span<byte> GetSpan(int sizeHint = 0) => GetMemory(sizeHint).Span;

    public override void Advance(int bytes)
    {
        if (_completed) throw Completed();
        if (bytes < 0 || bytes > (_tail?.FreeLength ?? 0)) throw new ArgumentOutOfRangeException(nameof(bytes), bytes, "More than the memory that was given.");
        if (bytes == 0) return;
        _tail!.Grow(bytes);
        _unflushed += bytes;
    }

    public override ValueTask<FlushResult> FlushAsync(CancellationToken cancellationToken = default)
    {
        if (_completed) throw Completed();
        if (cancellationToken.IsCancellationRequested) return ValueTask.FromCanceled<FlushResult>(cancellationToken);
        if (_connection.ShutdownReason is not null)
        {
            Drop();
            return new ValueTask<FlushResult>(new FlushResult(TakeCancel(), isCompleted: true));
        }
        if (_unflushed > 0) Send();
        if (!_sending) return new ValueTask<FlushResult>(new FlushResult(TakeCancel(), _connection.ShutdownReason is not null));
        return WaitForRoom(cancellationToken);
    }

    /// <summary>What the kernel takes at once goes there without a copy.</summary>
    public override ValueTask<FlushResult> WriteAsync(ReadOnlyMemory<byte> source, CancellationToken cancellationToken = default)
    {
        if (_completed) throw Completed();
        if (cancellationToken.IsCancellationRequested) return ValueTask.FromCanceled<FlushResult>(cancellationToken);
        if (!_sending && _untilTrial > 0 && _unflushed == 0 && !source.IsEmpty && _connection.ShutdownReason is null)
        {
            _untilTrial--;
            try
            {
                _socket.TrySend(source.Span, out var sent);
                if (sent == source.Length) return new ValueTask<FlushResult>(new FlushResult(TakeCancel(), isCompleted: false));
                source = source[sent..];
            }
            catch (Exception e)
            {
                _connection.OnSendFailed(e);
                return new ValueTask<FlushResult>(new FlushResult(TakeCancel(), isCompleted: true));
            }
        }
        this.Write(source.Span);
        return FlushAsync(cancellationToken);
    }

    public override void CancelPendingFlush()
    {
        lock (_lock)
        {
            if (!_waiting)
            {
                _cancelFlush = true;
                return;
            }
            _waiting = false;
        }
        Schedule(Outcome.Cancelled);
    }

    /// <summary>The peer sees the end of the stream when all is sent; or a reset, if this is for a failure.</summary>
    public override void Complete(Exception? exception = null)
    {
        if (_completed) return;
        if (exception is not null) _connection.OnApplicationFailed(exception);
        if (_unflushed > 0 && _connection.ShutdownReason is null) Send();
        Drop();
        lock (_lock)
        {
            _completed = true;
            if (_sending) return; // whoever has sent all goes on
        }
        End();
    }

    // ---- sending: the writing thread

    private void Send()
    {
        var (first, last, bytes) = (_head!, _tail!, _unflushed);
        _head = _tail = null;
        _unflushed = 0;
        if (_sending)
        {
            bool queued, take;
            lock (_lock)
            {
                queued = _sending; // not ended meanwhile
                if (queued) Queue(first, last, bytes);
                take = queued && _awaitsItem && _joined >= MostJoined;
                if (take) _awaitsItem = false;
            }
            if (take) SendOn();
            if (queued) return;
        }
        if (_untilTrial == 0)
        {
            lock (_lock)
            {
                _joined = 0;
                Queue(first, last, bytes);
                _sending = true;
                PostJoined();
            }
            return;
        }
        _untilTrial--;
        if (TrySend(first, last)) Release(first);
        else
        {
            _inFlight = first;
            _inFlightBytes = bytes;
            _sending = true;
            Hook();
        }
    }

    // The caller holds the lock, and is the writing thread. A small flush goes into the buffer of those before it: what is queued
    // holds as many buffers as its bytes need, not as there are flushes.
    private void Queue(Segment first, Segment last, long bytes)
    {
        _queuedBytes += bytes;
        _joined++;
        if (first == last && _queuedLast is { } end && end.FreeLength >= bytes)
        {
            first.Memory.CopyTo(end.Free);
            end.Grow((int)bytes);
            Release(first);
            return;
        }
        if (_queuedLast is null) _queued = first;
        else _queuedLast.Append(first);
        _queuedLast = last;
    }

    // The caller holds the lock. From the loop to the loop: the application stays there.
    private void PostJoined()
    {
        _awaitsItem = true;
        if (_isPosted) return;
        _isPosted = true;
        if (_memory.Loop.IsCurrent)
        {
            try
            {
                _memory.Loop.Post(s_sendJoined, this);
                return;
            }
            catch (ObjectDisposedException)
            {
                // it is stopping
            }
        }
        ThreadPool.UnsafeQueueUserWorkItem(_join ??= new Joined(this), preferLocal: false);
    }

    private sealed class Joined(LoopPipeWriter writer) : IThreadPoolWorkItem
    {
        void IThreadPoolWorkItem.Execute() => writer.SendJoined();
    }

    /// <summary>Sends. True: it has ended, for good or bad; false: it goes on (<c>_send</c>).</summary>
    private bool TrySend(Segment first, Segment last)
    {
        try
        {
            if (first == last)
            {
                var sending = _socket.SendAsync(first.Memory);
                if (sending.IsCompletedSuccessfully)
                {
                    _ = sending.Result;
                    return true;
                }
                return TryEnd(Widen(sending));
            }
            return TryEnd(_socket.SendAsync(new ReadOnlySequence<byte>(first, 0, last, last.End)));
        }
        catch (Exception e)
        {
            _connection.OnSendFailed(e);
            return true;
        }
    }

    private static async ValueTask<long> Widen(ValueTask<int> sending) => await sending.ConfigureAwait(false);

    private bool TryEnd(ValueTask<long> sending)
    {
        if (sending.IsCompleted)
        {
            sending.GetAwaiter().GetResult();
            return true;
        }
        _send = sending;
        return false;
    }

    private void Hook() => _send.ConfigureAwait(false).GetAwaiter().UnsafeOnCompleted(_onSent);

    // ---- sending on: the loop's thread or the pool's

    private void SendJoined()
    {
        lock (_lock)
        {
            _isPosted = false;
            if (!_awaitsItem) return; // so many that the writing thread has not waited for this
            _awaitsItem = false;
            // The writing thread reads these when nothing is being sent any more, which is said by a volatile write.
            if (_joined > 1) _trials = FirstTrial;
            else
            {
                _untilTrial = _trials;
                _trials = Math.Min(2 * _trials, LastTrial);
            }
        }
        SendOn();
    }

    private void OnSent()
    {
        var sending = _send;
        _send = default;
        if (_connection.ShutdownReason is null) // else without an exception thrown and caught
        {
            try
            {
                sending.GetAwaiter().GetResult();
            }
            catch (Exception e)
            {
                _connection.OnSendFailed(e);
            }
        }
        SendOn();
    }

    private void SendOn()
    {
        var resume = false;
        for (var round = 1; ; round++)
        {
            ReleaseInFlight();
            bool end;
            Segment? next, last;
            lock (_lock)
            {
                (next, last) = (_queued, _queuedLast);
                _inFlight = next;
                _inFlightBytes = _queuedBytes;
                _queued = _queuedLast = null;
                _queuedBytes = 0;
                var failed = _connection.ShutdownReason is not null;
                if (failed && next is not null) continue; // given back, not sent
                if (next is null) _sending = false;
                if (_waiting && (failed || _inFlightBytes <= _resumeAt))
                {
                    _waiting = false;
                    resume = true;
                }
                end = next is null && _completed;
            }
            if (end) End();
            if (next is not null)
            {
                if (!TrySend(next, last!)) Hook();
                else if (round < MostRounds) continue;
                else
                    lock (_lock) PostJoined(); // what is sent is in flight until then
            }
            break;
        }
        if (resume) Schedule(Outcome.Room); // last: the application may go on in here, for as long as it likes
    }

    private void ReleaseInFlight()
    {
        for (var segment = _inFlight; segment is not null;)
        {
            var next = segment.NextSegment;
            segment.Release(_memory);
            segment = next;
        }
        _inFlight = null;
    }

    private void End()
    {
        lock (_lock)
        {
            if (_ended) return;
            _ended = true;
        }
        _connection.OnOutputEnded();
    }

    // ---- a flush that waits

    private ValueTask<FlushResult> WaitForRoom(CancellationToken token)
    {
        lock (_lock)
        {
            if (_cancelFlush || !_sending || _inFlightBytes + _queuedBytes <= _pauseAbove)
            {
                var cancelled = _cancelFlush;
                _cancelFlush = false;
                return new ValueTask<FlushResult>(new FlushResult(cancelled, _connection.ShutdownReason is not null));
            }
            if (_waiting) throw new InvalidOperationException("Another flush of this pipe is in progress.");
            _flush.Reset();
            _waiting = true;
            _waitsOnLoop = _memory.Loop.IsCurrent;
        }
        _connection.OnPaused();
        if (token.CanBeCanceled)
        {
            _token = token;
            _registration = token.UnsafeRegister(s_tokenCancelled, this);
        }
        return new ValueTask<FlushResult>(this, _flush.Version);
    }

    private bool TakeCancel()
    {
        if (!Volatile.Read(ref _cancelFlush)) return false;
        lock (_lock)
        {
            var cancelled = _cancelFlush;
            _cancelFlush = false;
            return cancelled;
        }
    }

    private void OnTokenCancelled()
    {
        lock (_lock)
        {
            if (!_waiting) return;
            _waiting = false;
        }
        Schedule(Outcome.TokenCancelled);
    }

    private enum Outcome : byte
    {
        Room,
        Cancelled,
        TokenCancelled,
    }

    private Outcome _outcome; // of the flush that is about to be completed, which is one at a time

    // Not on the loop unless the application is at home there; never under the caller's feet when it cancels.
    private void Schedule(Outcome outcome)
    {
        _outcome = outcome;
        if (outcome == Outcome.Room && _connection.IsInline && _waitsOnLoop && !_memory.Loop.IsCurrent)
        {
            try
            {
                _memory.Loop.Post(s_completeFlush, this);
                return;
            }
            catch (ObjectDisposedException)
            {
                // it has stopped: there is no place on it any more
            }
        }
        if (outcome == Outcome.Room && (_connection.IsInline || !_memory.Loop.IsCurrent)) CompleteFlush();
        else ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
    }

    void IThreadPoolWorkItem.Execute() => CompleteFlush();

    private void CompleteFlush()
    {
        if (SynchronizationContext.Current is not null) SynchronizationContext.SetSynchronizationContext(null); // the loop sets its own again
        if (_outcome == Outcome.TokenCancelled) _flush.SetException(new OperationCanceledException(_token));
        else _flush.SetResult(new FlushResult(_outcome == Outcome.Cancelled, _connection.ShutdownReason is not null));
    }

    FlushResult IValueTaskSource<FlushResult>.GetResult(short token)
    {
        if (_flush.GetStatus(token) != ValueTaskSourceStatus.Pending && _token.CanBeCanceled)
        {
            _registration.Dispose(); // none of this flush's may reach the next
            _registration = default;
            _token = default;
        }
        return _flush.GetResult(token);
    }

    ValueTaskSourceStatus IValueTaskSource<FlushResult>.GetStatus(short token) => _flush.GetStatus(token);

    void IValueTaskSource<FlushResult>.OnCompleted(Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        _flush.OnCompleted(continuation, state, token, flags & ~ValueTaskSourceOnCompletedFlags.UseSchedulingContext);

    // ---- buffers: the writing thread

    private void Drop()
    {
        if (_head is not null) Release(_head);
        _head = _tail = null;
        _unflushed = 0;
    }

    private void Release(Segment first)
    {
        for (Segment? segment = first; segment is not null;)
        {
            var next = segment.NextSegment;
            segment.Release(_memory);
            _spare = segment;
            segment = next;
        }
    }

    private static InvalidOperationException Completed() => new("The writer is completed.");
}
