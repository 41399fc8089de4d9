using System.Runtime.CompilerServices;

namespace Amy.Async;

/// <summary>What <see cref="EventLoop.SwitchTo"/> and <see cref="EventLoop.Yield"/> return; await it at once.</summary>
public readonly struct LoopAwaitable : IEquatable<LoopAwaitable>
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

    /// <inheritdoc/>
    public bool Equals(LoopAwaitable other) => _loop == other._loop && _yield == other._yield;

    /// <inheritdoc/>
    public override bool Equals(object? obj) => obj is LoopAwaitable other && Equals(other);

    /// <inheritdoc/>
    public override int GetHashCode() => (_loop?.GetHashCode() ?? 0) ^ (_yield ? 1 : 0);

    /// <summary>Whether both stand for the same way onto the same loop.</summary>
    public static bool operator ==(LoopAwaitable left, LoopAwaitable right) => left.Equals(right);

    /// <summary>Whether they differ.</summary>
    public static bool operator !=(LoopAwaitable left, LoopAwaitable right) => !left.Equals(right);

    /// <summary>For the compiler.</summary>
    public readonly struct Awaiter : ICriticalNotifyCompletion, IEquatable<Awaiter>
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
        public void OnCompleted(Action continuation)
        {
            if (continuation is null) throw new ArgumentNullException(nameof(continuation));
            _loop.EnqueueOrPool(s_run, continuation, null, ExecutionContext.Capture());
        }

        /// <inheritdoc/>
        public void UnsafeOnCompleted(Action continuation)
        {
            if (continuation is null) throw new ArgumentNullException(nameof(continuation));
            _loop.EnqueueOrPool(s_run, continuation);
        }

        /// <inheritdoc/>
        public bool Equals(Awaiter other) => _loop == other._loop && _yield == other._yield;

        /// <inheritdoc/>
        public override bool Equals(object? obj) => obj is Awaiter other && Equals(other);

        /// <inheritdoc/>
        public override int GetHashCode() => (_loop?.GetHashCode() ?? 0) ^ (_yield ? 1 : 0);

        /// <summary>Whether both go to the same loop in the same way.</summary>
        public static bool operator ==(Awaiter left, Awaiter right) => left.Equals(right);

        /// <summary>Whether they differ.</summary>
        public static bool operator !=(Awaiter left, Awaiter right) => !left.Equals(right);
    }
}
