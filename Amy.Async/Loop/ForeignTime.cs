using Amy.Async.Native;

namespace Amy.Async;

/// <summary>
/// A loop's clock when it is not the kernel's: that of <see cref="EventLoopOptions.TimeProvider"/>. The kernel cannot sleep
/// until a time on it, so the provider's own timer, the alarm, wakes the loop.
/// </summary>
/// <remarks>
/// The alarm is set in time spans from "now", which may be advanced by another thread between the look at the clock and
/// the setting: then it would ring late, on a clock that stands still perhaps never. So the clock is looked at again
/// afterwards, and the alarm set anew if it has moved. A clock that runs by itself moves every time; it gets a few tries,
/// and is late by no more than they take.
/// </remarks>
internal sealed class ForeignTime : MonotonicClock
{
    private const long NotSet = -1;
    private const int Tries = 16;

    private readonly TimeProvider _provider;
    private readonly Poller _poller;
    private readonly ITimer _alarm;
    private readonly long _start; // the provider's timestamp that is our 0: some count from the year 1
    private long _setFor = NotSet; // the deadline the alarm is set for; the loop writes it, the alarm resets it

    internal ForeignTime(TimeProvider provider, Poller poller)
    {
        _provider = provider;
        _poller = poller;
        _start = provider.GetTimestamp();
        _alarm = provider.CreateTimer(static time => ((ForeignTime)time!).Ring(), this, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
    }

    /// <summary>Set if time jumps when the loop has nothing to do.</summary>
    internal VirtualTimeProvider? Jumper => _provider is VirtualTimeProvider { AutoJump: true } jumper ? jumper : null;

    internal override long Now()
    {
        var (passed, frequency) = (_provider.GetTimestamp() - _start, _provider.TimestampFrequency);
        if (frequency == NanosecondsPerSecond) return passed;
        if (passed / frequency >= long.MaxValue / NanosecondsPerSecond) return long.MaxValue; // after 292 years time stands still
        return passed / frequency * NanosecondsPerSecond + passed % frequency * NanosecondsPerSecond / frequency;
    }

    /// <summary>
    /// Loop only: whether the deadline is in the future. If it is, the poller is woken when it has come; long.MaxValue: there
    /// is none, and the alarm is silenced (virtual time would jump to it).
    /// </summary>
    internal bool SetAlarm(long deadline)
    {
        var setFor = Volatile.Read(ref _setFor);
        if (deadline == long.MaxValue)
        {
            if (setFor == NotSet) return true;
            _alarm.Change(Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
            Volatile.Write(ref _setFor, NotSet);
            return true;
        }
        if (setFor == deadline) return deadline > Now();
        for (var i = 0; i < Tries; i++)
        {
            var now = Now();
            if (now >= deadline) return false;
            Volatile.Write(ref _setFor, deadline); // before the alarm can ring
            _alarm.Change(ToTimeSpan(deadline - now), Timeout.InfiniteTimeSpan);
            if (Now() == now) return true;
        }
        return true;
    }

    /// <summary>Loop only, at its end: no alarm any more.</summary>
    internal void End(EventLoop loop)
    {
        try
        {
            _alarm.Dispose();
        }
        catch (Exception e) // somebody else's code
        {
            loop.OnUnhandled(e);
        }
    }

    // The provider's thread. First the reset, then the wake: the loop looks at its timers after it.
    private void Ring()
    {
        Volatile.Write(ref _setFor, NotSet);
        _poller.Wake();
    }

    // Rounded up, and no longer than timers take; at the end of that the alarm rings and is set again.
    private static TimeSpan ToTimeSpan(long nanoseconds)
    {
        var ticks = (nanoseconds - 1) / 100 + 1;
        return ticks < s_longest.Ticks ? TimeSpan.FromTicks(ticks) : s_longest;
    }

    private static readonly TimeSpan s_longest = TimeSpan.FromMilliseconds(uint.MaxValue - 2);
}
