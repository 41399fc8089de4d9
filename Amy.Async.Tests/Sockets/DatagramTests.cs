using System.Net;
using System.Net.NetworkInformation;
using System.Net.Sockets;
using System.Text;

namespace Amy.Async.Tests.Sockets;

/// <summary>UDP and Unix-domain datagrams: one at a time, connected, with messages, in batches.</summary>
[TestFixture]
internal class DatagramTests
{
    private static readonly IPEndPoint s_any = new(IPAddress.Loopback, 0);

    private static AsyncSocket Bind(AsyncSocketOptions? options = null) => AsyncSocket.BindDatagram(s_any, options);

    private static SocketAddress AddressOf(AsyncSocket socket) => socket.LocalEndPoint!.Serialize();

    private static string PathOf(SocketAddress address) => new IPEndPoint(0, 0).Create(address).ToString()!;

    [Test]
    public void SendToAndReceiveFrom_TellTheSender_AndKeepTheBoundaries() => Run.OnLoop(async () =>
    {
        using var a = Bind();
        using var b = Bind();
        var remote = new SocketAddress(AddressFamily.InterNetwork);
        var buffer = new byte[100];
        foreach (var size in new[] { 1, 64, 0, 100 })
        {
            var data = Enumerable.Range(0, size).Select(i => (byte)(i * 7)).ToArray();
            Assert.That(await a.SendToAsync(data, AddressOf(b)), Is.EqualTo(size));
            Assert.That(await b.ReceiveFromAsync(buffer, remote), Is.EqualTo(size));
            Assert.That(buffer.AsSpan(0, size).SequenceEqual(data), Is.True);
            Assert.That(PathOf(remote), Is.EqualTo(a.LocalEndPoint!.ToString()));
        }
        Assert.That(b.BytesReceived, Is.EqualTo(165));
        Assert.That(a.BytesSent, Is.EqualTo(165));
    });

    [Test]
    public void ReceiveFrom_Waits_AndTheNextOneToo() => Run.OnLoop(async () =>
    {
        using var a = Bind();
        using var b = Bind();
        var remote = new SocketAddress(AddressFamily.InterNetwork);
        var buffer = new byte[100];
        for (var i = 0; i < 100; i++)
        {
            var receiving = b.ReceiveFromAsync(buffer, remote);
            Assert.That(receiving.IsCompleted, Is.False);
            await a.SendToAsync(BitConverter.GetBytes(i), AddressOf(b));
            Assert.That(await receiving, Is.EqualTo(4));
            Assert.That(BitConverter.ToInt32(buffer), Is.EqualTo(i));
        }
    });

    [Test]
    public void SixAndMappedFour_ArriveAtADualModeSocket() => Run.OnLoop(async () =>
    {
        using var server = AsyncSocket.BindDatagram(new IPEndPoint(IPAddress.IPv6Any, 0), new AsyncSocketOptions { DualMode = true });
        using var four = Bind();
        var port = ((IPEndPoint)server.LocalEndPoint!).Port;
        await four.SendToAsync("x"u8.ToArray(), new IPEndPoint(IPAddress.Loopback, port).Serialize());
        var remote = new SocketAddress(AddressFamily.InterNetworkV6);
        Assert.That(await server.ReceiveFromAsync(new byte[1], remote), Is.EqualTo(1));
        var sender = (IPEndPoint)new IPEndPoint(IPAddress.IPv6Any, 0).Create(remote);
        Assert.That(sender.Address.MapToIPv4(), Is.EqualTo(IPAddress.Loopback));
    });

    [Test]
    public void ConnectDatagram_ReceivesFromItsPeerOnly() => Run.OnLoop(async () =>
    {
        using var server = Bind();
        using var stranger = Bind();
        using var client = AsyncSocket.ConnectDatagram(server.LocalEndPoint!);
        await stranger.SendToAsync("no"u8.ToArray(), AddressOf(client));
        await client.SendAsync("question"u8.ToArray());
        var buffer = new byte[100];
        Assert.That(await server.ReceiveAsync(buffer), Is.EqualTo(8));
        await server.SendToAsync("answer"u8.ToArray(), AddressOf(client));
        Assert.That(await client.ReceiveAsync(buffer), Is.EqualTo(6));
        Assert.That(Encoding.ASCII.GetString(buffer, 0, 6), Is.EqualTo("answer"));
    });

