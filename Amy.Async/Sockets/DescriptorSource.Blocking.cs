using System.Diagnostics.CodeAnalysis;

namespace Amy.Async;

// Waiting synchronously, for streams.
internal abstract partial class DescriptorSource
{
    /// <summary>Blocks the calling thread, which is no loop's, until the direction is ready.</summary>
    [SuppressMessage("Reliability", "CA2012", Justification = "It is done by then.")]
    internal void BlockUntilReady(object owner, Direction direction)
    {
        var ready = WaitAsync(owner, direction, CancellationToken.None);
        if (!ready.IsCompleted) Transfers(direction).Block();
        ready.GetAwaiter().GetResult();
    }

    /// <summary>Blocks the calling thread, which is no loop's, until an operation that it has just started is done.</summary>
    [SuppressMessage("Reliability", "CA2012", Justification = "It is done by then.")]
    internal void BlockUntilDone(Direction direction, ValueTask operation)
    {
        if (!operation.IsCompleted) Transfers(direction).Block();
        operation.GetAwaiter().GetResult();
    }
}
