using System.Globalization;
using Spectre.Console;

namespace Amy.Async.Bench;

/// <summary>
/// Both ends of one connection on one thread against the C loop doing exactly that, without a clock between the trips, over
/// TCP and over a Unix-domain pair, in paired rounds.
/// </summary>
/// <remarks>
/// Four rows tell what the difference is made of: the C loop beside a thread that does nothing, for what the kernel charges a
/// process with threads; the loop of C by hand in C#, the same system calls, for what the runtime charges for these; that
/// loop with awaits of the least that can be awaited; and with the least receive that returns a ValueTask, as the library's has to.
/// </remarks>
internal static class StrictComparison
{
    private const int WarmUps = 2;

    internal static void Run(IAnsiConsole console, int rounds, int trips, int size, int spinMicroseconds, CancellationToken token)
    {
        using var yardstick = Yardstick.TryCompile("epoll", out var why);
        if (yardstick is null) console.MarkupLineInterpolated($"The rows of C are missing: {why}.");
        string[] transports = ["tcp", "unix"];
        var tables = new List<Action>();
        Steps.Show(console, progress =>
        {
            foreach (var transport in transports)
            {
                var step = progress(transport, (rounds + WarmUps) * (yardstick is null ? 5 : 7));
                var rows = Measure(yardstick, transport, rounds, trips, size, spinMicroseconds, step, token);
                tables.Add(() => Tables.Print(console, $"{transport}, {size} byte(s), {trips} trips a round, {rounds} rounds, spin {spinMicroseconds} µs", rows));
            }
        });
        Tables.Widen(console);
        foreach (var print in tables) print();
        console.MarkupLine("Mean, CPU and bytes are per round trip, medians of the rounds. Ratios are of means, paired round by round with the first row.");
    }

    private static List<(string Name, List<Round> Rounds)> Measure(Yardstick? yardstick, string transport, int rounds, int trips, int size, int spinMicroseconds, Action step, CancellationToken token)
    {
        string[] Worker(string pattern) => ["worker", "--pattern", pattern, "--transport", transport, "--spin-us", spinMicroseconds.ToString(CultureInfo.InvariantCulture)];
        var children = new List<Child>();
        try
        {
            if (yardstick is not null)
            {
                children.Add(Child.Of("C epoll loop", yardstick.Program, "pingpong", transport));
                children.Add(Child.Of("C, beside an idle thread", yardstick.Program, "pingpong", transport, "thread"));
            }
            children.Add(Child.Self("C# by hand, no await", false, Worker("by-hand")));
            children.Add(Child.Self("C# by hand, least await", false, Worker("by-hand-await")));
            children.Add(Child.Self("C# by hand, least ValueTask", false, Worker("by-hand-valuetask")));
            children.Add(Child.Self("Amy ReceiveAsync", false, Worker("amy")));
            children.Add(Child.Self("Amy ReadableAsync + Receive", false, Worker("amy-readable")));
            var rows = children.Select(c => (c.Name, Rounds: new List<Round>())).ToList();
            for (var round = -WarmUps; round < rounds; round++)
                for (var i = 0; i < children.Count; i++, step())
                {
                    token.ThrowIfCancellationRequested();
                    var result = Round.Parse(children[i].Ask($"trips {size} {trips}"));
                    if (round >= 0) rows[i].Rounds.Add(result);
                }
            return rows;
        }
        finally
        {
            Child.EndAll(children);
        }
    }
}
