using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Spectre.Console;

namespace Amy.Async.Bench;

/// <summary>
/// What one side of many connections or datagrams costs: accepting and closing, idle connections, received datagrams. Each row
/// is a process; this one is the client of all, in interleaved rounds.
/// </summary>
internal static class SinkComparison
{
    private readonly record struct Mark(long Cpu, long Bytes, long Memory, long Count);

    internal static void Accept(IAnsiConsole console, int rounds, int connections, CancellationToken token) =>
        Run(console, $"accept and close, {connections} connections a round, {rounds} rounds", ["accept-amy", "accept-amy-no-spin", "accept-socket"], rounds, 1,
            ["CPU µs/connection", "connections/s", "bytes"], (child, port) =>
            {
                var clock = Stopwatch.StartNew();
                var before = Ask(child);
                for (var i = 0; i < connections; i++)
                {
                    using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
                    client.Connect(IPAddress.Loopback, port);
                    client.LingerState = new LingerOption(true, 0); // a reset: no TIME_WAIT, so that ports do not run out
                }
                var after = Until(child, before.Count + connections);
                return [(after.Cpu - before.Cpu) / 1e3 / connections, connections / clock.Elapsed.TotalSeconds, (double)(after.Bytes - before.Bytes) / connections];
            }, token);

    internal static void Idle(IAnsiConsole console, int connections, CancellationToken token) =>
        Run(console, $"{connections} idle connections, each with a pending receive", ["idle-amy", "idle-pipe", "idle-socket"], 1, 0,
            ["managed bytes each"], (child, port) =>
            {
                var clients = new List<Socket>();
                try
                {
                    void Connect(int count)
                    {
                        var target = Ask(child).Count + count;
                        for (var i = 0; i < count; i++)
                        {
                            clients.Add(new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp));
                            clients[^1].Connect(IPAddress.Loopback, port);
                        }
                        Until(child, target);
                    }
                    Connect(100); // what the first ones make for all
                    var before = Ask(child);
                    Connect(connections);
                    return [(double)(Ask(child).Memory - before.Memory) / connections];
                }
                finally
                {
                    clients.ForEach(c => c.Dispose());
                }
            }, token);

    internal static void Datagrams(IAnsiConsole console, int rounds, int milliseconds, CancellationToken token) =>
        Run(console, $"64-byte datagrams for {milliseconds} ms a round, {rounds} rounds", ["udp-batch", "udp-amy", "udp-socket"], rounds, 1,
            ["received/s", "CPU ns each", "lost %", "bytes"], (child, port) =>
            {
                var before = Ask(child);
                var clock = Stopwatch.StartNew();
                var sent = Blast(port, milliseconds);
                var elapsed = clock.Elapsed.TotalSeconds;
                var after = Ask(child);
                var received = after.Count - before.Count;
                return [received / elapsed, (double)(after.Cpu - before.Cpu) / received, 100.0 * (sent - received) / sent, (double)(after.Bytes - before.Bytes) / received];
            }, token);

    // As fast as one thread can.
    private static long Blast(int port, int milliseconds)
    {
        var sent = 0L;
        EventLoop.Run(async () =>
        {
            using var socket = AsyncSocket.ConnectDatagram(new IPEndPoint(IPAddress.Loopback, port));
            var batch = new DatagramBatch(64, 64);
            for (var i = 0; i < batch.Capacity; i++) batch.Add(new byte[64]);
            var end = Stopwatch.GetTimestamp() + milliseconds * Stopwatch.Frequency / 1000;
            while (Stopwatch.GetTimestamp() < end) sent += await socket.SendAsync(batch);
        });
        return sent;
    }

    private static void Run(IAnsiConsole console, string title, string[] patterns, int rounds, int warmUps, string[] columns, Func<Child, int, double[]> round, CancellationToken token)
    {
        var children = new List<(Child Child, int Port, List<double[]> Rounds)>();
        try
        {
            foreach (var pattern in patterns)
            {
                var child = Child.Self(pattern, false, "server", "--pattern", pattern);
                children.Add((child, int.Parse(child.Read(), CultureInfo.InvariantCulture), []));
            }
            Steps.Show(console, progress =>
            {
                var step = progress(title, (rounds + warmUps) * children.Count);
                for (var i = -warmUps; i < rounds; i++)
                    foreach (var (child, port, results) in children)
                    {
                        token.ThrowIfCancellationRequested();
                        var result = round(child, port);
                        if (i >= 0) results.Add(result);
                        step();
                    }
            });
        }
        finally
        {
            Child.EndAll([.. children.Select(c => c.Child)]);
        }
        var table = new Table { Title = new TableTitle(title), Border = TableBorder.Simple };
        table.AddColumn("");
        foreach (var column in columns) table.AddColumn(new TableColumn(column) { Alignment = Justify.Right, NoWrap = true });
        table.AddColumn(new TableColumn("ratio to the last, paired") { Alignment = Justify.Right, NoWrap = true });
        foreach (var (child, _, results) in children)
        {
            var ratios = results.Zip(children[^1].Rounds, (a, b) => a[0] / b[0]).ToList();
            table.AddRow([child.Name, .. columns.Select((_, i) => Tables.Median(results.Select(r => r[i])).ToString("N1", CultureInfo.InvariantCulture)),
                string.Create(CultureInfo.InvariantCulture, $"{Tables.Median(ratios):F2} ({ratios.Min():F2}-{ratios.Max():F2})")]);
        }
        console.Write(table);
    }

    private static Mark Until(Child child, long count)
    {
        var end = Stopwatch.GetTimestamp() + 30 * Stopwatch.Frequency;
        while (true)
        {
            var mark = Ask(child);
            if (mark.Count >= count) return mark;
            if (Stopwatch.GetTimestamp() > end) throw new TimeoutException($"{child.Name} has got {mark.Count} of {count}.");
        }
    }

    private static Mark Ask(Child child)
    {
        var parts = child.Ask("mark").Split(' ').Select(p => long.Parse(p, CultureInfo.InvariantCulture)).ToArray();
        return new Mark(parts[0], parts[1], parts[2], parts[3]);
    }
}
