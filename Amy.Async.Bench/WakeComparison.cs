using System.Globalization;
using Spectre.Console;

namespace Amy.Async.Bench;

/// <summary>
/// Waking a sleeping loop from another thread: two loops that do not spin wake each other in turn by Post, beside two C
/// threads that do so with eventfd and epoll_wait. Per wake: from the post to the posted action, and back to sleep.
/// </summary>
/// <remarks>
/// What a wake costs depends first of all on where the two threads are: on one core it is a switch, between two an interrupt
/// to a core that may be idle. Left alone, the kernel decides that anew each round, and the rows would compare its choices.
/// So the threads of both rows are pinned alike, and the run that leaves them alone is shown beside it. "written" tells how
/// often the loop did sleep: a post that finds it awake writes nothing, and is no wake. Between two cores that is next to
/// never. On one the woken thread often answers before the other has gone to sleep; there Amy saves a write that the C
/// threads do not, so the table of two cores is the one that compares wakes with wakes.
/// </remarks>
internal static class WakeComparison
{
    private const int WarmUps = 2;
    private const int Bursts = 100;
    private const int Posts = 1_000;

    internal static void Run(IAnsiConsole console, int rounds, int wakes, CancellationToken token)
    {
        using var yardstick = Yardstick.TryCompile("wake", out var why);
        if (yardstick is null) console.MarkupLineInterpolated($"The row 'C eventfd, epoll_wait' is missing: {why}.");
        var all = new List<Child>();
        var tables = new List<Action>();
        try
        {
            if (yardstick is not null) all.Add(Child.Of("C eventfd, epoll_wait", yardstick.Program));
            var sleeper = Child.Self("Amy Post, no spin", false, "worker", "--pattern", "wake", "--spin-us", "0");
            all.Add(sleeper);
            Child[] children = [.. all];
            var spinner = Child.Self("Amy Post", false, "worker", "--pattern", "wake");
            all.Add(spinner);
            Steps.Show(console, progress =>
            {
                foreach (var (place, here, there) in Places())
                {
                    var step = progress(place, (rounds + WarmUps) * children.Length);
                    var rows = children.Select(c => (c.Name, Rounds: new List<Round>())).ToList();
                    var written = 0L;
                    for (var round = -WarmUps; round < rounds; round++)
                        for (var i = 0; i < children.Length; i++, step())
                        {
                            token.ThrowIfCancellationRequested();
                            var result = Round.Parse(children[i].Ask(string.Create(CultureInfo.InvariantCulture, $"wakes {wakes} {here} {there}")));
                            if (round < 0) continue;
                            rows[i].Rounds.Add(result);
                            if (children[i] == sleeper) written += long.Parse(sleeper.Ask("written"), CultureInfo.InvariantCulture);
                        }
                    var share = 100.0 * written / (2.0 * wakes * rounds);
                    tables.Add(() => Tables.Print(console, string.Create(CultureInfo.InvariantCulture, $"{2 * wakes} wakes a round, {rounds} rounds, {place}; Amy wrote {share:F1} %"), rows));
                }
                tables.Add(BurstTable(console, sleeper, spinner, progress, token));
            });
        }
        finally
        {
            Child.EndAll(all);
        }
        Tables.Widen(console);
        foreach (var print in tables) print();
        console.MarkupLine("Mean, CPU and bytes are per wake, medians of the rounds; CPU is that of both threads. Ratios are of means, paired round by round with the first row.");
        console.MarkupLine("What Amy did not write were posts that found the loop awake; the C threads write each time.");
    }

    private static Action BurstTable(IAnsiConsole console, Child sleeper, Child spinner, Func<string, int, Action> progress, CancellationToken token)
    {
        var title = $"{Bursts} bursts of {Posts} posts into a sleeping loop: writes to its eventfd";
        var table = new Table { Title = new TableTitle(title), Border = TableBorder.Simple };
        table.AddColumn("");
        foreach (var column in (string[])["bursts with none", "with one", "with more", "most of one burst"])
            table.AddColumn(new TableColumn(column) { Alignment = Justify.Right, NoWrap = true });
        var places = Places();
        var step = progress("bursts", 2 * places.Count);
        foreach (var (place, here, there) in places)
            foreach (var child in (Child[])[sleeper, spinner])
            {
                token.ThrowIfCancellationRequested();
                table.AddRow([$"{child.Name}, {place}", .. child.Ask(string.Create(CultureInfo.InvariantCulture, $"bursts {Bursts} {Posts} {here} {there}")).Split(' ')]);
                step();
            }
        return () => console.Write(table);
    }

    private static List<(string Name, int Here, int There)> Places()
    {
        var processors = Affinity.Processors;
        var places = new List<(string, int, int)>();
        if (processors.Length > 1) places.Add(("two cores", processors[0], processors[1]));
        if (processors.Length > 0) places.Add(("one core", processors[0], processors[0]));
        places.Add(("wherever the kernel puts them", -1, -1));
        return places;
    }
}
