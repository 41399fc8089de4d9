using System.Reflection;
using Amy.Async.Native;
using NUnit.Framework.Interfaces;
using NUnit.Framework.Internal;
using NUnit.Framework.Internal.Builders;

namespace Amy.Async.Tests.Polling;

/// <summary>The contract on kqueue's double, in the layout and with the constants of macOS.</summary>
[TestFixture]
internal sealed class KqueueDoublePollerTests : PollerContractTests
{
    protected override Poller Create(SystemCalls calls, MonotonicClock clock) => KqueuePollers.Create(KqueueDouble.Layout32, clock);
}

/// <summary>The contract on kqueue's double, in the layout and with the constants of FreeBSD.</summary>
[TestFixture]
internal sealed class KqueueDouble64PollerTests : PollerContractTests
{
    protected override Poller Create(SystemCalls calls, MonotonicClock clock) => KqueuePollers.Create(KqueueDouble.Layout64, clock);

    protected override bool TellsOfPriority => false;
}

/// <summary>The contract on the kqueue of this machine, where there is one.</summary>
[WhereKqueueIs]
internal sealed class RealKqueuePollerTests : PollerContractTests
{
    private static readonly SystemCalls s_calls = new();

    protected override Poller Create(SystemCalls calls, MonotonicClock clock) => new(PollerKind.Kqueue, s_calls, clock);

    protected override bool TellsOfPriority => s_calls.KqueueAbi.EVFILT_EXCEPT != 0;

    protected override bool IsLibkqueue => s_calls.KqueueAbi == KqueueAbi.Libkqueue;
}

internal static class KqueuePollers
{
    internal static Poller Create(KqueueAbi layout, MonotonicClock clock) => new(PollerKind.Kqueue, new KqueueDouble { Layout = layout }, clock);
}

/// <summary>One test that is skipped where there is no kqueue, instead of one for each of the contract.</summary>
[TestFixture]
internal sealed class KqueueOfThisMachineTests
{
    [Test]
    public void RealKqueuePollerTests_WhereThereIsOne_Run()
    {
        var calls = new SystemCalls();
        if (calls.KqueueRefusal() is { } refusal) Assert.Ignore("No kqueue here: " + refusal);
        using var poller = new Poller(PollerKind.Kqueue, calls, MonotonicClock.Instance);
        Assert.That(poller.Kind, Is.EqualTo(PollerKind.Kqueue));
    }
}

/// <summary>A fixture that has no tests where there is no kqueue.</summary>
[AttributeUsage(AttributeTargets.Class)]
internal sealed class WhereKqueueIsAttribute : NUnitAttribute, IFixtureBuilder2
{
    public IEnumerable<TestSuite> BuildFrom(ITypeInfo typeInfo) => BuildFrom(typeInfo, new EveryTest());

    public IEnumerable<TestSuite> BuildFrom(ITypeInfo typeInfo, IPreFilter filter) =>
        [new SystemCalls().KqueueRefusal() is null ? new NUnitTestFixtureBuilder().BuildFrom(typeInfo, filter) : new TestFixture(typeInfo)];

    private sealed class EveryTest : IPreFilter
    {
        public bool IsMatch(Type type) => true;

        public bool IsMatch(Type type, MethodInfo method) => true;
    }
}
