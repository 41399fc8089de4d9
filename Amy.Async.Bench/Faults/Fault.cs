namespace Amy.Async.Bench;

/// <summary>Where a fault may strike.</summary>
internal enum FaultPoint
{
    /// <summary>Making an epoll instance or an eventfd, a kqueue or a pipe.</summary>
    Create,

    /// <summary>Making a socket.</summary>
    Socket,

    /// <summary>A wait of the poller's as a whole.</summary>
    Wait,

    /// <summary>One event of a wait.</summary>
    Event,

    /// <summary>Registering a descriptor with the poller.</summary>
    Add,

    /// <summary>Removing one.</summary>
    Remove,

    /// <summary>Receiving, reading, in any form.</summary>
    Receive,

    /// <summary>Sending, writing, in any form.</summary>
    Send,

    /// <summary>Accepting.</summary>
    Accept,

    /// <summary>Connecting.</summary>
    Connect,

    /// <summary>Asking one descriptor what it is ready for.</summary>
    Poll,

    /// <summary>Closing.</summary>
    Close,

    /// <summary>A list of changes given to kqueue, whatever they are.</summary>
    Change,
}

/// <summary>What goes wrong.</summary>
internal enum FaultKind
{
    /// <summary>Nothing.</summary>
    None,

    /// <summary>EINTR, where the seam hands it on: waiting, connecting, closing, changes of kqueue, which are applied. What retries by itself is interrupted from outside, by strace.</summary>
    Interrupted,

    /// <summary>EAGAIN although it would have gone on.</summary>
    WouldBlock,

    /// <summary>One byte (of a datagram batch: one datagram) although there is more, or room for more.</summary>
    Short,

    /// <summary>The call fails with the fault's errno, and has done nothing.</summary>
    Error,

    /// <summary>The call has done what it should, and says that it failed with the fault's errno.</summary>
    Refused,

    /// <summary>An event comes one to three waits later.</summary>
    Delayed,

    /// <summary>An event comes twice, the second time one to three waits later.</summary>
    Duplicated,

    /// <summary>A wait brings an event of something that is not ready, or of a registration that there never was.</summary>
    Spurious,
}

/// <summary>What happens at one call.</summary>
internal readonly record struct Fault(FaultKind Kind, int Errno = 0);

/// <summary>Says for each call what is to go wrong with it. Any thread.</summary>
internal abstract class FaultSource
{
    private static readonly int s_points = Enum.GetValues<FaultPoint>().Length;

    private readonly long[] _calls = new long[s_points];

    private long _choices;

    /// <summary>Off: nothing goes wrong any more.</summary>
    internal volatile bool IsOn = true;

    internal Fault Next(FaultPoint point)
    {
        var call = Interlocked.Increment(ref _calls[(int)point]); // also while off: a script counts all
        return IsOn ? Choose(point, call) : default;
    }

    /// <summary>For what a fault leaves open: a number from 0 up to, and without, <paramref name="count"/>.</summary>
    internal int Choose(int count) => (int)(Mix(Seed ^ (ulong)Interlocked.Increment(ref _choices)) % (uint)count);

    protected virtual ulong Seed => 0;

    protected abstract Fault Choose(FaultPoint point, long call);

    /// <summary>SplitMix64: a number of its own for each input, without a state that threads would share.</summary>
    internal static ulong Mix(ulong x)
    {
        x += 0x9E3779B97F4A7C15;
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9;
        x = (x ^ x >> 27) * 0x94D049BB133111EB;
        return x ^ x >> 31;
    }
}

/// <summary>Faults at calls that are named by their number, counted from 1 at each point.</summary>
internal sealed class ScriptedFaults : FaultSource
{
    private readonly List<(FaultPoint Point, long First, long Last, Fault Fault)> _script = [];

    /// <summary>Written before the first call.</summary>
    internal ScriptedFaults At(FaultPoint point, long first, FaultKind kind, int errno = 0, long count = 1)
    {
        _script.Add((point, first, first + count - 1, new Fault(kind, errno)));
        return this;
    }

    protected override Fault Choose(FaultPoint point, long call)
    {
        foreach (var line in _script)
            if (line.Point == point && call >= line.First && call <= line.Last) return line.Fault;
        return default;
    }
}

/// <summary>
/// Faults at random, each with a rate. Which call of a point is struck follows from the seed alone; which call that is, in a
/// program of several threads, is up to them.
/// </summary>
internal sealed class SeededFaults(ulong seed) : FaultSource
{
    private const int Whole = 100_000; // rates are in 1/1000 %

    private readonly List<(Fault Fault, int Below)>[] _rates = [.. Enum.GetValues<FaultPoint>().Select(_ => new List<(Fault, int)>())];

    protected override ulong Seed => seed;

    /// <summary>Written before the first call.</summary>
    /// <param name="point">Where.</param>
    /// <param name="percent">How many of all calls there.</param>
    /// <param name="kind">What.</param>
    /// <param name="errnos">One of these, equally often.</param>
    internal SeededFaults With(FaultPoint point, double percent, FaultKind kind, params int[] errnos)
    {
        var rates = _rates[(int)point];
        foreach (var errno in errnos is [] ? [0] : errnos)
            rates.Add((new Fault(kind, errno), (rates.Count == 0 ? 0 : rates[^1].Below) + (int)(percent * Whole / 100 / Math.Max(1, errnos.Length))));
        return this;
    }

    protected override Fault Choose(FaultPoint point, long call)
    {
        var dice = (int)(Mix(seed ^ Mix((ulong)point << 56 ^ (ulong)call)) % Whole);
        foreach (var (fault, below) in _rates[(int)point])
            if (dice < below) return fault;
        return default;
    }
}
