using Amy.Async.Native;

namespace Amy.Async.Tests.Polling;

/// <summary>Which kernel mechanism a poller takes, and what it says where that is not there.</summary>
[TestFixture]
internal sealed class SelectorChoiceTests
{
    private sealed class Asked(string? requested, string? refusal) : KqueueDouble
    {
        internal override string? RequestedPoller => requested;

        internal override string? KqueueRefusal() => refusal;
    }

    private static PollerKind KindOf(PollerKind kind, Asked calls)
    {
        calls.Layout = KqueueDouble.Layout32;
        using var poller = new Poller(kind, calls, MonotonicClock.Instance);
        Assert.That(SelectorChoice.IsSupported(kind, calls), Is.True);
        return poller.Kind;
    }

    [TestCase(PollerKind.Auto, null, PollerKind.Epoll)]
    [TestCase(PollerKind.Auto, "", PollerKind.Epoll)]
    [TestCase(PollerKind.Auto, "epoll", PollerKind.Epoll)]
    [TestCase(PollerKind.Auto, "kqueue", PollerKind.Kqueue)]
    [TestCase(PollerKind.Epoll, "kqueue", PollerKind.Epoll)]
    [TestCase(PollerKind.Kqueue, "epoll", PollerKind.Kqueue)]
    public void Kind_OnLinuxWithKqueue_IsWhatIsAskedFor(PollerKind kind, string? requested, PollerKind expected) =>
        Assert.That(KindOf(kind, new Asked(requested, null)), Is.EqualTo(expected));

    [Test]
    public void Constructor_UnknownPollerInTheEnvironment_SaysWhichThereAre()
    {
        var calls = new Asked("select", null);
        var e = Assert.Throws<InvalidOperationException>(() => new Poller(PollerKind.Auto, calls, MonotonicClock.Instance));
        Assert.That(e!.Message, Does.Contain("AMY_ASYNC_POLLER").And.Contain("'select'").And.Contain("kqueue"));
        Assert.Throws<InvalidOperationException>(() => SelectorChoice.IsSupported(PollerKind.Auto, calls));
    }

    [Test]
    public void Constructor_KqueueMissing_SaysWhyAndIsSupportedSaysNo()
    {
        var calls = new Asked(null, "it is not there");
        var e = Assert.Throws<PlatformNotSupportedException>(() => new Poller(PollerKind.Kqueue, calls, MonotonicClock.Instance));
        Assert.That(e!.Message, Is.EqualTo("No kqueue here: it is not there."));
        Assert.That(SelectorChoice.IsSupported(PollerKind.Kqueue, calls), Is.False);
        Assert.That(SelectorChoice.IsSupported(PollerKind.Auto, calls), Is.True);
    }

    [Test]
    public void Constructor_EnvironmentAsksForWhatIsMissing_SaysThatItAsked()
    {
        var calls = new Asked("kqueue", "it is not there");
        var e = Assert.Throws<PlatformNotSupportedException>(() => new Poller(PollerKind.Auto, calls, MonotonicClock.Instance));
        Assert.That(e!.Message, Is.EqualTo("AMY_ASYNC_POLLER asks for kqueue. No kqueue here: it is not there."));
        Assert.That(SelectorChoice.IsSupported(PollerKind.Auto, calls), Is.False);
    }

    [Test]
    public void Constructor_UnknownKind_Throws()
    {
        Assert.Throws<ArgumentOutOfRangeException>(() => new Poller((PollerKind)99));
        Assert.Throws<ArgumentOutOfRangeException>(() => Poller.IsSupported((PollerKind)99));
    }

    [Test]
    public void IsSupported_OfThisMachine_IsTruthful()
    {
        Assert.That(Poller.IsSupported(PollerKind.Epoll), Is.True);
        var real = new SystemCalls();
        if (real.KqueueRefusal() is { } refusal)
        {
            Assert.That(SelectorChoice.IsSupported(PollerKind.Kqueue, real), Is.False);
            Assert.That(refusal, Does.Contain("libkqueue.so.0"));
            return;
        }
        Assert.That(SelectorChoice.IsSupported(PollerKind.Kqueue, real), Is.True);
        using var poller = new Poller(PollerKind.Kqueue, real, MonotonicClock.Instance);
        Assert.That(poller.Kind, Is.EqualTo(PollerKind.Kqueue));
    }
}
