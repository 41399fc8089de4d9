using System.Diagnostics;
using System.Globalization;
using System.Threading.Channels;

namespace Amy.Async.Bench.Patterns;

/// <summary>
/// What actions are handed to, from any thread, and one reader runs: a loop, or a channel. Only this one's threads are
/// in the process.
/// </summary>
internal abstract class PostTarget
{
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(20);

    private readonly SemaphoreSlim _done = new(0);
    private readonly Action _countDown;
    private int _left; // the reader's; set while there is nothing to run

    protected PostTarget() => _countDown = () => { if (--_left == 0) _done.Release(); };

    internal static PostTarget Create(string pattern, TimeSpan? spin) => pattern switch
    {
        "queue-loop" => new LoopTarget(spin),
        "queue-channel" => new ChannelTarget(ownThread: false),
        "queue-channel-thread" => new ChannelTarget(ownThread: true),
        _ => throw new ArgumentException($"Unknown pattern '{pattern}'."),
    };

    /// <summary>
    /// "post THREADS COUNT", COUNT in all, gives a <see cref="Round"/> whose trips are posts, until the last has run; "own
    /// COUNT" of the reader's own thread "POST_NS POST_AND_RUN_NS BYTES" of one post.
    /// </summary>
    internal string Answer(string[] parts)
    {
        int Number(int i) => int.Parse(parts[i], CultureInfo.InvariantCulture);
        return parts[0] switch
        {
            "post" => FromThreads(Number(1), Number(2)).ToString(),
            "own" => FromItself(Number(1)),
            _ => throw new ArgumentException($"Unknown command '{parts[0]}'."),
        };
    }

    protected abstract void Add(Action action);

    protected virtual string FromItself(int count) => throw new NotSupportedException();

    private Round FromThreads(int threads, int count)
    {
        var each = count / threads;
        count = each * threads;
        _left = count;
        using var ready = new CountdownEvent(threads);
        using var go = new ManualResetEventSlim();
        var posters = Enumerable.Range(0, threads).Select(_ => new Thread(() =>
        {
            ready.Signal();
            go.Wait();
            for (var i = 0; i < each; i++) Add(_countDown);
        })
        { IsBackground = true }).ToArray();
        foreach (var poster in posters) poster.Start();
        ready.Wait();
        var bytes = GC.GetTotalAllocatedBytes(precise: true);
        var cpu = Environment.CpuUsage.TotalTime;
        var start = Stopwatch.GetTimestamp();
        go.Set();
        if (!_done.Wait(s_limit)) throw new TimeoutException($"{_left} posts have not run.");
        var time = Stopwatch.GetElapsedTime(start).TotalNanoseconds;
        cpu = Environment.CpuUsage.TotalTime - cpu;
        foreach (var poster in posters) poster.Join();
        bytes = GC.GetTotalAllocatedBytes(precise: true) - bytes;
        return new Round(count, time / count, 0, 0, 0, (long)cpu.TotalNanoseconds, bytes);
    }
}

/// <summary>EventLoop.Post.</summary>
internal sealed class LoopTarget(TimeSpan? spin) : PostTarget
{
    private const int Batch = 255; // with the yield what one turn runs: a look at the kernel for each batch is counted

    private static readonly Action s_nothing = static () => { };

    private readonly EventLoop _loop = EventLoop.Start(spin is { } s ? new EventLoopOptions { SpinDuration = s } : new EventLoopOptions());

    protected override void Add(Action action) => _loop.Post(action);

    protected override string FromItself(int count) => _loop.InvokeAsync(async () =>
    {
        var (posts, posting) = (0L, 0L);
        await _loop.Yield();
        var bytes = GC.GetAllocatedBytesForCurrentThread();
        var start = Stopwatch.GetTimestamp();
        for (; posts < count; posts += Batch)
        {
            var before = Stopwatch.GetTimestamp();
            for (var i = 0; i < Batch; i++) _loop.Post(s_nothing);
            posting += Stopwatch.GetTimestamp() - before;
            await _loop.Yield();
        }
        var time = Stopwatch.GetElapsedTime(start).TotalNanoseconds;
        bytes = GC.GetAllocatedBytesForCurrentThread() - bytes;
        return string.Create(CultureInfo.InvariantCulture, $"{Stopwatch.GetElapsedTime(0, posting).TotalNanoseconds / posts:F2} {time / posts:F2} {(double)bytes / posts:F3}");
    }).GetAwaiter().GetResult();
}

/// <summary>An unbounded channel whose one reader is an asynchronous method on the thread pool, or a thread.</summary>
internal sealed class ChannelTarget : PostTarget
{
    private readonly Channel<Action> _channel = Channel.CreateUnbounded<Action>(new UnboundedChannelOptions { SingleReader = true });

    internal ChannelTarget(bool ownThread)
    {
        if (ownThread) new Thread(Read) { IsBackground = true, Name = "reader" }.Start();
        else _ = Task.Run(ReadAsync);
    }

    protected override void Add(Action action) => _channel.Writer.TryWrite(action);

    private async Task ReadAsync()
    {
        while (await _channel.Reader.WaitToReadAsync())
            while (_channel.Reader.TryRead(out var action))
                action();
    }

    private void Read()
    {
        while (true)
        {
            var there = _channel.Reader.WaitToReadAsync();
            if (!(there.IsCompleted ? there.Result : there.AsTask().GetAwaiter().GetResult())) return;
            while (_channel.Reader.TryRead(out var action)) action();
        }
    }
}
