using System.Diagnostics;
using System.Globalization;

namespace Amy.Async.Bench.Patterns;

/// <summary>
/// Two loops that sleep and wake each other in turn by Post; and bursts of posts into one of them. The C yardstick does the
/// first in the same shape (see limits/wake.c).
/// </summary>
internal sealed class WakePair
{
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(20);

    private readonly EventLoop _here;
    private readonly EventLoop _there;
    private readonly Action _onHere;
    private readonly Action _onThere;
    private readonly Action _countDown;
    private readonly SemaphoreSlim _done = new(0);
    private int _count;
    private int _left;
    private long _start;
    private long _end;
    private long _written;

    internal WakePair(TimeSpan? spin)
    {
        EventLoop Start() => EventLoop.Start(spin is { } s ? new EventLoopOptions { SpinDuration = s } : new EventLoopOptions());
        (_here, _there) = (Start(), Start());
        _onHere = OnHere;
        _onThere = () => _here.Post(_onHere);
        _countDown = () => { if (--_left == 0) _done.Release(); };
    }

    /// <summary>
    /// "wakes COUNT CPU CPU" gives a <see cref="Round"/>; "written" the wake-ups written in it; "bursts COUNT POSTS CPU CPU",
    /// the poster's processor first, how many bursts wrote none, one and more, and the most.
    /// </summary>
    internal string Answer(string[] parts)
    {
        int Number(int i) => int.Parse(parts[i], CultureInfo.InvariantCulture);
        return parts[0] switch
        {
            "wakes" => Wakes(Number(1), Number(2), Number(3)).ToString(),
            "written" => _written.ToString(CultureInfo.InvariantCulture),
            "bursts" => Bursts(Number(1), Number(2), Number(3), Number(4)),
            _ => throw new ArgumentException($"Unknown command '{parts[0]}'."),
        };
    }

    private Round Wakes(int count, int here, int there)
    {
        Pin(_here, here);
        Pin(_there, there);
        _count = _left = count;
        var written = Written();
        var bytes = GC.GetTotalAllocatedBytes(precise: true);
        var cpu = Environment.CpuUsage.TotalTime;
        _here.Post(_onHere);
        AwaitDone();
        cpu = Environment.CpuUsage.TotalTime - cpu;
        bytes = GC.GetTotalAllocatedBytes(precise: true) - bytes;
        _written = Written() - written - 1; // one was ours
        return new Round(2L * count, Stopwatch.GetElapsedTime(_start, _end).TotalNanoseconds / (2.0 * count), 0, 0, 0, (long)cpu.TotalNanoseconds, bytes);
    }

    private long Written() => _here.Statistics.WakesWritten + _there.Statistics.WakesWritten;

    private void OnHere()
    {
        if (_left == _count) _start = Stopwatch.GetTimestamp();
        if (--_left >= 0)
        {
            _there.Post(_onThere);
            return;
        }
        _end = Stopwatch.GetTimestamp();
        _done.Release();
    }

    private string Bursts(int count, int posts, int poster, int looper)
    {
        Affinity.Pin(poster < 0 ? [] : [poster]);
        Pin(_here, looper);
        int none = 0, once = 0, more = 0;
        long most = 0;
        for (var i = 0; i < count; i++)
        {
            AwaitSleep();
            _left = posts;
            var before = _here.Statistics.WakesWritten;
            for (var n = 0; n < posts; n++) _here.Post(_countDown);
            AwaitDone();
            var written = _here.Statistics.WakesWritten - before;
            if (written == 0) none++;
            else if (written == 1) once++;
            else more++;
            most = Math.Max(most, written);
        }
        Affinity.Pin();
        return string.Create(CultureInfo.InvariantCulture, $"{none} {once} {more} {most}");
    }

    // Once it says that it is going to sleep, a millisecond more lets it get there.
    private void AwaitSleep()
    {
        var start = Stopwatch.GetTimestamp();
        do
        {
            if (Stopwatch.GetElapsedTime(start) > s_limit) throw new TimeoutException("The loop does not go to sleep.");
            Thread.Sleep(1);
        }
        while (!_here.IsSleeping);
        Thread.Sleep(1);
    }

    private void AwaitDone()
    {
        if (!_done.Wait(s_limit)) throw new TimeoutException($"{_left} posts have not run.");
    }

    private static void Pin(EventLoop loop, int processor) =>
        loop.InvokeAsync(() => Affinity.Pin(processor < 0 ? [] : [processor])).GetAwaiter().GetResult();
}
