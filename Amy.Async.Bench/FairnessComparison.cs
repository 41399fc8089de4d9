using System.Globalization;
using Spectre.Console;

namespace Amy.Async.Bench;

/// <summary>
/// What quiet connections of a loop notice of its noisy ones: the percentiles of their round trips alone, and beside a
/// connection that sends as fast as it can, a client that connects and closes as fast as it can, a thread that posts without
/// end, and all three.
/// </summary>
/// <remarks>
/// <para>The question is what sharing a *loop* costs, not what sharing a machine does. So:</para>
/// <para>The server's loop has a processor to itself, the first. The quiet client has the second; it does not spin, and times
/// each trip from its send. The storms' threads have the others.</para>
/// <para>Where there are only two processors, the storms share the quiet client's. There they run as SCHED_IDLE: the client
/// preempts them at once when it has something to do, so that its own queueing for the processor is no part of the trip, and
/// they use all that it leaves. (The client's share of that processor is a few percent.) That cannot be perfect: an interrupt
/// or a system call of a storm's is finished first, and a posting thread may be preempted while it holds the queue's lock,
/// which the loop then waits for.</para>
/// <para>So "alone" has two meanings, and both are rows. Alone on an idle machine, where each message also has to wake a
/// sleeping processor, which makes it slow: a lenient measure. And with all three storms raging at the loop of another
/// process, on the storms' processors: the machine is as busy, and the quiet client as disturbed, but its loop is its own.
/// (With two processors the other loop is SCHED_IDLE as well, and takes its time from the storms; they are slower then.) The
/// other process is not put on the first processor: the kernel's slices of milliseconds between the two would be compared
/// with, and next to them anything looks fair.</para>
/// <para>Rounds are interleaved; ratios are of the p99 of the same round.</para>
/// </remarks>
internal static class FairnessComparison
{
    private const int SettleMilliseconds = 100;
    private const int WarmUpMilliseconds = 500;
    private const int DrainMilliseconds = 10;
    private const int MostDrains = 500;
    private const int Controls = 2; // the first rows are what the others are compared with
    private const double Target = 5;

    private sealed record Case(string Name, bool Here, bool Firehose = false, bool Accepts = false, bool Posts = false);

    private readonly record struct Rates(double Received, double Accepted, double Posted);

    private static readonly Case[] s_cases =
    [
        new("alone, machine idle", Here: false),
        new("alone, machine busy", Here: false, Firehose: true, Accepts: true, Posts: true),
        new("beside a firehose", Here: true, Firehose: true),
        new("beside an accept storm", Here: true, Accepts: true),
        new("beside a post storm", Here: true, Posts: true),
        new("beside all three", Here: true, Firehose: true, Accepts: true, Posts: true),
    ];

    private readonly record struct Server(Child Child, int Echo, int Firehose, int Accept);

    internal static void Run(IAnsiConsole console, int rounds, int milliseconds, int connections, int rate, CancellationToken token)
    {
        var (loop, quiet, storms) = Places();
        var shared = storms.Length > 0 && storms.Intersect(quiet).Any();
        console.MarkupLineInterpolated($"{connections} quiet connections, {rate} requests of 64 bytes a second each; {rounds} interleaved rounds of {milliseconds} ms per row.");
        console.MarkupLineInterpolated($"{Placement(loop, quiet, storms, shared)}");
        if (shared && !Affinity.CanGiveWay()) console.MarkupLine("SCHED_IDLE is refused here: the quiet client waits for its processor behind the storms, and the figures say little of the loop.");
        var children = new List<Child>();
        var results = s_cases.Select(_ => new List<(Round Round, Rates Rates)>()).ToArray();
        try
        {
            var here = Start("server", children, loop, storms, loopGivesWay: false, shared);
            var elsewhere = Start("other server", children, storms, storms, loopGivesWay: shared, shared);
            var storm = Add(Child.Self("storms", false, "worker", "--pattern", "fair-storms"), children);
            storm.Ask($"place {Affinity.Format(storms)} {shared}");
            var client = Add(Child.Self("quiet client", false, "worker", "--pattern", "fair-quiet"), children);
            client.Ask(string.Create(CultureInfo.InvariantCulture, $"connect {here.Echo} {connections} {rate} {Affinity.Format(quiet)}"));
            Steps.Show(console, progress =>
            {
                var step = progress("fairness", (rounds + 1) * s_cases.Length);
                for (var round = -1; round < rounds; round++) // -1 warms up
                    for (var i = 0; i < s_cases.Length; i++, step())
                    {
                        token.ThrowIfCancellationRequested();
                        var result = Measure(s_cases[i], s_cases[i].Here ? here : elsewhere, storm, client, round < 0 ? WarmUpMilliseconds : milliseconds);
                        if (round >= 0) results[i].Add(result);
                    }
            });
        }
        finally
        {
            Child.EndAll(children);
        }
        Print(console, results);
    }

