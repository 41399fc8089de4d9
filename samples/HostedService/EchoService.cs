using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Amy.Async.Samples;

public sealed class EchoServiceOptions
{
    public required EndPoint EndPoint { get; init; }

    /// <summary>How long connections may go on once the host stops.</summary>
    public TimeSpan DrainTime { get; init; } = TimeSpan.FromSeconds(5);
}

/// <summary>
/// A loop of its own inside the generic host: started with it, and stopped gracefully: no more connections, those that there
/// are may end, then they are closed.
/// </summary>
public sealed partial class EchoService(EchoServiceOptions options, ILogger<EchoService> logger) : IHostedService
{
    private readonly HashSet<AsyncSocket> _open = []; // of the loop's thread
    private readonly TaskCompletionSource _drained = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private EventLoop? _loop;
    private AsyncSocket? _listener;
    private bool _stopping; // of the loop's thread

    public EndPoint? EndPoint => _listener?.LocalEndPoint;

    public Task StartAsync(CancellationToken cancellationToken)
    {
        var loop = EventLoop.Start(new EventLoopOptions { ThreadName = "echo", UnhandledException = Report });
        try
        {
            _listener = AsyncSocket.Listen(options.EndPoint, loop: loop);
        }
        catch
        {
            loop.Dispose();
            throw; // the address is in use, say: the host does not start
        }
        _loop = loop;
        loop.Post(() => _ = AcceptAsync());
        Started(logger, _listener.LocalEndPoint!);
        return Task.CompletedTask;
    }

    public async Task StopAsync(CancellationToken cancellationToken)
    {
        if (Interlocked.Exchange(ref _loop, null) is not { } loop) return; // not started, or stopped already
        _listener!.Dispose();
        var left = await loop.InvokeAsync(() =>
        {
            _stopping = true;
            if (_open.Count == 0) _drained.TrySetResult();
            return _open.Count;
        }, CancellationToken.None);
        Stopping(logger, left);
        await Task.WhenAny(_drained.Task, Task.Delay(options.DrainTime, cancellationToken));
        await loop.InvokeAsync(() =>
        {
            if (_open.Count > 0) Closing(logger, _open.Count);
            foreach (var connection in _open.ToArray()) connection.Dispose();
        }, CancellationToken.None);
        await loop.StopAsync(CancellationToken.None);
    }

    private async Task AcceptAsync()
    {
        try
        {
            while (true) _ = ServeAsync(await _listener!.AcceptAsync());
        }
        catch (ObjectDisposedException)
        {
            // The host stops.
        }
    }

    private async Task ServeAsync(AsyncSocket connection)
    {
        _open.Add(connection);
        try
        {
            var buffer = new byte[4096];
            for (int n; (n = await connection.ReceiveAsync(buffer)) > 0;) await connection.SendAsync(buffer.AsMemory(0, n));
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            Broken(logger, e.Message);
        }
        finally
        {
            _open.Remove(connection);
            connection.Dispose();
            if (_stopping && _open.Count == 0) _drained.TrySetResult();
        }
    }

    private bool Report(Exception exception)
    {
        Failed(logger, exception);
        return true;
    }

    [LoggerMessage(LogLevel.Information, "Echo on {EndPoint}")]
    private static partial void Started(ILogger logger, EndPoint endPoint);

    [LoggerMessage(LogLevel.Information, "No more connections; {Count} may end by themselves")]
    private static partial void Stopping(ILogger logger, int count);

    [LoggerMessage(LogLevel.Warning, "{Count} connections did not end in time and are closed")]
    private static partial void Closing(ILogger logger, int count);

    [LoggerMessage(LogLevel.Debug, "A connection broke: {Reason}")]
    private static partial void Broken(ILogger logger, string reason);

    [LoggerMessage(LogLevel.Error, "Unhandled on the loop")]
    private static partial void Failed(ILogger logger, Exception exception);
}
