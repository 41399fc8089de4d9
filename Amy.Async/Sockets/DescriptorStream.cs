using System.Buffers;
using System.Net.Sockets;
using Amy.Async.Compat;

namespace Amy.Async;

/// <summary>
/// A socket or another descriptor as a <see cref="Stream"/>, with the behaviour of NetworkStream: no buffer of its own,
/// reading and writing at the same time, failures as <see cref="IOException"/>. A read into an empty buffer waits for data.
/// </summary>
/// <remarks>
/// Synchronous calls block the calling thread. On a loop's thread they would stall the loop, and so are refused there, whether
/// or not they would have to wait.
/// </remarks>
internal sealed class DescriptorStream(DescriptorSource source, IDisposable owner, bool ownsOwner, bool canRead, bool canWrite) : StreamBase
{
    private int _disposed; // 1: closed; Interlocked

    private bool IsOpen => Volatile.Read(ref _disposed) == 0;

    public override bool CanRead => canRead && IsOpen;

    public override bool CanWrite => canWrite && IsOpen;

    public override bool CanSeek => false;

    public override bool CanTimeout => true;

    public override long Length => throw NotSeekable();

    public override long Position
    {
        get => throw NotSeekable();
        set => throw NotSeekable();
    }

    public override long Seek(long offset, SeekOrigin origin) => throw NotSeekable();

    public override void SetLength(long value) => throw NotSeekable();

    /// <summary>Milliseconds, or -1; also of asynchronous reads.</summary>
    public override int ReadTimeout
    {
        get => GetTimeout(Direction.Read);
        set => SetTimeout(Direction.Read, value);
    }

    /// <summary>Milliseconds, or -1; also of asynchronous writes.</summary>
    public override int WriteTimeout
    {
        get => GetTimeout(Direction.Write);
        set => SetTimeout(Direction.Write, value);
    }

    // ---- asynchronous

    public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        CheckRead();
        return source.ReceiveAsync(owner, buffer, cancellationToken, asStream: true);
    }

    public override Task<int> ReadAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken)
    {
        CheckBuffer(buffer, offset, count);
        return ReadAsync(new Memory<byte>(buffer, offset, count), cancellationToken).AsTask();
    }

    public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        CheckWrite();
        return source.WriteAsync(owner, buffer, cancellationToken);
    }

    public override Task WriteAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken)
    {
        CheckBuffer(buffer, offset, count);
        return WriteAsync(new ReadOnlyMemory<byte>(buffer, offset, count), cancellationToken).AsTask();
    }

    /// <summary>Nothing is buffered here.</summary>
    public override Task FlushAsync(CancellationToken cancellationToken) =>
        cancellationToken.IsCancellationRequested ? Task.FromCanceled(cancellationToken) : Task.CompletedTask;

    // ---- synchronous

    public override int Read(Span<byte> buffer)
    {
        CheckRead();
        RefuseOnLoop();
        if (buffer.IsEmpty) Block(Direction.Read);
        else
        {
            while (true)
            {
                if (TryReceive(buffer, out var n)) return n;
                Block(Direction.Read);
            }
        }
        return 0;
    }

    public override int Read(byte[] buffer, int offset, int count)
    {
        CheckBuffer(buffer, offset, count);
        return Read(buffer.AsSpan(offset, count));
    }

    public override int ReadByte()
    {
        Span<byte> one = stackalloc byte[1];
        return Read(one) == 0 ? -1 : one[0];
    }

    public override void Write(ReadOnlySpan<byte> buffer)
    {
        CheckWrite();
        RefuseOnLoop();
        if (buffer.IsEmpty) return;
        if (TrySend(buffer, out var n) && n == buffer.Length) return;
        // The rest as one operation, so that the time-out is that of all. It must not refer to the caller's stack.
        var rest = buffer.Slice(n);
        var copy = ArrayPool<byte>.Shared.Rent(rest.Length);
        rest.CopyTo(copy);
        WriteAndBlock(copy.AsMemory(0, rest.Length));
        ArrayPool<byte>.Shared.Return(copy);
    }

    public override void Write(byte[] buffer, int offset, int count)
    {
        CheckBuffer(buffer, offset, count);
        CheckWrite();
        RefuseOnLoop();
        WriteAndBlock(new ReadOnlyMemory<byte>(buffer, offset, count));
    }

    private void WriteAndBlock(ReadOnlyMemory<byte> buffer)
    {
        var writing = source.WriteAsync(owner, buffer, CancellationToken.None);
        source.BlockUntilDone(Direction.Write, writing);
    }

    public override void WriteByte(byte value) => Write([value]);

    public override void Flush()
    {
    }

    protected override void Dispose(bool disposing)
    {
        if (disposing && Interlocked.Exchange(ref _disposed, 1) == 0 && ownsOwner)
        {
            source.ShutdownOnClose();
            owner.Dispose();
        }
        base.Dispose(disposing);
    }

    /// <summary>The failure of an operation as a Stream tells it.</summary>
    internal static Exception Translate(Exception error) => error switch
    {
        SocketException => new IOException($"The connection failed: {error.Message}", error),
        TimeoutException => new IOException(error.Message, error),
        _ => error,
    };

    private bool TryReceive(Span<byte> buffer, out int n)
    {
        try
        {
            return source.TryReceive(buffer, out n);
        }
        catch (SocketException e)
        {
            throw Translate(e);
        }
    }

    private bool TrySend(ReadOnlySpan<byte> buffer, out int n)
    {
        try
        {
            return source.TrySend(buffer, out n);
        }
        catch (SocketException e)
        {
            throw Translate(e);
        }
    }

    private void Block(Direction direction)
    {
        try
        {
            source.BlockUntilReady(owner, direction);
        }
        catch (Exception e) when (e is SocketException or TimeoutException)
        {
            throw Translate(e);
        }
    }

    private int GetTimeout(Direction direction)
    {
        CheckOpen();
        var timeout = source.GetTimeout(direction);
        return timeout == Timeout.InfiniteTimeSpan ? Timeout.Infinite : (int)Math.Min(int.MaxValue, Math.Ceiling(timeout.TotalMilliseconds));
    }

    private void SetTimeout(Direction direction, int value)
    {
        CheckOpen();
        if (value <= 0 && value != Timeout.Infinite) throw new ArgumentOutOfRangeException(nameof(value), value, "A time-out is positive or -1, in milliseconds.");
        source.SetTimeout(direction, value == Timeout.Infinite ? Timeout.InfiniteTimeSpan : TimeSpan.FromMilliseconds(value));
    }

    private void CheckOpen()
    {
        if (!IsOpen) throw new ObjectDisposedException(nameof(Stream));
    }

    private void CheckRead()
    {
        CheckOpen();
        if (!canRead) throw new NotSupportedException("This stream cannot be read.");
    }

    private void CheckWrite()
    {
        CheckOpen();
        if (!canWrite) throw new NotSupportedException("This stream cannot be written.");
    }

    protected override void RefuseToBlock() => RefuseOnLoop();

    private static void RefuseOnLoop()
    {
        if (EventLoop.Current is not null)
            throw new InvalidOperationException("A synchronous call would block the event loop's thread and everything on it. Use the asynchronous one, or call it from another thread (await Task.Run(...)).");
    }

    private static NotSupportedException NotSeekable() => new("This stream cannot seek.");
}
