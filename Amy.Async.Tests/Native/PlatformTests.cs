using Amy.Async.Native;
using CpuArchitecture = System.Runtime.InteropServices.Architecture;

namespace Amy.Async.Tests.Native;

/// <summary>Which platforms are refused, and how that is said: with descriptions of others than the machine at hand.</summary>
[TestFixture]
internal sealed class PlatformTests
{
    [Test]
    public void Current_IsProven()
    {
        Assert.That(PlatformDescription.Current.Refusal(), Is.Null);
        Assert.That(PlatformDescription.Current.Architecture, Is.EqualTo(System.Runtime.InteropServices.RuntimeInformation.ProcessArchitecture));
        Assert.That(OperatingSystem.IsLinux(), Is.EqualTo(PlatformDescription.Current.System == PlatformDescription.Linux));
    }

    [TestCase("LINUX", CpuArchitecture.X64)]
    [TestCase("LINUX", CpuArchitecture.Arm64)]
    [TestCase("OSX", CpuArchitecture.X64)]
    [TestCase("OSX", CpuArchitecture.Arm64)]
    [TestCase("FREEBSD", CpuArchitecture.X64)]
    public void Refusal_OfAProvenPlatform_IsNone(string system, CpuArchitecture architecture) =>
        Assert.That(new PlatformDescription(system, architecture).Refusal(), Is.Null);

    [TestCase("LINUX", CpuArchitecture.Arm)]
    [TestCase("LINUX", CpuArchitecture.X86)]
    [TestCase("LINUX", CpuArchitecture.S390x)]
    [TestCase("LINUX", (CpuArchitecture)9)] // RiscV64, which .NET 8 has no name for
    [TestCase("LINUX", CpuArchitecture.LoongArch64)]
    [TestCase("LINUX", CpuArchitecture.Ppc64le)]
    [TestCase("FREEBSD", CpuArchitecture.Arm64)]
    [TestCase("NETBSD", CpuArchitecture.X64)]
    [TestCase("OPENBSD", CpuArchitecture.X64)]
    [TestCase("ILLUMOS", CpuArchitecture.X64)]
    [TestCase("SOLARIS", CpuArchitecture.X64)]
    [TestCase("WINDOWS", CpuArchitecture.X64)]
    [TestCase("Haiku 1", CpuArchitecture.X64)]
    public void Poller_OnAnUnprovenPlatform_IsRefusedWithAClearMessage(string system, CpuArchitecture architecture)
    {
        var platform = new PlatformDescription(system, architecture);
        foreach (var kind in new[] { PollerKind.Auto, PollerKind.Epoll, PollerKind.Kqueue })
        {
            var refusal = Assert.Throws<PlatformNotSupportedException>(() => new Poller(kind, new Elsewhere(platform), MonotonicClock.Instance))!;
            if (kind == PollerKind.Epoll && system != "LINUX") Assert.That(refusal.Message, Does.Contain("epoll exists on Linux only"));
            else Assert.That(refusal.Message, Does.Contain($"{system} on {architecture} are not proven, only those of Linux and macOS on X64 and Arm64 and of FreeBSD on X64"));
        }
    }

    [Test]
    public void EventLoop_OnAnUnprovenPlatform_IsRefusedToo() =>
        Assert.That(() => EventLoop.Start(new EventLoopOptions { SystemCalls = new Elsewhere(new("LINUX", CpuArchitecture.Arm)) }),
            Throws.InstanceOf<PlatformNotSupportedException>().With.Message.Contains("LINUX on Arm are not proven"));

    private sealed class Elsewhere(PlatformDescription machine) : SystemCalls
    {
        internal override PlatformDescription Machine => machine;
    }

    /// <summary>epoll says EPERM of what it cannot poll; kqueue on macOS says EINVAL, of /dev/tty for one; devices without
    /// a kqueue filter are ENODEV on FreeBSD, and may be ENOTSUP on macOS.</summary>
    [TestCase(Errno.EPERM)]
    [TestCase(Errno.EINVAL)]
    [TestCase(Errno.ENODEV)]
    [TestCase(Errno.EOPNOTSUPP)]
    public void Register_OfWhatTheKernelCannotPoll_IsNotSupported(int errno)
    {
        var (client, server) = Pair.Tcp();
        using (client)
        using (server)
        using (var poller = new Poller(PollerKind.Epoll, new Refusing(errno), MonotonicClock.Instance))
            Assert.That(() => poller.Registrar.Register(client.SafeHandle, Interest.Readable), Throws.InstanceOf<NotSupportedException>().With.Message.Contains("kqueue refuses some terminals"));
    }

    private sealed class Refusing(int errno) : SystemCalls
    {
        private bool _hasBegun; // the first is the selector's own, for wake-ups

        internal override int EpollControl(int epoll, int operation, int descriptor, uint events, long data)
        {
            if (_hasBegun) return -errno;
            _hasBegun = true;
            return base.EpollControl(epoll, operation, descriptor, events, data);
        }
    }

    [Test]
    public void EpollRefusal_OnABsd_SaysThatItIsLinuxs() =>
        Assert.That(Platform.EpollRefusal(new PlatformDescription(PlatformDescription.MacOS, CpuArchitecture.Arm64)), Is.EqualTo("epoll exists on Linux only"));

    [Test]
    public void Numbers_AreThoseOfTheSystem()
    {
        Assert.That(PlatformNumbers.Of(new(PlatformDescription.Linux, CpuArchitecture.X64)), Is.Null);
        Assert.That(PlatformNumbers.Of(new(PlatformDescription.MacOS, CpuArchitecture.Arm64)), Is.SameAs(PlatformNumbers.MacOS));
        Assert.That(PlatformNumbers.Of(new(PlatformDescription.FreeBsd, CpuArchitecture.X64)), Is.SameAs(PlatformNumbers.FreeBsd));
    }
}
