namespace Amy.Async.Bench;

/// <summary>How long, on what, with which dice.</summary>
internal sealed record TortureOptions
{
    internal required TimeSpan Duration { get; init; }

    internal required ulong Seed { get; init; }

    internal int Loops { get; init; } = 4;

    internal int Clients { get; init; } = 24;

    internal PollerKind Poller { get; init; }

    internal bool Faults { get; init; }

    /// <summary>Ends it before its time, in order.</summary>
    internal CancellationToken Stop { get; init; }

    /// <summary>For whatever must come to its end by itself.</summary>
    internal TimeSpan Patience { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>How much more managed memory may be in use at the end than after the warm-up.</summary>
    internal long MostGrowth { get; init; } = 1 << 20;
}
