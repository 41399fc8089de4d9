using System.Threading.Channels;

namespace Amy.Async.Tests.Loop;

/// <summary>The platform's channels on a loop: a reader that awaits there costs a wake-up per burst, and nothing of ours is allocated.</summary>
[TestFixture]
internal sealed class ChannelOnLoopTests
{
    [Test]
    public void BurstsFromAnotherThread_WakeOncePerBurst_AndAllocateNothing()
    {
        using var loop = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
        var channel = Channel.CreateUnbounded<int>(new UnboundedChannelOptions { SingleReader = true });
        using var written = new SemaphoreSlim(0);
        var read = 0;
        long loopBytes = 0;
        var onLoop = true;
        var reading = loop.InvokeAsync(async () =>
        {
            while (await channel.Reader.WaitToReadAsync())
            {
                written.Wait(); // the burst is over: without this, how often the reader is faster would be chance
                while (channel.Reader.TryRead(out _)) read++;
                onLoop &= loop.IsCurrent;
                Volatile.Write(ref loopBytes, GC.GetAllocatedBytesForCurrentThread());
            }
        });
        const int Bursts = 200, Items = 100;
        long wakes = 0, writerBytes = 0, firstLoopBytes = 0;
        for (var burst = 0; burst < 2 * Bursts; burst++)
        {
            Run.Until(() => loop.IsSleeping, "the loop sleeps");
            if (burst == Bursts) // warm from here on
            {
                wakes = loop.Statistics.WakesWritten;
                firstLoopBytes = Volatile.Read(ref loopBytes);
            }
            var before = GC.GetAllocatedBytesForCurrentThread();
            for (var i = 0; i < Items; i++) channel.Writer.TryWrite(i);
            if (burst >= Bursts) writerBytes += GC.GetAllocatedBytesForCurrentThread() - before;
            written.Release();
            var wanted = (burst + 1) * Items;
            Run.Until(() => Volatile.Read(ref read) == wanted, "all is read");
        }
        Assert.That(loop.Statistics.WakesWritten - wakes, Is.EqualTo(Bursts));
        Assert.That(writerBytes, Is.Zero);
        Run.Until(() => loop.IsSleeping, "the loop sleeps");
        Assert.That(Volatile.Read(ref loopBytes) - firstLoopBytes, Is.Zero);
        Assert.That(onLoop, Is.True);
        channel.Writer.Complete();
        Run.Wait(reading);
    }
}
