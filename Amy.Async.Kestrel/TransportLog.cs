using Microsoft.Extensions.Logging;

namespace Amy.Async.Kestrel;

/// <summary>What the transport tells.</summary>
internal static partial class TransportLog
{
    internal const string Category = "Amy.Async.Kestrel";

    [LoggerMessage(1, LogLevel.Debug, "Connection id \"{ConnectionId}\" accepted.", SkipEnabledCheck = false)]
    internal static partial void Accepted(ILogger logger, string connectionId);

    [LoggerMessage(2, LogLevel.Debug, "Connection id \"{ConnectionId}\" received the end of the stream.")]
    internal static partial void EndReceived(ILogger logger, string connectionId);

    [LoggerMessage(3, LogLevel.Debug, "Connection id \"{ConnectionId}\" closing because: \"{Reason}\"")]
    internal static partial void Closing(ILogger logger, string connectionId, string reason);

    [LoggerMessage(4, LogLevel.Debug, "Connection id \"{ConnectionId}\" reset.")]
    internal static partial void Reset(ILogger logger, string connectionId);

    [LoggerMessage(5, LogLevel.Debug, "Connection id \"{ConnectionId}\" failed.")]
    internal static partial void Failed(ILogger logger, string connectionId, Exception exception);

    [LoggerMessage(6, LogLevel.Debug, "Connection id \"{ConnectionId}\": a flush waits for the peer.")]
    internal static partial void Paused(ILogger logger, string connectionId);

    [LoggerMessage(7, LogLevel.Error, "Accepting on {EndPoint} failed.")]
    internal static partial void AcceptFailed(ILogger logger, object? endPoint, Exception exception);

    [LoggerMessage(8, LogLevel.Warning, "An event loop is blocked for {Milliseconds} ms by {Work}. All connections of the loop wait meanwhile: code that blocks belongs on the thread pool.")]
    internal static partial void LoopBlocked(ILogger logger, long milliseconds, string work);

    [LoggerMessage(9, LogLevel.Critical, "Unhandled exception on an event loop.")]
    internal static partial void Unhandled(ILogger logger, Exception exception);

    [LoggerMessage(10, LogLevel.Error, "Connection id \"{ConnectionId}\": a callback of the ConnectionClosed token failed.")]
    internal static partial void ClosedCallbackFailed(ILogger logger, string connectionId, Exception exception);
}
