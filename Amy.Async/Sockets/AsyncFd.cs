using System.Diagnostics;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Amy.Async;

/// <summary>
/// Any descriptor that the kernel can poll, attached to one event loop: pipes, FIFOs, terminals and serial ports, eventfd,
/// timerfd, inotify, pidfd, netlink, a descriptor of a C library. Awaiting its operations on the loop's thread switches no
/// thread and allocates nothing.
/// </summary>
/// <remarks>
/// <para>Members may be called from any thread; they are fastest on the loop's own. One operation at a time in each direction
/// (reading, writing), and one wait for priority besides; a second one throws an <see cref="InvalidOperationException"/>. A
/// <see cref="ValueTask"/> of theirs is awaited once, and at once.</para>
/// <para>The descriptor is made non-blocking; that belongs to the open file, which other processes may share (a shell its
/// terminal), and so is taken back on dispose. A terminal is opened anew where possible and stays as it is for others.</para>
/// <para>Failures are <see cref="IOException"/>s with the errno in <see cref="Exception.HResult"/>.</para>
/// </remarks>
[DebuggerDisplay("AsyncFd {_source.FileDescriptor}")]
public sealed class AsyncFd : IDisposable, IAsyncDisposable
{
    private readonly FdSource _source;

    /// <summary>Attaches a descriptor.</summary>
    /// <param name="handle">The descriptor. Nobody else should read or write it meanwhile.</param>
    /// <param name="loop">Null: the loop of the calling thread, else <see cref="EventLoop.Default"/>.</param>
    /// <param name="ownsHandle">Whether disposing this disposes the handle. If not, its owner may close it under a wait, which
    /// then ends after 250 ms at the latest.</param>
    /// <exception cref="NotSupportedException">The kernel cannot poll it: a regular file, a directory, /dev/null. The handle
    /// stays open and the caller's.</exception>
    /// <exception cref="InvalidOperationException">It is attached to this loop already.</exception>
    /// <exception cref="ObjectDisposedException">The handle is closed or the loop has stopped.</exception>
    public AsyncFd(SafeHandle handle, EventLoop? loop = null, bool ownsHandle = true) : this(handle, loop, ownsHandle, isRaw: false)
    {
    }

    private AsyncFd(SafeHandle handle, EventLoop? loop, bool ownsHandle, bool isRaw)
    {
        if (handle is null) throw new ArgumentNullException(nameof(handle));
        if (handle.IsInvalid) throw new ArgumentException("The handle is invalid.", nameof(handle));
        _source = new FdSource(loop ?? EventLoop.Current ?? EventLoop.Default, handle, ownsHandle, isRaw);
    }

    /// <summary>Attaches a descriptor by its number, for example one that a C library hands out to be waited on.</summary>
    /// <param name="fd">The number of an open descriptor.</param>
    /// <param name="loop">Null: the loop of the calling thread, else <see cref="EventLoop.Default"/>.</param>
    /// <param name="ownsHandle">Whether disposing this closes it. If not, its owner may close it at any time, also under a
    /// wait: that, or else the next operation, then ends with an <see cref="ObjectDisposedException"/>, even if the number
    /// stands for another file by then. That care costs one system call more for each one.</param>
    /// <exception cref="NotSupportedException">The kernel cannot poll it: a regular file, a directory, /dev/null.</exception>
    /// <exception cref="InvalidOperationException">It is attached to this loop already.</exception>
    /// <exception cref="ObjectDisposedException">The descriptor is closed or the loop has stopped.</exception>
    public static AsyncFd FromDescriptor(int fd, EventLoop? loop = null, bool ownsHandle = false)
    {
        if (fd < 0) throw new ArgumentOutOfRangeException(nameof(fd), fd, "A descriptor is zero or positive.");
        var handle = new SafeFileHandle((IntPtr)fd, ownsHandle);
        try
        {
            return new AsyncFd(handle, loop, ownsHandle, isRaw: true);
        }
        catch
        {
            handle.SetHandleAsInvalid(); // the descriptor stays the caller's
            throw;
        }
    }

    /// <summary>One that was never disposed is let go of when it is collected; not while an operation waits.</summary>
    ~AsyncFd() => _source?.Release();

    /// <summary>The loop it is attached to.</summary>
    public EventLoop Loop => _source.Loop;

    /// <summary>The handle it was made with.</summary>
    public SafeHandle Handle => _source.Handle;

    /// <summary>Bytes read so far.</summary>
    public long BytesRead => Volatile.Read(ref _source.BytesReceived);

    /// <summary>Bytes written so far. After a cancelled or failed write it says how much of it went out.</summary>
    public long BytesWritten => Volatile.Read(ref _source.BytesSent);

    /// <summary>Waits until a read would not block.</summary>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="TimeoutException">It took longer than <see cref="ReadTimeout"/>.</exception>
    /// <exception cref="InvalidOperationException">Another operation of the reading direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public ValueTask<Readiness> ReadableAsync(CancellationToken cancellationToken = default) =>
        _source.WaitAsync(this, Direction.Read, cancellationToken);

    /// <summary>Waits until a write would not block.</summary>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="TimeoutException">It took longer than <see cref="WriteTimeout"/>.</exception>
    /// <exception cref="InvalidOperationException">Another operation of the writing direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public ValueTask<Readiness> WritableAsync(CancellationToken cancellationToken = default) =>
        _source.WaitAsync(this, Direction.Write, cancellationToken);

