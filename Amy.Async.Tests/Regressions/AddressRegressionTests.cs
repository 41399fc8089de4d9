using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace Amy.Async.Tests.Regressions;

/// <summary>What fuzzing and properties of addresses and control messages have found.</summary>
[TestFixture]
internal sealed class AddressRegressionTests
{
    [DllImport("libc", SetLastError = true)]
    private static extern int bind(SafeHandle socket, byte[] address, int length);

    /// <summary>
    /// unix(7): a path that fills sun_path has no zero behind it, and the kernel tells one byte more than the structure has. No end
    /// point of the platform can be made with such a path, but a peer may have one.
    /// </summary>
    [Test]
    public void RemoteEndPoint_PeersPathOfTheGreatestLength_IsTold() => Run.OnLoop(async () =>
    {
        var folder = Directory.CreateDirectory(Pair.TemporaryPath()).FullName;
        try
        {
            var there = Path.Combine(folder, "c").PadRight(108, 'x');
            using var listener = AsyncSocket.Listen(new UnixDomainSocketEndPoint(Path.Combine(folder, "s")));
            using var peer = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            byte[] address = [(byte)AddressFamily.Unix, 0, .. System.Text.Encoding.ASCII.GetBytes(there)];
            Assert.That(bind(peer.SafeHandle, address, address.Length), Is.Zero);
            peer.Connect(listener.LocalEndPoint!);
            using var server = await listener.AcceptAsync();
            Assert.That(server.RemoteEndPoint?.ToString(), Is.EqualTo(there));
        }
        finally
        {
            Directory.Delete(folder, recursive: true);
        }
    });

    /// <summary>'@' is how an abstract name is shown, and an ordinary letter in a file's.</summary>
    [Test]
    public void Listener_FileWhoseNameBeginsWithAtSign_IsRemovedOnDispose() => Run.OnLoop(() =>
    {
        var name = "@amy-" + Guid.NewGuid().ToString("N")[..8];
        try
        {
            using (AsyncSocket.Listen(new UnixDomainSocketEndPoint(name))) Assert.That(File.Exists(name), Is.True);
            Assert.That(File.Exists(name), Is.False);
        }
        finally
        {
            File.Delete(name);
        }
        return Task.CompletedTask;
    });

    [Test]
    public void SendToAsync_AddressLargerThanAnyIs_IsAnArgumentError_AndTheSocketGoesOn() => Run.OnLoop(async () =>
    {
        using var receiver = AsyncSocket.BindDatagram(new IPEndPoint(IPAddress.Loopback, 0));
        using var sender = AsyncSocket.BindDatagram(new IPEndPoint(IPAddress.Loopback, 0));
        await Expect.Throws<ArgumentException>(async () => await sender.SendToAsync(new byte[1], new SocketAddress(AddressFamily.InterNetwork, 200)));
        var batch = new DatagramBatch(1, 10);
        Assert.Throws<ArgumentException>(() => batch.Add([1], new SocketAddress(AddressFamily.InterNetwork, 200)));
        Assert.That(batch.Count, Is.Zero);
        await sender.SendToAsync(new byte[3], receiver.LocalEndPoint!.Serialize());
        Assert.That(await receiver.ReceiveAsync(new byte[10]), Is.EqualTo(3));
    });

    /// <summary>cmsg(3): a message that does not fit the control buffer is cut, its data too.</summary>
    [Test]
    public void ReceiveMessageAsync_ControlBufferTooSmall_TellsNothingInsteadOfFailing([Range(0, 40)] int room) => Run.OnLoop(async () =>
    {
        using var receiver = AsyncSocket.BindDatagram(new IPEndPoint(IPAddress.Loopback, 0), new AsyncSocketOptions { ReceiveTimestamps = true, ReceivePacketInformation = room % 2 == 0 });
        using var sender = AsyncSocket.ConnectDatagram(receiver.LocalEndPoint!);
        await sender.SendAsync(new byte[5]);
        var message = await receiver.ReceiveMessageAsync(new byte[10], new byte[room]);
        Assert.That(message.Count, Is.EqualTo(5));
        Assert.That(message.Flags.HasFlag(SocketFlags.ControlDataTruncated), Is.EqualTo(room < 32 || room % 2 == 0), "32 bytes hold the time");
        Assert.That(message.Timestamp is null, Is.EqualTo(room < 32));
        Assert.That(message.PacketInformation, Is.Null, "there was never room for both");
        Assert.That(message.Drops, Is.Null);
    });

    [Test]
    public void ReceivedMessage_ControlThatIsNoTime_TellsNothing()
    {
        foreach (var (seconds, nanoseconds) in new[] { (long.MaxValue, 0L), (long.MinValue, 0L), (0L, long.MaxValue), (0L, -1L), (253402300799L, 1_000_000_000L) })
        {
            var control = new byte[32];
            MemoryMarshal.Cast<byte, long>(control.AsSpan())[0] = 32;
            MemoryMarshal.Cast<byte, int>(control.AsSpan())[2] = 1; // SOL_SOCKET
            MemoryMarshal.Cast<byte, int>(control.AsSpan())[3] = 35; // SO_TIMESTAMPNS
            MemoryMarshal.Cast<byte, long>(control.AsSpan())[2] = seconds;
            MemoryMarshal.Cast<byte, long>(control.AsSpan())[3] = nanoseconds;
            Assert.That(new ReceivedMessage(0, 0, control, []).Timestamp, Is.Null);
        }
    }
}
