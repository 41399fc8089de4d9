using Amy.Async.Bench;

namespace Amy.Async.Tests.Faults;

/// <summary>A minute, in two halves (less where the same was done already), of what `-- torture` does for hours; the seed is printed, and `--seed` takes it.</summary>
[TestFixture]
[NonParallelizable]
internal sealed class TortureTests
{
    // The two builds of the library differ only in Compat, kqueue's double only in what is below the loop.
#if AMY_NETSTANDARD
    private static int Seconds => 5;
#else
    private static int Seconds => KqueueDouble.DefaultLayout is null ? 30 : 12;
#endif

    [TestCase(false)]
    [TestCase(true)]
    public void Torture_EveryByteAndEveryOperationIsAccountedFor(bool faults) => Torment(TimeSpan.FromSeconds(Seconds), faults, (ulong)Random.Shared.NextInt64());

    /// <summary>Books without an entry are no success.</summary>
    [Test]
    public void Torture_InWhichNothingHappens_Fails()
    {
        var lines = new List<string>();
        var options = new TortureOptions { Duration = TimeSpan.FromSeconds(1), Seed = 1, Loops = 1, Stop = new CancellationToken(canceled: true) };
        Assert.That(new Torture(options).Run(lines.Add), Is.False);
        Assert.That(lines, Has.Some.Contains("0 connections came about"));
    }

    private static void Torment(TimeSpan duration, bool faults, ulong seed)
    {
        var lines = new List<string>();
        var options = new TortureOptions { Duration = duration, Seed = seed, Loops = 3, Faults = faults, MostGrowth = 4 << 20 };
        var passed = new Torture(options).Run(lines.Add);
        foreach (var line in lines) TestContext.Out.WriteLine(line);
        Assert.That(passed, Is.True, string.Join("\n", lines.Where(l => l.StartsWith("VIOLATION", StringComparison.Ordinal))));
    }
}
