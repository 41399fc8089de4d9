using System.Diagnostics.CodeAnalysis;
using System.IO.Pipelines;
using System.Net.Sockets;
using System.Threading.Tasks.Sources;
using Amy.Async.Native;

namespace Amy.Async;

/// <summary>
/// The writing side of <see cref="SocketPipe"/>: a list of buffers, filled by GetMemory and Advance, sent by flushes. What the
/// kernel does not take at once the loop sends on; a flush waits for it only beyond the threshold.
/// </summary>
/// <remarks>
/// <para>The writer's thread appends, and the loop sends: the list and the counts are guarded by the lock on this. A buffer is
/// sent from outside the lock; the sender is one at a time (<c>_sending</c>), and bytes behind what was flushed are not its
/// own.</para>
/// <para>Sending is an operation of the socket's writing direction that nobody awaits. It ends when the list is empty, or with
/// the connection; both show in <c>_sending</c> under the lock. A flush that waits has a state word of its own
/// (<see cref="FlushSide"/>), whose edge is queued to the loop whenever it may have something to see.</para>
/// </remarks>
internal sealed class SocketPipeWriter(SocketPipe pipe) : PipeWriter
{
    private static readonly Action<object, object?> s_start = static (writer, _) => ((SocketPipeWriter)writer).StartSending();
    private static readonly Action<object, object?> s_signal = static (writer, _) => ((SocketPipeWriter)writer)._flush!.OnReady(Readiness.Readable);

    private const int LargestCopy = 65536;

    private readonly SocketPipe _pipe = pipe;

    // Guarded by the lock on this.
    private PipeSegment? _head; // the one that is sent from
    private int _sent; // of _head
    private PipeSegment? _tail; // the one that is written to
    private SpareSegments _spare; // mutable struct
    private long _unsent; // flushed, not taken by the kernel yet
    private long _unflushed; // advanced over, not flushed
    private bool _leased; // the writer holds memory of _tail
    private bool _sending;
    private bool _completed;
    private bool _released; // the pipe was told of the completion
    private Exception? _failure; // of sending, or given to Complete
    private bool _cancelFlush;

    private SendAction? _action;
    private FlushSide? _flush; // made by the first flush that waits

    public override bool CanGetUnflushedBytes => true;

    public override long UnflushedBytes
    {
        get { lock (this) return _unflushed; }
    }

    public override Memory<byte> GetMemory(int sizeHint = 0)
    {
        if (sizeHint < 0) throw new ArgumentOutOfRangeException(nameof(sizeHint), sizeHint, "A size is zero or positive.");
        PipeSegment segment;
        lock (this)
        {
            if (_completed) throw Completed();
            _leased = true; // from here on nobody gives the last buffer back
            if (_tail is not null && _tail.Free.Length >= Math.Max(sizeHint, 1)) return _tail.Free;
            segment = _spare.Take();
        }
        segment.Rent(_pipe.Options, sizeHint); // a pool of the user's: not under the lock
        lock (this)
        {
            if (_tail is null)
            {
                _head = segment;
                _sent = 0;
            }
            else _tail.Append(segment);
            _tail = segment;
            return segment.Free;
        }
    }

    public override Span<byte> GetSpan(int sizeHint = 0) => GetMemory(sizeHint).Span;

    public override void Advance(int bytes)
    {
        lock (this)
        {
            if (_completed) throw Completed();
            if (bytes < 0 || bytes > 0 && (_tail is null || bytes > _tail.Free.Length))
                throw new ArgumentOutOfRangeException(nameof(bytes), bytes, "More than the memory that was given.");
            if (bytes > 0) _tail!.Grow(bytes);
            _unflushed += bytes;
            _leased = false;
        }
    }

    public override ValueTask<FlushResult> FlushAsync(CancellationToken cancellationToken = default)
    {
        if (cancellationToken.IsCancellationRequested) return new ValueTask<FlushResult>(Task.FromCanceled<FlushResult>(cancellationToken));
        lock (this)
        {
            if (_completed) throw Completed();
        }
        SendFlushed();
        lock (this)
        {
            if (_failure is not null) return new ValueTask<FlushResult>(Task.FromException<FlushResult>(_failure));
            if (_cancelFlush)
            {
                _cancelFlush = false;
                return new ValueTask<FlushResult>(new FlushResult(isCanceled: true, isCompleted: false));
            }
            if (_unsent <= _pipe.Options.PauseWriterThreshold) return new ValueTask<FlushResult>(default(FlushResult));
            if (_flush is null) _pipe.Source.Add(_flush = new FlushSide(_pipe.Source.Loop));
        }
        return _flush.WaitAsync(this, cancellationToken);
    }

