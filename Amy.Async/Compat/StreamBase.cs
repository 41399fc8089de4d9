namespace Amy.Async.Compat;

/// <summary>A Stream with the overloads for Memory and Span, which netstandard2.0 does not have.</summary>
internal abstract class StreamBase : Stream
{
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
        Begin(ReadAsync(buffer, offset, count), callback, state);

    public override int EndRead(IAsyncResult asyncResult) => End<int>(asyncResult);

    public override IAsyncResult BeginWrite(byte[] buffer, int offset, int count, AsyncCallback? callback, object? state) =>
        Begin(Written(buffer, offset, count), callback, state);

    public override void EndWrite(IAsyncResult asyncResult) => End<bool>(asyncResult);

    private async Task<bool> Written(byte[] buffer, int offset, int count)
    {
        await WriteAsync(buffer, offset, count).ConfigureAwait(false);
        return true;
    }

    private static Task<T> Begin<T>(Task<T> task, AsyncCallback? callback, object? state)
    {
        var source = new TaskCompletionSource<T>(state, TaskCreationOptions.RunContinuationsAsynchronously);
        task.ContinueWith(
            static (done, state) =>
            {
                var (source, callback) = ((TaskCompletionSource<T>, AsyncCallback?))state!;
                if (done.IsFaulted) source.TrySetException(done.Exception!.InnerExceptions);
                else if (done.IsCanceled) source.TrySetCanceled();
                else source.TrySetResult(done.GetAwaiter().GetResult());
                callback?.Invoke(source.Task);
            },
            (source, callback), CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
        return source.Task;
    }

    private static T End<T>(IAsyncResult asyncResult)
    {
        if (asyncResult is null) throw new ArgumentNullException(nameof(asyncResult));
        return asyncResult is Task<T> task ? task.GetAwaiter().GetResult() : throw new ArgumentException("Not of this stream.", nameof(asyncResult));
    }
#else
    protected static void CheckBuffer(byte[] buffer, int offset, int count) => ValidateBufferArguments(buffer, offset, count);

    public override IAsyncResult BeginRead(byte[] buffer, int offset, int count, AsyncCallback? callback, object? state) =>
        TaskToAsyncResult.Begin(ReadAsync(buffer, offset, count), callback, state);

    public override int EndRead(IAsyncResult asyncResult) => TaskToAsyncResult.End<int>(asyncResult);

    public override IAsyncResult BeginWrite(byte[] buffer, int offset, int count, AsyncCallback? callback, object? state) =>
        TaskToAsyncResult.Begin(WriteAsync(buffer, offset, count), callback, state);

    public override void EndWrite(IAsyncResult asyncResult) => TaskToAsyncResult.End(asyncResult);
#endif
}
