using Amy.Async.Bench;
using Amy.Async.Native;
using Amy.Async.Tests.Codecs;
using Amy.Async.Tests.Sockets;

namespace Amy.Async.Tests.Faults;

// Suites of other fixtures once more, on calls that go wrong. Those that count what one call does can stand only a poller that
// lies; the codecs also a kernel that hands out single bytes.

internal sealed class FaultyUse : IDisposable
{
    private readonly SystemCalls _before = SystemCalls.Instance;
    private readonly FaultyCalls _calls;

    internal FaultyUse(FaultSource source) => SystemCalls.Instance = _calls = new FaultyCalls(source);

    public void Dispose()
    {
        SystemCalls.Instance = _before;
        TestContext.Out.WriteLine(_calls.Summary());
        Assert.That(_calls.TotalStruck, Is.Positive);
    }
}

[TestFixture]
internal sealed class FaultyCodecSocketTests : CodecSocketTests
{
    private FaultyUse? _use;

    [OneTimeSetUp]
    public void Use() => _use = new FaultyUse(FaultMix.Transparent(11));

    [OneTimeTearDown]
    public void Restore() => _use?.Dispose();
}

[TestFixture]
internal sealed class FaultyAsyncSocketTests : AsyncSocketTests
{
    private FaultyUse? _use;

    [OneTimeSetUp]
    public void Use() => _use = new FaultyUse(FaultMix.Events(12));

    [OneTimeTearDown]
    public void Restore() => _use?.Dispose();
}

[TestFixture]
internal sealed class FaultyConnectingTests : ConnectingTests
{
    private FaultyUse? _use;

    [OneTimeSetUp]
    public void Use() => _use = new FaultyUse(FaultMix.Events(13));

    [OneTimeTearDown]
    public void Restore() => _use?.Dispose();
}

[TestFixture]
internal sealed class FaultyStreamTests : StreamTests
{
    private FaultyUse? _use;

    [OneTimeSetUp]
    public void Use() => _use = new FaultyUse(FaultMix.Events(14));

    [OneTimeTearDown]
    public void Restore() => _use?.Dispose();
}

[TestFixture]
internal sealed class FaultyPipeTests : PipeTests
{
    private FaultyUse? _use;

    [OneTimeSetUp]
    public void Use() => _use = new FaultyUse(FaultMix.Events(15));

    [OneTimeTearDown]
    public void Restore() => _use?.Dispose();
}

[TestFixture]
internal sealed class FaultyTransferTests : TransferTests
{
    private FaultyUse? _use;

    [OneTimeSetUp]
    public void Use() => _use = new FaultyUse(FaultMix.Untrue(16)); // virtual time would jump over an event that comes late

    [OneTimeTearDown]
    public void Restore() => _use?.Dispose();
}

[TestFixture]
internal sealed class FaultyDatagramTests : DatagramTests
{
    private FaultyUse? _use;

    [OneTimeSetUp]
    public void Use() => _use = new FaultyUse(FaultMix.Events(17));

    [OneTimeTearDown]
    public void Restore() => _use?.Dispose();
}

[TestFixture]
internal sealed class FaultyPlainWaitTests : PlainWaitTests
{
    private FaultyUse? _use;

    [OneTimeSetUp]
    public void Use() => _use = new FaultyUse(FaultMix.Late(18)); // a plain wait cannot tell what is not true

    [OneTimeTearDown]
    public void Restore() => _use?.Dispose();
}

[TestFixture]
internal sealed class FaultyAsyncFdTests : AsyncFdTests
{
    private FaultyUse? _use;

    [OneTimeSetUp]
    public void Use() => _use = new FaultyUse(FaultMix.Events(19));

    [OneTimeTearDown]
    public void Restore() => _use?.Dispose();
}
