using Amy.Async.Compat;

namespace Amy.Async;

/// <summary>
/// A function on its way to the loop, and the promise of its result. The promise's continuations never run on the loop
/// because it is kept there.
/// </summary>
internal sealed class Invocation<T>(Func<T>? function, Func<Task<T>>? asyncFunction, Delegate work, CancellationToken cancellationToken)
    : TaskCompletionSource<T>(TaskCreationOptions.RunContinuationsAsynchronously), INamedWork
{
    private static readonly Action<object, object?> s_run = static (invocation, loop) => ((Invocation<T>)invocation).Run((EventLoop)loop!);
    private static readonly Action<object?> s_cancel = static invocation => ((Invocation<T>)invocation!).Cancel();

    private CancellationTokenRegistration _registration;
    private int _begun; // 1: it runs or was cancelled; Interlocked decides between the two

    /// <inheritdoc/>
    public Delegate Work => work;

    internal Task<T> Queue(EventLoop loop)
    {
        if (cancellationToken.IsCancellationRequested) return System.Threading.Tasks.Task.FromCanceled<T>(cancellationToken);
        loop.ThrowIfStopping();
        if (cancellationToken.CanBeCanceled) _registration = Runtime.Register(s_cancel, this, cancellationToken);
        loop.EnqueueOrPool(s_run, this, loop, loop.FlowingContext());
        return Task;
    }

    private void Run(EventLoop loop)
    {
        if (Interlocked.Exchange(ref _begun, 1) != 0) return;
        Runtime.Unregister(_registration);
        if (loop.IsCurrent) _ = Complete();
        else TrySetException(EventLoop.StoppedError()); // left over when the loop stopped
    }

    // async: everything that the function throws, synchronously or not, ends in the promise
    private async Task Complete()
    {
        try
        {
            TrySetResult(function is not null ? function() : await Started().ConfigureAwait(false));
        }
        catch (OperationCanceledException e)
        {
            TrySetCanceled(e.CancellationToken);
        }
        catch (Exception e)
        {
            TrySetException(e);
        }
    }

    private Task<T> Started() => asyncFunction!() ?? throw new InvalidOperationException("The async function returned null instead of a task.");

    private void Cancel()
    {
        if (Interlocked.Exchange(ref _begun, 1) == 0) TrySetCanceled(cancellationToken);
    }
}
