using System.Globalization;
using Spectre.Console;

namespace Amy.Async.Bench;

/// <summary>Rounds of several rows, as a table: medians over the rounds, ratios paired round by round.</summary>
internal static class Tables
{
    private const int Width = 140;

    /// <summary>Nothing may be cut off: a narrower terminal wraps the lines itself.</summary>
    internal static void Widen(IAnsiConsole console) => console.Profile.Width = Math.Max(console.Profile.Width, Width);

    /// <param name="console">Where to.</param>
    /// <param name="title">Of the table.</param>
    /// <param name="rows">Their rounds were interleaved.</param>
    /// <param name="nanoseconds">Means in nanoseconds instead of microseconds.</param>
    /// <param name="baselines">The first so many rows are what all are compared with, each in a column of its own.</param>
    internal static void Print(IAnsiConsole console, string title, IReadOnlyList<(string Name, List<Round> Rounds)> rows, bool nanoseconds = false, int baselines = 1)
    {
        string Time(double mean) => nanoseconds ? mean.ToString("F1", CultureInfo.InvariantCulture) : Micro(mean);
        var unit = nanoseconds ? "ns" : "µs";
        var timed = rows.Any(r => r.Rounds.Any(x => x.P50 > 0));
        string[] percentiles = timed ? ["p50 µs", "p99 µs", "p99.9 µs"] : []; // without a clock between the trips there are none
        var table = new Table { Title = new TableTitle(title), Border = TableBorder.Simple };
        table.AddColumn("");
        foreach (var column in (string[])[$"mean {unit}", $"spread {unit}", .. percentiles, "CPU ns", "bytes"])
            table.AddColumn(new TableColumn(column) { Alignment = Justify.Right, NoWrap = true });
        for (var i = 0; i < baselines; i++)
            foreach (var column in (string[])[baselines == 1 ? "ratio" : $"ratio to {i + 1}.", "min-max"])
                table.AddColumn(new TableColumn(column) { Alignment = Justify.Right, NoWrap = true });
        foreach (var (name, rounds) in rows)
        {
            var ratios = rows.Take(baselines).Select(b => rounds.Zip(b.Rounds, (x, y) => x.Mean / y.Mean).ToList());
            table.AddRow([
                Markup.Escape(name),
                Time(Median(rounds.Select(r => r.Mean))),
                $"{Time(rounds.Min(r => r.Mean))}-{Time(rounds.Max(r => r.Mean))}",
                .. timed ? [Percentile(rounds, r => r.P50), Percentile(rounds, r => r.P99), Percentile(rounds, r => r.P999)] : Array.Empty<string>(),
                Median(rounds.Select(r => r.CpuPerTrip)).ToString("F0", CultureInfo.InvariantCulture),
                Median(rounds.Select(r => r.BytesPerTrip)).ToString("0.##", CultureInfo.InvariantCulture),
                .. ratios.SelectMany(r => (string[])[Ratio(Median(r)), $"{Ratio(r.Min())}-{Ratio(r.Max())}"])]);
        }
        console.Write(table);
    }

    internal static double Median(IEnumerable<double> values)
    {
        var sorted = values.Order().ToArray();
        return sorted.Length % 2 == 1 ? sorted[sorted.Length / 2] : (sorted[sorted.Length / 2 - 1] + sorted[sorted.Length / 2]) / 2;
    }

    private static string Percentile(List<Round> rounds, Func<Round, long> of) => Micro(Median(rounds.Select(r => (double)of(r))));

    private static string Micro(double nanoseconds) => (nanoseconds / 1000).ToString("F2", CultureInfo.InvariantCulture);

    private static string Ratio(double ratio) => ratio.ToString("F2", CultureInfo.InvariantCulture);
}