    [Test]
    public void ConnectDatagram_ToAClosedPort_SaysRefused_AndGoesOn() => Run.OnLoop(async () =>
    {
        var gone = Bind();
        var endPoint = gone.LocalEndPoint!;
        gone.Dispose();
        using var client = AsyncSocket.ConnectDatagram(endPoint);
        await client.SendAsync("x"u8.ToArray());
        var refused = await Expect.Throws<SocketException>(async () => await client.ReceiveAsync(new byte[1]));
        Assert.That(refused.SocketErrorCode, Is.EqualTo(SocketError.ConnectionRefused));
        using var back = AsyncSocket.BindDatagram(endPoint);
        await client.SendAsync("y"u8.ToArray());
        Assert.That(await back.ReceiveAsync(new byte[1]), Is.EqualTo(1));
    });

    [Test]
    public void EmptyDatagram_IsSentAndIsNoEnd() => Run.OnLoop(async () =>
    {
        using var server = Bind();
        using var client = AsyncSocket.ConnectDatagram(server.LocalEndPoint!);
        Assert.That(await client.SendAsync(Memory<byte>.Empty), Is.Zero);
        Assert.That(client.TrySend(default, out _), Is.True);
        await client.SendAsync("z"u8.ToArray());
        var buffer = new byte[10];
        Assert.That(await server.ReceiveAsync(buffer), Is.Zero);
        Assert.That(await server.ReceiveAsync(buffer), Is.Zero);
        Assert.That(await server.ReceiveAsync(buffer), Is.EqualTo(1));
    });

    [Test]
    public void TooLarge_IsMessageSize() => Run.OnLoop(async () =>
    {
        using var a = Bind();
        var error = await Expect.Throws<SocketException>(async () => await a.SendToAsync(new byte[70000], AddressOf(a)));
        Assert.That(error.SocketErrorCode, Is.EqualTo(SocketError.MessageSize));
    });

    [Test]
    public void SmallSocketAddress_IsRefusedWithAdvice_AndNothingIsBricked() => Run.OnLoop(async () =>
    {
        using var a = Bind();
        await a.SendToAsync("1"u8.ToArray(), AddressOf(a));
        var error = await Expect.Throws<ArgumentException>(async () => await a.ReceiveFromAsync(new byte[1], new SocketAddress(AddressFamily.InterNetwork, 4)));
        Assert.That(error.Message, Does.Contain("room"));
        await a.SendToAsync("2"u8.ToArray(), AddressOf(a));
        Assert.That(await a.ReceiveFromAsync(new byte[1], new SocketAddress(AddressFamily.InterNetwork)), Is.EqualTo(1));
    });

    [Test]
    public void Message_TellsTruncation_Timestamp_PacketInformation() => Run.OnLoop(async () =>
    {
        using var server = Bind(new AsyncSocketOptions { ReceiveTimestamps = true, ReceivePacketInformation = true, ReceiveDropCounts = true });
        using var client = Bind();
        var before = DateTimeOffset.UtcNow.AddSeconds(-1);
        await client.SendToAsync(new byte[50], AddressOf(server));
        var remote = new SocketAddress(AddressFamily.InterNetwork);
        var message = await server.ReceiveMessageAsync(new byte[20], new byte[256], remote);
        Assert.That(message.Count, Is.EqualTo(20));
        Assert.That(message.Flags, Is.EqualTo(SocketFlags.Truncated));
        Assert.That(message.Timestamp, Is.GreaterThan(before).And.LessThan(DateTimeOffset.UtcNow.AddSeconds(1)));
        Assert.That(message.PacketInformation!.Value.Address, Is.EqualTo(IPAddress.Loopback));
        Assert.That(message.PacketInformation.Value.InterfaceIndex, Is.EqualTo(LoopbackIndex()));
        Assert.That(message.Drops, Is.Null, "none so far");
        Assert.That(PathOf(remote), Is.EqualTo(client.LocalEndPoint!.ToString()));
        Assert.That(message.Descriptors, Is.Empty);

        await client.SendToAsync(new byte[5], AddressOf(server));
        var tight = await server.ReceiveMessageAsync(new byte[20], new byte[20]);
        Assert.That(tight.Flags, Is.EqualTo(SocketFlags.ControlDataTruncated));
        Assert.That(tight.Count, Is.EqualTo(5));
    });

