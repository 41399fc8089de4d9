using System.Diagnostics;
using System.Globalization;
using System.Text.RegularExpressions;
using Spectre.Console;

namespace Amy.Async.Bench.Kestrel;

/// <summary>
/// The same applications over Kestrel's own sockets and over Amy.Async, each as it comes and inline: each server a process on
/// one processor, its client on another, interleaved rounds. A web server's first ten seconds under a load are those of code
/// that is being compiled (a third of the processor at 50,000 requests per second), so each load warms each server up first.
/// </summary>
internal static partial class KestrelComparison
{
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(30); // for one round of an outside program

    private sealed record Row(string Name, string? Transport, bool Inline, bool InlineCompletions);

    // Without a path the client in C drives it, with messages of so many bytes (0: it asks for the page).
    private sealed record Load(string Name, int Port, int Connections, string Path, int Bytes = 64);

    internal readonly record struct Result(double Rate, double P50, double P99, double P999, double Cpu, double Memory);

    private static readonly Row[] s_rows =
    [
        new("sockets", "sockets", false, false),
        new("sockets, inline", "sockets", true, true),
        new("Amy.Async", "amy", false, false),
        new("Amy.Async, inline", "amy", true, false),
        new("C, epoll", null, false, false),
    ];

    private static readonly Load[] s_loads =
    [
        new("raw echo, 64", 2, 64, ""),
        new("raw echo, 1000", 2, 1000, ""),
        new("plaintext, 64, client in C", 0, 64, "", Bytes: 0), // wrk is at its limit before the fastest servers are
        new("plaintext, 64", 0, 64, "/"),
        new("JSON, 64", 0, 64, "/json"),
        new("plaintext, h2c, 8 x 10", 1, 8, "/"),
    ];

    private const string Lua = "done = function(s, l, r) io.write(string.format('amy %d %d %d %d %d\\n', s.requests, s.duration, l:percentile(50), l:percentile(99), l:percentile(99.9))) end";

    internal static void Run(IAnsiConsole console, int rounds, int milliseconds, int warmUp, string? only, string? plot, CancellationToken token)
    {
        Load[] loads = [.. s_loads.Where(l => only is null || l.Name.Contains(only, StringComparison.OrdinalIgnoreCase))];
        if (loads.Length == 0) throw new ArgumentException($"No load has '{only}' in its name: {string.Join("; ", s_loads.Select(l => l.Name))}.");
        var places = Affinity.Processors;
        if (places.Length < 2) console.MarkupLine("There is one processor, which server and client share: the figures say little.");
        var (server, client) = places.Length < 2 ? ("0", "0") : (Affinity.Format([places[0]]), Affinity.Format([places[1]]));
        var folder = Directory.CreateTempSubdirectory("amy-kestrel-").FullName;
        var children = new List<Child>();
        var ports = new Dictionary<Row, int[]>();
        var servers = new Dictionary<Row, Child>();
        var results = new Dictionary<(Load, Row), List<Result>>();
        using var load = Yardstick.TryCompile("load", out var why);
        using var epoll = Yardstick.TryCompile("epoll", out _);
        if (load is null) console.MarkupLineInterpolated($"Without raw echo: {why}.");
        foreach (var program in (string[])["wrk", "h2load"])
            if (!Exists(program)) console.MarkupLineInterpolated($"Without what {program} drives: it is not installed.");
        try
        {
            File.WriteAllText(Path.Combine(folder, "percentiles.lua"), Lua);
            foreach (var row in s_rows)
            {
                if (row.Transport is null && epoll is null) continue;
                var child = row.Transport is null ? Child.Of(row.Name, "taskset", "-c", server, epoll!.Program, "serve") : Web(row, server);
                children.Add(child);
                servers[row] = child;
                var said = child.Read().Split(' ').Select(p => int.Parse(p, CultureInfo.InvariantCulture)).ToArray();
                ports[row] = row.Transport is null ? [0, 0, said[0]] : said;
            }
            Child? driver = null;
            if (load is not null) children.Add(driver = Child.Of("load", "taskset", "-c", client, load.Program));
            Steps.Show(console, progress =>
            {
                var step = progress("kestrel", (rounds + 1) * loads.Length * s_rows.Length);
                for (var round = -1; round < rounds; round++) // -1: the warm-up
                    foreach (var l in loads)
                        foreach (var (row, child) in servers)
                        {
                            token.ThrowIfCancellationRequested();
                            var result = Measure(l, row, child, ports[row][l.Port], driver, client, folder, round < 0 ? warmUp : milliseconds);
                            if (round >= 0 && result is { } r) (results.TryGetValue((l, row), out var list) ? list : results[(l, row)] = []).Add(r);
                            step();
                        }
            });
        }
        finally
        {
            Child.EndAll(children);
            Directory.Delete(folder, recursive: true);
        }
        Print(console, results);
        if (plot is null) return;
        KestrelPlot.Write(plot, [.. s_loads.Where(l => results.Keys.Any(k => k.Item1 == l)).Select(l => (l.Name,
            s_rows.Where(r => results.ContainsKey((l, r))).Select(r => (r.Name, Tables.Median(results[(l, r)].Select(x => x.Rate)))).ToArray()))]);
        console.MarkupLineInterpolated($"Plot: {plot}");
    }

