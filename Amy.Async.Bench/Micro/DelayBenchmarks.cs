using BenchmarkDotNet.Attributes;

namespace Amy.Async.Bench.Micro;

/// <summary>What a delay costs, alone and among many that wait.</summary>
[MemoryDiagnoser]
public class DelayBenchmarks
{
    private const int Count = 10_000;

    private readonly EventLoop _loop = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
    private readonly CancellationTokenSource _others = new();

    /// <summary>Other delays that wait meanwhile.</summary>
    [Params(0, 10_000)]
    public int Pending { get; set; }

    /// <summary>Starts the others.</summary>
    [GlobalSetup]
    public void Setup() => _loop.InvokeAsync(() =>
    {
        for (var i = 0; i < Pending; i++) _ = Quietly(_loop.Delay(TimeSpan.FromHours(1) + TimeSpan.FromSeconds(i), _others.Token));
    }).GetAwaiter().GetResult();

    /// <summary>Ends the others and the loop.</summary>
    [GlobalCleanup]
    public void Cleanup()
    {
        _others.Cancel();
        _loop.Dispose();
    }

    /// <summary>A token source alone, cancelled: what the next benchmark costs without the delay.</summary>
    [Benchmark(OperationsPerInvoke = Count)]
    public void TokenSourceAndCancel() => _loop.InvokeAsync(() =>
    {
        for (var i = 0; i < Count; i++)
        {
            using var source = new CancellationTokenSource();
            source.Cancel();
        }
    }).GetAwaiter().GetResult();

    /// <summary>A delay inserted and cancelled, through a token source of its own; the exception that tells of it included.</summary>
    [Benchmark(OperationsPerInvoke = Count)]
    public void InsertAndCancel() => _loop.InvokeAsync(async () =>
    {
        for (var i = 0; i < Count; i++)
        {
            using var source = new CancellationTokenSource();
            var delay = Quietly(_loop.Delay(TimeSpan.FromMinutes(1), source.Token));
            source.Cancel();
            await delay;
        }
    }).GetAwaiter().GetResult();

    /// <summary>A delay that expires at once: insert, turn, fire.</summary>
    [Benchmark(OperationsPerInvoke = Count)]
    public void InsertAndFire() => _loop.InvokeAsync(async () =>
    {
        for (var i = 0; i < Count; i++) await _loop.Delay(TimeSpan.FromTicks(1));
    }).GetAwaiter().GetResult();

    private static async Task Quietly(ValueTask delay) =>
        await delay.AsTask().ConfigureAwait(ConfigureAwaitOptions.ContinueOnCapturedContext | ConfigureAwaitOptions.SuppressThrowing);
}
