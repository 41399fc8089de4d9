using Amy.Async.Compat;

namespace Amy.Async;

/// <summary>What a timer of a <see cref="TimeProvider"/> calls, and the execution context that it captured.</summary>
internal sealed class TimerAction(TimerCallback callback, object? state) : INamedWork
{
    /// <summary>For a loop, which flows the context itself.</summary>
    internal static readonly Action<object, object?> CallOnLoop = static (action, _) => ((TimerAction)action).Call();

    private static readonly ContextCallback s_invoke = static action => ((TimerAction)action!).Call();

    internal readonly ExecutionContext? Context = ExecutionContext.Capture(); // null: its flow is suppressed

    /// <inheritdoc/>
    public Delegate Work => callback;

    internal void Invoke()
    {
        if (Context is null) Call();
        else Runtime.RunIn(Context, s_invoke, this);
    }

    private void Call() => callback(state);

    /// <summary>The bounds of all timers of .NET: infinite, or up to 49 days.</summary>
    internal static void Check(TimeSpan dueTime, TimeSpan period)
    {
        Check(dueTime, nameof(dueTime));
        Check(period, nameof(period));
    }

    private static void Check(TimeSpan time, string name)
    {
        if (time != Timeout.InfiniteTimeSpan && (time < TimeSpan.Zero || time.TotalMilliseconds > uint.MaxValue - 1))
            throw new ArgumentOutOfRangeException(name, time, "The time of a timer is infinite, or between zero and 49 days.");
    }
}
