using System.Runtime.InteropServices;
using System.Threading.Tasks.Sources;

namespace Amy.Async;

/// <summary>
/// Signals to this process as awaitable events on a loop: Ctrl-C (SIGINT), SIGTERM, SIGHUP and so on. While it exists, their
/// usual effect (ending the process) does not happen.
/// </summary>
/// <remarks>
/// Members may be called from any thread; one receive at a time. A signal that comes again before it was received counts once.
/// Built on <see cref="PosixSignalRegistration"/>: signalfd would stay silent, because the runtime's threads do not block the
/// signals.
/// </remarks>
public sealed class SignalReceiver : IDisposable
{
    private readonly SignalOperation _operation;
    private readonly List<PosixSignalRegistration> _registrations = [];

    /// <summary>Begins to receive signals, on the loop of the calling thread, else on <see cref="EventLoop.Default"/>.</summary>
    /// <param name="signals">Which ones.</param>
    /// <exception cref="ArgumentException">None.</exception>
    public SignalReceiver(params PosixSignal[] signals) : this(null, signals)
    {
    }

    /// <summary>Begins to receive signals.</summary>
    /// <param name="loop">Null: the loop of the calling thread, else <see cref="EventLoop.Default"/>.</param>
    /// <param name="signals">Which ones.</param>
    /// <exception cref="ArgumentException">None.</exception>
    /// <exception cref="IOException">The system refuses: SIGKILL and SIGSTOP cannot be received.</exception>
    /// <exception cref="ObjectDisposedException">The loop has stopped.</exception>
    public SignalReceiver(EventLoop? loop, params PosixSignal[] signals)
    {
        ArgumentNullException.ThrowIfNull(signals);
        if (signals.Length == 0) throw new ArgumentException("At least one signal is needed.", nameof(signals));
        loop ??= EventLoop.Current ?? EventLoop.Default;
        loop.ThrowIfStopping();
        _operation = new SignalOperation(loop);
        try
        {
            foreach (var signal in signals) _registrations.Add(PosixSignalRegistration.Create(signal, _operation.OnSignal));
        }
        catch
        {
            Dispose();
            throw;
        }
        _operation.Begin();
    }

    /// <summary>Waits for the next signal; at once if one has come since the last receive.</summary>
    /// <returns>Which one it was, in the order in which they came.</returns>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="InvalidOperationException">Another receive is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public ValueTask<PosixSignal> ReceiveAsync(CancellationToken cancellationToken = default) => _operation.Receive(this, cancellationToken);

    /// <summary>Gives the signals their usual effect back. A receive in progress ends with an
    /// <see cref="ObjectDisposedException"/>.</summary>
    public void Dispose()
    {
        foreach (var registration in _registrations) registration.Dispose();
        _operation.Close();
    }

    /// <summary>The waiting side. In the loop's timer queue, with a time that never comes, so that the loop ends it when it stops.</summary>
    private sealed class SignalOperation : Operation, IValueTaskSource<PosixSignal>, ILoopTimer
    {
        private static readonly Action<object, object?> s_edge = static (operation, _) => ((SignalOperation)operation).Source.OnReady(Readiness.Readable);
        private static readonly Action<object, object?> s_enter = static (operation, _) => ((SignalOperation)operation).Enter();
        private static readonly Action<object, object?> s_leave = static (operation, _) => ((SignalOperation)operation).Leave();

        private readonly List<PosixSignal> _pending = []; // locked
        private PosixSignal _result;
        private bool _more; // part of the result
        private SignalReceiver? _owner;

        internal SignalOperation(EventLoop loop) : base(new SignalSource(loop), Direction.Read) => ((SignalSource)Source).SetOperation(this);

        /// <inheritdoc/>
        public int QueueIndex { get; set; } = -1;

        protected override bool RemainsReady => _more;

        internal void Begin()
        {
            if (Loop.IsCurrent) Enter();
            else Loop.Enqueue(s_enter, this);
        }

        private void Enter()
        {
            if (Loop.IsCurrent && !Loop.IsStopping && !Source.State.IsEnded) Loop.AddTimer(this, long.MaxValue);
            else Stop();
        }

        private void Leave()
        {
            if (Loop.IsCurrent) Loop.RemoveTimer(this);
        }

        internal void Close()
        {
            if (!Source.Close()) return;
            if (Loop.IsCurrent) Leave();
            else Loop.EnqueueOrPool(s_leave, this);
        }

        // The runtime's thread for signals.
        internal void OnSignal(PosixSignalContext context)
        {
            if (Source.State.IsEnded) return; // nobody receives any more: the usual effect
            context.Cancel = true;
            lock (_pending)
            {
                if (!_pending.Contains(context.Signal)) _pending.Add(context.Signal);
            }
            Loop.EnqueueOrPool(s_edge, this);
        }

        internal ValueTask<PosixSignal> Receive(SignalReceiver owner, CancellationToken token)
        {
            if (token.IsCancellationRequested) return new ValueTask<PosixSignal>(Task.FromCanceled<PosixSignal>(token));
            if (Source.Begin(Direction.Read, out var deferred) == StateWord.BeginResult.Attempt && Attempt())
            {
                var result = _result;
                Source.End(Direction.Read, _more);
                return new ValueTask<PosixSignal>(result);
            }
            _owner = owner;
            var version = Version;
            Start(deferred, token);
            return new ValueTask<PosixSignal>(this, version);
        }

        protected override bool Attempt()
        {
            lock (_pending)
            {
                if (_pending.Count == 0) return false;
                _result = _pending[0];
                _pending.RemoveAt(0);
                _more = _pending.Count > 0;
                return true;
            }
        }

        protected override void OnCompleting() => _owner = null;

        /// <inheritdoc/>
        public void Fire()
        {
        }

        /// <inheritdoc/>
        public void Stop() => Source.Stop();

        PosixSignal IValueTaskSource<PosixSignal>.GetResult(short token)
        {
            var result = _result;
            ThrowIf(Fetch(token));
            return result;
        }
    }

    private sealed class SignalSource(EventLoop loop) : AwaitableSource(loop, default)
    {
        internal void SetOperation(Operation operation) => Reader = operation;

        protected override string ObjectName => nameof(SignalReceiver);

        protected override InvalidOperationException Busy(Direction direction) => new("Another receive of this SignalReceiver is in progress.");
    }
}
