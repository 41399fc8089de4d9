using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Threading.Channels;

namespace Amy.Async.Samples;

/// <summary>What a program needs of the loop, in the API that all targets share: the same source for every runtime.</summary>
public static class Checks
{
    private static readonly IPEndPoint s_anyPort = new(IPAddress.Loopback, 0);

    /// <summary>By name; each runs as the main method of a loop.</summary>
    public static IReadOnlyDictionary<string, Func<Task>> All { get; } = new Dictionary<string, Func<Task>>
    {
        ["echo"] = EchoAsync,
        ["timers"] = TimersAsync,
        ["channel"] = ChannelAsync,
        ["poller"] = PollerAsync,
        ["cancellation"] = CancellationAsync,
        ["contexts"] = ContextsAsync,
        ["loops"] = LoopsAsync,
        ["plain"] = PlainAsync,
        ["tls"] = TlsAsync,
    };

    private static void Require(bool condition, string what)
    {
        if (!condition) throw new InvalidOperationException($"Not so: {what}.");
    }

    private static async Task<(AsyncSocket Client, AsyncSocket Server)> ConnectAsync()
    {
        using var listener = AsyncSocket.Listen(s_anyPort);
        var accepting = listener.AcceptAsync().AsTask();
        return (await AsyncSocket.ConnectAsync(listener.LocalEndPoint!), await accepting);
    }

    /// <summary>Many round trips, then a megabyte at once while its echo is read.</summary>
    public static async Task EchoAsync()
    {
        var thread = Environment.CurrentManagedThreadId;
        var (client, server) = await ConnectAsync();
        using (client)
        {
            var serving = ServeAsync(server);
            var buffer = new byte[65536];
            for (var i = 0; i < 500; i++)
            {
                buffer[0] = (byte)i;
                await client.SendAsync(buffer.AsMemory(0, 1));
                Require(await client.ReceiveAsync(buffer.AsMemory(1)) == 1 && buffer[1] == (byte)i, "a byte comes back");
                Require(Environment.CurrentManagedThreadId == thread, "on the loop's thread");
            }
            var sent = new byte[1 << 20];
            new Random(1).NextBytes(sent);
            var sending = client.SendAsync(sent).AsTask();
            for (var got = 0; got < sent.Length;)
            {
                var n = await client.ReceiveAsync(buffer);
                Require(n > 0 && buffer.AsSpan(0, n).SequenceEqual(sent.AsSpan(got, n)), "a megabyte comes back");
                got += n;
            }
            await sending;
            client.Shutdown(SocketShutdown.Send);
            Require(await client.ReceiveAsync(buffer) == 0, "the server ends too");
            await serving;
        }
    }

    private static async Task ServeAsync(AsyncSocket connection)
    {
        using (connection)
        {
            var buffer = new byte[16384];
            for (int n; (n = await connection.ReceiveAsync(buffer)) > 0;) await connection.SendAsync(buffer.AsMemory(0, n));
        }
    }

    /// <summary>Delays in their order, ticks, a time-out of an operation; thirty seconds of virtual time at once.</summary>
    public static async Task TimersAsync()
    {
        var loop = EventLoop.Current!;
        var order = new List<int>();
        async Task After(int milliseconds)
        {
            await loop.Delay(TimeSpan.FromMilliseconds(milliseconds));
            order.Add(milliseconds);
        }
        await Task.WhenAll(After(60), After(1), After(30));
        Require(string.Join(" ", order) == "1 30 60", "delays end in their order");

        using var timer = loop.CreateTimer(TimeSpan.FromMilliseconds(5));
        for (var i = 0; i < 3; i++) Require(await timer.WaitForNextTickAsync(), "a tick");

        var (client, server) = await ConnectAsync();
        using (client)
        using (server)
        {
            client.ReceiveTimeout = TimeSpan.FromMilliseconds(10);
            try
            {
                await client.ReceiveAsync(new byte[1]);
                Require(false, "a receive times out");
            }
            catch (TimeoutException)
            {
            }
        }

        using var jumping = EventLoop.Start(new EventLoopOptions { TimeProvider = new VirtualTimeProvider { AutoJump = true } });
        await jumping.InvokeAsync(() => EventLoop.Current!.Delay(TimeSpan.FromSeconds(30)).AsTask());
    }

    /// <summary>Another thread writes, the loop reads.</summary>
    public static async Task ChannelAsync()
    {
        var channel = Channel.CreateBounded<int>(10);
        var thread = Environment.CurrentManagedThreadId;
        var writing = Task.Run(async () =>
        {
            for (var i = 0; i < 1000; i++) await channel.Writer.WriteAsync(i);
            channel.Writer.Complete();
        });
        var next = 0;
        while (await channel.Reader.WaitToReadAsync())
        {
            Require(Environment.CurrentManagedThreadId == thread, "on the loop's thread");
            while (channel.Reader.TryRead(out var item)) Require(item == next++, "in their order");
        }
        await writing;
        Require(next == 1000, "all of them");
    }