    /// <summary>What fits into the kernel's buffer goes there without a copy.</summary>
    public override ValueTask<FlushResult> WriteAsync(ReadOnlyMemory<byte> source, CancellationToken cancellationToken = default)
    {
        if (cancellationToken.IsCancellationRequested) return new ValueTask<FlushResult>(Task.FromCanceled<FlushResult>(cancellationToken));
        bool direct;
        lock (this)
        {
            if (_completed) throw Completed();
            direct = !_sending && _unsent == 0 && _unflushed == 0 && _failure is null && !source.IsEmpty;
        }
        if (direct)
        {
            var span = source.Span; // first: it throws if the buffer's owner has let go of it
            var loop = _pipe.Source.Loop;
            if ((!loop.IsCurrent || loop.SpendBudget()) && _pipe.Source.State.Begin(Direction.Write, force: true) == StateWord.BeginResult.Attempt)
            {
                var n = _pipe.Source.SendAll(span);
                _pipe.Source.End(Direction.Write, ready: n == span.Length);
                if (n < 0 && n != -Errno.EAGAIN) return new ValueTask<FlushResult>(Task.FromException<FlushResult>(Fail(_pipe.Source.Failure(n))));
                source = source.Slice(Math.Max(n, 0));
            }
        }
        Copy(source.Span);
        return FlushAsync(cancellationToken);
    }

    // In buffers large enough that each is worth its call, and small enough that they go back while the rest is being sent.
    private void Copy(ReadOnlySpan<byte> source)
    {
        var largest = Math.Min(LargestCopy, _pipe.Options.Pool?.MaxBufferSize ?? LargestCopy);
        while (!source.IsEmpty)
        {
            var target = GetSpan(Math.Min(source.Length, largest));
            var part = source.Slice(0, Math.Min(source.Length, target.Length));
            part.CopyTo(target);
            Advance(part.Length);
            source = source.Slice(part.Length);
        }
    }

    public override void CancelPendingFlush()
    {
        lock (this) _cancelFlush = true;
        Signal();
    }

    /// <summary>
    /// The peer sees the end of the stream when it has got what was flushed. With an exception it sees a reset instead: what it
    /// has got is not all.
    /// </summary>
    public override void Complete(Exception? exception = null)
    {
        lock (this)
        {
            if (_completed) return;
            _completed = true;
            _unsent += exception is null ? _unflushed : 0;
            _unflushed = 0;
            _failure ??= exception;
        }
        if (exception is null) SendFlushed();
        else if (_pipe.Options.OwnsSocket) _pipe.Socket.Abort();
        Finish();
    }

    // ---- sending

    // The writer's thread. Sends what the kernel takes; the rest is the loop's.
    private void SendFlushed()
    {
        bool start;
        lock (this)
        {
            if (!_completed)
            {
                _unsent += _unflushed;
                _unflushed = 0;
                _leased = false;
            }
            if (_sending || _failure is not null) return;
            start = _sending = _unsent > 0;
        }
        if (start) StartSending();
        else ReleaseSent();
    }

    // Our last send has cleared _sending, and may not have given the direction back yet, which the loop does before it runs what
    // is queued. There, whatever has the direction is somebody else's.
    [SuppressMessage("Reliability", "CA2012", Justification = "Not awaited: how it ends shows in the fields.")]
    private void StartSending()
    {
        var source = _pipe.Source;
        var deferred = source.Loop.IsCurrent && !source.Loop.SpendBudget();
        var begun = source.State.Begin(Direction.Write, defer: deferred);
        if (begun == StateWord.BeginResult.Busy && !source.Loop.IsCurrent) source.Loop.EnqueueOrPool(s_start, this);
        else if (begun >= StateWord.BeginResult.Busy)
        {
            Fail(source.CannotBegin(Direction.Write, begun));
            Finish();
        }
        else
        {
            var action = _action ??= new SendAction(this) { Operation = source.Operation(Direction.Write) };
            action.Ended = false;
            _ = action.Start(_pipe.Socket, source, Direction.Write, begun == StateWord.BeginResult.Attempt, deferred, CancellationToken.None);
        }
    }

    // Whoever holds the direction: the writer's thread, or the loop.
    private int Send(SocketSource source)
    {
        var sent = 0L;
        while (true)
        {
            ReadOnlyMemory<byte> next;
            ReleaseSent();
            lock (this)
            {
                next = NextToSend();
                if (next.IsEmpty)
                {
                    if (_unsent > 0 && _failure is null) continue; // the first buffer is sent, and no longer the last one: give it back
                    _sending = false;
                    break;
                }
            }
            var n = source.SendAll(next.Span);
            if (n == -Errno.EAGAIN) return Waiting();
            if (n < 0)
            {
                Fail(source.Failure(n));
                return Done(); // nobody awaits this operation: the next flush tells
            }
            lock (this)
            {
                _sent += n;
                _unsent -= n;
            }
            sent += n;
            _action!.Operation.RenewTimeout(); // one operation sends all that comes: its time-out is for standing still
            if (n < next.Length || source.MustYield(sent)) return Waiting();
        }
        return Done();
    }

    private int Waiting()
    {
        Signal();
        return -Errno.EAGAIN;
    }

    private int Done()
    {
        Signal();
        Finish();
        return 0;
    }

    // Under the lock.
    private ReadOnlyMemory<byte> NextToSend()
    {
        if (_unsent == 0 || _failure is not null) return default;
        var data = _head!.Memory.Slice(_sent);
        return data.Length > _unsent ? data.Slice(0, (int)_unsent) : data;
    }

