namespace Amy.Async.Tests.Sockets;

// The sockets' tests once more, over PortableSystemCalls: what stands in on macOS and FreeBSD for Linux's extensions must do all
// that they do.

[TestFixture]
internal sealed class PortableAsyncSocketTests : AsyncSocketTests
{
    private IDisposable? _use;

    [OneTimeSetUp]
    public void Use() => _use = PortableLinux.Use();

    [OneTimeTearDown]
    public void Restore() => _use?.Dispose();
}

[TestFixture]
internal sealed class PortableConnectingTests : ConnectingTests
{
    private IDisposable? _use;

    [OneTimeSetUp]
    public void Use() => _use = PortableLinux.Use();

    [OneTimeTearDown]
    public void Restore() => _use?.Dispose();
}

[TestFixture]
internal sealed class PortableDatagramTests : DatagramTests
{
    private IDisposable? _use;

    [OneTimeSetUp]
    public void Use() => _use = PortableLinux.Use();

    [OneTimeTearDown]
    public void Restore() => _use?.Dispose();
}

[TestFixture]
internal sealed class PortableTransferTests : TransferTests
{
    private IDisposable? _use;

    [OneTimeSetUp]
    public void Use() => _use = PortableLinux.Use();

    [OneTimeTearDown]
    public void Restore() => _use?.Dispose();
}

[TestFixture]
internal sealed class PortableStreamTests : StreamTests
{
    private IDisposable? _use;

    [OneTimeSetUp]
    public void Use() => _use = PortableLinux.Use();

    [OneTimeTearDown]
    public void Restore() => _use?.Dispose();
}

[TestFixture]
internal sealed class PortablePipeTests : PipeTests
{
    private IDisposable? _use;

    [OneTimeSetUp]
    public void Use() => _use = PortableLinux.Use();

    [OneTimeTearDown]
    public void Restore() => _use?.Dispose();
}

[TestFixture]
internal sealed class PortableAsyncFdTests : AsyncFdTests
{
    protected override bool OpensTerminalsAnew => false;

    private IDisposable? _use;

    [OneTimeSetUp]
    public void Use() => _use = PortableLinux.Use();

    [OneTimeTearDown]
    public void Restore() => _use?.Dispose();
}

[TestFixture]
internal sealed class PortablePlainWaitTests : PlainWaitTests
{
    private IDisposable? _use;

    [OneTimeSetUp]
    public void Use() => _use = PortableLinux.Use();

    [OneTimeTearDown]
    public void Restore() => _use?.Dispose();
}

[TestFixture]
internal sealed class PortableHappyEyeballsTests : HappyEyeballsTests
{
    private IDisposable? _use;

    [OneTimeSetUp]
    public void Use() => _use = PortableLinux.Use();

    [OneTimeTearDown]
    public void Restore() => _use?.Dispose();
}