    /// <summary>A poller without a loop: a time-out and a channel as notifications.</summary>
    public static Task PollerAsync() => Task.Run(() =>
    {
        using var poller = new Poller();
        using var channel = poller.Registrar.CreateUnboundedChannel<string>();
        var timer = poller.Registrar.SetTimeout(TimeSpan.FromMilliseconds(5));
        var writing = Task.Run(() => channel.Writer.TryWrite("written"));
        var (told, fired) = (false, false);
        for (var i = 0; i < 100 && !(told && fired); i++)
        {
            foreach (var notification in poller.Wait(TimeSpan.FromSeconds(1)))
            {
                fired |= notification.Id == timer;
                told |= notification.Id == channel.Id && channel.Reader.TryRead(out var text) && text == "written";
            }
        }
        Require(told && fired, "the time-out and the channel are notified");
        return writing;
    });

    /// <summary>A receive that is cancelled takes no byte away.</summary>
    public static async Task CancellationAsync()
    {
        var (client, server) = await ConnectAsync();
        using (client)
        using (server)
        {
            var buffer = new byte[8];
            for (var i = 0; i < 20; i++)
            {
                using var source = new CancellationTokenSource();
                var receiving = client.ReceiveAsync(buffer, source.Token).AsTask();
                _ = Task.Run(source.Cancel); // from another thread
                try
                {
                    await receiving;
                    Require(false, "a receive is cancelled");
                }
                catch (OperationCanceledException)
                {
                }
                await server.SendAsync(new[] { (byte)i });
                Require(await client.ReceiveAsync(buffer) == 1 && buffer[0] == (byte)i, "the byte is there for the next");
            }
        }
    }

    /// <summary>What is async-local flows along, and what one item leaves behind is not seen by the next.</summary>
    public static async Task ContextsAsync()
    {
        var loop = EventLoop.Current!;
        var local = new AsyncLocal<int>();
        var seen = -1;
        loop.Post(() => local.Value = 1);
        loop.Post(() => seen = local.Value);
        await loop.Yield();
        Require(seen == 0 && local.Value == 0, "nothing is left behind");
        local.Value = 2;
        await loop.Delay(TimeSpan.FromMilliseconds(1));
        Require(local.Value == 2, "it flows over an await");
        Require(await Task.Run(() => loop.InvokeAsync(() => local.Value)) == 2, "it flows with what is invoked");
        Require(SynchronizationContext.Current == loop.SynchronizationContext, "under the loop's context");
    }

    /// <summary>Two loops: work is invoked there and answers here, a connection moves.</summary>
    public static async Task LoopsAsync()
    {
        var here = EventLoop.Current!;
        using var there = EventLoop.Start();
        for (var i = 0; i < 100; i++)
        {
            Require(await there.InvokeAsync(() => there.IsCurrent), "invoked there");
            Require(here.IsCurrent, "back here");
        }
        await there.SwitchTo();
        Require(there.IsCurrent, "switched");
        await here.SwitchTo();
        Require(here.IsCurrent, "and back");

        var (client, server) = await ConnectAsync();
        using (client)
        {
            var moved = await server.MoveToAsync(there);
            var serving = there.InvokeAsync(() => ServeAsync(moved));
            var buffer = new byte[1];
            for (var i = 0; i < 100; i++)
            {
                await client.SendAsync(buffer);
                Require(await client.ReceiveAsync(buffer) == 1, "the other loop answers");
            }
            client.Shutdown(SocketShutdown.Send);
            await serving;
        }
    }

    /// <summary>The platform's own Socket, awaited.</summary>
    public static async Task PlainAsync()
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(s_anyPort);
        listener.Listen(1);
        using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        client.Connect(listener.LocalEndPoint!);
        using var server = listener.Accept();
        client.Blocking = false;
        var buffer = new byte[8];
        for (byte i = 0; i < 100; i++)
        {
            var readable = client.ReadableAsync();
            server.Send([i]);
            await readable;
            Require(client.Receive(buffer) == 1 && buffer[0] == i, "readable when there is something");
        }
    }

    /// <summary>A TLS client and server of the platform over the loop's streams.</summary>
    public static async Task TlsAsync()
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        using var made = new CertificateRequest("CN=localhost", key, HashAlgorithmName.SHA256).CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-1), DateTimeOffset.UtcNow.AddDays(1));
        var (a, b) = await ConnectAsync();
        using var client = new SslStream(a.AsStream(), false, (_, certificate, _, _) => certificate?.GetCertHashString() == made.GetCertHashString());
        using var server = new SslStream(b.AsStream());
        await Task.WhenAll(client.AuthenticateAsClientAsync("localhost"), server.AuthenticateAsServerAsync(made));
        Require(client.IsEncrypted && server.IsEncrypted, "encrypted");
        var copying = server.CopyToAsync(server);
        var sent = new byte[100_000];
        new Random(1).NextBytes(sent);
        using var writer = new MemoryStream(sent);
        var writing = writer.CopyToAsync(client);
        using var echoed = new MemoryStream();
        var buffer = new byte[8192];
        while (echoed.Length < sent.Length)
        {
#pragma warning disable CA1835 // .NET Framework has this overload only
            var n = await client.ReadAsync(buffer, 0, buffer.Length);
#pragma warning restore CA1835
            Require(n > 0, "more to read");
            echoed.Write(buffer, 0, n);
        }
        await writing;
        Require(echoed.ToArray().AsSpan().SequenceEqual(sent), "what comes back is what was sent");
        client.Dispose();
        await copying;
    }
}