    private static (Round, Rates) Measure(Case row, Server target, Child storm, Child client, int milliseconds)
    {
        storm.Ask(string.Create(CultureInfo.InvariantCulture, $"start {(row.Firehose ? target.Firehose : 0)} {(row.Accepts ? target.Accept : 0)}"));
        if (row.Posts) target.Child.Ask("posts on");
        Thread.Sleep(SettleMilliseconds);
        var before = Mark(target);
        var clock = System.Diagnostics.Stopwatch.StartNew();
        var round = Round.Parse(client.Ask(string.Create(CultureInfo.InvariantCulture, $"run {milliseconds}")));
        var after = Mark(target);
        var seconds = clock.Elapsed.TotalSeconds;
        target.Child.Ask("posts off");
        storm.Ask("stop");
        Drain(target);
        return (round, new Rates((after[0] - before[0]) / seconds, (after[1] - before[1]) / seconds, (after[2] - before[2]) / seconds));
    }

    // What a storm has left behind is no part of the next row.
    private static void Drain(Server target)
    {
        var before = Mark(target);
        for (var i = 0; i < MostDrains; i++)
        {
            Thread.Sleep(DrainMilliseconds);
            var now = Mark(target);
            if (now.SequenceEqual(before)) return;
            before = now;
        }
        throw new TimeoutException("A storm goes on after its end.");
    }

    private static long[] Mark(Server server) => [.. server.Child.Ask("mark").Split(' ').Select(p => long.Parse(p, CultureInfo.InvariantCulture))];

    private static Server Start(string name, List<Child> children, int[] loop, int[] poster, bool loopGivesWay, bool posterGivesWay)
    {
        var child = Add(Child.Self(name, false, "worker", "--pattern", "fair-server"), children);
        var ports = child.Ask($"open {Affinity.Format(loop)} {Affinity.Format(poster)} {loopGivesWay} {posterGivesWay}").Split(' ')
            .Select(p => int.Parse(p, CultureInfo.InvariantCulture)).ToArray();
        return new Server(child, ports[0], ports[1], ports[2]);
    }

    private static Child Add(Child child, List<Child> children)
    {
        children.Add(child);
        return child;
    }

    private static (int[] Loop, int[] Quiet, int[] Storms) Places() => Affinity.Processors switch
    {
        [] => ([], [], []),
        [var only] => ([only], [only], [only]),
        [var first, var second] => ([first], [second], [second]),
        [var first, var second, .. var others] => ([first], [second], [.. others]),
    };

    private static string Placement(int[] loop, int[] quiet, int[] storms, bool shared) => (loop, shared) switch
    {
        ([], _) => "Threads cannot be pinned here: the storms, the clients and the loop compete for processors, and the figures say little of the loop.",
        _ when loop.Intersect(quiet).Any() => "There is one processor, which the loop, the quiet client and the storms (as SCHED_IDLE) share: the figures say little of the loop.",
        (_, true) => $"The server's loop on processor {Affinity.Format(loop)}; the quiet client on {Affinity.Format(quiet)}, and so are the storms, as SCHED_IDLE. With a third processor they would leave the client alone.",
        _ => $"The server's loop on processor {Affinity.Format(loop)}, the quiet client on {Affinity.Format(quiet)}, the storms on {Affinity.Format(storms)}.",
    };

    private static void Print(IAnsiConsole console, List<(Round Round, Rates Rates)>[] results)
    {
        var table = new Table { Title = new TableTitle("round trips of the quiet connections"), Border = TableBorder.Simple };
        table.AddColumn(new TableColumn("") { NoWrap = true });
        foreach (var column in (string[])["p50 µs", "p99 µs", "p99.9 µs", "trips", "MB/s", "accepts/s", "posts/s", "p99/idle", "min-max", "p99/busy", "min-max"])
            table.AddColumn(new TableColumn(column) { Alignment = Justify.Right, NoWrap = true });
        for (var i = 0; i < s_cases.Length; i++)
        {
            var rows = results[i];
            string Micro(Func<Round, long> of) => (Tables.Median(rows.Select(r => (double)of(r.Round))) / 1000).ToString("F1", CultureInfo.InvariantCulture);
            string Rate(Func<Rates, double> of) => Tables.Median(rows.Select(r => of(r.Rates))).ToString("N0", CultureInfo.InvariantCulture);
            var ratios = results.Take(Controls).Select(c => rows.Zip(c, (a, b) => (double)a.Round.P99 / b.Round.P99).ToList());
            table.AddRow([s_cases[i].Name, Micro(r => r.P50), Micro(r => r.P99), Micro(r => r.P999),
                Tables.Median(rows.Select(r => (double)r.Round.Trips)).ToString("F0", CultureInfo.InvariantCulture),
                Rate(r => r.Received / 1e6), Rate(r => r.Accepted), Rate(r => r.Posted),
                .. ratios.SelectMany(r => (string[])[Number(Tables.Median(r)), $"{Number(r.Min())}-{Number(r.Max())}"])]);
        }
        Tables.Widen(console);
        console.Write(table);
        console.MarkupLineInterpolated($"Medians of the rounds; ratios paired round by round with the first row (idle) and the second (busy: all three storms at the loop of another process). The aim: at most {Target}.");
    }

    private static string Number(double ratio) => ratio.ToString("F2", CultureInfo.InvariantCulture);
}
