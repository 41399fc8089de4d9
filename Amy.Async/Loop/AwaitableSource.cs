namespace Amy.Async;

/// <summary>
/// Something of one loop's that operations wait for: a descriptor, registered with the loop's poller, or a timer. Holds the
/// state word of both directions and their operation objects, and turns the poller's events into edges.
/// </summary>
internal class AwaitableSource(EventLoop loop, StateWord state) : Registration
{
    internal StateWord State = state; // mutable struct: every access by reference

    internal readonly EventLoop Loop = loop;

    // Made by the first operation of the direction that waits, under its Busy bit; read by the loop after it saw Armed.
    private Operation? _reader;
    private Operation? _writer;

    protected Operation? Reader
    {
        get => Volatile.Read(ref _reader);
        set => Volatile.Write(ref _reader, value);
    }

    protected Operation? Writer
    {
        get => Volatile.Read(ref _writer);
        set => Volatile.Write(ref _writer, value);
    }

    private SideSource? _sides; // a list that only grows, at its head; any thread, Interlocked

    /// <summary>Whether out-of-band data makes the reader look: the data behind it has no edge of its own.</summary>
    private const Readiness WakesReader = Readiness.Readable | Readiness.ReadClosed | Readiness.Error | Readiness.Priority;

    private const Readiness WakesWriter = Readiness.Writable | Readiness.WriteClosed | Readiness.Error;

    /// <summary>Loop only: an event of the poller's.</summary>
    internal void OnReady(Readiness readiness)
    {
        var read = (readiness & WakesReader) != 0;
        var write = (readiness & WakesWriter) != 0;
        var seen = Seen(readiness);
        // Before a direction is taken: what awaits a side runs here, and nothing that it asks for may wait for an Inside of ours.
        if (seen != 0 && !State.Edge(read: false, write: false, seen, out _)) SignalSides(readiness);
        if (!State.Edge(read, write, seen, out var taken)) return;
        (taken == Direction.Read ? Reader : Writer)!.Proceed();
        // The reader's continuation has run meanwhile and may have closed everything; Take sees that.
        if (taken == Direction.Read && write && State.IsArmed(Direction.Write) && State.Take(Direction.Write)) Writer!.Proceed();
    }

    private static long Seen(Readiness readiness)
    {
        if ((readiness & ~(Readiness.Readable | Readiness.Writable)) == 0) return 0;
        var seen = 0L;
        if ((readiness & Readiness.ReadClosed) != 0) seen |= StateWord.SeenReadClosed;
        if ((readiness & Readiness.WriteClosed) != 0) seen |= StateWord.SeenWriteClosed;
        if ((readiness & Readiness.Error) != 0) seen |= StateWord.SeenError;
        if ((readiness & Readiness.Priority) != 0) seen |= StateWord.SeenUrgent;
        return seen;
    }

    /// <summary>
    /// Takes a direction for an operation. On the loop's thread this counts against the budget of operations that complete
    /// at once; when it is used up, the operation goes through the queue although it could go on.
    /// </summary>
    /// <exception cref="InvalidOperationException">Another operation is in progress in this direction.</exception>
    /// <exception cref="ObjectDisposedException">The source is closed, or its loop has stopped.</exception>
    internal StateWord.BeginResult Begin(Direction direction, out bool deferred)
    {
        deferred = Loop.IsCurrent && !Loop.SpendBudget();
        var result = State.Begin(direction, defer: deferred);
        if (result >= StateWord.BeginResult.Busy) throw CannotBegin(direction, result);
        return result;
    }

    /// <summary>Takes a direction for one try, whatever is known.</summary>
    internal void BeginTry(Direction direction)
    {
        var result = State.Begin(direction, force: true);
        if (result >= StateWord.BeginResult.Busy) throw CannotBegin(direction, result);
    }

    /// <summary>Gives the direction back.</summary>
    internal void End(Direction direction, bool ready)
    {
        if (State.End(direction, ready)) CloseDescriptor();
    }

    /// <summary>
    /// Closes for good: no more edges, no new operations; the pending ones end through the loop's queue. From any thread.
    /// False: closed before.
    /// </summary>
    /// <remarks>
    /// The kernel forgets the descriptor before it is closed: a dup elsewhere would keep its entry alive for ever. An
    /// operation that begins between the two steps finds itself closed when it arms.
    /// </remarks>
    internal bool Close()
    {
        Loop.Registrar.Deregister(this);
        if (!State.Close(out var mustClose)) return false;
        if (State.IsArmed(Direction.Read)) Reader!.RequestLook(); // what is not armed by now finds itself closed
        if (State.IsArmed(Direction.Write)) Writer!.RequestLook();
        Reader?.LeaveTimer(); // what arms later finds itself closed, and enters none
        Writer?.LeaveTimer();
        for (var side = Volatile.Read(ref _sides); side is not null; side = side.Next) side.Close();
        if (mustClose) CloseDescriptor();
        return true;
    }

    /// <summary>Adds something else to wait for. From any thread.</summary>
    /// <remarks>A side that is added while this closes or stops is ended by one of the two threads: the adder publishes the
    /// side, then looks at the state; the closer sets the state, then looks at the sides; each with a full fence between.</remarks>
    internal void Add(SideSource side)
    {
        do side.Next = Volatile.Read(ref _sides);
        while (Interlocked.CompareExchange(ref _sides, side, side.Next) != side.Next);
        if (State.IsClosed) side.Close();
        else if (State.IsEnded) side.Stop();
    }

    private void SignalSides(Readiness readiness)
    {
        for (var side = Volatile.Read(ref _sides); side is not null; side = side.Next)
            if ((side.Wanted & readiness) != 0) side.OnReady(Readiness.Readable);
    }

    // Somebody closed the descriptor under us: what waits would wait for ever.
    internal override void OnStale() => Close();

    /// <summary>Loop only, when it stops: pending operations end, new ones are refused, the descriptor stays open.</summary>
    internal void Stop()
    {
        State.Stop();
        Reader?.Look();
        Writer?.Look();
        for (var side = Volatile.Read(ref _sides); side is not null; side = side.Next) side.Stop();
    }

    /// <summary>
    /// Loop only: ends the waits in progress if their descriptor was closed behind our back. False: there are none, or nobody
    /// else could.
    /// </summary>
    internal virtual bool CheckHandle() => false;

    /// <summary>Closes what stands behind the source. Called exactly once, when nobody is in a system call on it.</summary>
    internal virtual void CloseDescriptor()
    {
    }

    /// <summary>The public object that stands for this source in messages.</summary>
    protected virtual string ObjectName => nameof(AwaitableSource);

    internal string TimeoutMessage(Direction direction) =>
        $"The {(direction == Direction.Read ? "reading" : "writing")} operation of this {ObjectName} took longer than its time-out.";

    internal ObjectDisposedException EndedError() =>
        State.IsClosed ? new ObjectDisposedException(ObjectName) : EventLoop.StoppedError();

    internal InvalidOperationException CannotBegin(Direction direction, StateWord.BeginResult result) =>
        result == StateWord.BeginResult.Ended ? EndedError() : Busy(direction);

    protected virtual InvalidOperationException Busy(Direction direction) => new(direction == Direction.Read
        ? $"Another operation of the reading direction (accept, receive, readable) of this {ObjectName} is in progress."
        : $"Another operation of the writing direction (connect, send, writable) of this {ObjectName} is in progress.");
}
