namespace Amy.Async;

/// <summary>The kernel's mechanism behind a <see cref="Poller"/>.</summary>
public enum PollerKind
{
    /// <summary>The best one of this platform, or what the environment variable <c>AMY_ASYNC_POLLER</c> says (epoll, kqueue).</summary>
    Auto,

    /// <summary><c>epoll(7)</c> of Linux.</summary>
    Epoll,

    /// <summary><c>kqueue(2)</c> of macOS and FreeBSD; on Linux, where the library <c>libkqueue.so.0</c> is found.</summary>
    Kqueue,
}
