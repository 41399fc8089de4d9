using System.Diagnostics;
using System.Globalization;
using System.Net;
using HdrHistogram;

namespace Amy.Async.Bench.Patterns;

/// <summary>
/// Connections that each send a small request now and then, at fixed times, and wait for its echo; on one loop, which leaves
/// its processor alone in between.
/// </summary>
/// <remarks>
/// A trip is timed from its send. One that takes longer than the time between two requests holds up the next, which would
/// have been slow as well; the histogram is told of those too (RecordValueWithExpectedInterval).
/// </remarks>
internal sealed class QuietClient
{
    private const int Size = 64;
    private const long Longest = 20_000_000_000; // ns
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(10); // a lost message is an error, not a hang

    private readonly EventLoop _loop = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
    private readonly LongHistogram _histogram = new(Longest, 3);
    private readonly List<(AsyncSocket Socket, Message Message)> _connections = [];
    private long _period; // in ticks of Stopwatch
    private long _trips;

    /// <summary>
    /// "connect PORT COUNT RATE CPUS", RATE in requests per second and connection; "run MILLISECONDS" gives a
    /// <see cref="Round"/>.
    /// </summary>
    internal string Answer(string[] parts)
    {
        int Number(int i) => int.Parse(parts[i], CultureInfo.InvariantCulture);
        return parts[0] switch
        {
            "connect" => _loop.InvokeAsync(() => Connect(Number(1), Number(2), Number(3), Affinity.Parse(parts[4]))).GetAwaiter().GetResult(),
            "run" => _loop.InvokeAsync(() => Run(Number(1))).GetAwaiter().GetResult().ToString(),
            _ => throw new ArgumentException($"Unknown command '{parts[0]}'."),
        };
    }

    private async Task<string> Connect(int port, int count, int rate, int[] processors)
    {
        Affinity.Pin(processors);
        _period = Stopwatch.Frequency / rate;
        for (var i = 0; i < count; i++)
        {
            var socket = await AsyncSocket.ConnectAsync(new IPEndPoint(IPAddress.Loopback, port));
            socket.ReceiveTimeout = socket.SendTimeout = s_limit;
            _connections.Add((socket, new Message(Size)));
        }
        return "ok";
    }

    private async Task<Round> Run(int milliseconds)
    {
        _histogram.Reset();
        _trips = 0;
        var cpu = Environment.CpuUsage.TotalTime;
        var bytes = GC.GetAllocatedBytesForCurrentThread();
        var start = Stopwatch.GetTimestamp();
        var end = start + milliseconds * Stopwatch.Frequency / 1000;
        // Spread over the period, so that they do not come in volleys.
        await Task.WhenAll(_connections.Select((c, i) => Converse(c.Socket, c.Message, start + i * _period / _connections.Count, end)));
        cpu = Environment.CpuUsage.TotalTime - cpu;
        bytes = GC.GetAllocatedBytesForCurrentThread() - bytes;
        if (_trips == 0) throw new InvalidOperationException("The round is too short for a request.");
        return new Round(_trips, _histogram.GetMean(), _histogram.GetValueAtPercentile(50), _histogram.GetValueAtPercentile(99),
            _histogram.GetValueAtPercentile(99.9), (long)cpu.TotalNanoseconds, bytes);
    }

    private async Task Converse(AsyncSocket socket, Message message, long due, long end)
    {
        while (due < end)
        {
            var wait = due - Stopwatch.GetTimestamp();
            if (wait > 0) await _loop.Delay(Stopwatch.GetElapsedTime(0, wait));
            message.Change();
            var sent = Stopwatch.GetTimestamp();
            await socket.SendAsync(message.Sent);
            for (var got = 0; got < Size;)
            {
                var n = await socket.ReceiveAsync(message.Back.AsMemory(got));
                if (n == 0) throw new EndOfStreamException("The server closed a quiet connection.");
                got += n;
            }
            var now = Stopwatch.GetTimestamp();
            message.Verify();
            _trips++;
            _histogram.RecordValueWithExpectedInterval(Math.Clamp(Nanoseconds(now - sent), 1, Longest), Nanoseconds(_period));
            do due += _period;
            while (due < now);
        }
    }

    private static long Nanoseconds(long ticks) => (long)Stopwatch.GetElapsedTime(0, ticks).TotalNanoseconds;
}
