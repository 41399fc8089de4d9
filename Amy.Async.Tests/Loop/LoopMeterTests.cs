using System.Diagnostics.Metrics;

namespace Amy.Async.Tests.Loop;

/// <summary>The meter Amy.Async, listened to as any tool does.</summary>
[TestFixture]
internal sealed class LoopMeterTests
{
    [Test]
    public void Meter_TellsWhatTheStatisticsCount() => Run.OnThread(() =>
    {
        var name = $"meter {Guid.NewGuid():N}";
        using var loop = EventLoop.Start(new EventLoopOptions { ThreadName = name, SpinDuration = TimeSpan.Zero });
        var seen = new Dictionary<string, double>();
        var counts = new Dictionary<string, int>();
        using var listener = new MeterListener
        {
            InstrumentPublished = static (instrument, l) =>
            {
                if (instrument.Meter.Name == "Amy.Async") l.EnableMeasurementEvents(instrument);
            },
        };
        void Note(Instrument instrument, double value, ReadOnlySpan<KeyValuePair<string, object?>> tags)
        {
            foreach (var tag in tags)
            {
                if (tag.Key != "amy.loop.name" || !Equals(tag.Value, name)) continue;
                lock (seen)
                {
                    seen[instrument.Name] = value;
                    counts[instrument.Name] = counts.GetValueOrDefault(instrument.Name) + 1;
                }
            }
        }
        listener.SetMeasurementEventCallback<long>((i, v, t, _) => Note(i, v, t));
        listener.SetMeasurementEventCallback<int>((i, v, t, _) => Note(i, v, t));
        listener.SetMeasurementEventCallback<double>((i, v, t, _) => Note(i, v, t));
        listener.Start();

        Run.Wait(loop.InvokeAsync(async () =>
        {
            var (a, b) = await Pair.Async(loop);
            using (a)
            using (b)
            {
                for (var i = 0; i < 10; i++)
                {
                    var receiving = b.ReceiveAsync(new byte[8]);
                    await a.SendAsync(new byte[] { 1 });
                    Assert.That(await receiving, Is.EqualTo(1));
                }
                await loop.Delay(TimeSpan.FromMilliseconds(1));
                listener.RecordObservableInstruments();
            }
        }));

        var statistics = loop.Statistics;
        lock (seen)
        {
            Assert.That(seen.Keys, Is.EquivalentTo(new[]
            {
                "amy.loop.turn.duration", "amy.loop.batch.size", "amy.loop.turns", "amy.loop.posts", "amy.loop.events", "amy.loop.resumes",
                "amy.loop.timers.fired", "amy.loop.wakes.written", "amy.loop.wakes.saved", "amy.loop.spins.paid", "amy.loop.spins.in_vain",
                "amy.loop.budget.yields", "amy.loop.accept.backoffs", "amy.loop.blocked", "amy.loop.synchronous_waits",
                "amy.loop.timers.pending", "amy.loop.registrations",
            }));
            Assert.That(seen["amy.loop.resumes"], Is.InRange(10, statistics.Resumes));
            Assert.That(seen["amy.loop.events"], Is.InRange(10, statistics.Events));
            Assert.That(seen["amy.loop.turns"], Is.InRange(10, statistics.Turns));
            Assert.That(seen["amy.loop.timers.fired"], Is.EqualTo(1));
            Assert.That(seen["amy.loop.registrations"], Is.EqualTo(2));
            Assert.That(counts["amy.loop.batch.size"], Is.GreaterThanOrEqualTo(10));
            Assert.That(counts["amy.loop.turn.duration"], Is.GreaterThanOrEqualTo(10));
        }
    });

