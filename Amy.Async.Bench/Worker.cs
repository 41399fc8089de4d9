using System.Buffers.Text;
using System.Collections.Concurrent;
using System.Globalization;
using Amy.Async.Bench.Patterns;

namespace Amy.Async.Bench;

/// <summary>
/// The child's side: obeys lines on standard input and ends with it, so that it never outlives its parent. The C
/// yardsticks speak the same protocol (see limits/).
/// </summary>
internal static class Worker
{
    /// <summary>
    /// Answers each line. Round trips with both ends in this process: "time BYTES MILLISECONDS" or "trips BYTES COUNT" gives
    /// a <see cref="Round"/>. The other patterns say what they understand.
    /// </summary>
    internal static int Obey(string pattern, bool unix, TimeSpan? spin)
    {
        var answer = Answers(pattern, unix, spin);
        foreach (var line in Lines())
            try
            {
                Console.WriteLine(answer(line.Split(' ')));
            }
            catch (Exception e)
            {
                Console.WriteLine($"error: {e.Message.ReplaceLineEndings(" ")}");
                return 1;
            }
        return 0;
    }

    private static Func<string[], string> Answers(string pattern, bool unix, TimeSpan? spin)
    {
        switch (pattern)
        {
            case "wake":
                return new WakePair(spin).Answer;
            case "fair-server":
                return new FairServer().Answer;
            case "fair-quiet":
                return new QuietClient().Answer;
            case "fair-storms":
                return new Storms().Answer;
            case "queue-loop" or "queue-channel" or "queue-channel-thread":
                return PostTarget.Create(pattern, spin).Answer;
            default:
                var pingPong = PingPong.Create(pattern, unix, spin);
                return parts => pingPong.Run(int.Parse(parts[1], CultureInfo.InvariantCulture), parts[0] == "time", long.Parse(parts[2], CultureInfo.InvariantCulture)).ToString();
        }
    }

    /// <summary>An echo server: prints its port; each line gives "CPU_NS ALLOCATED_BYTES" so far; a sink adds its live memory and its count.</summary>
    internal static int Serve(string pattern)
    {
        var sink = Sinks.Start(pattern);
        Console.WriteLine(sink ?? Servers.Start(pattern));
        // Plain bytes and one buffer, because the answer itself must not allocate: it would count as the server's.
        using var input = Console.OpenStandardInput();
        using var output = Console.OpenStandardOutput();
        var buffer = new byte[128];
        while (input.Read(buffer) > 0)
        {
            var cpu = (long)Environment.CpuUsage.TotalTime.TotalNanoseconds;
            Utf8Formatter.TryFormat(cpu, buffer, out var length);
            buffer[length++] = (byte)' ';
            Utf8Formatter.TryFormat(GC.GetTotalAllocatedBytes(precise: true), buffer.AsSpan(length), out var more);
            length += more;
            if (sink is not null) // these are not judged by what the question costs
            {
                var text = $" {(pattern.StartsWith("idle", StringComparison.Ordinal) ? GC.GetTotalMemory(forceFullCollection: true) : 0)} {Sinks.Count}";
                foreach (var c in text) buffer[length++] = (byte)c;
            }
            buffer[length++] = (byte)'\n';
            output.Write(buffer.AsSpan(0, length));
        }
        return 0;
    }

    // Read by a thread of its own, so that the end of standard input ends the process even in the middle of a round that hangs.
    private static IEnumerable<string> Lines()
    {
        var lines = new BlockingCollection<string>();
        new Thread(() =>
        {
            while (Console.ReadLine() is { } line) lines.Add(line);
            Environment.Exit(0);
        })
        { IsBackground = true, Name = "standard input" }.Start();
        return lines.GetConsumingEnumerable();
    }
}
