using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Bench.Patterns;

/// <summary>
/// One loop with all that its quiet connections are beside: an echo, a sink for a firehose, a listener for an accept storm,
/// and a thread that posts. For the comparison of fairness.
/// </summary>
internal sealed class FairServer
{
    private const int Outstanding = 1_000;
    private const int EchoBuffer = 4096;
    private const int SinkBuffer = 1 << 16;

    private readonly EventLoop _loop = EventLoop.Start(); // the library's defaults are what is measured
    private readonly ManualResetEventSlim _posting = new();
    private readonly Action _count;
    private byte[]? _sinkBuffer;
    private long _received; // these three are written by the loop alone
    private long _accepted;
    private long _ran;

    internal FairServer() => _count = () => Volatile.Write(ref _ran, _ran + 1);

    /// <summary>
    /// "open LOOP_CPUS POSTER_CPUS LOOP_GIVES_WAY POSTER_GIVES_WAY" gives the ports "ECHO FIREHOSE ACCEPT"; "posts on" and
    /// "posts off"; "mark" gives "RECEIVED_BYTES ACCEPTED POSTS_RUN" so far.
    /// </summary>
    internal string Answer(string[] parts)
    {
        switch (parts[0])
        {
            case "open":
                return Open(Affinity.Parse(parts[1]), Affinity.Parse(parts[2]), bool.Parse(parts[3]), bool.Parse(parts[4]));
            case "posts":
                if (parts[1] == "on") _posting.Set();
                else _posting.Reset();
                return "ok";
            case "mark":
                return string.Create(CultureInfo.InvariantCulture, $"{Volatile.Read(ref _received)} {Volatile.Read(ref _accepted)} {Volatile.Read(ref _ran)}");
            default:
                throw new ArgumentException($"Unknown command '{parts[0]}'.");
        }
    }

    private string Open(int[] loopProcessors, int[] posterProcessors, bool loopGivesWay, bool posterGivesWay)
    {
        Settle(loopProcessors, loopGivesWay);
        new Thread(() =>
        {
            Affinity.Pin(posterProcessors);
            if (posterGivesWay) Affinity.GiveWay();
            Post();
        })
        { IsBackground = true, Name = "posts" }.Start();
        return string.Create(CultureInfo.InvariantCulture, $"{Listen(c => Echo.Run(c, EchoBuffer))} {Listen(Sink)} {Listen(Drop)}");
    }

    private void Settle(int[] processors, bool givesWay) => _loop.InvokeAsync(() =>
    {
        Affinity.Pin(processors);
        if (givesWay) Affinity.GiveWay();
    }).GetAwaiter().GetResult();

    private int Listen(Func<AsyncSocket, Task> serve)
    {
        var listener = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0), new AsyncSocketOptions { Backlog = 4096 }, _loop);
        _ = _loop.InvokeAsync(() => Accept(listener, serve));
        return ((IPEndPoint)listener.LocalEndPoint!).Port;
    }

    private static async Task Accept(AsyncSocket listener, Func<AsyncSocket, Task> serve)
    {
        while (true) _ = serve(await listener.AcceptAsync());
    }

    private async Task Sink(AsyncSocket connection)
    {
        using (connection)
        {
            var buffer = _sinkBuffer ??= GC.AllocateUninitializedArray<byte>(SinkBuffer);
            try
            {
                int n;
                while ((n = await connection.ReceiveAsync(buffer)) > 0) Volatile.Write(ref _received, _received + n);
            }
            catch (SocketException)
            {
                // the firehose ends with a reset
            }
        }
    }

    private Task Drop(AsyncSocket connection)
    {
        connection.Dispose();
        Volatile.Write(ref _accepted, _accepted + 1);
        return Task.CompletedTask;
    }

    // Without end, but bounded: more than what the loop is behind with would only grow the queue.
    private void Post()
    {
        var posted = 0L;
        while (true)
        {
            _posting.Wait();
            if (posted - Volatile.Read(ref _ran) < Outstanding)
            {
                _loop.Post(_count);
                posted++;
            }
            else
                Thread.Yield();
        }
    }
}