    private static Child Web(Row row, string processor)
    {
        var path = Environment.ProcessPath!;
        string[] self = Path.GetFileNameWithoutExtension(path) == "dotnet" ? [path, typeof(KestrelComparison).Assembly.Location] : [path];
        string[] environment = row.InlineCompletions ? ["DOTNET_SYSTEM_NET_SOCKETS_INLINE_COMPLETIONS=1"] : [];
        string[] inline = row.Inline ? ["--inline"] : [];
        return Child.Of(row.Name, "env", [.. environment, "taskset", "-c", processor, .. self, "web", "--transport", row.Transport!, .. inline]);
    }

    private static Result? Measure(Load load, Row row, Child server, int port, Child? driver, string client, string folder, int milliseconds)
    {
        if (load.Path.Length == 0)
        {
            if (driver is null || row.Transport is null && load.Bytes == 0) return null;
            var before = Mark(server);
            var parts = driver.Ask(string.Create(CultureInfo.InvariantCulture, $"run {port} {load.Connections} {load.Bytes} {milliseconds}")).Split(' ').Select(p => long.Parse(p, CultureInfo.InvariantCulture)).ToArray();
            var after = Mark(server);
            if (parts[4] != 0) throw new InvalidDataException($"{row.Name}: {parts[4]} errors in {load.Name}.");
            // The server's CPU is of the warm-up, too: a fifth of the time.
            return new Result(parts[0] / (milliseconds * 0.8e-3), parts[1] / 1e3, parts[2] / 1e3, parts[3] / 1e3, (after.Cpu - before.Cpu) * 0.8 / parts[0] / 1e3, after.Memory);
        }
        if (row.Transport is null || !Exists(load.Port == 0 ? "wrk" : "h2load")) return null;
        var seconds = Math.Max(1, milliseconds / 1000);
        var url = string.Create(CultureInfo.InvariantCulture, $"http://127.0.0.1:{port}{load.Path}");
        var marked = Mark(server);
        double[] figures; // requests, seconds, then microseconds
        if (load.Port == 0)
        {
            var output = Output("taskset", "-c", client, "wrk", "-t1", $"-c{load.Connections}", $"-d{seconds}s", "-s", Path.Combine(folder, "percentiles.lua"), url);
            if (output.Contains("Non-2xx", StringComparison.Ordinal) || output.Contains("Socket errors", StringComparison.Ordinal)) throw new InvalidDataException($"{row.Name}: {output}");
            var n = WrkLine().Match(output).Groups[1].Value.Split(' ').Select(v => double.Parse(v, CultureInfo.InvariantCulture)).ToArray();
            figures = [n[0], n[1] / 1e6, n[2], n[3], n[4]];
        }
        else
        {
            var log = Path.Combine(folder, "h2load.log");
            File.Delete(log);
            var requests = 80_000 * seconds;
            var clock = Stopwatch.StartNew();
            var output = Output("taskset", "-c", client, "h2load", "-t1", $"-c{load.Connections}", "-m10", $"-n{requests}", $"--log-file={log}", url);
            if (!output.Contains($"{requests} succeeded, 0 failed", StringComparison.Ordinal)) throw new InvalidDataException($"{row.Name}: {output}");
            var times = File.ReadLines(log).Select(line => double.Parse(line.Split('\t')[2], CultureInfo.InvariantCulture)).Order().ToArray();
            figures = [requests, clock.Elapsed.TotalSeconds, times[times.Length / 2], times[times.Length * 99 / 100], times[(int)(times.Length * 999L / 1000)]];
        }
        var ended = Mark(server);
        return new Result(figures[0] / figures[1], figures[2], figures[3], figures[4], (ended.Cpu - marked.Cpu) / figures[0] / 1e3, ended.Memory);
    }