    [Test]
    public void Message_OverSix_HasPacketInformation() => Run.OnLoop(async () =>
    {
        using var server = AsyncSocket.BindDatagram(new IPEndPoint(IPAddress.IPv6Loopback, 0), new AsyncSocketOptions { ReceivePacketInformation = true });
        using var client = AsyncSocket.BindDatagram(new IPEndPoint(IPAddress.IPv6Loopback, 0));
        await client.SendToAsync(new byte[5], AddressOf(server));
        var message = await server.ReceiveMessageAsync(new byte[20], new byte[256]);
        Assert.That(message.PacketInformation!.Value.Address, Is.EqualTo(IPAddress.IPv6Loopback));
        Assert.That(message.PacketInformation.Value.InterfaceIndex, Is.EqualTo(LoopbackIndex()));
        Assert.That(message.Timestamp, Is.Null);
    });

    [Test]
    public void Drops_AreCounted() => Run.OnLoop(async () =>
    {
        using var server = Bind(new AsyncSocketOptions { ReceiveDropCounts = true, ReceiveBufferSize = 2048 });
        using var client = Bind();
        for (var i = 0; i < 100; i++) await client.SendToAsync(new byte[500], AddressOf(server));
        var buffer = new byte[500];
        while (server.TryReceive(buffer, out _))
        {
        }
        await client.SendToAsync(new byte[500], AddressOf(server));
        var message = await server.ReceiveMessageAsync(buffer, new byte[256]);
        Assert.That(message.Drops, Is.InRange(1, 99));
    });

    [Test]
    public void Multicast_OnLoopback_ReachesWhoJoined_UntilHeLeaves() => Run.OnLoop(async () =>
    {
        var group = IPAddress.Parse("239.255.77.77");
        var index = LoopbackIndex();
        using var server = AsyncSocket.BindDatagram(new IPEndPoint(IPAddress.Any, 0), new AsyncSocketOptions { ReusePort = true });
        server.JoinMulticastGroup(group, index);
        using var client = Bind();
        client.Socket.SetSocketOption(SocketOptionLevel.IP, SocketOptionName.MulticastInterface, IPAddress.HostToNetworkOrder(index));
        var to = new IPEndPoint(group, ((IPEndPoint)server.LocalEndPoint!).Port).Serialize();
        await client.SendToAsync("hello"u8.ToArray(), to);
        var buffer = new byte[10];
        Assert.That(await server.ReceiveAsync(buffer), Is.EqualTo(5));
        server.LeaveMulticastGroup(group, index);
        Assert.That(() => server.LeaveMulticastGroup(group, index), Throws.TypeOf<SocketException>());
        Assert.That(() => server.JoinMulticastGroup(IPAddress.Loopback), Throws.TypeOf<SocketException>());
        await client.SendToAsync("gone"u8.ToArray(), to);
        await client.SendToAsync("direct"u8.ToArray(), new IPEndPoint(IPAddress.Loopback, ((IPEndPoint)server.LocalEndPoint!).Port).Serialize());
        Assert.That(await server.ReceiveAsync(buffer), Is.EqualTo(6), "what was sent to the group meanwhile did not come");
    });

    private static int LoopbackIndex() =>
        NetworkInterface.GetAllNetworkInterfaces().First(i => i.NetworkInterfaceType == NetworkInterfaceType.Loopback).GetIPProperties().GetIPv4Properties().Index;

    [Test]
    public void Batch_SendsAndReceivesMany_EachWithItsAddressAndLength() => Run.OnLoop(async () =>
    {
        using var server = Bind();
        using var client = Bind();
        var batch = new DatagramBatch(64, 100);
        for (var i = 0; i < 64; i++) batch.Add(Enumerable.Repeat((byte)i, i).ToArray(), AddressOf(server));
        Assert.That(() => batch.Add(default), Throws.InvalidOperationException, "full");
        Assert.That(await client.SendAsync(batch), Is.EqualTo(64));
        Assert.That(batch.Sent, Is.EqualTo(64));

        var received = new DatagramBatch(50, 60);
        var remote = new SocketAddress(AddressFamily.InterNetwork);
        var next = 0;
        while (next < 64)
        {
            var n = await server.ReceiveAsync(received);
            Assert.That(n, Is.EqualTo(received.Count).And.LessThanOrEqualTo(50));
            for (var i = 0; i < n; i++, next++)
            {
                Assert.That(received[i].ToArray(), Is.EqualTo(Enumerable.Repeat((byte)next, Math.Min(next, 60))));
                Assert.That(received.IsTruncated(i), Is.EqualTo(next > 60));
                received.CopyAddress(i, remote);
                Assert.That(PathOf(remote), Is.EqualTo(client.LocalEndPoint!.ToString()));
            }
            Assert.That(() => received[n], Throws.TypeOf<ArgumentOutOfRangeException>());
            // As it stands, back to where each came from.
            Assert.That(await server.SendAsync(received), Is.EqualTo(n));
        }
        var back = 0;
        batch.Clear();
        while (back < 64)
        {
            var n = await client.ReceiveAsync(batch);
            for (var i = 0; i < n; i++, back++) Assert.That(batch[i].Length, Is.EqualTo(Math.Min(back, 60)));
        }
    });

