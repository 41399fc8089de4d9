namespace Amy.Async;

/// <summary>The kernel's mechanism behind a <see cref="Poller"/>.</summary>
public enum PollerKind
{
    /// <summary>The best one of this platform.</summary>
    Auto,

    /// <summary><c>epoll(7)</c> of Linux.</summary>
    Epoll,

    /// <summary><c>kqueue(2)</c> of macOS and the BSDs.</summary>
    Kqueue,
}
