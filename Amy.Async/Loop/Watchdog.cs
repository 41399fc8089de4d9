using System.Diagnostics;
using System.Runtime.CompilerServices;

namespace Amy.Async;

/// <summary>
/// Looks for loops that have been away from their poller for too long. One thread for all loops of the process, which looks
/// a few times per threshold, and sleeps for good while all of them sleep.
/// </summary>
/// <remarks>
/// <para>A loop only counts its looks at the kernel (<see cref="EventLoop.Polls"/>, a plain increment). Whoever sees the same
/// count twice, and the loop not asleep at either time, has seen it away from its poller for as long.</para>
/// <para>Parking, told as a story of W, the watchdog, and L, a loop. W exchanges <see cref="s_parked"/> for 1 (a full fence),
/// then looks whether all loops are asleep. L, coming back from its sleep, exchanges the poller's wake flag for Awake (a full
/// fence, in <see cref="Poller.Sleep"/>), then reads <see cref="s_parked"/>. Either L reads 1 and unparks W, or W sees L
/// awake and does not park. So a loop that works is watched, and one that sleeps costs nothing.</para>
/// </remarks>
internal static class Watchdog
{
    private const int LooksPerThreshold = 4;
    private const int LongestPause = 250; // ms between two looks, so that a short threshold that is added does not wait
    private static readonly List<Watched> s_watched = []; // guarded by itself
    private static readonly AutoResetEvent s_signal = new(false);
    private static int s_parked; // 1: the thread waits to be unparked; Interlocked
    private static bool s_started; // guarded by s_watched
    private static long s_looks; // written by the thread

    /// <summary>How often it has looked; for tests.</summary>
    internal static long Looks => Volatile.Read(ref s_looks);

    /// <summary>Whether a loop that comes back from its sleep must call <see cref="Unpark"/>. Pairs with the exchange in Park.</summary>
    internal static bool IsParked => Volatile.Read(ref s_parked) != 0;

    internal static void Unpark()
    {
        if (Interlocked.Exchange(ref s_parked, 0) != 0) s_signal.Set();
    }

    internal static void Add(EventLoop loop, TimeSpan threshold)
    {
        lock (s_watched)
        {
            s_watched.Add(new Watched(loop, threshold));
            if (!s_started)
            {
                s_started = true;
                Compat.Runtime.StartWithoutContext(new Thread(static _ => Watch()) { IsBackground = true, Name = "Amy.Async watchdog" }, s_watched);
            }
        }
        Unpark(); // no loop's return from a sleep is still to come
    }

    internal static void Remove(EventLoop loop)
    {
        lock (s_watched) s_watched.RemoveAll(w => w.Loop == loop);
    }

    private static void Watch()
    {
        var blocked = new List<(EventLoop Loop, TimeSpan Duration)>();
        while (true)
        {
            var pause = Look(blocked);
            s_signal.WaitOne(Park() ? Timeout.Infinite : pause);
        }
    }

    // Not inlined: a parked thread's stack must not keep a stopped loop.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private static int Look(List<(EventLoop Loop, TimeSpan Duration)> blocked)
    {
        int pause;
        s_looks++;
        lock (s_watched)
        {
            pause = Pause();
            foreach (var watched in s_watched)
                if (watched.Look() is { } duration) blocked.Add((watched.Loop, duration));
        }
        foreach (var (loop, duration) in blocked) loop.OnBlocked(duration); // user code, never under the lock
        blocked.Clear();
        return pause;
    }

    private static int Pause()
    {
        var pause = LongestPause;
        foreach (var watched in s_watched) pause = Math.Min(pause, (int)watched.Threshold.TotalMilliseconds / LooksPerThreshold);
        return Math.Max(1, pause);
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private static bool Park()
    {
        Interlocked.Exchange(ref s_parked, 1);
        lock (s_watched)
        {
            if (s_watched.TrueForAll(static w => w.IsIdle)) return true;
        }
        // Somebody is awake. If a loop has unparked us already, its signal only makes the next look come at once.
        Interlocked.Exchange(ref s_parked, 0);
        return false;
    }

    /// <summary>What the watchdog knows of one loop. Guarded by s_watched.</summary>
    private sealed class Watched(EventLoop loop, TimeSpan threshold)
    {
        internal readonly EventLoop Loop = loop;
        internal readonly TimeSpan Threshold = threshold;
        private long _polls = -1;
        private long _since;
        private bool _reported;

        /// <summary>Asleep since the last look: nothing to watch.</summary>
        internal bool IsIdle => Loop.IsSleeping && Loop.Polls == _polls;

        /// <summary>How long the loop has been away from its poller, if that is to be reported now.</summary>
        internal TimeSpan? Look()
        {
            var asleep = Loop.IsSleeping;
            var polls = Loop.Polls;
            var now = Stopwatch.GetTimestamp();
            if (asleep || polls != _polls)
            {
                _polls = polls;
                _since = now;
                _reported = false;
                return null;
            }
            var away = TimeSpan.FromSeconds((now - _since) / (double)Stopwatch.Frequency);
            if (_reported || away < Threshold) return null;
            _reported = true;
            return away;
        }
    }
}
