using System.Buffers;
using System.IO.Pipelines;
using Amy.Async.Native;

namespace Amy.Async;

/// <summary>The reading side of <see cref="SocketPipe"/>: a list of buffers that grows by receives and shrinks by AdvanceTo.</summary>
/// <remarks>
/// The list belongs to whoever may use the reader, which is one thread at a time; while a read waits, to the loop, which
/// receives. The direction's state word orders the two.
/// </remarks>
internal sealed class SocketPipeReader(SocketPipe pipe) : PipeReader
{
    private PipeSegment? _head;
    private int _start; // of the data, in _head
    private PipeSegment? _tail;
    private SpareSegments _spare; // mutable struct
    private bool _examinedAll = true;
    private bool _end; // the peer sends no more
    private volatile bool _completed; // also read by the loop, under a read that waits
    private int _cancel; // 1: the pending or next read is cancelled; any thread, Interlocked
    private ReadAction? _action;

    public override ValueTask<ReadResult> ReadAsync(CancellationToken cancellationToken = default)
    {
        if (cancellationToken.IsCancellationRequested) return new ValueTask<ReadResult>(Task.FromCanceled<ReadResult>(cancellationToken));
        if (TryReadBuffered(out var result)) return new ValueTask<ReadResult>(result);
        var source = pipe.Source;
        var begun = source.Begin(Direction.Read, out var deferred);
        return TakeAction(source).Start(pipe.Socket, source, Direction.Read, begun == StateWord.BeginResult.Attempt, deferred, cancellationToken);
    }

    public override bool TryRead(out ReadResult result)
    {
        if (TryReadBuffered(out result)) return true;
        var source = pipe.Source;
        source.BeginTry(Direction.Read);
        var action = TakeAction(source);
        var n = -Errno.EAGAIN;
        var ready = true;
        try
        {
            n = action.Attempt(source, out ready);
        }
        finally // a pool may refuse
        {
            source.End(Direction.Read, ready && n != -Errno.EAGAIN);
        }
        if (n == -Errno.EAGAIN) return false;
        if (n < 0) throw source.Failure(n);
        result = action.Result;
        return true;
    }

    public override void AdvanceTo(SequencePosition consumed) => AdvanceTo(consumed, consumed);

    public override void AdvanceTo(SequencePosition consumed, SequencePosition examined)
    {
        if (_completed) throw Completed();
        if (consumed.GetObject() is not PipeSegment target || _head is null)
        {
            _examinedAll = _head is null || examined.GetObject() == _tail && examined.GetInteger() == _tail!.End;
            return; // the position of an empty buffer
        }
        var index = consumed.GetInteger();
        var end = _tail!;
        _examinedAll = examined.GetObject() == end && examined.GetInteger() == end.End;
        while (_head != target) DropHead(); // throws if the position is not of this list
        _start = index;
        if (_head == end && index == end.End) DropHead(); // everything is consumed: hold nothing
        else if (index == _head!.End && _head.Next is not null) DropHead();
    }

    public override void CancelPendingRead()
    {
        Interlocked.Exchange(ref _cancel, 1); // before the look: it sees this, or the read that arms later does (MustLook)
        Volatile.Read(ref _action)?.Operation.RequestLook();
    }

    public override void Complete(Exception? exception = null)
    {
        if (_completed) return;
        _completed = true;
        // While a read waits, the buffers are the loop's: it gives them back when it looks.
        if (pipe.Source.State.IsBusy(Direction.Read) && Volatile.Read(ref _action) is { } action) action.Operation.RequestLook();
        else DropAll();
        pipe.OnCompleted();
    }

    private void DropAll()
    {
        while (_head is not null) DropHead();
        _spare = default;
    }

    private ReadAction TakeAction(SocketSource source)
    {
        var action = _action;
        if (action is not null) return action;
        action = new ReadAction(this) { Operation = source.Operation(Direction.Read) };
        Volatile.Write(ref _action, action);
        return action;
    }

    private bool TryReadBuffered(out ReadResult result)
    {
        if (_completed) throw Completed();
        var canceled = Interlocked.CompareExchange(ref _cancel, 0, 1) == 1;
        result = default;
        if (!canceled && !_end && (_head is null || _examinedAll)) return false;
        result = Current(canceled);
        return true;
    }

    private ReadResult Current(bool isCanceled) => new(
        _head is null ? ReadOnlySequence<byte>.Empty : new ReadOnlySequence<byte>(_head, _start, _tail!, _tail!.End), isCanceled, _end);

    /// <summary>recv(2) into what is free of the last buffer, or into a fresh one that goes back if there was nothing.</summary>
    private int Receive(SocketSource source, out bool ready)
    {
        var fresh = _tail is null || _tail.Free.Length < _tail.Size / 4 ? TakeSegment() : null; // a call for a few bytes is not worth it
        int n;
        try
        {
            n = source.Receive((fresh ?? _tail!).Free.Span, out ready);
        }
        catch
        {
            if (fresh is not null) Keep(fresh);
            throw;
        }
        if (n > 0)
        {
            if (fresh is not null) Append(fresh);
            _tail!.Grow(n);
            _examinedAll = false;
            return n;
        }
        if (fresh is not null) Keep(fresh);
        if (n == 0) _end = true;
        return n;
    }

    private PipeSegment TakeSegment()
    {
        var segment = _spare.Take();
        segment.Rent(pipe.Options, 0);
        return segment;
    }

    private void Append(PipeSegment segment)
    {
        if (_tail is null)
        {
            _head = segment;
            _start = 0;
        }
        else _tail.Append(segment);
        _tail = segment;
    }

    private void DropHead()
    {
        var head = _head ?? throw new InvalidOperationException("The position is not of the buffer that was read last.");
        _head = head.NextSegment;
        _start = 0;
        if (_head is null) _tail = null;
        Keep(head);
    }

    private void Keep(PipeSegment segment)
    {
        segment.Release();
        _spare.Keep(segment);
    }

    private static InvalidOperationException Completed() => new("The reader is completed.");

    private sealed class ReadAction(SocketPipeReader reader) : SocketAction<ReadResult>
    {
        internal override bool MustLook => Volatile.Read(ref reader._cancel) != 0;

        internal override int Attempt(SocketSource socket, out bool ready)
        {
            var n = reader.Receive(socket, out ready);
            if (n < 0) return n;
            if (reader._completed) reader.DropAll();
            Result = reader.Current(isCanceled: false);
            return 0;
        }

        internal override bool Examine()
        {
            if (reader._completed) reader.DropAll();
            else if (Interlocked.CompareExchange(ref reader._cancel, 0, 1) != 1) return false;
            Result = reader.Current(isCanceled: true);
            return true;
        }
    }
}
