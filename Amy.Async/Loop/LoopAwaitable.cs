using System.Runtime.CompilerServices;

namespace Amy.Async;

/// <summary>What <see cref="EventLoop.SwitchTo"/> and <see cref="EventLoop.Yield"/> return; await it at once.</summary>
public readonly record struct LoopAwaitable
{
    private readonly EventLoop _loop;
    private readonly bool _yield;

    internal LoopAwaitable(EventLoop loop, bool yield)
    {
        _loop = loop;
        _yield = yield;
    }

    /// <summary>The awaiter, for the compiler.</summary>
    public Awaiter GetAwaiter() => new(_loop, _yield);

    /// <summary>For the compiler.</summary>
    public readonly record struct Awaiter : ICriticalNotifyCompletion
    {
        private static readonly Action<object, object?> s_run = static (continuation, _) => ((Action)continuation)();

        private readonly EventLoop _loop;
        private readonly bool _yield;

        internal Awaiter(EventLoop loop, bool yield)
        {
            _loop = loop;
            _yield = yield;
        }

        /// <summary>Whether the caller is on the loop already, under its context, and asked for no more.</summary>
        public bool IsCompleted => !_yield && _loop.IsCurrent && SynchronizationContext.Current == _loop.SynchronizationContext;

        /// <summary>Goes on on the loop's thread.</summary>
        /// <exception cref="ObjectDisposedException">The loop has stopped.</exception>
        public void GetResult()
        {
            if (!_loop.IsCurrent) throw EventLoop.StoppedError();
        }

        /// <inheritdoc/>
        public void OnCompleted(Action continuation) => Queue(continuation, ExecutionContext.Capture());

        /// <inheritdoc/>
        public void UnsafeOnCompleted(Action continuation) => Queue(continuation, null);

        private void Queue(Action continuation, ExecutionContext? context) =>
            _loop.EnqueueOrPool(s_run, continuation ?? throw new ArgumentNullException(nameof(continuation)), null, context);
    }
}
