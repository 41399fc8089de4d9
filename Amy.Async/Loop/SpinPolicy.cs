namespace Amy.Async;

/// <summary>
/// When it pays to poll for a moment before sleeping. Waking a sleeping core costs tens of microseconds; a loop whose next
/// event comes sooner than that is faster, and uses less CPU per event, if it looks a few times more before it sleeps.
/// </summary>
/// <remarks>
/// Judged by the recent past. A spin that ended in work that somebody awaited was paid. After one in vain the next sleeps
/// are not preceded by a spin: one, three, seven … up to <see cref="MaxSkips"/>, until a spin is paid again. Besides, time
/// spun in vain is capped at a twentieth of wall time: credit grows with time, up to <see cref="MaxCredit"/>, and only
/// spins in vain use it up. So an idle loop uses no CPU, and a loop on the same core as its peer, where no spin can ever be
/// paid, loses next to nothing. Belongs to the loop's thread. Times in nanoseconds.
/// </remarks>
internal sealed class SpinPolicy
{
    internal const long DefaultBound = 50_000;
    private const int CreditShare = 20; // a twentieth of wall time
    private const int MaxSkips = 1023;
    private const long MaxCredit = 1_000_000;

    private readonly long _bound;
    private readonly bool _always;
    private long _credit = MaxCredit;
    private long _creditedUntil;
    private int _skips; // sleeps to go without a spin
    private int _nextSkips = 1;

    /// <param name="bound">How long one spin lasts at most; 0: never spin; negative: never sleep.</param>
    internal SpinPolicy(long bound)
    {
        _bound = bound;
        _always = bound < 0;
    }

    internal long Paid { get; private set; }

    internal long InVain { get; private set; }

    /// <summary>Whether the loop never sleeps.</summary>
    internal bool Always => _always;

    internal long Bound => _bound;

    /// <summary>Whether to spin before the sleep that comes now.</summary>
    internal bool ShouldSpin()
    {
        if (_bound == 0) return false;
        if (_always) return true;
        if (_skips == 0) return _credit >= _bound;
        _skips--;
        return false;
    }

    /// <summary>What became of a spin.</summary>
    internal void Record(long start, long end, bool paid)
    {
        _credit = Math.Min(MaxCredit, _credit + (end - _creditedUntil) / CreditShare);
        _creditedUntil = end;
        if (paid)
        {
            Paid++;
            _nextSkips = 1;
            return;
        }
        InVain++;
        _credit -= end - start;
        if (_always) return;
        _skips = _nextSkips;
        _nextSkips = Math.Min(MaxSkips, _nextSkips * 2 + 1);
    }
}
