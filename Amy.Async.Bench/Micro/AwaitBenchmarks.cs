using Amy.Async.Bench.Patterns;
using BenchmarkDotNet.Attributes;

namespace Amy.Async.Bench.Micro;

/// <summary>One round trip of one byte, both ends in this process, by pattern.</summary>
[MemoryDiagnoser]
public class AwaitBenchmarks
{
    private const int Trips = 20_000;

    private PingPong _pingPong = null!;

    /// <summary>The way of awaiting.</summary>
    [Params("amy", "amy-readable", "saea", "socket")]
    public string Pattern { get; set; } = "";

    /// <summary>Unix-domain instead of TCP.</summary>
    [Params(false, true)]
    public bool Unix { get; set; }

    /// <summary>Connects the pair.</summary>
    [GlobalSetup]
    public void Setup() => _pingPong = PingPong.Create(Pattern, Unix, null);

    /// <summary>Round trips.</summary>
    [Benchmark(OperationsPerInvoke = Trips)]
    public void RoundTrip() => _pingPong.Run(1, timed: false, Trips);
}
