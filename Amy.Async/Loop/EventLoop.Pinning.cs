using Amy.Async.Native;

namespace Amy.Async;

// Which processor the loop's thread runs on.
public sealed partial class EventLoop
{
    private readonly int? _processor;

    /// <summary>Loop only: the processors that the thread could use before it was pinned; null: it is not.</summary>
    internal byte[]? Unpinned { get; private set; }

    private void Pin()
    {
        if (_processor is not { } processor) return;
        try
        {
            Unpinned = Affinity.Pin(_calls, processor);
        }
        catch // taken from the process since it was checked
        {
            _poller.Dispose();
            throw;
        }
    }

    private void Unpin()
    {
        if (Unpinned is not null) Affinity.Restore(_calls, Unpinned);
    }
}
