using System.Diagnostics;
using System.Globalization;
using HdrHistogram;

namespace Amy.Async.Bench;

/// <summary>What one round of round trips measured. The line that workers print; times in nanoseconds.</summary>
internal readonly record struct Round(long Trips, double Mean, long P50, long P99, long P999, long Cpu, long Bytes)
{
    internal double CpuPerTrip => (double)Cpu / Trips;

    internal double BytesPerTrip => (double)Bytes / Trips;

    public override string ToString() =>
        string.Create(CultureInfo.InvariantCulture, $"{Trips} {Mean:F1} {P50} {P99} {P999} {Cpu} {Bytes}");

    internal static Round Parse(string line)
    {
        var parts = line.Split(' ');
        if (parts.Length != 7) throw new InvalidDataException(line);
        long Number(int i) => long.Parse(parts[i], CultureInfo.InvariantCulture);
        return new Round(Number(0), double.Parse(parts[1], CultureInfo.InvariantCulture), Number(2), Number(3), Number(4), Number(5), Number(6));
    }
}

/// <summary>
/// Says when a round is over and takes its samples, without allocating. A round is a number of trips (no clock between
/// them) or a time (each trip is a sample).
/// </summary>
internal sealed class RoundClock
{
    private const long Longest = 10_000_000_000; // ns
    private readonly LongHistogram _histogram = new(Longest, 3);
    private bool _timed;
    private long _amount;
    private long _start;
    private long _last;
    private long _trips;

    internal void Start(bool timed, long amount)
    {
        _timed = timed;
        _amount = timed ? amount * Stopwatch.Frequency / 1000 : amount;
        _trips = 0;
        _histogram.Reset();
        _last = _start = Stopwatch.GetTimestamp();
    }

    /// <summary>A trip has ended. False: the round is over.</summary>
    internal bool Next()
    {
        _trips++;
        if (!_timed) return _trips < _amount;
        var now = Stopwatch.GetTimestamp();
        _histogram.RecordValue(Math.Clamp((now - _last) * 1_000_000_000 / Stopwatch.Frequency, 1, Longest));
        _last = now;
        return now - _start < _amount;
    }

    internal Round Result(TimeSpan cpu, long bytes)
    {
        var elapsed = Stopwatch.GetElapsedTime(_start).TotalNanoseconds;
        long At(double p) => _timed ? _histogram.GetValueAtPercentile(p) : 0;
        return new Round(_trips, elapsed / _trips, At(50), At(99), At(99.9), (long)cpu.TotalNanoseconds, bytes);
    }
}
