#if !AMY_NETSTANDARD // the numbers are those of the newer build
using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Tests.Sockets;

/// <summary>What an idle connection with a pending receive holds of the managed heap.</summary>
[TestFixture]
[NonParallelizable]
internal sealed class IdleMemoryTests
{
    private const int Connections = 2000;
    private const int WarmUp = 100; // what the first ones make for all

    [TestCase(false, 400)]
    [TestCase(true, 1000)]
    public void AcceptedConnection_WithAPendingReceive_IsSmall(bool asPipe, int limit) => Run.OnLoop(async () =>
    {
        using var listener = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0), new AsyncSocketOptions { Backlog = Connections });
        var clients = new Socket[WarmUp + Connections]; // all there before the first count: only our side is counted
        var accepted = new object[clients.Length];
        var buffer = new byte[1];
        var next = 0;
        try
        {
            Connect(0, WarmUp);
            await Accept(WarmUp);
            Connect(WarmUp, Connections);
            var before = GC.GetTotalMemory(forceFullCollection: true);
            await Accept(Connections);
            var each = (GC.GetTotalMemory(forceFullCollection: true) - before) / (double)Connections;
            TestContext.Out.WriteLine($"{each:F0} bytes each");
            Assert.That(each, Is.LessThanOrEqualTo(limit));
            Assert.That(each, Is.GreaterThan(100), "they are kept");
            GC.KeepAlive(accepted);
        }
        finally
        {
            foreach (var client in clients) client?.Dispose();
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
            for (var i = 0; i < count; i++)
            {
                var connection = await listener.AcceptAsync();
                if (asPipe)
                {
                    var pipe = connection.AsPipe();
                    accepted[next++] = pipe;
                    _ = pipe.Input.ReadAsync();
                }
                else
                {
                    accepted[next++] = connection;
                    _ = connection.ReceiveAsync(buffer);
                }
            }
        }
    });
}
#endif