    [GeneratedRegex("^amy (.*)$", RegexOptions.Multiline)]
    private static partial Regex WrkLine();

    private static (double Cpu, double Memory) Mark(Child server)
    {
        var parts = server.Ask("mark").Split(' ');
        return (double.Parse(parts[0], CultureInfo.InvariantCulture), double.Parse(parts[1], CultureInfo.InvariantCulture));
    }

    private static string Output(string program, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        var errors = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEndAsync();
        if (!process.WaitForExit(s_limit))
        {
            process.Kill(entireProcessTree: true);
            throw new TimeoutException($"{string.Join(' ', arguments)} did not end within {s_limit.TotalSeconds} s.");
        }
        return output.GetAwaiter().GetResult() + errors.GetAwaiter().GetResult();
    }

    private static bool Exists(string program) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).Any(d => File.Exists(Path.Combine(d, program)));

    private static void Print(IAnsiConsole console, Dictionary<(Load, Row), List<Result>> results)
    {
        Tables.Widen(console);
        foreach (var load in s_loads.Where(l => results.Keys.Any(k => k.Item1 == l)))
        {
            var table = new Table { Title = new TableTitle(load.Name), Border = TableBorder.Simple };
            table.AddColumn(new TableColumn("") { NoWrap = true });
            foreach (var column in (string[])["req/s", "p50 µs", "p99 µs", "p99.9 µs", "CPU µs/req", "MiB", "/sockets", "/inline", "min-max"])
                table.AddColumn(new TableColumn(column) { Alignment = Justify.Right, NoWrap = true });
            foreach (var row in s_rows.Where(r => results.ContainsKey((load, r))))
            {
                var own = results[(load, row)];
                string Figure(Func<Result, double> of, string format) => Tables.Median(own.Select(of)).ToString(format, CultureInfo.InvariantCulture);
                double[] Ratios(Row to) => [.. own.Zip(results[(load, to)], (a, b) => a.Rate / b.Rate)];
                var best = Ratios(s_rows[1]);
                table.AddRow(row.Name, Figure(r => r.Rate, "N0"), Figure(r => r.P50, "N0"), Figure(r => r.P99, "N0"), Figure(r => r.P999, "N0"), Figure(r => r.Cpu, "F2"),
                    Figure(r => r.Memory / (1 << 20), "N0"), Number(Tables.Median(Ratios(s_rows[0]))), Number(Tables.Median(best)), $"{Number(best.Min())}-{Number(best.Max())}");
            }
            console.Write(table);
        }
        console.MarkupLine("Medians of the rounds; ratios of requests per second, paired round by round, with Kestrel's own sockets as they come and at their best (inline scheduling and completions).");
    }

    private static string Number(double ratio) => ratio.ToString("F2", CultureInfo.InvariantCulture);
}
