using System.Threading.Tasks.Sources;
using Amy.Async.Native;

namespace Amy.Async;

/// <summary>
/// An operation of a socket that the core does not know: what it does when the direction is ready, and the result behind its
/// ValueTask. Waiting, cancelling, resuming are the direction's <see cref="SocketOperation"/>'s. An action is made once for
/// each direction that uses it; its fields are set under Busy.
/// </summary>
internal abstract class SocketAction
{
    internal SocketOperation Operation = null!; // set by its maker
    internal SocketAction? Next;

    /// <summary>The system call: a value, -EAGAIN, or -errno. <paramref name="ready"/>: the direction may still be ready.</summary>
    internal abstract int Attempt(SocketSource socket, out bool ready);

    /// <summary>Lets go of the caller's buffers.</summary>
    internal virtual void Release()
    {
    }

    /// <summary>Whether the loop must look at it, asked when it is armed.</summary>
    internal virtual bool MustLook => false;

    /// <summary>Loop only, while armed: whatever it waits for besides an edge. True: complete with what is stored.</summary>
    internal virtual bool Examine() => false;
}

/// <summary>An action with a result.</summary>
internal abstract class SocketAction<T> : SocketAction, IValueTaskSource<T>
{
    /// <summary>Valid once <see cref="SocketAction.Attempt"/> has returned a value.</summary>
    internal T Result = default!;

    /// <summary>
    /// Tries at once, if the direction was taken for a try, and else waits. The caller holds Busy and has set the fields.
    /// </summary>
    internal ValueTask<T> Start(AsyncSocket owner, SocketSource socket, Direction direction, bool attempt, bool deferred, CancellationToken token)
    {
        if (attempt)
        {
            int n;
            bool ready;
            var moved = socket.BytesMoved;
            try
            {
                n = Attempt(socket, out ready);
            }
            catch // a buffer whose owner has let go of it
            {
                Release();
                socket.End(direction, ready: true);
                throw;
            }
            if (n != -Errno.EAGAIN)
            {
                Release();
                var result = Result;
                Result = default!; // what it refers to is the caller's alone
                socket.End(direction, ready || n < 0);
                socket.Loop.SpendBytes(socket.BytesMoved - moved);
                return n >= 0 ? new ValueTask<T>(result) : socket.Failed<T>(n, asStream: false);
            }
        }
        return new ValueTask<T>(this, Operation.Act(owner, this, deferred, token));
    }

    ValueTaskSourceStatus IValueTaskSource<T>.GetStatus(short token) => Operation.GetStatus(token);

    void IValueTaskSource<T>.OnCompleted(Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
        Operation.OnCompleted(continuation, state, token, flags);

    T IValueTaskSource<T>.GetResult(short token)
    {
        var result = Result;
        if (Operation.GetStatus(token) != ValueTaskSourceStatus.Pending) Result = default!;
        Operation.Finish(token);
        return result;
    }
}
