using System.Diagnostics;
using System.Threading.Channels;

namespace Amy.Async;

/// <summary>
/// A channel whose readiness is a notification of a <see cref="Poller"/>: any thread writes, and the thread that waits for
/// sockets and timers learns that there is something to read. Made by <see cref="Registrar.CreateUnboundedChannel"/> and
/// <see cref="Registrar.CreateBoundedChannel"/>.
/// </summary>
/// <remarks>
/// <para>Writing, and completing the writer, notify: one notification with this <see cref="Id"/> and
/// <see cref="Readiness.Readable"/> tells of everything written since the last one. Read until
/// <see cref="ChannelReader{T}.TryRead"/> says no before waiting for the next; reading notifies nobody.</para>
/// <para>Every member may be called from any thread. Disposing is what dropping the receiver is in amy: what was not read is
/// let go of, and writers fail from then on. When the poller is disposed, the channel goes on as one that notifies nobody.</para>
/// </remarks>
/// <typeparam name="T">What is passed.</typeparam>
[DebuggerDisplay("PollerChannel {Id}")]
public sealed class PollerChannel<T> : Channel<T>, IDisposable
{
    private readonly PollerSignals _signals;
    private readonly PollerSignal _signal;
    private readonly Channel<T> _channel;

    internal PollerChannel(PollerSignals signals, Channel<T> channel)
    {
        _signals = signals;
        _channel = channel;
        _signal = signals.Add();
        Id = _signal.Id;
        Reader = channel.Reader;
        Writer = new NotifyingWriter(this);
    }

    /// <summary>A channel that was dropped without being disposed leaves its place in the poller when it is collected.</summary>
    ~PollerChannel()
    {
        if (_signal is not null) _signals.Remove(_signal); // null: the constructor threw
    }

    /// <summary>The id of its notifications: positive, never used again.</summary>
    public long Id { get; }

    /// <summary>
    /// Ends the channel: unread items are let go of, no further notification comes, and writing fails with a
    /// <see cref="ChannelClosedException"/> (<see cref="ChannelWriter{T}.TryWrite"/> says no).
    /// </summary>
    public void Dispose()
    {
        GC.SuppressFinalize(this);
        if (!_signals.Remove(_signal)) return;
        _channel.Writer.TryComplete(); // without an error: waiting writers then end with ChannelClosedException, as new ones do
        while (Reader.TryRead(out _))
        {
        }
    }

    private sealed class NotifyingWriter(PollerChannel<T> owner) : ChannelWriter<T>
    {
        private readonly ChannelWriter<T> _writer = owner._channel.Writer;

        public override bool TryWrite(T item)
        {
            if (!_writer.TryWrite(item)) return false;
            owner._signals.Raise(owner._signal);
            return true;
        }

        public override ValueTask<bool> WaitToWriteAsync(CancellationToken cancellationToken = default) => _writer.WaitToWriteAsync(cancellationToken);

        public override ValueTask WriteAsync(T item, CancellationToken cancellationToken = default)
        {
            if (cancellationToken.IsCancellationRequested) return new ValueTask(Task.FromCanceled(cancellationToken));
            return TryWrite(item) ? default : WaitAndWrite(item, cancellationToken);
        }

        private async ValueTask WaitAndWrite(T item, CancellationToken cancellationToken)
        {
            do
            {
                bool open;
                try
                {
                    open = await _writer.WaitToWriteAsync(cancellationToken).ConfigureAwait(false);
                }
                catch (Exception e) when (!cancellationToken.IsCancellationRequested) // completed with this error
                {
                    throw new ChannelClosedException(e);
                }
                if (!open) throw new ChannelClosedException();
            }
            while (!TryWrite(item));
        }

        public override bool TryComplete(Exception? error = null)
        {
            if (!_writer.TryComplete(error)) return false;
            owner._signals.Raise(owner._signal);
            return true;
        }
    }
}
