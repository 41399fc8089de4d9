using System.Diagnostics.Metrics;

namespace Amy.Async;

/// <summary>
/// The meter <c>Amy.Async</c>: what <see cref="EventLoopStatistics"/> counts, of all running loops, each with the loop's name.
/// Asked for by whoever listens; only the two histograms have the loop do something, and only while somebody listens.
/// </summary>
/// <remarks>A counter must not fall. So what stopped loops have counted is kept under their name, and is part of what the running
/// ones of that name tell. Of names without a running loop only so many are kept: the counters of one that returns after that
/// begin anew, as those of a process do.</remarks>
internal static class LoopMeter
{
    internal const int MostEndedNames = 1000;

    private static readonly HashSet<EventLoop> s_loops = []; // guarded by itself, as the next two
    private static readonly Dictionary<string, long[]> s_ended = []; // by name, what stopped loops have counted; as s_counters
    private static readonly Queue<string> s_endedNames = new(); // the keys of s_ended, those that came first first
    private static readonly List<Func<EventLoopStatistics, long>> s_counters = []; // filled below
    private static readonly Meter s_meter = new("Amy.Async");

    internal static readonly Histogram<double> TurnDuration = s_meter.CreateHistogram<double>("amy.loop.turn.duration", "s",
        "Time from one look at the kernel to the next: dispatch, posted work, timers.");

    internal static readonly Histogram<int> BatchSize = s_meter.CreateHistogram<int>("amy.loop.batch.size", "{event}", "Events that one look at the kernel brought.");

    static LoopMeter()
    {
        Count("amy.loop.turns", "{turn}", "Turns of the loop.", static s => s.Turns);
        Count("amy.loop.posts", "{item}", "Pieces of posted work that were run.", static s => s.PostsRun);
        Count("amy.loop.events", "{event}", "Events that the kernel reported.", static s => s.Events);
        Count("amy.loop.resumes", "{resume}", "Continuations resumed in the dispatch.", static s => s.Resumes);
        Count("amy.loop.timers.fired", "{timer}", "Timers that fired.", static s => s.TimersFired);
        Count("amy.loop.wakes.written", "{wake}", "Wake-ups written to the kernel.", static s => s.WakesWritten);
        Count("amy.loop.wakes.saved", "{wake}", "Posts of other threads that needed no wake-up of their own.", static s => s.WakesSaved);
        Count("amy.loop.spins.paid", "{spin}", "Spins before a sleep that ended in work.", static s => s.SpinsPaid);
        Count("amy.loop.spins.in_vain", "{spin}", "Spins before a sleep in vain.", static s => s.SpinsInVain);
        Count("amy.loop.budget.yields", "{operation}", "Operations that went through the queue because the budget was used up.", static s => s.BudgetYields);
        Count("amy.loop.accept.backoffs", "{backoff}", "Times that accepting was put off for want of descriptors or memory.", static s => s.AcceptBackoffs);
        Count("amy.loop.blocked", "{turn}", "Turns longer than the threshold.", static s => s.BlockedTurns);
        Count("amy.loop.synchronous_waits", "{wait}", "Synchronous waits on the loop's thread.", static s => s.SynchronousWaits);
        s_meter.CreateObservableUpDownCounter("amy.loop.timers.pending", () => Of(static s => s.TimersPending, counter: null), "{timer}", "Timers waiting.");
        s_meter.CreateObservableUpDownCounter("amy.loop.registrations", () => Of(static s => s.Registrations, counter: null), "{descriptor}", "Descriptors registered.");
    }

    internal static void Add(EventLoop loop)
    {
        lock (s_loops) s_loops.Add(loop);
    }

    /// <summary>The loop has stopped and counts no more.</summary>
    internal static void Remove(EventLoop loop)
    {
        var name = NameOf(loop);
        lock (s_loops)
        {
            s_loops.Remove(loop);
            var statistics = loop.Statistics;
            if (!s_ended.TryGetValue(name, out var totals))
            {
                s_ended.Add(name, totals = new long[s_counters.Count]);
                s_endedNames.Enqueue(name);
            }
            for (var i = 0; i < totals.Length; i++) totals[i] += s_counters[i](statistics);
            ForgetSome();
        }
    }

    /// <summary>All that run now; for tests.</summary>
    internal static EventLoop[] Loops
    {
        get
        {
            lock (s_loops) return [.. s_loops];
        }
    }

    /// <summary>How many names there are under which stopped loops have counted; for tests.</summary>
    internal static int EndedNames
    {
        get
        {
            lock (s_loops) return s_ended.Count;
        }
    }

    // The oldest one without a running loop; one that has some goes to the end.
    private static void ForgetSome()
    {
        for (var tries = s_endedNames.Count; s_ended.Count > MostEndedNames && tries > 0; tries--)
        {
            var name = s_endedNames.Dequeue();
            if (s_loops.Any(loop => NameOf(loop) == name)) s_endedNames.Enqueue(name);
            else s_ended.Remove(name);
        }
    }

    private static string NameOf(EventLoop loop) => (string)loop.Tag.Value!;

    private static void Count(string name, string unit, string description, Func<EventLoopStatistics, long> value)
    {
        var counter = s_counters.Count;
        s_counters.Add(value);
        s_meter.CreateObservableCounter(name, () => Of(value, counter), unit, description);
    }

    private static Measurement<long>[] Of(Func<EventLoopStatistics, long> value, int? counter)
    {
        // Loops of one name are one series: of two measurements under the same tags an exporter keeps the last.
        lock (s_loops)
        {
            return [.. s_loops.GroupBy(static loop => loop.Tag).Select(loops => new Measurement<long>(loops.Sum(loop => value(loop.Statistics)) + Ended(loops.Key), loops.Key))];
        }

        long Ended(KeyValuePair<string, object?> tag) =>
            counter is { } index && s_ended.TryGetValue((string)tag.Value!, out var totals) ? totals[index] : 0;
    }
}
