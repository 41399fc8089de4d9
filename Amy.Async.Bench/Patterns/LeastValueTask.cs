using System.Threading.Tasks.Sources;

namespace Amy.Async.Bench.Patterns;

/// <summary>
/// The least receive that returns a ValueTask, which is what the library has to return: as <see cref="LeastAwaitable"/>, and
/// the call into the kernel is made before the awaiting method goes on.
/// </summary>
internal sealed class LeastValueTask(int descriptor, bool unix) : IValueTaskSource<int>
{
    private Memory<byte> _buffer;
    private int _received;
    private Action<object?>? _continuation;
    private object? _state;

    internal ValueTask<int> ReceiveAsync(Memory<byte> buffer)
    {
        _buffer = buffer;
        return new ValueTask<int>(this, 0);
    }

    /// <summary>There is something to receive: until a receive is short.</summary>
    internal void Resume()
    {
        int length;
        do
        {
            length = _buffer.Length;
            _received = unix ? RawEpoll.ReceiveMessage(descriptor, _buffer.Span) : RawEpoll.Receive(descriptor, _buffer.Span);
            if (_received >= 0) _continuation!(_state);
        }
        while (_received == length && length > 0);
    }

    public ValueTaskSourceStatus GetStatus(short token) => ValueTaskSourceStatus.Pending;

    public void OnCompleted(Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags)
    {
        _continuation = continuation;
        _state = state;
    }

    public int GetResult(short token) => _received;
}
