using System.Diagnostics.Metrics;

namespace Amy.Async;

/// <summary>
/// The meter <c>Amy.Async</c>: what <see cref="EventLoopStatistics"/> counts, of all running loops, each with the loop's name.
/// Asked for by whoever listens; only the two histograms have the loop do something, and only while somebody listens.
/// </summary>
internal static class LoopMeter
{
    private static readonly HashSet<EventLoop> s_loops = []; // guarded by itself
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
        s_meter.CreateObservableUpDownCounter("amy.loop.timers.pending", () => Of(static s => s.TimersPending), "{timer}", "Timers waiting.");
        s_meter.CreateObservableUpDownCounter("amy.loop.registrations", () => Of(static s => s.Registrations), "{descriptor}", "Descriptors registered.");
    }

    internal static void Add(EventLoop loop)
    {
        lock (s_loops) s_loops.Add(loop);
    }

    internal static void Remove(EventLoop loop)
    {
        lock (s_loops) s_loops.Remove(loop);
    }

    private static void Count(string name, string unit, string description, Func<EventLoopStatistics, long> value) =>
        s_meter.CreateObservableCounter(name, () => Of(value), unit, description);

    private static Measurement<long>[] Of(Func<EventLoopStatistics, long> value)
    {
        // Loops of one name are one series: of two measurements under the same tags an exporter keeps the last.
        lock (s_loops)
        {
            return [.. s_loops.GroupBy(static loop => loop.Tag).Select(loops => new Measurement<long>(loops.Sum(loop => value(loop.Statistics)), loops.Key))];
        }
    }
}