    // Gives back the buffers of which everything is sent, the last one too unless the writer is about to fill it. The pool may
    // be the user's: not under the lock.
    private void ReleaseSent()
    {
        while (true)
        {
            PipeSegment done;
            lock (this)
            {
                if (_head is null || _sent < _head.End || _head == _tail && _leased) return;
                done = _head;
                _head = done.NextSegment;
                _sent = 0;
                if (_head is null) _tail = null;
            }
            done.Release();
            lock (this) _spare.Keep(done);
        }
    }

    // Once completed and nothing is left: the end of the stream, and the pipe is told.
    private void Finish()
    {
        PipeSegment? rest;
        lock (this)
        {
            if (!_completed || _released || _sending) return;
            _released = true;
            rest = _head;
            _head = _tail = null;
            _spare = default;
        }
        while (rest is not null)
        {
            var next = rest.NextSegment;
            rest.Release();
            rest = next;
        }
        if (_failure is null)
        {
            try
            {
                _pipe.Source.Shutdown(SocketConstants.SHUT_WR);
            }
            catch (Exception e) when (e is SocketException or ObjectDisposedException)
            {
                // The connection is over already.
            }
        }
        _pipe.OnCompleted();
    }

    private Exception Fail(Exception failure)
    {
        lock (this)
        {
            _failure ??= failure;
            _sending = false;
        }
        Signal();
        return failure;
    }

    // Nothing is ever resumed from here: this may be the writer's own call.
    private void Signal()
    {
        // Not armed yet: it looks for itself when it is.
        if (Volatile.Read(ref _flush) is { } flush && flush.State.IsArmed(Direction.Read)) _pipe.Source.Loop.EnqueueOrPool(s_signal, this);
    }

    private static InvalidOperationException Completed() => new("The writer is completed.");

    private sealed class SendAction(SocketPipeWriter writer) : SocketAction<int>
    {
        /// <summary>Whether Send has seen to how it ends. Belongs to the operation in progress.</summary>
        internal bool Ended;

        internal override int Attempt(SocketSource socket, out bool ready)
        {
            ready = true;
            var n = writer.Send(socket);
            Ended = n != -Errno.EAGAIN;
            return n;
        }

        // Else the socket was closed, the loop has stopped, or it took longer than the time-out.
        internal override void Release()
        {
            if (Ended) return;
            writer.Fail(writer._pipe.Source.State.IsEnded ? writer._pipe.Source.EndedError() : new TimeoutException(writer._pipe.Source.TimeoutMessage(Direction.Write)));
            writer.Finish();
        }
    }

    /// <summary>A flush that waits until enough is sent.</summary>
    private sealed class FlushSide(EventLoop loop) : SideSource(loop, Readiness.None)
    {
        private SocketPipeWriter? _writer; // only while a flush waits: the source, which keeps this, must not keep the socket

        protected override string ObjectName => nameof(AsyncSocket);

        internal ValueTask<FlushResult> WaitAsync(SocketPipeWriter writer, CancellationToken token)
        {
            var begun = Begin(Direction.Read, out var deferred);
            _writer = writer;
            var operation = (FlushOperation)(Reader ??= new FlushOperation(this));
            if (begun == StateWord.BeginResult.Attempt && TryResult(out var result, out var failure))
            {
                _writer = null;
                End(Direction.Read, ready: true);
                return failure is null ? new ValueTask<FlushResult>(result) : new ValueTask<FlushResult>(Task.FromException<FlushResult>(failure));
            }
            return operation.Wait(deferred, token);
        }

        protected override InvalidOperationException Busy(Direction direction) => new("Another flush of this pipe is in progress.");

        internal void Release() => _writer = null;

        internal bool TryResult(out FlushResult result, out Exception? failure)
        {
            var writer = _writer!;
            lock (writer)
            {
                result = new FlushResult(writer._cancelFlush, isCompleted: false);
                failure = writer._failure;
                var done = writer._cancelFlush || failure is not null || writer._unsent <= writer._pipe.Options.ResumeWriterThreshold;
                if (done) writer._cancelFlush = false;
                return done;
            }
        }
    }

    private sealed class FlushOperation(FlushSide side) : Operation(side, Direction.Read), IValueTaskSource<FlushResult>
    {
        private FlushResult _result;

        internal ValueTask<FlushResult> Wait(bool deferred, CancellationToken token)
        {
            var version = Version;
            Start(deferred, token);
            return new ValueTask<FlushResult>(this, version);
        }

        protected override bool Attempt()
        {
            if (!side.TryResult(out _result, out var failure)) return false;
            Error = failure;
            return true;
        }

        // It may have come true before the wait was armed, with no edge to come.
        protected override void OnArmed() => RequestLook();

        protected override bool Examine() => Attempt();

        protected override void OnCompleting() => side.Release();

        FlushResult IValueTaskSource<FlushResult>.GetResult(short token)
        {
            var result = _result;
            ThrowIf(Fetch(token));
            return result;
        }
    }
}
