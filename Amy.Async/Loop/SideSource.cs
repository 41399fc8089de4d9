using System.Threading.Tasks.Sources;

namespace Amy.Async;

/// <summary>
/// Something besides reading and writing that one may wait for on a descriptor: its hang-up, its exceptional condition. It has
/// a state word of its own, so that it is awaited while the two directions are in use; it gets its edges from the source that
/// it belongs to, and ends with it.
/// </summary>
internal abstract class SideSource(EventLoop loop, Readiness wanted) : AwaitableSource(loop, default)
{
    /// <summary>Which of the descriptor's events are edges here.</summary>
    internal readonly Readiness Wanted = wanted;

    /// <summary>The next side of the same source; written before this one is published.</summary>
    internal SideSource? Next;
}

/// <summary>A side whose edge is the result.</summary>
internal abstract class ReadinessSide(EventLoop loop, Readiness wanted) : SideSource(loop, wanted)
{
    private SideOperation Operation => (SideOperation)(Reader ??= new SideOperation(this));

    /// <summary>Whether what one waits for holds already, whatever edges have come.</summary>
    protected abstract bool IsMet { get; }

    /// <summary>Called when a wait is armed: the place to have the kernel report again.</summary>
    protected virtual void OnArmed()
    {
    }

    /// <summary>Waits for an edge. <paramref name="owner"/> is kept alive meanwhile.</summary>
    internal ValueTask<Readiness> WaitAsync(object owner, CancellationToken token)
    {
        if (token.IsCancellationRequested) return new ValueTask<Readiness>(Task.FromCanceled<Readiness>(token));
        return Start(owner, token, out var version) ? new ValueTask<Readiness>(Operation, version) : new ValueTask<Readiness>(Wanted);
    }

    /// <summary>The same without a result.</summary>
    internal ValueTask WaitAsyncFor(object owner, CancellationToken token)
    {
        if (token.IsCancellationRequested) return new ValueTask(Task.FromCanceled(token));
        return Start(owner, token, out var version) ? new ValueTask(Operation, version) : default;
    }

    // False: it holds already.
    private bool Start(object owner, CancellationToken token, out short version)
    {
        version = 0;
        var fresh = Begin(Direction.Read, out var deferred) == StateWord.BeginResult.Attempt;
        if (fresh || IsMet && !deferred)
        {
            End(Direction.Read, ready: false);
            return false;
        }
        version = Operation.Wait(owner, deferred, token);
        return true;
    }

    private sealed class SideOperation(ReadinessSide side) : Operation(side, Direction.Read), IValueTaskSource<Readiness>, IValueTaskSource
    {
        private object? _owner;

        internal short Wait(object owner, bool deferred, CancellationToken token)
        {
            _owner = owner;
            var version = Version;
            Start(deferred, token);
            return version;
        }

        protected override bool Attempt() => true; // the edge is the result

        protected override bool RemainsReady => false;

        protected override void OnArmed() => ((ReadinessSide)Source).OnArmed();

        // What holds already has no edge to come.
        protected override bool Examine() => ((ReadinessSide)Source).IsMet;

        protected override void OnCompleting() => _owner = null;

        Readiness IValueTaskSource<Readiness>.GetResult(short token)
        {
            ThrowIf(Fetch(token));
            return ((ReadinessSide)Source).Wanted;
        }

        void IValueTaskSource.GetResult(short token) => ThrowIf(Fetch(token));
    }
}
