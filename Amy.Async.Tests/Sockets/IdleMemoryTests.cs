#if !AMY_NETSTANDARD // the numbers are those of the newer build
using System.Diagnostics.CodeAnalysis;
using System.IO.Pipelines;
using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Tests.Sockets;

/// <summary>What an idle connection with a pending receive holds of the managed heap.</summary>
[TestFixture]
[NonParallelizable]
[SuppressMessage("Reliability", "CA2012", Justification = "Receives are left pending: that is what is measured.")]
internal sealed class IdleMemoryTests
{
    private static readonly int s_connections = Math.Clamp((DescriptorLimit() - 1000) / 2, 200, 3500); // many, within the usual backlog: what else the process makes is little then
    private const int WarmUp = 100; // what the first ones make for all

    [TestCase(false, 400)]
    [TestCase(true, 1000)]
    public void AcceptedConnection_WithAPendingReceive_IsSmall(bool asPipe, int limit)
    {
        if (TestPoller.IsLibkqueue) limit += 64; // it does not see closes, so the file of each descriptor is noted
        if (KqueueDouble.DefaultLayout is not null) Assert.Ignore("what the double of kqueue notes for each descriptor would count");
        // What the rest of the process makes meanwhile counts too, so the smallest of a few is nearest to the truth.
        var smallest = double.MaxValue;
        for (var i = 0; i < 3 && smallest > limit; i++)
        {
            Descriptors.Settle();
            Run.OnLoop(async () => smallest = Math.Min(smallest, await Measure(asPipe)));
        }
        TestContext.Out.WriteLine($"{smallest:F0} bytes each");
        Assert.That(smallest, Is.InRange(100, limit), "more than nothing: they are kept");
    }

    private static int DescriptorLimit() => int.TryParse(File.ReadLines("/proc/self/limits").First(l => l.StartsWith("Max open files", StringComparison.Ordinal))
        .Split(' ', StringSplitOptions.RemoveEmptyEntries)[3], System.Globalization.CultureInfo.InvariantCulture, out var limit) ? limit : 20_000;

    private static async Task<double> Measure(bool asPipe)
    {
        using var listener = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0), new AsyncSocketOptions { Backlog = s_connections });
        var clients = new Socket[WarmUp + s_connections]; // all there before the first count: only our side is counted
        var accepted = new AsyncSocket[clients.Length];
        var pipes = new IDuplexPipe[clients.Length];
        var buffer = new byte[1];
        var next = 0;
        try
        {
            Connect(0, WarmUp);
            await Accept(WarmUp);
            Connect(WarmUp, s_connections);
            var before = GC.GetTotalMemory(forceFullCollection: true);
            await Accept(s_connections);
            var each = (GC.GetTotalMemory(forceFullCollection: true) - before) / (double)s_connections;
            GC.KeepAlive(pipes);
            return each;
        }
        finally
        {
            foreach (var client in clients) client?.Dispose();
            foreach (var connection in accepted) connection?.Dispose();
        }

        void Connect(int first, int count)
        {
            for (var i = first; i < first + count; i++)
            {
                clients[i] = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
                clients[i].Connect(listener.LocalEndPoint!);
            }
        }

        async Task Accept(int count)
        {
            for (var i = 0; i < count; i++, next++)
            {
                var connection = accepted[next] = await listener.AcceptAsync();
                if (asPipe) _ = (pipes[next] = connection.AsPipe()).Input.ReadAsync();
                else _ = connection.ReceiveAsync(buffer);
            }
        }
    }
}
#endif
