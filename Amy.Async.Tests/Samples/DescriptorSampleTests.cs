using System.ComponentModel;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Text;
using Amy.Async.Samples;
using Microsoft.Win32.SafeHandles;

namespace Amy.Async.Tests.Samples;

/// <summary>The samples with descriptors that are no sockets, and the one that ends on SIGTERM.</summary>
[TestFixture]
internal sealed class DescriptorSampleTests
{
    [DllImport("libc", SetLastError = true)]
    private static extern int openpty(out int master, out int slave, byte[] name, nint termios, nint size);

    [DllImport("libc", SetLastError = true)]
    private static extern int kill(int pid, int signal);

    [Test]
    public void Tail_TellsWhatIsThere_WhatIsAppended_AndEndsWithTheFile() => Run.OnLoop(async () =>
    {
        var path = Path.GetTempFileName();
        File.WriteAllText(path, "one\ntwo\n");
        var lines = Tail.FollowAsync(path).GetAsyncEnumerator();
        async Task<string?> Next() => await lines.MoveNextAsync() ? lines.Current : null;
        Assert.That(await Next(), Is.EqualTo("one"));
        Assert.That(await Next(), Is.EqualTo("two"));
        for (var i = 0; i < 20; i++)
        {
            var next = Next();
            Assert.That(next.IsCompleted, Is.False);
            File.AppendAllText(path, $"line {i} in ");
            File.AppendAllText(path, "two parts\n");
            Assert.That(await next, Is.EqualTo($"line {i} in two parts"));
        }
        var cut = Next();
        File.WriteAllText(path, "fresh\n"); // shrunk: from its start
        Assert.That(await cut, Is.EqualTo("fresh"));
        var end = Next();
        File.Move(path, path + ".old");
        Assert.That(await end, Is.Null);
        await lines.DisposeAsync();
        File.Delete(path + ".old");
    });

    [Test]
    public void Tail_IsCancelled() => Run.OnLoop(async () =>
    {
        var path = Path.GetTempFileName();
        using var source = new CancellationTokenSource();
        var next = Tail.FollowAsync(path, source.Token).GetAsyncEnumerator().MoveNextAsync();
        source.Cancel();
        await Expect.Throws<OperationCanceledException>(async () => await next);
        File.Delete(path);
    });

    [Test]
    public void Serial_EchoesAndAsksAfterSilence_UntilTheOtherEndHangsUp() => Run.OnLoop(async () =>
    {
        var name = new byte[128];
        Assert.That(openpty(out var m, out var s, name, 0, 0), Is.Zero);
        var master = AsyncFd.FromDescriptor(m, ownsHandle: true);
        using var port = SerialPortEcho.Open(Encoding.ASCII.GetString(name).TrimEnd('\0'));
        new SafeFileHandle(s, true).Dispose(); // the sample has opened its own
        var running = SerialPortEcho.RunAsync(port, TimeSpan.FromMilliseconds(100));
        var buffer = new byte[100];
        var n = 0;
        while (n == 0 || buffer[0] == '?') n = await Send("bytes\r\nas they are\u0003");
        Assert.That(Encoding.ASCII.GetString(buffer, 0, n), Does.StartWith("bytes\r\nas they are\u0003"), "raw: nothing edited");
        while (buffer[0] != '?') await master.ReadAsync(buffer); // silence
        master.Dispose();
        await running;
        Assert.That(() => SerialPortEcho.Open("/dev/no-such-terminal"), Throws.TypeOf<Win32Exception>());
        Assert.That(() => SerialPortEcho.Open("/dev/null"), Throws.TypeOf<Win32Exception>(), "no terminal");

        async Task<int> Send(string text)
        {
            await master.WriteAsync(Encoding.ASCII.GetBytes(text));
            return await master.ReadAsync(buffer);
        }
    });

    [Test]
    public void ProcessExit_CompletesWhenItEnds() => Run.OnLoop(async () =>
    {
        using var child = Process.Start(new ProcessStartInfo("/bin/sh", ["-c", "read x; exit 4"]) { RedirectStandardInput = true })!;
        using var source = new CancellationTokenSource();
        var cancelled = ProcessExit.WaitAsync(child.Id, source.Token);
        source.Cancel();
        await Expect.Throws<OperationCanceledException>(() => cancelled);
        var waiting = ProcessExit.WaitAsync(child.Id);
        Assert.That(waiting.IsCompleted, Is.False);
        child.StandardInput.Close();
        await waiting;
        child.WaitForExit();
        Assert.That(child.ExitCode, Is.EqualTo(4));
        await Expect.Throws<Win32Exception>(() => ProcessExit.WaitAsync(child.Id));
    });

#if !AMY_NETSTANDARD
    [TestCase(true)]
    [TestCase(false)]
    public void GracefulShutdown_OnSigterm_LetsTheConnectedEnd(bool connected) => Run.OnThread(() => Run.Wait(Task.Run(async () =>
    {
        var assembly = typeof(DescriptorSampleTests).Assembly.Location;
        var configuration = Path.GetFileName(Path.GetDirectoryName(Path.GetDirectoryName(assembly)))!;
        var sample = Path.Combine(Repository.Root, "samples", "GracefulShutdown", "bin", configuration, "net10.0", "GracefulShutdown.dll");
        using var process = Process.Start(new ProcessStartInfo("dotnet", [sample, "--port", "0"]) { RedirectStandardOutput = true })!;
        try
        {
            var first = await process.StandardOutput.ReadLineAsync().WaitAsync(Run.Limit);
            var port = int.Parse(first!.Split(':')[^1], System.Globalization.CultureInfo.InvariantCulture);
            using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            var buffer = new byte[10];
            async Task Trip()
            {
                await client.SendAsync("abc"u8.ToArray());
                Assert.That(await client.ReceiveAsync(buffer), Is.EqualTo(3));
            }
            if (connected)
            {
                await client.ConnectAsync(IPAddress.Loopback, port);
                await Trip();
            }
            Assert.That(kill(process.Id, 15), Is.Zero);
            Assert.That(await process.StandardOutput.ReadLineAsync().WaitAsync(Run.Limit), Does.StartWith($"SIGTERM: no more connections, {(connected ? 1 : 0)}"));
            if (connected)
            {
                await Trip();
                using var late = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
                Assert.That(() => late.Connect(IPAddress.Loopback, port), Throws.TypeOf<SocketException>());
                client.Shutdown(SocketShutdown.Send);
            }
            await process.WaitForExitAsync().WaitAsync(Run.Limit);
            Assert.That(process.ExitCode, Is.Zero);
        }
        finally
        {
            if (!process.HasExited) process.Kill();
        }
    })));
#endif

    [Test]
    public void DrainingServer_WhenTimeIsUp_ClosesTheRest() => Run.OnLoop(async () =>
    {
        var server = new DrainingServer(new IPEndPoint(IPAddress.Loopback, 0));
        var running = server.RunAsync();
        using var client = await AsyncSocket.ConnectAsync(server.EndPoint);
        await client.SendAsync(new byte[1]);
        Assert.That(await client.ReceiveAsync(new byte[1]), Is.EqualTo(1));
        Assert.That(await server.StopAsync(TimeSpan.FromMilliseconds(30)), Is.False);
        Assert.That(await client.ReceiveAsync(new byte[1]), Is.Zero);
        await running;
    });
}
