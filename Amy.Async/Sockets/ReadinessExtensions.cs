using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async.Compat;

namespace Amy.Async;

/// <summary>
/// Waiting on the standard types, which their owner goes on using directly: <c>await socket.ReadableAsync()</c>, then
/// <c>socket.Receive</c>; also for descriptors that are no sockets.
/// </summary>
/// <remarks>
/// <para>A wait happens on <see cref="EventLoop.Current"/>, else on <see cref="EventLoop.Default"/>. The first one binds the
/// object to that loop (and allocates); waiting on another loop then throws until <see cref="EventLoop.Forget(SafeHandle)"/>.
/// An idle binding does not keep the object alive.</para>
/// <para>Guaranteed: a wait ends while there is something to read (or room to write). It may end although there is not any
/// more: read without blocking, and wait again if that would block. One system call per wait.</para>
/// <para>If the handle is closed under a wait, it ends with an <see cref="ObjectDisposedException"/>, after 250 ms at the
/// latest: the kernel does not tell.</para>
/// </remarks>
public static class ReadinessExtensions
{
    /// <summary>Waits until a receive (or an accept) would not block. Sets <see cref="Socket.Blocking"/> to false.</summary>
    /// <returns><see cref="Readiness.Readable"/>, and what else is known: hang-ups, errors.</returns>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="InvalidOperationException">Another wait for the same is in progress, or the socket is bound to another
    /// loop.</exception>
    /// <exception cref="SocketException">A stream socket that is neither connected nor listening.</exception>
    /// <exception cref="ObjectDisposedException">The socket is closed (also under the wait), or the loop has stopped.</exception>
    public static ValueTask<Readiness> ReadableAsync(this Socket socket, CancellationToken cancellationToken = default) =>
        Wait(socket, Direction.Read, cancellationToken);

    /// <summary>Waits until a send would not block. Sets <see cref="Socket.Blocking"/> to false.</summary>
    /// <returns><see cref="Readiness.Writable"/>, and what else is known: hang-ups, errors.</returns>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="InvalidOperationException">Another wait for the same is in progress, or the socket is bound to another
    /// loop.</exception>
    /// <exception cref="SocketException">A stream socket that is neither connected nor listening.</exception>
    /// <exception cref="ObjectDisposedException">The socket is closed (also under the wait), or the loop has stopped.</exception>
    public static ValueTask<Readiness> WritableAsync(this Socket socket, CancellationToken cancellationToken = default) =>
        Wait(socket, Direction.Write, cancellationToken);

    /// <summary>Waits until a read would not block. The descriptor's blocking mode is left as it is.</summary>
    /// <returns><see cref="Readiness.Readable"/>, and what else is known: hang-ups, errors.</returns>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="InvalidOperationException">Another wait for the same is in progress, or the handle is bound to another
    /// loop.</exception>
    /// <exception cref="NotSupportedException">The kernel cannot poll it: a regular file, a directory, /dev/null.</exception>
    /// <exception cref="ObjectDisposedException">The handle is closed (also under the wait), or the loop has stopped.</exception>
    public static ValueTask<Readiness> ReadableAsync(this SafeHandle handle, CancellationToken cancellationToken = default) =>
        Wait(handle, Direction.Read, cancellationToken);

    /// <summary>Waits until a write would not block. The descriptor's blocking mode is left as it is.</summary>
    /// <returns><see cref="Readiness.Writable"/>, and what else is known: hang-ups, errors.</returns>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="InvalidOperationException">Another wait for the same is in progress, or the handle is bound to another
    /// loop.</exception>
    /// <exception cref="NotSupportedException">The kernel cannot poll it: a regular file, a directory, /dev/null.</exception>
    /// <exception cref="ObjectDisposedException">The handle is closed (also under the wait), or the loop has stopped.</exception>
    public static ValueTask<Readiness> WritableAsync(this SafeHandle handle, CancellationToken cancellationToken = default) =>
        Wait(handle, Direction.Write, cancellationToken);

    private static ValueTask<Readiness> Wait(Socket socket, Direction direction, CancellationToken token)
    {
        if (socket is null) throw new ArgumentNullException(nameof(socket));
        var handle = SocketInterop.HandleOf(socket);
        return PlainSource.Of(handle, EventLoop.Current ?? EventLoop.Default, SocketChecks.PrepareAction, socket).WaitAsync(direction, handle, token);
    }

    private static ValueTask<Readiness> Wait(SafeHandle handle, Direction direction, CancellationToken token)
    {
        if (handle is null) throw new ArgumentNullException(nameof(handle));
        return PlainSource.Of<object?>(handle, EventLoop.Current ?? EventLoop.Default, null, null).WaitAsync(direction, handle, token);
    }
}
