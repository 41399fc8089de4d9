namespace Amy.Async;

/// <summary>
/// What an <see cref="EventLoop"/> has done since it started: an immutable snapshot. Read from another thread than the
/// loop's, the numbers may be of slightly different moments.
/// </summary>
public sealed class EventLoopStatistics
{
    internal EventLoopStatistics()
    {
    }

    /// <summary>Turns of the loop.</summary>
    public long Turns { get; init; }

    /// <summary>Pieces of posted work that were run, continuations that came through the queue included.</summary>
    public long PostsRun { get; init; }

    /// <summary>Events that the kernel reported.</summary>
    public long Events { get; init; }

    /// <summary>Continuations resumed in the dispatch.</summary>
    public long Resumes { get; init; }

    /// <summary>Timers that fired.</summary>
    public long TimersFired { get; init; }

    /// <summary>Wake-ups written to the kernel because the loop was asleep.</summary>
    public long WakesWritten { get; init; }

    /// <summary>Posts of other threads that needed no wake-up of their own: the loop was awake, or being woken.</summary>
    public long WakesSaved { get; init; }

    /// <summary>Spins before a sleep that ended in work that somebody awaited.</summary>
    public long SpinsPaid { get; init; }

    /// <summary>Spins before a sleep in vain.</summary>
    public long SpinsInVain { get; init; }

    /// <summary>Operations that went through the queue because the budget of completions at once was used up.</summary>
    public long BudgetYields { get; init; }

    /// <summary>Times that accepting was put off because descriptors or memory had run out.</summary>
    public long AcceptBackoffs { get; init; }

    /// <summary>Turns that took longer than <see cref="EventLoopOptions.BlockedThreshold"/>.</summary>
    public long BlockedTurns { get; init; }

    /// <summary>Synchronous waits on the loop's thread (see <see cref="EventLoop.SynchronousWait"/>), short ones for the library's
    /// own locks included.</summary>
    public long SynchronousWaits { get; init; }

    /// <summary>Timers waiting now.</summary>
    public int TimersPending { get; init; }

    /// <summary>Descriptors registered now.</summary>
    public int Registrations { get; init; }
}
