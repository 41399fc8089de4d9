using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Samples;

/// <summary>
/// Asks a server that answers frames with frames (four bytes of length, then the content), one request at a time on each
/// connection, over a pool of connections. On one loop: no locks.
/// </summary>
/// <remarks>
/// A request has a deadline from the moment it is asked, waiting for a connection included. One that is past it throws a
/// <see cref="TimeoutException"/>, and its connection is closed: its answer might still come, and be taken for another's.
/// </remarks>
public sealed class RequestPool(EndPoint endPoint, int maxConnections) : IDisposable
{
    private const int MaxFrame = 1 << 20;

    private readonly Stack<Connection> _idle = new();
    private readonly Queue<TaskCompletionSource<Connection?>> _waiting = new(); // first come, first served
    private readonly HashSet<Connection> _all = [];
    private int _opening;
    private bool _disposed;

    public int Connections => _all.Count;

    /// <summary>Asks; the content of the answer's frame.</summary>
    /// <exception cref="TimeoutException">The deadline has passed.</exception>
    /// <exception cref="SocketException">The server cannot be reached, or the connection broke.</exception>
    public async Task<byte[]> AskAsync(ReadOnlyMemory<byte> request, TimeSpan deadline)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        using var late = new CancellationTokenSource(deadline, EventLoop.Current!.TimeProvider);
        Connection? connection = null;
        var clean = false;
        try
        {
            connection = await RentAsync(late.Token);
            var answer = await connection.AskAsync(request, late.Token);
            clean = true;
            return answer;
        }
        catch (OperationCanceledException) when (late.IsCancellationRequested)
        {
            throw new TimeoutException($"No answer within {deadline.TotalMilliseconds:0} ms.");
        }
        finally
        {
            if (connection is not null) Return(connection, clean);
        }
    }

    public void Dispose()
    {
        _disposed = true;
        foreach (var connection in _all) connection.Dispose();
        foreach (var waiter in _waiting) waiter.TrySetException(new ObjectDisposedException(nameof(RequestPool)));
    }

    private async Task<Connection> RentAsync(CancellationToken late)
    {
        while (true)
        {
            while (_idle.TryPop(out var idle))
            {
                if (!idle.IsStale) return idle;
                _all.Remove(idle);
                idle.Dispose();
            }
            if (_all.Count + _opening < maxConnections) return await OpenAsync(late);
            var waiter = new TaskCompletionSource<Connection?>();
            _waiting.Enqueue(waiter);
            using (late.UnsafeRegister(static w => ((TaskCompletionSource<Connection?>)w!).TrySetCanceled(), waiter))
            {
                if (await waiter.Task is { } handed) return handed; // else: a place is free, open one
            }
        }
    }

    private async Task<Connection> OpenAsync(CancellationToken late)
    {
        _opening++;
        AsyncSocket socket;
        try
        {
            socket = await AsyncSocket.ConnectAsync(endPoint, cancellationToken: late);
        }
        catch
        {
            _opening--; // first: who is told that a place is free goes on at once, and counts
            HandOn(null);
            throw;
        }
        _opening--;
        var connection = new Connection(socket);
        _all.Add(connection);
        return connection;
    }

    private void Return(Connection connection, bool clean)
    {
        if (clean && !_disposed && !connection.IsStale)
        {
            if (!HandOn(connection)) _idle.Push(connection);
            return;
        }
        _all.Remove(connection);
        connection.Dispose();
        HandOn(null);
    }

    // To the first who still waits: a connection, or word that a place is free.
    private bool HandOn(Connection? connection)
    {
        while (_waiting.TryDequeue(out var waiter))
            if (waiter.TrySetResult(connection)) return true;
        return false;
    }

    private sealed class Connection(AsyncSocket socket) : IDisposable
    {
        private readonly FrameReader _reader = new(MaxFrame);
        private readonly FrameWriter _writer = new(MaxFrame);

        /// <summary>Closed by the server meanwhile, or it has sent what nobody asked for.</summary>
        public bool IsStale
        {
            get
            {
                try
                {
                    return !_reader.IsEmpty || socket.TryReceive(new byte[1], out _);
                }
                catch (SocketException)
                {
                    return true;
                }
            }
        }

        public async Task<byte[]> AskAsync(ReadOnlyMemory<byte> request, CancellationToken late)
        {
            if (!_writer.TryWrite(request.Span)) throw new ArgumentException("The request is too large.", nameof(request));
            await socket.SendAsync(_writer, late);
            while (true)
            {
                if (_reader.TryRead(out ReadOnlyMemory<byte> frame)) return frame.ToArray();
                var n = await socket.ReceiveAsync(_reader.GetMemory(), late);
                if (n == 0) throw new SocketException((int)SocketError.ConnectionReset);
                _reader.Advance(n);
            }
        }

        public void Dispose() => socket.Dispose();
    }
}
