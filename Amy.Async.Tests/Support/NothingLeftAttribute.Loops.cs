namespace Amy.Async.Tests;

public sealed partial class NothingLeftAttribute
{
    // Besides the descriptors (sides of one end with it) the timers are armed, which the meter counts. A poller without a loop has no
    // registrations once its own descriptors are closed.
    static partial void CountMore(Dictionary<string, int> counts)
    {
        var loops = LoopMeter.Loops;
        counts["running loop"] = loops.Length;
        counts["armed awaiter"] = loops.SelectMany(static loop => loop.Registrar.Snapshot()).OfType<AwaitableSource>().Sum(static source =>
            (source.State.IsArmed(Direction.Read) ? 1 : 0) + (source.State.IsArmed(Direction.Write) ? 1 : 0));
    }
}
