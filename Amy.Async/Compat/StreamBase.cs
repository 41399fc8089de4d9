namespace Amy.Async.Compat;

/// <summary>A Stream with the overloads for Memory and Span, which netstandard2.0 does not have.</summary>
internal abstract class StreamBase : Stream
{
    /// <summary>Throws if the calling thread must not wait: before an End that would.</summary>
    protected abstract void RefuseToBlock();

#if NETSTANDARD2_0
    public abstract int Read(Span<byte> buffer);

    public abstract void Write(ReadOnlySpan<byte> buffer);

    public abstract ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default);

    public abstract ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default);

    protected static void CheckBuffer(byte[] buffer, int offset, int count)
    {
        if (buffer is null) throw new ArgumentNullException(nameof(buffer));
        if (offset < 0) throw new ArgumentOutOfRangeException(nameof(offset), offset, "An offset is zero or positive.");
        if (count < 0 || count > buffer.Length - offset) throw new ArgumentOutOfRangeException(nameof(count), count, "Offset and count reach beyond the buffer.");
    }

    public override IAsyncResult BeginRead(byte[] buffer, int offset, int count, AsyncCallback? callback, object? state) =>
        new ApmResult<int>(ReadAsync(buffer, offset, count), callback, state);

    public override int EndRead(IAsyncResult asyncResult) => End<int>(asyncResult);

    public override IAsyncResult BeginWrite(byte[] buffer, int offset, int count, AsyncCallback? callback, object? state) =>
        new ApmResult<bool>(Written(buffer, offset, count), callback, state);

    public override void EndWrite(IAsyncResult asyncResult) => End<bool>(asyncResult);

    private async Task<bool> Written(byte[] buffer, int offset, int count)
    {
        await WriteAsync(buffer, offset, count).ConfigureAwait(false);
        return true;
    }

    private T End<T>(IAsyncResult asyncResult)
    {
        if (asyncResult is null) throw new ArgumentNullException(nameof(asyncResult));
        if (asyncResult is not ApmResult<T> result) throw new ArgumentException("Not of this stream.", nameof(asyncResult));
        if (!result.Task.IsCompleted) RefuseToBlock();
        return result.Task.GetAwaiter().GetResult();
    }

    /// <summary>Says truly whether it completed at once; then the callback may be nested, and whoever loops on that does not nest.</summary>
    private sealed class ApmResult<T> : IAsyncResult
    {
        internal readonly Task<T> Task;

        internal ApmResult(Task<T> task, AsyncCallback? callback, object? state)
        {
            Task = task;
            AsyncState = state;
            CompletedSynchronously = task.IsCompleted;
            if (callback is null) return;
            if (CompletedSynchronously) callback(this);
            else task.ConfigureAwait(false).GetAwaiter().OnCompleted(() => callback(this));
        }

        public object? AsyncState { get; }

        public bool CompletedSynchronously { get; }

        public bool IsCompleted => Task.IsCompleted;

        public WaitHandle AsyncWaitHandle => ((IAsyncResult)Task).AsyncWaitHandle;
    }
#else
    protected static void CheckBuffer(byte[] buffer, int offset, int count) => ValidateBufferArguments(buffer, offset, count);

    public override IAsyncResult BeginRead(byte[] buffer, int offset, int count, AsyncCallback? callback, object? state) =>
        TaskToAsyncResult.Begin(ReadAsync(buffer, offset, count), callback, state);

    public override int EndRead(IAsyncResult asyncResult)
    {
        if (!TaskToAsyncResult.Unwrap<int>(asyncResult).IsCompleted) RefuseToBlock();
        return TaskToAsyncResult.End<int>(asyncResult);
    }

    public override IAsyncResult BeginWrite(byte[] buffer, int offset, int count, AsyncCallback? callback, object? state) =>
        TaskToAsyncResult.Begin(WriteAsync(buffer, offset, count), callback, state);

    public override void EndWrite(IAsyncResult asyncResult)
    {
        if (!TaskToAsyncResult.Unwrap(asyncResult).IsCompleted) RefuseToBlock();
        TaskToAsyncResult.End(asyncResult);
    }
#endif
}