    /// <summary>
    /// Waits for an exceptional condition, POLLPRI of <c>poll(2)</c>: a sysfs attribute (a GPIO's value) has changed since it was
    /// last read, a pressure stall (PSI) trigger has fired, a terminal's packet mode has something to tell. Besides reading
    /// and writing. One that lasts is answered each time; read the attribute in between.
    /// </summary>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="InvalidOperationException">Another wait for priority is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public ValueTask<Readiness> PriorityAsync(CancellationToken cancellationToken = default) => _source.PriorityAsync(this, cancellationToken);

    /// <summary>Reads what is there, or waits until something is.</summary>
    /// <param name="buffer">Where to; must stay valid until the operation has ended. If empty, waits for readability and takes
    /// nothing.</param>
    /// <param name="cancellationToken">Cancels the wait; a cancelled read has taken no data.</param>
    /// <returns>The number of bytes; 0 at the end (or for an empty buffer). A FIFO without writers is at its end until another
    /// one opens it.</returns>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="TimeoutException">It took longer than <see cref="ReadTimeout"/>; no data was taken.</exception>
    /// <exception cref="IOException">The read failed; EIO at the master of a pseudo-terminal whose last slave has closed.</exception>
    /// <exception cref="InvalidOperationException">Another operation of the reading direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default) =>
        _source.ReceiveAsync(this, buffer, cancellationToken);

    /// <summary>Writes all of the buffer, waiting as often as the kernel's is full.</summary>
    /// <param name="buffer">What; must stay unchanged until the operation has ended.</param>
    /// <param name="cancellationToken">Cancels the wait. A part may have been written (see <see cref="BytesWritten"/>).</param>
    /// <returns>The length of the buffer.</returns>
    /// <exception cref="OperationCanceledException">Cancelled.</exception>
    /// <exception cref="TimeoutException">It took longer than <see cref="WriteTimeout"/>; a part may have been written.</exception>
    /// <exception cref="IOException">The write failed; EPIPE if nobody reads any more.</exception>
    /// <exception cref="InvalidOperationException">Another operation of the writing direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public ValueTask<int> WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default) =>
        _source.SendAsync(this, buffer, cancellationToken);

    /// <summary>Reads what is there, without waiting.</summary>
    /// <returns>False: nothing is there, a read would block.</returns>
    /// <exception cref="IOException">The read failed.</exception>
    /// <exception cref="InvalidOperationException">An operation of the reading direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public bool TryRead(Span<byte> buffer, out int read) => _source.TryReceive(buffer, out read);

    /// <summary>Writes what the kernel takes, without waiting.</summary>
    /// <returns>False: the kernel's buffer is full, a write would block.</returns>
    /// <exception cref="IOException">The write failed.</exception>
    /// <exception cref="InvalidOperationException">An operation of the writing direction is in progress.</exception>
    /// <exception cref="ObjectDisposedException">Disposed, or the loop has stopped.</exception>
    public bool TryWrite(ReadOnlySpan<byte> buffer, out int written) => _source.TrySend(buffer, out written);

    /// <summary>
    /// How long a read (a wait for readability) may wait, from its beginning; then it throws a <see cref="TimeoutException"/>
    /// and has taken no data. Holds for operations that begin later. Costs no allocation.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">Zero, or negative and not infinite.</exception>
    public TimeSpan ReadTimeout
    {
        get => _source.GetTimeout(Direction.Read);
        set => _source.SetTimeout(Direction.Read, value);
    }

    /// <summary>How long a write (a wait for writability) may take in all.</summary>
    /// <exception cref="ArgumentOutOfRangeException">Zero, or negative and not infinite.</exception>
    public TimeSpan WriteTimeout
    {
        get => _source.GetTimeout(Direction.Write);
        set => _source.SetTimeout(Direction.Write, value);
    }

    /// <summary>
    /// A stream over the descriptor: reads and writes as <see cref="ReadAsync"/> and <see cref="WriteAsync"/> do, failures are
    /// <see cref="IOException"/>s. Synchronous calls on it block; on a loop's thread they throw an
    /// <see cref="InvalidOperationException"/>.
    /// </summary>
    /// <param name="ownsHandle">Whether disposing the stream disposes this.</param>
    /// <exception cref="ObjectDisposedException">Disposed.</exception>
    public Stream AsStream(bool ownsHandle = true)
    {
        if (_source.State.IsClosed) throw new ObjectDisposedException(nameof(AsyncFd));
        return new DescriptorStream(_source, this, ownsHandle, (_source.Access & FileAccess.Read) != 0, (_source.Access & FileAccess.Write) != 0);
    }

    /// <summary>
    /// Lets go of the descriptor: pending operations end with an <see cref="ObjectDisposedException"/>, through the loop's
    /// queue, its blocking mode is as it was, and an owned one is closed; at once, or, if another thread is in a system call
    /// on it, by that thread.
    /// </summary>
    public void Dispose()
    {
        _source.Release();
        GC.SuppressFinalize(this);
    }

    /// <summary>Like <see cref="Dispose"/>.</summary>
    public ValueTask DisposeAsync()
    {
        Dispose();
        GC.SuppressFinalize(this);
        return default;
    }
}
