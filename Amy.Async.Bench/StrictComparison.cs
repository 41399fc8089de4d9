using System.Globalization;
using Spectre.Console;

namespace Amy.Async.Bench;

/// <summary>
/// Both ends of one connection on one thread against the C loop doing exactly that, without a clock between the trips, over
/// TCP and over a Unix-domain pair, in paired rounds.
/// </summary>
internal static class StrictComparison
{
    internal static int Run(IAnsiConsole console, int rounds, int trips, int size, int spinMicroseconds)
    {
        using var yardstick = Yardstick.TryCompile(out var why);
        if (yardstick is null)
        {
            console.MarkupLineInterpolated($"There is nothing to compare with: {why}.");
            return 1;
        }
        var spin = spinMicroseconds.ToString(CultureInfo.InvariantCulture);
        foreach (var transport in new[] { "tcp", "unix" })
        {
            string[] Worker(string pattern) => ["worker", "--pattern", pattern, "--transport", transport, "--spin-us", spin];
            using var c = Child.Of("C", yardstick.Program, "pingpong", transport);
            using var amy = Child.Self("Amy", false, Worker("amy"));
            using var readable = Child.Self("Amy readable", false, Worker("amy-readable"));
            var children = new[] { ("C epoll loop", c), ("Amy ReceiveAsync", amy), ("Amy ReadableAsync + Receive", readable) };
            var rows = children.Select(x => (x.Item1, Rounds: new List<Round>())).ToList();
            for (var round = -2; round < rounds; round++)
                for (var i = 0; i < children.Length; i++)
                {
                    var result = Round.Parse(children[i].Item2.Ask($"trips {size} {trips}"));
                    if (round >= 0) rows[i].Rounds.Add(result);
                }
            Tables.Print(console, $"{transport}, {size} byte(s), {trips} trips a round, {rounds} rounds, spin {spin} µs", rows);
        }
        return 0;
    }
}
