using System.Globalization;
using Amy.Async.Bench.Patterns;

namespace Amy.Async.Bench;

/// <summary>
/// The child's side: obeys lines on standard input and ends with it, so that it never outlives its parent. The C yardstick
/// speaks the same protocol (see limits/epoll.c).
/// </summary>
internal static class Worker
{
    /// <summary>Both ends in this process: "time BYTES MILLISECONDS" or "trips BYTES COUNT" gives a <see cref="Round"/>.</summary>
    internal static int PingPong(string pattern, bool unix, TimeSpan? spin)
    {
        var pingPong = Patterns.PingPong.Create(pattern, unix, spin);
        while (Console.ReadLine() is { } line)
        {
            var parts = line.Split(' ');
            try
            {
                var round = pingPong.Run(int.Parse(parts[1], CultureInfo.InvariantCulture), parts[0] == "time", long.Parse(parts[2], CultureInfo.InvariantCulture));
                Console.WriteLine(round);
            }
            catch (Exception e)
            {
                Console.WriteLine($"error: {e.Message}");
                return 1;
            }
        }
        return 0;
    }

    /// <summary>An echo server: prints its port; each line gives "CPU_NS ALLOCATED_BYTES" so far.</summary>
    internal static int Serve(string pattern)
    {
        Console.WriteLine(Servers.Start(pattern));
        while (Console.ReadLine() is not null)
            Console.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{(long)Environment.CpuUsage.TotalTime.TotalNanoseconds} {GC.GetTotalAllocatedBytes(precise: true)}"));
        return 0;
    }
}
