using Amy.Async.Bench;

namespace Amy.Async.Tests.Faults;

/// <summary>The churn of the benchmarks, in short; the long one is <c>-- churn</c>.</summary>
[TestFixture]
[NonParallelizable]
internal sealed class ChurnTests
{
    [Test]
    public void TwentyThousandConnections_EachWayToEnd_LeaveNothing()
    {
        TestPoller.SkipOnLibkqueue("it takes the error of a connection away (SO_ERROR) before a call can tell it");
        using var churn = new Churn();
        var marks = Enumerable.Range(0, 5).Select(_ => churn.Run(4_000)).ToList();
        marks.ForEach(m => TestContext.Out.WriteLine(m));
        Assert.That(marks[^1].Connections, Is.EqualTo(20_000));
        // The process has other tests' things, which come and go: a leak of the connections grows with each part.
        Assert.That(marks.Zip(marks.Skip(1), (before, after) => after.Managed - before.Managed).Min(), Is.LessThan(64 * 1024));
        Assert.That(marks[^1].Descriptors, Is.LessThanOrEqualTo(marks[0].Descriptors), Descriptors.List());
    }
}
