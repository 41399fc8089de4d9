using System.Globalization;
using Spectre.Console;

namespace Amy.Async.Bench;

/// <summary>
/// The comparison that the README shows: round trips over TCP on loopback, every byte checked, both ends in one process and
/// in two. Each row lives in child processes of its own that stay warm; only one of them works at a time, and the rounds of
/// all rows are interleaved.
/// </summary>
internal static class MainJob
{
    private static readonly int[] s_sizes = [1, 64, 16 * 1024];

    private static readonly (string Name, string Pattern, bool Inline)[] s_rows =
    [
        ("Amy ReceiveAsync", "amy", false),
        ("Amy ReadableAsync + Receive", "amy-readable", false),
        ("SocketAsyncEventArgs", "saea", false),
        ("Socket.ReceiveAsync", "socket", false),
        ("Socket.ReceiveAsync, inline completions", "socket", true),
    ];

    private const string C = "C epoll loop";

    private const int Rounds = 5;

    internal static void Run(IAnsiConsole console, bool quick, CancellationToken token)
    {
        var milliseconds = quick ? 25 : 140;
        console.MarkupLineInterpolated($"Echo over TCP on loopback, {Rounds} interleaved rounds of {milliseconds} ms per row, {Environment.ProcessorCount} cores, .NET {Environment.Version}.");
        using var yardstick = Yardstick.TryCompile("epoll", out var why);
        if (yardstick is null) console.MarkupLineInterpolated($"The row '{C}' is missing: {why}.");
        var tables = new List<Action>();
        Steps.Show(console, progress =>
        {
            var steps = s_sizes.Length * (Rounds + 1) * (s_rows.Length + (yardstick is null ? 0 : 1));
            OneProcess(yardstick, milliseconds, progress("one process, both ends", steps), tables, console, token);
            TwoProcesses(yardstick, milliseconds, progress("two processes", steps), tables, console, token);
        });
        Tables.Widen(console);
        foreach (var print in tables) print();
        console.MarkupLine("Mean, percentiles, CPU and bytes are per round trip, medians of the rounds. Ratios are of means, paired round by round with the first row.");
        console.MarkupLine("One process: Amy and C on one thread, the others on the thread pool; CPU and bytes of both ends. Two processes: the client is the same blocking one for all rows; CPU and bytes are the server's. There, Amy spins for a moment before it sleeps (the library's default); the C loop sleeps at once.");
    }

    private static void OneProcess(Yardstick? yardstick, int milliseconds, Action step, List<Action> tables, IAnsiConsole console, CancellationToken token)
    {
        var children = new List<Child>();
        try
        {
            foreach (var (name, pattern, inline) in s_rows) children.Add(Child.Self(name, inline, "worker", "--pattern", pattern));
            if (yardstick is not null) children.Add(Child.Of(C, yardstick.Program, "pingpong", "tcp"));
            foreach (var size in s_sizes)
            {
                var rows = children.Select(c => (c.Name, Rounds: new List<Round>())).ToList();
                for (var round = -1; round < Rounds; round++) // -1 warms up
                    for (var i = 0; i < children.Count; i++, step())
                    {
                        token.ThrowIfCancellationRequested();
                        var result = Round.Parse(children[i].Ask($"time {size} {(round < 0 ? WarmUp(size, milliseconds) : milliseconds)}"));
                        if (round >= 0) rows[i].Rounds.Add(result);
                    }
                tables.Add(() => Tables.Print(console, $"Both ends in one process, {Bytes(size)}", rows));
            }
        }
        finally
        {
            Child.EndAll(children);
        }
    }

    private static void TwoProcesses(Yardstick? yardstick, int milliseconds, Action step, List<Action> tables, IAnsiConsole console, CancellationToken token)
    {
        var servers = new List<Child>();
        var clients = new List<Client>();
        try
        {
            foreach (var (name, pattern, inline) in s_rows) servers.Add(Child.Self(name, inline, "server", "--pattern", pattern));
            if (yardstick is not null) servers.Add(Child.Of(C, yardstick.Program, "serve"));
            foreach (var child in servers) clients.Add(new Client(child, int.Parse(child.Read(), CultureInfo.InvariantCulture)));
            foreach (var size in s_sizes)
            {
                var rows = servers.Select(s => (s.Name, Rounds: new List<Round>())).ToList();
                for (var round = -1; round < Rounds; round++)
                    for (var i = 0; i < clients.Count; i++, step())
                    {
                        token.ThrowIfCancellationRequested();
                        var result = clients[i].Run(size, round < 0 ? WarmUp(size, milliseconds) : milliseconds);
                        if (round >= 0) rows[i].Rounds.Add(result);
                    }
                tables.Add(() => Tables.Print(console, $"Server and client in two processes, {Bytes(size)}", rows));
            }
        }
        finally
        {
            foreach (var client in clients) client.Dispose();
            Child.EndAll(servers);
        }
    }

    // The first size makes the code hot; the others only the sockets' buffers.
    private static int WarmUp(int size, int milliseconds) => size == s_sizes[0] ? 300 : Math.Max(60, milliseconds);

    private static string Bytes(int size) => size switch { 1 => "1 byte", < 1024 => $"{size} bytes", _ => $"{size / 1024} KiB" };
}
