namespace Amy.Async;

/// <summary>A loop has not come back to its poller for a while: everything on it waits. See <see cref="EventLoop.Blocked"/>.</summary>
public sealed class LoopBlockedEventArgs : EventArgs
{
    internal LoopBlockedEventArgs(TimeSpan duration, string? work)
    {
        Duration = duration;
        Work = work;
    }

    /// <summary>How long so far.</summary>
    public TimeSpan Duration { get; }

    /// <summary>
    /// The method that was running when the watchdog looked, as far as it has a name: an async method (<c>Server.Echo</c>), a
    /// posted method, or the one that a lambda stands in. Null: none at that moment.
    /// </summary>
    public string? Work { get; }
}

/// <summary>Code on a loop's thread is about to wait synchronously. See <see cref="EventLoop.SynchronousWait"/>.</summary>
public sealed class SynchronousWaitEventArgs : EventArgs
{
    internal SynchronousWaitEventArgs(bool isTaskWait, string? method, string stackTrace)
    {
        IsTaskWait = isTaskWait;
        Method = method;
        StackTrace = stackTrace;
    }

    /// <summary>Whether it is a wait for a Task (<c>Wait</c>, <c>Result</c>, <c>GetAwaiter().GetResult()</c>), which on a loop may
    /// well be a deadlock; else a contended lock, an event, …</summary>
    public bool IsTaskWait { get; }

    /// <summary>The method that waits: the first on the stack that is not the platform's.</summary>
    public string? Method { get; }

    /// <summary>Where.</summary>
    public string StackTrace { get; }
}
