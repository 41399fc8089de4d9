using Amy.Async.Native;

namespace Amy.Async;

/// <summary>Which selector a <see cref="PollerKind"/> stands for here.</summary>
internal static class SelectorChoice
{
    internal static bool IsSupported(PollerKind kind, SystemCalls calls) => kind switch
    {
        PollerKind.Auto => Resolve(kind, calls, out _) is PollerKind resolved && Refusal(resolved, calls) is null,
        PollerKind.Epoll or PollerKind.Kqueue => Refusal(kind, calls) is null,
        _ => throw new ArgumentOutOfRangeException(nameof(kind)),
    };

    internal static Selector Create(PollerKind kind, SystemCalls calls)
    {
        if (kind is < PollerKind.Auto or > PollerKind.Kqueue) throw new ArgumentOutOfRangeException(nameof(kind));
        if (Resolve(kind, calls, out var asked) is not { } resolved)
            throw new PlatformNotSupportedException($"No poller for this platform. epoll: {Platform.EpollRefusal(calls.Machine)}; kqueue: {calls.KqueueRefusal()}.");
        if (Refusal(resolved, calls) is { } refusal)
            throw new PlatformNotSupportedException($"{asked}No {(resolved == PollerKind.Epoll ? "epoll" : "kqueue")} here: {refusal}.");
        return resolved == PollerKind.Epoll ? new EpollSelector(calls) : new KqueueSelector(calls, calls.KqueueAbi);
    }

    private static string? Refusal(PollerKind kind, SystemCalls calls) =>
        kind == PollerKind.Epoll ? Platform.EpollRefusal(calls.Machine) : calls.KqueueRefusal();

    // Null: none is there. What the environment asks for is not replaced by something else.
    private static PollerKind? Resolve(PollerKind kind, SystemCalls calls, out string asked)
    {
        asked = "";
        if (kind != PollerKind.Auto) return kind;
        if (calls.RequestedPoller is { Length: > 0 } requested)
        {
            asked = $"AMY_ASYNC_POLLER asks for {requested}. ";
            return requested switch
            {
                "epoll" => PollerKind.Epoll,
                "kqueue" => PollerKind.Kqueue,
                _ => throw new InvalidOperationException($"AMY_ASYNC_POLLER is '{requested}': it may be 'epoll' or 'kqueue'."),
            };
        }
        if (Platform.EpollRefusal(calls.Machine) is null) return PollerKind.Epoll;
        return calls.KqueueRefusal() is null ? PollerKind.Kqueue : null;
    }
}
