using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
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

    internal static void Run(IAnsiConsole console, bool quick, CancellationToken token)
    {
        var milliseconds = quick ? 40 : 140;
        var rounds = 5;
        console.MarkupLineInterpolated($"Echo over TCP on loopback, {rounds} interleaved rounds of {milliseconds} ms per row, {Environment.ProcessorCount} cores, .NET {Environment.Version}.");
        using var yardstick = Yardstick.TryCompile(out var why);
        if (yardstick is null) console.MarkupLineInterpolated($"The row '{C}' is missing: {why}.");
        var tables = new List<Action>();
        Progress(console, progress =>
        {
            var steps = s_sizes.Length * (rounds + 1) * (s_rows.Length + (yardstick is null ? 0 : 1));
            var one = progress("one process, both ends", steps);
            OneProcess(yardstick, rounds, milliseconds, one, tables, console, token);
            var two = progress("two processes", steps);
            TwoProcesses(yardstick, rounds, milliseconds, two, tables, console, token);
        });
        foreach (var print in tables) print();
        console.MarkupLine("Mean, percentiles, CPU and bytes are per round trip, medians of the rounds. Ratios are of means, paired round by round with the first row.");
        console.MarkupLine("One process: Amy and C on one thread, the others on the thread pool; CPU and bytes of both ends. Two processes: the client is the same blocking one for all rows; CPU and bytes are the server's.");
    }

    private static void OneProcess(Yardstick? yardstick, int rounds, int milliseconds, Action step, List<Action> tables, IAnsiConsole console, CancellationToken token)
    {
        var children = s_rows.Select(r => (r.Name, Child: Child.Self(r.Name, r.Inline, "worker", "--pattern", r.Pattern))).ToList();
        if (yardstick is not null) children.Add((C, Child.Of(C, yardstick.Program, "pingpong", "tcp")));
        try
        {
            foreach (var size in s_sizes)
            {
                var rows = children.Select(c => (c.Name, Rounds: new List<Round>())).ToList();
                for (var round = -1; round < rounds; round++) // -1 warms up
                    for (var i = 0; i < children.Count; i++, step())
                    {
                        token.ThrowIfCancellationRequested();
                        var result = Round.Parse(children[i].Child.Ask($"time {size} {(round < 0 ? Math.Max(300, milliseconds) : milliseconds)}"));
                        if (round >= 0) rows[i].Rounds.Add(result);
                    }
                tables.Add(() => Tables.Print(console, $"Both ends in one process, {Bytes(size)}", rows));
            }
        }
        finally
        {
            foreach (var (_, child) in children) child.Dispose();
        }
    }

    private static void TwoProcesses(Yardstick? yardstick, int rounds, int milliseconds, Action step, List<Action> tables, IAnsiConsole console, CancellationToken token)
    {
        var servers = s_rows.Select(r => (r.Name, Child: Child.Self(r.Name, r.Inline, "server", "--pattern", r.Pattern))).ToList();
        if (yardstick is not null) servers.Add((C, Child.Of(C, yardstick.Program, "serve")));
        var clients = new List<Client>();
        try
        {
            foreach (var (_, child) in servers) clients.Add(new Client(child, int.Parse(child.Read(), CultureInfo.InvariantCulture)));
            foreach (var size in s_sizes)
            {
                var rows = servers.Select(s => (s.Name, Rounds: new List<Round>())).ToList();
                for (var round = -1; round < rounds; round++)
                    for (var i = 0; i < clients.Count; i++, step())
                    {
                        token.ThrowIfCancellationRequested();
                        var result = clients[i].Run(size, round < 0 ? Math.Max(300, milliseconds) : milliseconds);
                        if (round >= 0) rows[i].Rounds.Add(result);
                    }
                tables.Add(() => Tables.Print(console, $"Server and client in two processes, {Bytes(size)}", rows));
            }
        }
        finally
        {
            foreach (var client in clients) client.Dispose();
            foreach (var (_, child) in servers) child.Dispose();
        }
    }

    private static string Bytes(int size) => size switch { 1 => "1 byte", < 1024 => $"{size} bytes", _ => $"{size / 1024} KiB" };

    // A bar on a terminal; a line a phase elsewhere.
    private static void Progress(IAnsiConsole console, Action<Func<string, int, Action>> work)
    {
        if (!console.Profile.Capabilities.Interactive)
        {
            work((name, _) => { console.MarkupLineInterpolated($"{name} …"); return () => { }; });
            return;
        }
        console.Progress().Start(context => work((name, steps) =>
        {
            var task = context.AddTask(name, maxValue: steps);
            return () => task.Increment(1);
        }));
    }

    /// <summary>A blocking client of one connection, the same for every server.</summary>
    private sealed class Client : IDisposable
    {
        private readonly Socket _socket = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        private readonly RoundClock _clock = new();
        private readonly Child _server;

        internal Client(Child server, int port)
        {
            _server = server;
            _socket.Connect(IPAddress.Loopback, port);
        }

        internal Round Run(int size, int milliseconds)
        {
            var message = new Message(size);
            var (cpu, bytes) = Mark();
            _clock.Start(timed: true, milliseconds);
            do
            {
                message.Change();
                _socket.Send(message.Sent);
                for (var got = 0; got < size;)
                {
                    var n = _socket.Receive(message.Back, got, size - got, SocketFlags.None);
                    if (n == 0) throw new EndOfStreamException();
                    got += n;
                }
                message.Verify();
            }
            while (_clock.Next());
            var round = _clock.Result(default, 0);
            var (cpuAfter, bytesAfter) = Mark();
            return round with { Cpu = cpuAfter - cpu, Bytes = Math.Max(0, bytesAfter - bytes - _markBytes) };
        }

        // What reading the mark itself allocates in the server, measured with nothing in between.
        private long _markBytes = -1;

        private (long Cpu, long Bytes) Mark()
        {
            if (_markBytes < 0)
            {
                _markBytes = 0;
                for (var i = 0; i < 5; i++) Mark();
                _markBytes = -Mark().Bytes + Mark().Bytes;
            }
            var parts = _server.Ask("mark").Split(' ');
            return (long.Parse(parts[0], CultureInfo.InvariantCulture), long.Parse(parts[1], CultureInfo.InvariantCulture));
        }

        public void Dispose() => _socket.Dispose();
    }
}
