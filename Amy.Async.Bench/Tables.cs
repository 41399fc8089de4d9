using System.Globalization;
using Spectre.Console;

namespace Amy.Async.Bench;

/// <summary>Rounds of several rows, as a table: medians over the rounds, ratios paired round by round.</summary>
internal static class Tables
{
    private const int Width = 140;

    /// <summary>Nothing may be cut off: a narrower terminal wraps the lines itself.</summary>
    internal static void Widen(IAnsiConsole console) => console.Profile.Width = Math.Max(console.Profile.Width, Width);

    internal static void Print(IAnsiConsole console, string title, IReadOnlyList<(string Name, List<Round> Rounds)> rows)
    {
        var timed = rows.Any(r => r.Rounds.Any(x => x.P50 > 0));
        string[] percentiles = timed ? ["p50 µs", "p99 µs", "p99.9 µs"] : []; // without a clock between the trips there are none
        var table = new Table { Title = new TableTitle(title), Border = TableBorder.Simple };
        table.AddColumn("");
        foreach (var column in (string[])["mean µs", "spread µs", .. percentiles, "CPU ns", "bytes", "ratio", "min-max"])
            table.AddColumn(new TableColumn(column) { Alignment = Justify.Right, NoWrap = true });
        foreach (var (name, rounds) in rows)
        {
            var ratios = rounds.Zip(rows[0].Rounds, (a, b) => a.Mean / b.Mean).ToList();
            table.AddRow([
                Markup.Escape(name),
                Micro(Median(rounds.Select(r => r.Mean))),
                $"{Micro(rounds.Min(r => r.Mean))}-{Micro(rounds.Max(r => r.Mean))}",
                .. timed ? [Percentile(rounds, r => r.P50), Percentile(rounds, r => r.P99), Percentile(rounds, r => r.P999)] : Array.Empty<string>(),
                Median(rounds.Select(r => r.CpuPerTrip)).ToString("F0", CultureInfo.InvariantCulture),
                Median(rounds.Select(r => r.BytesPerTrip)).ToString("0.##", CultureInfo.InvariantCulture),
                Ratio(Median(ratios)),
                $"{Ratio(ratios.Min())}-{Ratio(ratios.Max())}"]);
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