    [Test]
    public void Batch_FailsAtTheDatagramThatFails() => Run.OnLoop(async () =>
    {
        using var server = Bind();
        using var client = Bind();
        var batch = new DatagramBatch(4, 100);
        batch.Add("a"u8, AddressOf(server));
        batch.Add("b"u8); // nowhere to
        batch.Add("c"u8, AddressOf(server));
        await Expect.Throws<SocketException>(async () => await client.SendAsync(batch));
        Assert.That(batch.Sent, Is.EqualTo(1));
        Assert.That(await server.ReceiveAsync(new byte[10]), Is.EqualTo(1));
        Assert.That(server.TryReceive(new byte[1], out _), Is.False);
    });

    [Test]
    public void Batch_WaitsForTheFirst_AndForRoom() => Run.OnLoop(async () =>
    {
        var path = Pair.TemporaryPath();
        using var server = AsyncSocket.BindDatagram(new UnixDomainSocketEndPoint(path));
        using var client = AsyncSocket.ConnectDatagram(new UnixDomainSocketEndPoint(path));
        var received = new DatagramBatch(1000, 10);
        var receiving = server.ReceiveAsync(received);
        Assert.That(receiving.IsCompleted, Is.False);
        var batch = new DatagramBatch(1000, 10);
        for (var i = 0; i < 1000; i++) batch.Add(BitConverter.GetBytes(i));
        var sending = client.SendAsync(batch).AsTask(); // more than a Unix-domain socket queues
        Assert.That(sending.IsCompleted, Is.False);
        var next = 0;
        for (var n = await receiving; ; n = await server.ReceiveAsync(received))
        {
            for (var i = 0; i < n; i++) Assert.That(BitConverter.ToInt32(received[i].Span), Is.EqualTo(next++));
            if (next == 1000) break;
        }
        Assert.That(await sending, Is.EqualTo(1000));
    });

    [Test]
    public void Batch_BadArguments()
    {
        Assert.That(() => new DatagramBatch(0, 10), Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new DatagramBatch(1025, 10), Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new DatagramBatch(1, 0), Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new DatagramBatch(1, 70000), Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new DatagramBatch(1, 3).Add(new byte[4]), Throws.ArgumentException);
        Assert.That(() => new DatagramBatch(1, 3).CopyAddress(0, new SocketAddress(AddressFamily.InterNetwork)), Throws.TypeOf<ArgumentOutOfRangeException>());
    }

    [Test]
    public void UnixDatagrams_ByPath_RemoveTheirFiles() => Run.OnLoop(async () =>
    {
        var (one, two) = (Pair.TemporaryPath(), Pair.TemporaryPath());
        using (var server = AsyncSocket.BindDatagram(new UnixDomainSocketEndPoint(one)))
        using (var client = AsyncSocket.ConnectDatagram(new UnixDomainSocketEndPoint(one), new AsyncSocketOptions { LocalEndPoint = new UnixDomainSocketEndPoint(two) }))
        {
            await client.SendAsync("ping"u8.ToArray());
            var remote = new SocketAddress(AddressFamily.Unix);
            Assert.That(await server.ReceiveFromAsync(new byte[10], remote), Is.EqualTo(4));
            await server.SendToAsync("pong!"u8.ToArray(), remote);
            Assert.That(await client.ReceiveAsync(new byte[10]), Is.EqualTo(5));
            Assert.That(File.Exists(one) && File.Exists(two), Is.True);
        }
        Assert.That(File.Exists(one) || File.Exists(two), Is.False);
    });

    [Test]
    public void AbstractAddresses_ForStreamsAndDatagrams() => Run.OnLoop(async () =>
    {
        var name = "\0amy-" + Guid.NewGuid().ToString("N");
        using (var server = AsyncSocket.BindDatagram(new UnixDomainSocketEndPoint(name)))
        using (var client = AsyncSocket.ConnectDatagram(new UnixDomainSocketEndPoint(name)))
        {
            await client.SendAsync("x"u8.ToArray());
            Assert.That(await server.ReceiveAsync(new byte[10]), Is.EqualTo(1));
        }
        using var listener = AsyncSocket.Listen(new UnixDomainSocketEndPoint(name));
        using var connected = await AsyncSocket.ConnectAsync(new UnixDomainSocketEndPoint(name));
        using var accepted = await listener.AcceptAsync();
        await connected.SendAsync("yes"u8.ToArray());
        Assert.That(await accepted.ReceiveAsync(new byte[10]), Is.EqualTo(3));
        Assert.That(listener.LocalEndPoint!.ToString(), Does.StartWith("@amy-"));
    });

