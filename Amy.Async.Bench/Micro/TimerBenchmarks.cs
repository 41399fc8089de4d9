using BenchmarkDotNet.Attributes;

namespace Amy.Async.Bench.Micro;

/// <summary>
/// What a network time-out costs among many: it is set, and nearly always cancelled. Deadlines are spread over an hour;
/// the number pending stays the same.
/// </summary>
[MemoryDiagnoser]
public class TimerBenchmarks
{
    private const int Count = 100_000;

    private readonly TimerQueue<Entry> _queue = new();
    private readonly PriorityQueue<Entry, long> _priorityQueue = new();
    private readonly Random _random = new(1);
    private readonly Poller _poller = new();
    private Entry[] _entries = [];
    private Timer[] _timers = [];
    private TimeSpan[] _timeouts = [];
    private int[] _victims = [];
    private long _now;

    /// <summary>Timers that wait meanwhile.</summary>
    [Params(1_000, 1_000_000)]
    public int Pending { get; set; }

    // The chance that is used: time-outs between one minute and an hour, and which timer is cancelled.
    private void Setup()
    {
        _timeouts = [.. Enumerable.Range(0, Count).Select(_ => TimeSpan.FromMilliseconds(_random.Next(60_000, 3_600_000)))];
        _victims = [.. Enumerable.Range(0, Count).Select(_ => _random.Next(Pending))];
        _entries = [.. Enumerable.Range(0, Pending).Select(_ => new Entry())];
    }

    /// <summary>Fills the queue alone.</summary>
    [GlobalSetup(Targets = [nameof(Queue_InsertAndCancel), nameof(Queue_CancelRandom)])]
    public void SetupQueue()
    {
        Setup();
        for (var i = 0; i < Pending; i++) _queue.Add(_entries[i], _timeouts[i % Count].Ticks * 100);
    }

    /// <summary>Fills a poller.</summary>
    [GlobalSetup(Target = nameof(Poller_InsertAndCancel))]
    public void SetupPoller()
    {
        Setup();
        for (var i = 0; i < Pending; i++) _poller.Registrar.SetTimeout(_timeouts[i % Count]);
    }

    /// <summary>Fills the platform's timers.</summary>
    [GlobalSetup(Target = nameof(SystemTimer_InsertAndCancel))]
    public void SetupTimers()
    {
        Setup();
        _timers = [.. Enumerable.Range(0, Pending).Select(i => new Timer(static _ => { }, null, _timeouts[i % Count], Timeout.InfiniteTimeSpan))];
    }

    /// <summary>Ends them.</summary>
    [GlobalCleanup]
    public void Cleanup()
    {
        foreach (var timer in _timers) timer.Dispose();
        _poller.Dispose();
    }

    /// <summary>Fills a priority queue.</summary>
    [GlobalSetup(Target = nameof(PriorityQueue_InsertAndExpire))]
    public void SetupPriorityQueue()
    {
        Setup();
        for (var i = 0; i < Pending; i++) _priorityQueue.Enqueue(_entries[i], _timeouts[i % Count].Ticks);
    }

    /// <summary>The library's queue: set, and cancelled.</summary>
    [Benchmark(OperationsPerInvoke = Count)]
    public void Queue_InsertAndCancel()
    {
        var entry = new Entry();
        for (var i = 0; i < Count; i++)
        {
            _now += 100;
            _queue.Add(entry, _now + _timeouts[i].Ticks * 100);
            _queue.Remove(entry);
        }
    }

    /// <summary>A poller's time-out: set and cancelled, with ids, from any thread.</summary>
    [Benchmark(OperationsPerInvoke = Count)]
    public void Poller_InsertAndCancel()
    {
        var registrar = _poller.Registrar;
        for (var i = 0; i < Count; i++) registrar.CancelTimeout(registrar.SetTimeout(_timeouts[i]));
    }

    /// <summary>The platform's timer: made, set and disposed.</summary>
    [Benchmark(OperationsPerInvoke = Count)]
    public void SystemTimer_InsertAndCancel()
    {
        for (var i = 0; i < Count; i++) new Timer(static _ => { }, null, _timeouts[i], Timeout.InfiniteTimeSpan).Dispose();
    }

    /// <summary>
    /// A priority queue: inserted, and in its time taken out, cancelled or not; it cannot take out one in the middle without
    /// looking at all.
    /// </summary>
    [Benchmark(OperationsPerInvoke = Count)]
    public void PriorityQueue_InsertAndExpire()
    {
        for (var i = 0; i < Count; i++)
        {
            _priorityQueue.Enqueue(_entries[_victims[i]], _now + _timeouts[i].Ticks);
            _priorityQueue.TryDequeue(out _, out _now);
        }
    }

    /// <summary>The library's queue: a random timer is cancelled and set again. Every step misses the cache.</summary>
    [Benchmark(OperationsPerInvoke = Count)]
    public void Queue_CancelRandom()
    {
        for (var i = 0; i < Count; i++)
        {
            var entry = _entries[_victims[i]];
            _queue.Remove(entry);
            _now += 100;
            _queue.Add(entry, _now + _timeouts[i].Ticks * 100);
        }
    }

    private sealed class Entry : ITimerEntry
    {
        public int QueueIndex { get; set; } = -1;
    }
}
