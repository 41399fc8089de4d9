using System.Diagnostics.Metrics;
using System.Runtime.CompilerServices;
using Amy.Async.Native;

namespace Amy.Async;

// What the loop itself records for the meter, and only while somebody listens.
public sealed partial class EventLoop
{
    private void EndActivity()
    {
        var duration = (_kernelClock.Now() - _now.ActiveSince) / (double)MonotonicClock.NanosecondsPerSecond;
        _now.ActiveSince = 0;
        Record(LoopMeter.TurnDuration, duration);
    }

    // Runs the listeners, which are foreign code, here.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private void Record<T>(Histogram<T> histogram, T value) where T : struct
    {
        try
        {
            histogram.Record(value, Tag);
        }
        catch (Exception e)
        {
            OnUnhandled(e);
        }
        RestoreContext();
    }
}