    [Test]
    public void Cancel_TakesNoDatagram() => Run.OnLoop(async () =>
    {
        using var a = Bind();
        using var source = new CancellationTokenSource();
        var receiving = a.ReceiveFromAsync(new byte[10], new SocketAddress(AddressFamily.InterNetwork), source.Token);
        source.Cancel();
        await Expect.Throws<OperationCanceledException>(async () => await receiving);
        await a.SendToAsync("x"u8.ToArray(), AddressOf(a));
        Assert.That(await a.ReceiveFromAsync(new byte[10], new SocketAddress(AddressFamily.InterNetwork)), Is.EqualTo(1));
        var again = a.ReceiveMessageAsync(new byte[10], default);
        a.Dispose();
        await Expect.Throws<ObjectDisposedException>(async () => await again);
    });

    [Test]
    public void Dispose_ClosesTheDescriptor() => Run.OnLoop(async () =>
    {
        var before = Descriptors.Settle();
        for (var i = 0; i < 100; i++)
        {
            using var a = Bind();
            await a.SendToAsync("x"u8.ToArray(), AddressOf(a));
        }
        Assert.That(() => AsyncSocket.BindDatagram(new IPEndPoint(IPAddress.Parse("192.0.2.1"), 0)), Throws.TypeOf<SocketException>(), "not ours");
        Assert.That(Descriptors.Count(), Is.EqualTo(before), Descriptors.List());
    });

    [Test]
    public void SecondReceive_IsRefused_AndStreamsAreToo() => Run.OnLoop(async () =>
    {
        using var a = Bind();
        var first = a.ReceiveFromAsync(new byte[10], new SocketAddress(AddressFamily.InterNetwork));
        await Expect.Throws<InvalidOperationException>(async () => await a.ReceiveMessageAsync(new byte[1], default));
        await Expect.Throws<InvalidOperationException>(async () => await a.ReceiveAsync(new DatagramBatch(1, 1)));
        Assert.That(() => a.AsStream(), Throws.TypeOf<NotSupportedException>());
        Assert.That(() => a.AsPipe(), Throws.TypeOf<NotSupportedException>());
        await Expect.Throws<NotSupportedException>(async () => await a.ClosedAsync());
        await a.SendToAsync("x"u8.ToArray(), AddressOf(a));
        Assert.That(await first, Is.EqualTo(1));
    });

    [Test]
    public void Cancel_RacingWithDatagrams_LosesAndDoublesNone() => Run.OnLoop(async () =>
    {
        const int Datagrams = 20_000;
        var path = Pair.TemporaryPath();
        using var server = AsyncSocket.BindDatagram(new UnixDomainSocketEndPoint(path)); // reliable, unlike UDP
        using var client = AsyncSocket.ConnectDatagram(new UnixDomainSocketEndPoint(path));
        CancellationTokenSource? pending = null;
        var done = false;
        var canceller = new Thread(() =>
        {
            while (!Volatile.Read(ref done)) Volatile.Read(ref pending)?.Cancel();
        });
        canceller.Start();
        var sending = Task.Run(async () =>
        {
            for (var i = 0; i < Datagrams; i++) await client.SendAsync(BitConverter.GetBytes(i));
        });
        var (buffer, control, remote) = (new byte[8], new byte[64], new SocketAddress(AddressFamily.Unix));
        var next = 0;
        var cancelled = 0;
        while (next < Datagrams)
        {
            var source = new CancellationTokenSource(); // not disposed: the other thread may be about to cancel it
            Volatile.Write(ref pending, source);
            try
            {
                var n = next % 2 == 0 ? await server.ReceiveFromAsync(buffer, remote, source.Token) : (await server.ReceiveMessageAsync(buffer, control, null, source.Token)).Count;
                Assert.That((n, BitConverter.ToInt32(buffer)), Is.EqualTo((4, next++)));
            }
            catch (OperationCanceledException)
            {
                cancelled++;
            }
            finally
            {
                Volatile.Write(ref pending, null);
            }
        }
        Volatile.Write(ref done, true);
        canceller.Join();
        await sending;
        TestContext.Out.WriteLine($"{cancelled} cancelled");
        Assert.That(cancelled, Is.Positive);
    });
}
