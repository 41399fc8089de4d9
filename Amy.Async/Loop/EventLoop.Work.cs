using System.Diagnostics;
using Amy.Async.Compat;

namespace Amy.Async;

// Work that comes from outside the dispatch: posted actions and invocations.
public sealed partial class EventLoop
{
    private static readonly Action<object, object?> s_runAction = static (action, _) => ((Action)action)();

    /// <summary>
    /// Runs an action on the loop's thread in a later turn (also when called on it). The execution context flows. Allocates
    /// nothing.
    /// </summary>
    /// <remarks>What it throws goes to <see cref="EventLoopOptions.UnhandledException"/>. Do not pass an async lambda: use
    /// <see cref="InvokeAsync(Func{Task}, CancellationToken)"/>.</remarks>
    /// <exception cref="ObjectDisposedException">The loop has stopped.</exception>
    public void Post(Action action)
    {
        if (action is null) throw new ArgumentNullException(nameof(action));
        Enqueue(s_runAction, action, null, FlowingContext());
    }

    /// <summary>Like <see cref="Post(Action)"/>, with an argument instead of a closure.</summary>
    /// <exception cref="ObjectDisposedException">The loop has stopped.</exception>
    public void Post<TState>(Action<TState> action, TState state) where TState : class
    {
        if (action is null) throw new ArgumentNullException(nameof(action));
        Enqueue(TypedPost<TState>.Run, action, state, FlowingContext());
    }

    /// <summary>Runs an action on the loop's thread. The execution context flows.</summary>
    /// <returns>
    /// A task that ends with the action; its continuations do not run on the loop unless they ask for it. Cancelled if the
    /// token is before the action begins; failed with an <see cref="ObjectDisposedException"/> if the loop stops before.
    /// </returns>
    /// <exception cref="ObjectDisposedException">The loop has stopped.</exception>
    public Task InvokeAsync(Action action, CancellationToken cancellationToken = default)
    {
        if (action is null) throw new ArgumentNullException(nameof(action));
        return new Invocation<bool>(() => { action(); return true; }, null, action, cancellationToken).Queue(this);
    }

    /// <summary>Runs a function on the loop's thread. The execution context flows.</summary>
    /// <returns>A task with the result; see <see cref="InvokeAsync(Action, CancellationToken)"/>.</returns>
    /// <exception cref="ObjectDisposedException">The loop has stopped.</exception>
    public Task<T> InvokeAsync<T>(Func<T> function, CancellationToken cancellationToken = default)
    {
        if (function is null) throw new ArgumentNullException(nameof(function));
        return new Invocation<T>(function, null, function, cancellationToken).Queue(this);
    }

    /// <summary>Runs an async function on the loop's thread. The execution context flows.</summary>
    /// <returns>A task that ends with the function's; see <see cref="InvokeAsync(Action, CancellationToken)"/>.</returns>
    /// <exception cref="ObjectDisposedException">The loop has stopped.</exception>
    public Task InvokeAsync(Func<Task> function, CancellationToken cancellationToken = default)
    {
        if (function is null) throw new ArgumentNullException(nameof(function));
        return new Invocation<bool>(null, async () => { await function().ConfigureAwait(false); return true; }, function, cancellationToken).Queue(this);
    }

    /// <summary>Runs an async function on the loop's thread. The execution context flows.</summary>
    /// <returns>A task with the function's result; see <see cref="InvokeAsync(Action, CancellationToken)"/>.</returns>
    /// <exception cref="ObjectDisposedException">The loop has stopped.</exception>
    public Task<T> InvokeAsync<T>(Func<Task<T>> function, CancellationToken cancellationToken = default)
    {
        if (function is null) throw new ArgumentNullException(nameof(function));
        return new Invocation<T>(null, function, function, cancellationToken).Queue(this);
    }

    /// <summary>
    /// <c>await loop.SwitchTo()</c>: go on on the loop's thread, under its context; at once if the caller is there already.
    /// </summary>
    /// <exception cref="ObjectDisposedException">The loop has stopped (also out of the await).</exception>
    public LoopAwaitable SwitchTo()
    {
        ThrowIfStopping();
        return new LoopAwaitable(this, yield: false);
    }

    /// <summary><c>await loop.Yield()</c>: let the rest of the turn run first, then go on on the loop's thread.</summary>
    /// <exception cref="ObjectDisposedException">The loop has stopped (also out of the await).</exception>
    public LoopAwaitable Yield()
    {
        ThrowIfStopping();
        return new LoopAwaitable(this, yield: true);
    }

    // ---- the queue

    /// <summary>Queues work; throws when the loop has stopped.</summary>
    internal void Enqueue(Action<object, object?> run, object target, object? state = null, ExecutionContext? context = null)
    {
        if (!TryEnqueue(run, target, state, context)) throw StoppedError();
    }

    /// <summary>Queues work; hands it to the thread pool when the loop has stopped.</summary>
    internal void EnqueueOrPool(Action<object, object?> run, object target, object? state = null, ExecutionContext? context = null)
    {
        if (!TryEnqueue(run, target, state, context)) RunOnPool(new WorkItem(run, target, state, context));
    }

    private bool TryEnqueue(Action<object, object?> run, object target, object? state, ExecutionContext? context)
    {
        if (!_queue.TryAdd(new WorkItem(run, target, state, context))) return false;
        if (IsCurrent) _now.OwnPosts++; // the loop looks at the queue before it sleeps
        else if (_queue.IsClosed) RunLeftOvers();
        else if (_poller.IsSleeping)
        {
            _wakerProcessor = _calls.CurrentProcessor();
            _poller.Wake();
        }
        return true;
    }

    private void RunLeftOvers()
    {
        while (_queue.TryTake(out var item)) RunOnPool(item);
    }

    private void RunOnPool(WorkItem item) => new LeftOver(_unhandledException, item, _baseContext).Queue();

    /// <summary>The caller's context, if it differs from what the item would run in anyway.</summary>
    internal ExecutionContext? FlowingContext()
    {
        var context = ExecutionContext.Capture();
        return context == _baseContext ? null : context;
    }

    private static class TypedPost<TState> where TState : class
    {
        internal static readonly Action<object, object?> Run = static (action, state) => ((Action<TState>)action)((TState)state!);
    }
}
