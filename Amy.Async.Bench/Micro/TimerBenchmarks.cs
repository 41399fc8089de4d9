using BenchmarkDotNet.Attributes;

namespace Amy.Async.Bench.Micro;

/// <summary>
/// What a network time-out costs among many: it is set, and nearly always cancelled. Deadlines are spread over a minute;
/// each operation inserts one timer and cancels another, so that the number pending stays the same.
/// </summary>
[MemoryDiagnoser]
public class TimerBenchmarks
{
    private const int Count = 100_000;

    private readonly TimerQueue<Entry> _queue = new();
    private readonly PriorityQueue<Entry, long> _priorityQueue = new();
    private readonly Random _random = new(1);
    private Entry[] _entries = [];
    private long[] _timeouts = [];
    private int[] _victims = [];
    private long _now;
    private int _next;

    /// <summary>Timers that wait meanwhile.</summary>
    [Params(1_000, 1_000_000)]
    public int Pending { get; set; }

    /// <summary>Makes the pending ones, and the chance that is used.</summary>
    [GlobalSetup]
    public void Setup()
    {
        _timeouts = [.. Enumerable.Range(0, Count).Select(_ => _random.NextInt64(60_000_000_000))];
        _victims = [.. Enumerable.Range(0, Count).Select(_ => _random.Next(Pending))];
        _entries = [.. Enumerable.Range(0, Pending).Select(_ => new Entry())];
        foreach (var entry in _entries)
        {
            var deadline = _random.NextInt64(60_000_000_000);
            _queue.Add(entry, deadline);
            _priorityQueue.Enqueue(entry, deadline);
        }
    }

    /// <summary>The library's queue: a random timer is cancelled and set again.</summary>
    [Benchmark(OperationsPerInvoke = Count)]
    public void Queue_CancelRandom()
    {
        for (var i = 0; i < Count; i++)
        {
            var entry = _entries[_victims[i]];
            _queue.Remove(entry);
            _queue.Add(entry, _now += 100 + _timeouts[i]);
            _now -= _timeouts[i];
        }
    }

    /// <summary>The library's queue: set, and cancelled soon after, as of a request that is answered.</summary>
    [Benchmark(OperationsPerInvoke = Count)]
    public void Queue_CancelYoung()
    {
        for (var i = 0; i < Count; i++)
        {
            var entry = _entries[_next = (_next + 1) & 63];
            _queue.Remove(entry);
            _queue.Add(entry, _now += 100 + _timeouts[i]);
            _now -= _timeouts[i];
        }
    }

    private sealed class Entry : ITimerEntry
    {
        public int QueueIndex { get; set; } = -1;
    }
}
