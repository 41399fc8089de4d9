using System.Globalization;
using Spectre.Console;

namespace Amy.Async.Bench;

/// <summary>
/// Handing actions to one thread: from its own thread, from one other and from four at once, until the last has run; beside an
/// unbounded Channel with one reader that runs them.
/// </summary>
/// <remarks>
/// Each row is a process, in interleaved rounds. All rows are handed the same delegate, by the same threads, and their reader
/// is idle when a round begins, so waking it is in the time. The channel is read as it is read fastest (WaitToReadAsync, then
/// TryRead while there is something), once as an asynchronous method, which the thread pool runs, and once by a thread that
/// does nothing else, as a loop is. What a loop does besides (an execution context that flows, a look at timers and the
/// kernel every 256 actions) is in its time. Where the kernel puts the threads is left to it, because posting threads are
/// not pinned anywhere.
/// </remarks>
internal static class PostComparison
{
    private const int WarmUps = 3;
    private const int Baselines = 2; // the channels come first

    private static readonly (string Name, string[] Arguments)[] s_rows =
    [
        ("Channel, async reader", ["--pattern", "queue-channel"]),
        ("Channel, reader thread", ["--pattern", "queue-channel-thread"]),
        ("Amy Post", ["--pattern", "queue-loop"]),
        ("Amy Post, no spin", ["--pattern", "queue-loop", "--spin-us", "0"]),
    ];

    internal static void Run(IAnsiConsole console, int rounds, int posts, CancellationToken token)
    {
        var children = new List<Child>();
        var tables = new List<Action>();
        try
        {
            foreach (var (name, arguments) in s_rows) children.Add(Child.Self(name, false, ["worker", .. arguments]));
            Steps.Show(console, progress =>
            {
                tables.Add(FromItself(console, children[Baselines], rounds, posts, progress, token));
                foreach (var threads in (int[])[1, 4])
                {
                    var title = string.Create(CultureInfo.InvariantCulture, $"{posts} posts from {threads} other thread(s), {rounds} rounds, {Environment.ProcessorCount} cores");
                    var step = progress(title, (rounds + WarmUps) * children.Count);
                    var rows = children.Select(c => (c.Name, Rounds: new List<Round>())).ToList();
                    for (var round = -WarmUps; round < rounds; round++)
                        for (var i = 0; i < children.Count; i++, step())
                        {
                            token.ThrowIfCancellationRequested();
                            var result = Round.Parse(children[i].Ask(string.Create(CultureInfo.InvariantCulture, $"post {threads} {posts}")));
                            if (round >= 0) rows[i].Rounds.Add(result);
                        }
                    tables.Add(() => Tables.Print(console, title, rows, nanoseconds: true, Baselines));
                }
            });
        }
        finally
        {
            Child.EndAll(children);
        }
        Tables.Widen(console);
        foreach (var print in tables) print();
        console.MarkupLine("Mean, CPU and bytes are per post, medians of the rounds; CPU is that of all threads. Ratios are of means, paired round by round with the first and the second row.");
    }

    private static Action FromItself(IAnsiConsole console, Child child, int rounds, int posts, Func<string, int, Action> progress, CancellationToken token)
    {
        var title = string.Create(CultureInfo.InvariantCulture, $"{posts} posts from the loop's own thread, {rounds} rounds");
        var step = progress(title, rounds + WarmUps);
        var results = new List<double[]>();
        for (var round = -WarmUps; round < rounds; round++, step())
        {
            token.ThrowIfCancellationRequested();
            var result = child.Ask(string.Create(CultureInfo.InvariantCulture, $"own {posts}")).Split(' ').Select(p => double.Parse(p, CultureInfo.InvariantCulture)).ToArray();
            if (round >= 0) results.Add(result);
        }
        var table = new Table { Title = new TableTitle(title), Border = TableBorder.Simple };
        table.AddColumn("");
        foreach (var column in (string[])["ns", "spread", "bytes"]) table.AddColumn(new TableColumn(column) { Alignment = Justify.Right, NoWrap = true });
        string[] names = ["Amy Post", "Amy Post and its run"];
        for (var i = 0; i < names.Length; i++)
            table.AddRow([names[i],
                Tables.Median(results.Select(r => r[i])).ToString("F1", CultureInfo.InvariantCulture),
                string.Create(CultureInfo.InvariantCulture, $"{results.Min(r => r[i]):F1}-{results.Max(r => r[i]):F1}"),
                Tables.Median(results.Select(r => r[2])).ToString("0.###", CultureInfo.InvariantCulture)]);
        return () => console.Write(table);
    }
}
