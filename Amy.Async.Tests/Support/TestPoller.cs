using System.Runtime.CompilerServices;
using Amy.Async.Native;

namespace Amy.Async.Tests;

/// <summary>
/// What tests find behind every poller that they make without saying more: the platform's (or what AMY_ASYNC_POLLER says), or a
/// double of kqueue. Amy.Async.Tests.Kqueue runs on the double with macOS's layout; AMY_ASYNC_TEST_POLLER chooses for any of the
/// test assemblies: platform, kqueue-double (macOS's layout) or kqueue-double-64 (FreeBSD's).
/// </summary>
internal static class TestPoller
{
    /// <summary>Whether pollers are on kqueue, real or not.</summary>
    internal static bool IsKqueue { get; private set; }

    /// <summary>Whether they are on libkqueue.</summary>
    internal static bool IsLibkqueue => s_abi == KqueueAbi.Libkqueue;

    private static KqueueAbi? s_abi; // null: not on kqueue. Asked for once: the calls that a test puts in may know of none

    [ModuleInitializer]
    internal static void Choose()
    {
        var wanted = Environment.GetEnvironmentVariable("AMY_ASYNC_TEST_POLLER");
        if (string.IsNullOrEmpty(wanted))
            wanted = typeof(TestPoller).Assembly.GetName().Name == "Amy.Async.Tests.Kqueue" ? "kqueue-double" : "platform";
        KqueueDouble.DefaultLayout = wanted switch
        {
            "platform" => null,
            "kqueue-double" => KqueueDouble.Layout32,
            "kqueue-double-64" => KqueueDouble.Layout64,
            _ => throw new InvalidOperationException($"AMY_ASYNC_TEST_POLLER is '{wanted}'"),
        };
        if (KqueueDouble.DefaultLayout is not null) SystemCalls.Instance = new KqueueDouble();
        using var poller = new Poller();
        IsKqueue = poller.Kind == PollerKind.Kqueue;
        s_abi = IsKqueue ? SystemCalls.Instance.KqueueAbi : null;
    }

    /// <summary>For tests of what epoll alone does.</summary>
    internal static void SkipOnKqueue(string reason)
    {
        if (IsKqueue) Assert.Ignore("kqueue: " + reason);
    }

    /// <summary>For what libkqueue does otherwise than the kernels that it stands for.</summary>
    internal static void SkipOnLibkqueue(string reason)
    {
        if (IsLibkqueue) Assert.Ignore("libkqueue: " + reason);
    }

    /// <summary>For tests of a number that is closed and used again, which libkqueue does not see: which file it is must tell.</summary>
    internal static void SkipWithoutFiles()
    {
        if (SystemCalls.Instance is PortableSystemCalls) SkipOnLibkqueue("nor do the portable calls tell of a number that is closed");
    }

    /// <summary>For tests that need to be told of out-of-band data.</summary>
    internal static void SkipWithoutPriority()
    {
        if (s_abi is { EVFILT_EXCEPT: 0 }) Assert.Ignore($"{s_abi.Name} tells of no out-of-band data");
    }
}

/// <summary>Nothing that the tests had the library do was a misuse of kqueue.</summary>
[SetUpFixture]
public sealed class NoMisuse
{
    /// <summary>After all tests.</summary>
    [OneTimeTearDown]
    public void Check() => Assert.That(KqueueDouble.Misuses, Is.Empty);
}
