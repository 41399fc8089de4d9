using System.Diagnostics;
using System.IO.Pipes;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace Amy.Async.Samples;

/// <summary>
/// Each part of the kernel's interface that has numbers or a layout of its own, once: what to run first on a platform that is
/// new to the library.
/// </summary>
/// <param name="report">Gets a line for each thing that is as it should be.</param>
/// <param name="emulated">Under qemu-user, which knows neither time stamps nor packet information.</param>
public sealed class KernelChecks(Action<string> report, bool emulated = false)
{
    /// <exception cref="InvalidOperationException">Something is not as it should be.</exception>
    public async Task RunAsync()
    {
        await StreamAsync(IPAddress.Loopback);
        if (Socket.OSSupportsIPv6) await StreamAsync(IPAddress.IPv6Loopback);
        await RefusedAsync();
        await DatagramsAsync();
        await DescriptorsAsync();
        await PipeAsync();
        await DelayAsync();
    }

    private void Check(bool condition, string what)
    {
        if (!condition) throw new InvalidOperationException($"Not as it should be: {what}");
        report(what);
    }

    private async Task StreamAsync(IPAddress address)
    {
        using var listener = AsyncSocket.Listen(new IPEndPoint(address, 0));
        var accepting = listener.AcceptAsync().AsTask();
        using var client = await AsyncSocket.ConnectAsync(listener.LocalEndPoint!);
        using var server = await accepting;
        Check(server.RemoteEndPoint!.Equals(client.LocalEndPoint), $"addresses: {client.LocalEndPoint} and {client.RemoteEndPoint}");

        var buffer = new byte[8192];
        for (var i = 0; i < 1000; i++)
        {
            await client.SendAsync(buffer.AsMemory(0, 100));
            for (var got = 0; got < 100;) got += await server.ReceiveAsync(buffer);
            await server.SendAsync(buffer.AsMemory(0, 1));
            if (await client.ReceiveAsync(buffer) != 1) throw new InvalidOperationException("A byte did not come back.");
        }
        report("a thousand round trips");

        var path = Path.GetTempFileName();
        try
        {
            await File.WriteAllBytesAsync(path, new byte[300_000]);
            using var file = File.OpenHandle(path);
            var sending = server.SendFileAsync(file).AsTask();
            var got = 0;
            while (got < 300_000) got += await client.ReceiveAsync(buffer);
            Check(await sending == 300_000, "sendfile");
        }
        finally
        {
            File.Delete(path);
        }
        server.Shutdown(SocketShutdown.Send);
        Check(await client.ReceiveAsync(buffer) == 0, "the end of a stream");
    }

    private async Task RefusedAsync()
    {
        int port;
        using (var gone = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0))) port = ((IPEndPoint)gone.LocalEndPoint!).Port;
        var error = SocketError.Success;
        try
        {
            using var client = await AsyncSocket.ConnectAsync(new IPEndPoint(IPAddress.Loopback, port));
        }
        catch (SocketException e)
        {
            error = e.SocketErrorCode;
        }
        Check(error == SocketError.ConnectionRefused, "an error's number");
    }

    private async Task DatagramsAsync()
    {
        var options = new AsyncSocketOptions { ReceiveTimestamps = !emulated, ReceivePacketInformation = !emulated };
        using var receiver = AsyncSocket.BindDatagram(new IPEndPoint(IPAddress.Loopback, 0), options);
        using var sender = AsyncSocket.BindDatagram(new IPEndPoint(IPAddress.Loopback, 0));
        var to = receiver.LocalEndPoint!.Serialize();
        await sender.SendToAsync(new byte[3], to);
        var from = new SocketAddress(AddressFamily.InterNetwork);
        var message = await receiver.ReceiveMessageAsync(new byte[10], new byte[256], from);
        Check(message.Count == 3 && new IPEndPoint(0, 0).Create(from).Equals(sender.LocalEndPoint), "a datagram and its sender");
        if (!emulated)
        {
            Check(message.Timestamp is { } time && (DateTimeOffset.UtcNow - time).Duration() < TimeSpan.FromMinutes(1), $"its time stamp: {message.Timestamp}");
            Check(IPAddress.Loopback.Equals(message.PacketInformation?.Address), $"where it arrived: {message.PacketInformation}");
        }

        var outgoing = new DatagramBatch(8, 100);
        for (var i = 0; i < 8; i++) outgoing.Add(new byte[i], to);
        Check(await sender.SendAsync(outgoing) == 8, "a batch of datagrams sent");
        var incoming = new DatagramBatch(8, 100);
        var count = 0;
        while (count < 8) count += await receiver.ReceiveAsync(incoming);
        Check(count == 8, "and received");
    }

    private async Task DescriptorsAsync()
    {
        var path = Path.Combine(Path.GetTempPath(), $"amy-check-{Environment.ProcessId}");
        using var listener = AsyncSocket.Listen(new UnixDomainSocketEndPoint(path));
        var accepting = listener.AcceptAsync().AsTask();
        using var client = await AsyncSocket.ConnectAsync(new UnixDomainSocketEndPoint(path));
        using var server = await accepting;

        var name = Path.GetTempFileName();
        try
        {
            await File.WriteAllTextAsync(name, "the same file");
            using (var file = File.OpenHandle(name)) await client.SendDescriptorsAsync(new byte[1], new SafeHandle[] { file });
            var message = await server.ReceiveMessageAsync(new byte[1], new byte[256]);
            Check(message.Descriptors.Count == 1, "a descriptor that is passed");
            using var received = message.Descriptors[0];
            var text = new byte[20];
            Check(RandomAccess.Read(received, text, 0) == 13 && text.AsSpan(0, 13).SequenceEqual("the same file"u8), "is of the same file");
        }
        finally
        {
            File.Delete(name);
        }
    }

    private async Task PipeAsync()
    {
        using var pipe = new AnonymousPipeServerStream(PipeDirection.Out);
        using var reader = new AsyncFd(new SafeFileHandle(pipe.ClientSafePipeHandle.DangerousGetHandle(), ownsHandle: false), ownsHandle: false);
        var reading = reader.ReadAsync(new byte[10]).AsTask();
        pipe.Write([1, 2]);
        Check(await reading == 2, "a pipe");
    }

    private async Task DelayAsync()
    {
        var delay = TimeSpan.FromMilliseconds(20.5);
        var before = Stopwatch.GetTimestamp();
        await EventLoop.Current!.Delay(delay);
        var took = Stopwatch.GetElapsedTime(before);
        Check(took >= delay, $"a delay of {delay.TotalMilliseconds} ms took {took.TotalMilliseconds:0.0} ms");
    }
}
