#if !AMY_NETSTANDARD
using System.Diagnostics.CodeAnalysis;
using System.Runtime.InteropServices;

namespace Amy.Async.Tests.Loop;

/// <summary>Signals as awaitable events; sent to this process by itself.</summary>
[TestFixture]
[NonParallelizable]
[System.Runtime.Versioning.UnsupportedOSPlatform("windows")]
[SuppressMessage("Usage", "CA1806", Justification = "kill of this process.")]
internal sealed class SignalReceiverTests
{
    private const int SIGHUP = 1;
    private const int SIGCONT = 18;
    private const int SIGWINCH = 28;

    [DllImport("libc")]
    private static extern int kill(int pid, int signal);

    [DllImport("libc")]
    private static extern int getpid();

    private static void Raise(int signal) => kill(getpid(), signal);

    [Test]
    public void Signals_AreReceivedOnTheLoop_InOrder_AndTheirEffectIsHeldBack() => Run.OnLoop(async () =>
    {
        using var signals = new SignalReceiver(PosixSignal.SIGHUP, PosixSignal.SIGWINCH);
        var thread = Environment.CurrentManagedThreadId;
        for (var i = 0; i < 20; i++)
        {
            var receiving = signals.ReceiveAsync();
            Assert.That(receiving.IsCompleted, Is.False);
            Raise(i % 2 == 0 ? SIGHUP : SIGWINCH); // SIGHUP would end this process
            Assert.That(await receiving, Is.EqualTo(i % 2 == 0 ? PosixSignal.SIGHUP : PosixSignal.SIGWINCH));
            Assert.That(Environment.CurrentManagedThreadId, Is.EqualTo(thread));
        }
        // Before the receive.
        Raise(SIGHUP);
        Assert.That(await signals.ReceiveAsync(), Is.EqualTo(PosixSignal.SIGHUP));
        var second = signals.ReceiveAsync();
        await Expect.Throws<InvalidOperationException>(async () => await signals.ReceiveAsync());
        Raise(SIGWINCH);
        await second;
    });

    [Test]
    public void Receive_IsCancelled_Disposed_AndEndsWithTheLoop()
    {
        Run.OnLoop(async () =>
        {
            var signals = new SignalReceiver(PosixSignal.SIGCONT);
            using var source = new CancellationTokenSource();
            var receiving = signals.ReceiveAsync(source.Token);
            source.Cancel();
            await Expect.Throws<OperationCanceledException>(async () => await receiving);
            Raise(SIGCONT);
            Assert.That(await signals.ReceiveAsync(), Is.EqualTo(PosixSignal.SIGCONT), "the cancelled one took none");
            receiving = signals.ReceiveAsync();
            signals.Dispose();
            signals.Dispose();
            await Expect.Throws<ObjectDisposedException>(async () => await receiving);
            await Expect.Throws<ObjectDisposedException>(async () => await signals.ReceiveAsync());
            Assert.That(EventLoop.Current!.Statistics.TimersPending, Is.Zero);
        });
        var loop = EventLoop.Start();
        using var other = new SignalReceiver(loop, PosixSignal.SIGCONT);
        var last = other.ReceiveAsync().AsTask();
        Run.Wait(loop.StopAsync());
        Assert.That(() => Run.Wait(last), Throws.InstanceOf<ObjectDisposedException>());
        Assert.That(() => new SignalReceiver(loop, PosixSignal.SIGCONT), Throws.InstanceOf<ObjectDisposedException>());
    }

    [Test]
    public void BadArguments()
    {
        Assert.That(() => new SignalReceiver(), Throws.ArgumentException);
        Assert.That(() => new SignalReceiver((EventLoop?)null, null!), Throws.ArgumentNullException);
        Assert.That(() => new SignalReceiver((PosixSignal)9), Throws.Exception, "SIGKILL cannot be received");
    }

    [Test]
    public void Storm_FromAnotherThread_IsReceivedInWhatNumberEver_AndTheLastOneToo() => Run.OnLoop(async () =>
    {
        using var signals = new SignalReceiver(PosixSignal.SIGWINCH, PosixSignal.SIGHUP);
        var storm = Task.Run(() =>
        {
            for (var i = 0; i < 1000; i++) Raise(SIGWINCH);
            Raise(SIGHUP);
        });
        var received = 0;
        var ended = false;
        while (!ended || received == 0) // the kernel may deliver the last one first
        {
            if (await signals.ReceiveAsync() == PosixSignal.SIGHUP) ended = true;
            else received++;
        }
        await storm;
        TestContext.Out.WriteLine($"{received} of 1000");
        Assert.That(received, Is.InRange(1, 1000));
    });
}
#endif