    [Test]
    public void Meter_KnowsOnlyRunningLoops()
    {
        var name = $"meter {Guid.NewGuid():N}";
        var found = 0;
        using var listener = new MeterListener
        {
            InstrumentPublished = static (instrument, l) =>
            {
                if (instrument.Meter.Name == "Amy.Async" && instrument.Name == "amy.loop.turns") l.EnableMeasurementEvents(instrument);
            },
        };
        listener.SetMeasurementEventCallback<long>((_, _, tags, _) =>
        {
            foreach (var tag in tags)
                if (Equals(tag.Value, name)) found++;
        });
        listener.Start();
        Run.OnLoop(() =>
        {
            listener.RecordObservableInstruments();
            return Task.CompletedTask;
        }, new EventLoopOptions { ThreadName = name });
        Assert.That(found, Is.EqualTo(1));
        listener.RecordObservableInstruments();
        Assert.That(found, Is.EqualTo(1));
    }

    // A counter that falls is taken for one that began anew: rates would jump.
    [Test]
    public void Counters_OfLoopsOfOneName_DoNotFallWhenOneStops() => Run.OnThread(() =>
    {
        var name = $"meter {Guid.NewGuid():N}";
        var seen = new Dictionary<string, long>();
        using var listener = new MeterListener
        {
            InstrumentPublished = static (instrument, l) =>
            {
                if (instrument.Meter.Name == "Amy.Async" && instrument is ObservableCounter<long>) l.EnableMeasurementEvents(instrument);
            },
        };
        listener.SetMeasurementEventCallback<long>((instrument, value, tags, _) =>
        {
            foreach (var tag in tags)
            {
                if (!Equals(tag.Value, name)) continue;
                Assert.That(value, Is.GreaterThanOrEqualTo(seen.GetValueOrDefault(instrument.Name)), instrument.Name);
                seen[instrument.Name] = value;
            }
        });
        listener.Start();
        EventLoop Begin()
        {
            var loop = EventLoop.Start(new EventLoopOptions { ThreadName = name, SpinDuration = TimeSpan.Zero });
            for (var i = 0; i < 100; i++) Run.Wait(loop.InvokeAsync(static () => { }));
            listener.RecordObservableInstruments();
            return loop;
        }
        using var first = Begin();
        var second = Begin();
        Assert.That(seen["amy.loop.posts"], Is.EqualTo(200));
        second.Dispose();
        listener.RecordObservableInstruments();
        Assert.That(seen["amy.loop.posts"], Is.EqualTo(200));
        first.Dispose(); // the last of the name: nothing is told
        using var third = Begin();
        Assert.That(seen["amy.loop.posts"], Is.EqualTo(300), "it goes on where the others have ended");
    });

    [Test]
    public void NamesOfStoppedLoops_AreNotKeptForEver()
    {
        for (var i = 0; i < LoopMeter.MostEndedNames + 10; i++)
            Run.OnLoop(static () => Task.CompletedTask, new EventLoopOptions { ThreadName = $"meter {Guid.NewGuid():N}" });
        Assert.That(LoopMeter.EndedNames, Is.EqualTo(LoopMeter.MostEndedNames));
    }

    // The wake-up of the stop is for no post.
    [Test]
    public void Statistics_WakesSaved_DoNotFall() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
        using var go = new ManualResetEventSlim();
        loop.Post(() => go.Wait(Run.Limit));
        for (var i = 0; i < 10; i++) loop.Post(static () => { });
        go.Set();
        Run.Until(() => loop.Statistics.WakesSaved >= 9, "they are counted when the queue is empty");
        Run.Until(() => loop.IsSleeping, "it sleeps");
        var saved = loop.Statistics.WakesSaved;
        loop.Dispose();
        Assert.That(loop.Statistics.WakesSaved, Is.EqualTo(saved));
    });

    [Test]
    public void Statistics_CountWakesThatWereSaved() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
        Run.Until(() => loop.IsSleeping, "it sleeps");
        using var go = new ManualResetEventSlim();
        var written = loop.Statistics.WakesWritten;
        loop.Post(() => go.Wait(Run.Limit)); // holds the loop: what follows needs no wake-up
        for (var i = 0; i < 1000; i++) loop.Post(static () => { });
        go.Set();
        Run.Wait(loop.InvokeAsync(() => { }));
        Assert.That(loop.Statistics.WakesWritten - written, Is.LessThanOrEqualTo(2));
        Run.Until(() => loop.Statistics.WakesSaved >= 999, "they are counted when the queue is empty");
    });
}
