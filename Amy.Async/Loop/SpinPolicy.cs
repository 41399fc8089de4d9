using Amy.Async.Native;

namespace Amy.Async;

/// <summary>
/// When it pays to poll for a moment before sleeping. Waking a sleeping core costs tens of microseconds; a loop whose next
/// event comes sooner than that is faster, and uses less CPU per event, if it looks a few times more before it sleeps.
/// </summary>
/// <remarks>
/// <para>Judged by the recent past: a spin is paid if it ended in work that somebody awaited. A score counts paid spins up and
/// those in vain down twice as fast; when it is used up, the next <see cref="_pause"/> sleeps are not preceded by a spin. Then
/// comes a trial of at least four spins in a row (one alone says little: a peer that has gone to sleep as well needs a few
/// quick answers before its own waits are short again). Each failed trial doubles the pause.</para>
/// <para>A loop that serves many at once does not spin: its wake-up is shared by a batch of events, and sleeping lets the
/// batch grow (64 connections: 10 % less CPU per request). So the average batch must be small.</para>
/// <para>Besides, time spun in vain is capped at a twentieth of wall time: credit grows with time, and only spins in vain use
/// it up. So an idle loop uses no CPU, and a loop on the same core as its peer, where no spin can ever be paid, loses next
/// to nothing. Belongs to the loop's thread. Times in nanoseconds.</para>
/// </remarks>
internal sealed class SpinPolicy
{
    internal const long DefaultBound = 50_000;
    private const int CreditShare = 20; // a twentieth of wall time
    private const int CreditSpins = 20; // at most this many spins in vain on credit
    private const int SkipsWithoutCredit = 16;
    private const int FirstPause = 64;
    private const int LongestPause = 1024;
    private const int TrialScore = 8; // four spins in vain
    private const int FullScore = 16;
    private const int LargestBatch = 3; // events a wait, on average
    private const int BatchUnit = 64; // fixed point, so that an average of integers moves

    private readonly long _bound;
    private readonly bool _always;
    private long _credit;
    private long _creditedUntil;
    private int _score = TrialScore;
    private int _skips; // sleeps to go without a spin
    private int _pause = FirstPause; // how many, after the next failed trial
    private int _batch = BatchUnit; // moving average over some eight waits, in 1/BatchUnit

    /// <param name="bound">How long one spin lasts at most; 0: never spin; negative: never sleep.</param>
    internal SpinPolicy(long bound)
    {
        _bound = Math.Min(bound, long.MaxValue / (2 * CreditSpins));
        _always = bound < 0;
        _credit = _bound * CreditSpins;
    }

    internal long Paid { get; private set; }

    internal long InVain { get; private set; }

    /// <summary>Whether the loop never sleeps.</summary>
    internal bool Always => _always;

    internal long Bound => _bound;

    /// <summary>How many events the last wait that had any brought.</summary>
    internal void Served(int events) => _batch += (events * BatchUnit - _batch) / 8;

    /// <summary>Whether to spin before the sleep that comes now.</summary>
    internal bool ShouldSpin(MonotonicClock clock)
    {
        if (_bound == 0) return false;
        if (_always) return true;
        if (_batch > LargestBatch * BatchUnit) return false;
        if (_skips > 0)
        {
            _skips--;
            return false;
        }
        if (_credit >= _bound) return true;
        Credit(clock.Now()); // only here, and a few sleeps apart: a look at the clock before each sleep would cost more
        if (_credit >= _bound) return true;
        _skips = SkipsWithoutCredit;
        return false;
    }

    private void Credit(long now)
    {
        _credit = Math.Min(_bound * CreditSpins, _credit + (now - _creditedUntil) / CreditShare);
        _creditedUntil = now;
    }

    /// <summary>What became of a spin.</summary>
    internal void Record(long start, long end, bool paid)
    {
        Credit(end);
        if (paid)
        {
            Paid++;
            if (++_score < FullScore) return;
            _score = FullScore;
            _pause = FirstPause;
            return;
        }
        InVain++;
        _credit -= end - start;
        if ((_score -= 2) > 0) return;
        _score = TrialScore;
        _skips = _pause;
        _pause = Math.Min(LongestPause, _pause * 2);
    }
}
