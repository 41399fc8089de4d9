using System.Diagnostics;
using System.Diagnostics.Metrics;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Text;
using NUnit.Framework.Interfaces;

[assembly: Amy.Async.Tests.NothingLeft]

namespace Amy.Async.Tests;

/// <summary>
/// After each fixture there is no more than before it: of open descriptors, running loops, registrations, pending timers and
/// armed awaiters. It is looked at before the first test of the next fixture, which fails instead of it, with its name and
/// what it left; after the last one the assembly does.
/// </summary>
/// <remarks>
/// Fixtures run one after the other. What ends elsewhere in its own time (a thread that has been told, a handle that only a
/// finalizer knows of, a connection pool's timer) has time to. What a fixture's own set-up opens would count as the one's before:
/// no fixture's does.
/// </remarks>
[AttributeUsage(AttributeTargets.Assembly)]
public sealed partial class NothingLeftAttribute : Attribute, ITestAction
{
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(15);

    private ITest? _fixture;
    private Dictionary<string, int> _before = [];

    /// <inheritdoc/>
    public ActionTargets Targets => ActionTargets.Suite | ActionTargets.Test;

    /// <inheritdoc/>
    public void BeforeTest(ITest test)
    {
        if (test.IsSuite)
        {
            WarmUp();
            return;
        }
        var fixture = FixtureOf(test);
        if (ReferenceEquals(fixture, _fixture)) return;
        var before = _fixture;
        _fixture = fixture;
        if (before is null) _before = Count(); // what the set-up of the whole has opened stays open
        else Report(Left(), before);
    }

    /// <inheritdoc/>
    public void AfterTest(ITest test)
    {
        if (test.IsSuite) Report(Left(), _fixture);
    }

    private static ITest FixtureOf(ITest test)
    {
        while (test.Parent is { } parent && test.TestType != "TestFixture") test = parent;
        return test;
    }

    private static void Report(string left, ITest? fixture)
    {
        if (left.Length > 0) Assert.Fail($"This is not the failure of this test. {fixture?.FullName} left: {left}");
    }

    // What is left counts once: the next fixture begins with it.
    private string Left()
    {
        var clock = Stopwatch.StartNew();
        var now = Count();
        while (More(_before, now).Length > 0 && clock.Elapsed < s_patience)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
            Thread.Sleep(10); // others are to get on; nothing tells when the last of them has
            now = Count();
        }
        var left = More(_before, now);
        _before = now;
        return left;
    }

    /// <summary>What there is more than before, in words.</summary>
    internal static string More(Dictionary<string, int> before, Dictionary<string, int> now)
    {
        var text = new StringBuilder();
        foreach (var pair in now)
        {
            var more = pair.Value - (before.TryGetValue(pair.Key, out var count) ? count : 0);
            if (more > 0) text.Append(text.Length > 0 ? ", " : "").Append(more).Append(" x ").Append(pair.Key);
        }
        return text.ToString();
    }

    /// <summary>How many there are of each: of a descriptor's link, of what the loops have.</summary>
    internal static Dictionary<string, int> Count()
    {
        var counts = new Dictionary<string, int>();
        foreach (var entry in Directory.GetFileSystemEntries("/proc/self/fd"))
        {
            string? link;
            try
            {
                link = new FileInfo(entry).LinkTarget;
            }
            catch (IOException) // the directory's own, and what another thread closes
            {
                continue;
            }
            if (link is null || IsTheRuntimes(link)) continue;
            counts[link] = (counts.TryGetValue(link, out var count) ? count : 0) + 1;
        }
        CountMeters(counts);
        CountMore(counts);
        return counts;
    }

    // Opened when the runtime likes, and kept: assemblies and what it maps, time zones, a source of random numbers.
    private static bool IsTheRuntimes(string link) =>
        link.EndsWith(".dll", StringComparison.Ordinal) || link.EndsWith(".so", StringComparison.Ordinal) || link.EndsWith(".pdb", StringComparison.Ordinal)
        || link.StartsWith("/memfd:doublemapper", StringComparison.Ordinal) || link.StartsWith("/usr/share/", StringComparison.Ordinal)
        || link.StartsWith("/proc/", StringComparison.Ordinal) || link is "/dev/urandom" or "/dev/random";

    // The sums over all loops that run, as anybody may ask for them.
    private static void CountMeters(Dictionary<string, int> counts)
    {
        using var listener = new MeterListener();
        listener.InstrumentPublished = static (instrument, l) =>
        {
            if (instrument.Meter.Name == "Amy.Async" && instrument.Name is "amy.loop.registrations" or "amy.loop.timers.pending") l.EnableMeasurementEvents(instrument);
        };
        listener.SetMeasurementEventCallback<long>((instrument, value, _, _) =>
            counts[instrument.Name] = (counts.TryGetValue(instrument.Name, out var sum) ? sum : 0) + (int)value);
        listener.Start();
        listener.RecordObservableInstruments();
    }

    // What only the tests of the library itself can see: see NothingLeftAttribute.Loops.cs.
    static partial void CountMore(Dictionary<string, int> counts);

    // What is made once, at its first use, is made now: the default loop, the runtime's own epoll instances, its pipe for signals.
    private static void WarmUp()
    {
        _ = EventLoop.Default.Statistics;
        PosixSignalRegistration.Create(PosixSignal.SIGHUP, static _ => { }).Dispose();
        using var process = Process.Start(new ProcessStartInfo("true") { RedirectStandardOutput = true })!;
        process.WaitForExit();
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen(1);
        var accepting = listener.AcceptAsync();
        using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        client.Connect(listener.LocalEndPoint!);
        accepting.GetAwaiter().GetResult().Dispose();
        // Where the kernel does not tell that a number is registered already, a loop asks by a queue of its own, made when first needed.
        for (var i = 0; i < 4; i++)
        {
            using var waitedOn = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
            waitedOn.Bind(new IPEndPoint(IPAddress.Loopback, 0));
            waitedOn.WritableAsync().AsTask().GetAwaiter().GetResult();
        }
    }
}
