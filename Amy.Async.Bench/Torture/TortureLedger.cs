using System.Collections.Concurrent;

namespace Amy.Async.Bench;

/// <summary>How an operation ended.</summary>
internal enum Outcome
{
    /// <summary>With a result.</summary>
    Completed,

    /// <summary>Its token was cancelled.</summary>
    Cancelled,

    /// <summary>It took longer than its time-out.</summary>
    TimedOut,

    /// <summary>Its object was disposed, or its loop stopped.</summary>
    Disposed,

    /// <summary>The connection failed.</summary>
    Failed,
}

/// <summary>
/// The books of a torture: what was begun, how it ended, and what was wrong. Any thread.
/// </summary>
internal sealed class TortureLedger
{
    private const int MostViolations = 20;
    private static readonly int s_outcomes = Enum.GetValues<Outcome>().Length;

    private readonly ConcurrentDictionary<string, long[]> _actions = new();
    private readonly ConcurrentQueue<string> _violations = new();
    private readonly CancellationTokenSource _broken = new();
    private long _bytes;

    /// <summary>Cancelled with the first violation: nothing of what comes later says more.</summary>
    internal CancellationToken Broken => _broken.Token;

    internal IReadOnlyCollection<string> Violations => _violations;

    internal long Bytes => Interlocked.Read(ref _bytes);

    internal long Operations => _actions.Values.Sum(a => Interlocked.Read(ref a[s_outcomes]));

    /// <summary>Operations that were begun and have not ended; negative: some ended twice.</summary>
    internal IEnumerable<(string Action, long Count)> Pending() =>
        from action in _actions
        let open = Interlocked.Read(ref action.Value[s_outcomes]) - Enumerable.Range(0, s_outcomes).Sum(i => Interlocked.Read(ref action.Value[i]))
        where open != 0
        select (action.Key, open);

    internal long Ended(string action, Outcome outcome) => Interlocked.Read(ref Of(action)[(int)outcome]);

    internal void Violate(string what)
    {
        if (_violations.Count < MostViolations) _violations.Enqueue(what);
        _broken.Cancel();
    }

    internal void Begin(string action) => Interlocked.Increment(ref Of(action)[s_outcomes]);

    internal void End(string action, Outcome outcome) => Interlocked.Increment(ref Of(action)[(int)outcome]);

    /// <summary>Something that has no outcome.</summary>
    internal void Did(string action)
    {
        Begin(action);
        End(action, Outcome.Completed);
    }

    internal void Moved(long bytes) => Interlocked.Add(ref _bytes, bytes);

    /// <summary>Awaits one operation and books its end.</summary>
    internal async Task<Outcome> Try(string action, Func<ValueTask> operation)
    {
        Begin(action);
        var outcome = Outcome.Completed;
        try
        {
            await operation();
        }
        catch (OperationCanceledException)
        {
            outcome = Outcome.Cancelled;
        }
        catch (TimeoutException)
        {
            outcome = Outcome.TimedOut;
        }
        catch (ObjectDisposedException)
        {
            outcome = Outcome.Disposed;
        }
        catch (Exception e) when (e is System.Net.Sockets.SocketException or IOException)
        {
            outcome = Outcome.Failed;
        }
        catch (Exception e)
        {
            outcome = Outcome.Failed;
            Violate($"{action} ended with {e}");
        }
        End(action, outcome);
        return outcome;
    }

    /// <summary>One line for each action.</summary>
    internal IEnumerable<string> Report() =>
        from action in _actions
        orderby action.Key
        let outcomes = from outcome in Enum.GetValues<Outcome>()
                       let count = Interlocked.Read(ref action.Value[(int)outcome])
                       where count > 0
                       select $"{count} {outcome}"
        select $"{action.Key,-24} {Interlocked.Read(ref action.Value[s_outcomes]),10}   {string.Join(", ", outcomes)}";

    private long[] Of(string action) => _actions.GetOrAdd(action, static _ => new long[s_outcomes + 1]);
}
