using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Threading.Tasks.Sources;

namespace Amy.Async;

/// <summary>
/// Readiness of a descriptor that belongs to somebody else, who reads, writes and closes it without telling us: what
/// <c>ReadableAsync</c> on a <c>Socket</c> or <c>SafeHandle</c> waits on.
/// </summary>
/// <remarks>
/// <para>An answer is level-true although epoll is edge-triggered: if no edge has come since the last answer, the wait arms
/// and then re-registers, which makes the kernel report again what is there (one system call). What is found may be gone
/// again when the caller reads: that is what its non-blocking read is for.</para>
/// <para>The interest in the kernel is that of the armed directions, so that a readable wait is not woken by the socket
/// being writable. Bindings are found by handle; the table does not keep an idle handle alive, and while a wait is armed
/// the loop looks every <see cref="PlainSweep.Period"/> whether its handle was closed, since the kernel says nothing
/// about that.</para>
/// </remarks>
internal sealed class PlainSource : AwaitableSource
{
    private static readonly ConditionalWeakTable<SafeHandle, PlainSource> s_bindings = new();

    private static readonly Func<PlainSource, Interest> s_armedInterest = static source =>
        (source.State.IsArmed(Direction.Read) ? Interest.Readable : 0) | (source.State.IsArmed(Direction.Write) ? Interest.Writable : 0);

    private readonly WeakReference<SafeHandle> _handle;
    private readonly string _name;
    private int _waits; // in progress, of both directions; Interlocked, pairs with PlainSweep

    private PlainSource(EventLoop loop, SafeHandle handle) : base(loop, default)
    {
        _handle = new WeakReference<SafeHandle>(handle);
        _name = handle.GetType().Name;
    }

    protected override string ObjectName => _name;

    /// <summary>The binding of the handle, made on its first wait.</summary>
    /// <param name="handle">The descriptor.</param>
    /// <param name="loop">The loop to wait on.</param>
    /// <param name="prepare">Called once, before the handle is bound: checks and prepares it.</param>
    /// <param name="argument">Passed to <paramref name="prepare"/>.</param>
    /// <exception cref="InvalidOperationException">It is bound to another loop.</exception>
    internal static PlainSource Of<T>(SafeHandle handle, EventLoop loop, Action<T>? prepare, T argument)
    {
        if (s_bindings.TryGetValue(handle, out var source) && !source.State.IsEnded)
            return source.Loop == loop ? source : throw Elsewhere(handle, source);
        return Bind(handle, loop, prepare, argument);
    }

    private static PlainSource Bind<T>(SafeHandle handle, EventLoop loop, Action<T>? prepare, T argument)
    {
        lock (s_bindings)
        {
            if (s_bindings.TryGetValue(handle, out var source))
            {
                if (!source.State.IsEnded) return source.Loop == loop ? source : throw Elsewhere(handle, source);
                s_bindings.Remove(handle); // of a loop that has stopped, or forgotten
            }
            if (handle.IsClosed || handle.IsInvalid) throw new ObjectDisposedException(handle.GetType().Name);
            prepare?.Invoke(argument);
            source = new PlainSource(loop, handle);
            if (!source.TryHold(out var held)) throw new ObjectDisposedException(handle.GetType().Name);
            try
            {
                loop.Attach(source, (int)handle.DangerousGetHandle(), 0);
            }
            finally
            {
                held?.DangerousRelease();
            }
            s_bindings.Add(handle, source);
            PlainBinding.Tie(handle, source);
            return source;
        }
    }

    /// <summary>Ends the binding; pending waits end with an <see cref="ObjectDisposedException"/>.</summary>
    internal static void Forget(SafeHandle handle, EventLoop loop)
    {
        PlainSource? source;
        lock (s_bindings)
        {
            if (!s_bindings.TryGetValue(handle, out source)) return;
            if (source.Loop != loop && !source.State.IsEnded) throw Elsewhere(handle, source);
            s_bindings.Remove(handle);
        }
        source.Close();
    }

    internal override bool TryHold(out SafeHandle? held)
    {
        held = null;
        return _handle.TryGetTarget(out var handle) && TryHold(handle, out held);
    }

    internal ValueTask<Readiness> WaitAsync(Direction direction, SafeHandle handle, CancellationToken token)
    {
        if (token.IsCancellationRequested) return new ValueTask<Readiness>(Task.FromCanceled<Readiness>(token));
        if (handle.IsClosed) throw new ObjectDisposedException(_name);
        if (Begin(direction, out var deferred) == StateWord.BeginResult.Attempt)
        {
            End(direction, ready: false); // a fresh edge: the answer, and it is used up
            return new ValueTask<Readiness>(Current(direction));
        }
        var operation = OperationOf(direction);
        var version = operation.Version;
        operation.Handle = handle;
        Interlocked.Increment(ref _waits);
        Loop.Sweep.Ensure();
        operation.Start(deferred, token);
        return new ValueTask<Readiness>(operation, version);
    }

    internal override bool CheckHandle()
    {
        if (Volatile.Read(ref _waits) == 0) return false;
        if (_handle.TryGetTarget(out var handle) && handle.IsClosed) Close();
        return true;
    }

    private Readiness Current(Direction direction)
    {
        var readiness = direction == Direction.Read ? Readiness.Readable : Readiness.Writable;
        if (State.HasSeen(StateWord.SeenReadClosed)) readiness |= Readiness.ReadClosed;
        if (State.HasSeen(StateWord.SeenWriteClosed)) readiness |= Readiness.WriteClosed;
        if (State.HasSeen(StateWord.SeenError)) readiness |= Readiness.Error;
        return readiness;
    }

    private WaitOperation OperationOf(Direction direction)
    {
        if (direction == Direction.Read) return (WaitOperation)(Reader ??= new WaitOperation(this, direction));
        return (WaitOperation)(Writer ??= new WaitOperation(this, direction));
    }

    private static InvalidOperationException Elsewhere(SafeHandle handle, PlainSource source) =>
        new($"This {handle.GetType().Name} is waited on by another event loop ({source.Loop}); end that with EventLoop.Forget.");

    /// <summary>One wait for readiness: the edge itself is the result.</summary>
    private sealed class WaitOperation(PlainSource source, Direction direction) : Operation(source, direction), IValueTaskSource<Readiness>
    {
        private Readiness _result;

        /// <summary>Kept alive by the wait: a handle that is only waited on must not be collected.</summary>
        internal SafeHandle? Handle;

        private PlainSource Plain => (PlainSource)Source;

        protected override bool Attempt()
        {
            _result = Plain.Current(Side);
            return true;
        }

        protected override bool RemainsReady => false;

        // The loop may have completed the wait by now; then this only asks the kernel once too often.
        protected override void OnArmed()
        {
            if (!Loop.Registrar.Rearm(Plain, s_armedInterest)) Plain.Close(); // closed behind our back
        }

        protected override void OnCompleting()
        {
            Handle = null;
            Interlocked.Decrement(ref Plain._waits);
        }

        Readiness IValueTaskSource<Readiness>.GetResult(short token)
        {
            var result = _result;
            ThrowIf(Fetch(token));
            return result;
        }
    }
}
