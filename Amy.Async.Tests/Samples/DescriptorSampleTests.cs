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

    [TestCase(true)]
    [TestCase(false)]
    public void Tail_WhatWasWrittenBeforeTheEnd_IsTold(bool deleted) => Run.OnLoop(async () =>
    {
        var path = Path.GetTempFileName();
        File.WriteAllText(path, "one\n");
        var lines = Tail.FollowAsync(path).GetAsyncEnumerator();
        async Task<string?> Next() => await lines.MoveNextAsync() ? lines.Current : null;
        Assert.That(await Next(), Is.EqualTo("one"));
        var next = Next();
        // Both before the loop looks: they are told together.
        File.AppendAllText(path, "last\nwords");
        if (deleted) File.Delete(path);
        else File.Move(path, path + ".old");
        Assert.That(await next, Is.EqualTo("last"));
        Assert.That(await Next(), Is.EqualTo("words"), "the last line needs no end");
        Assert.That(await Next(), Is.Null);
        await lines.DisposeAsync();
        File.Delete(path + ".old");
    });

    [Test]
    public void Tail_ShrunkWithHalfALineRead_BeginsAnew() => Run.OnLoop(async () =>
    {
        var path = Path.GetTempFileName();
        File.WriteAllText(path, "one\nabc");
        var lines = Tail.FollowAsync(path).GetAsyncEnumerator();
        Assert.That(await lines.MoveNextAsync(), Is.True);
        var next = lines.MoveNextAsync();
        File.WriteAllText(path, "x\n");
        Assert.That(await next, Is.True);
        Assert.That(lines.Current, Is.EqualTo("x"));
        await lines.DisposeAsync();
        File.Delete(path);
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
    public void Serial_UnpluggedDuringATimeOut_Ends()
    {
        var time = new VirtualTimeProvider();
        Run.OnLoop(async () =>
        {
            var name = new byte[128];
            Assert.That(openpty(out var m, out var s, name, 0, 0), Is.Zero);
            using var port = SerialPortEcho.Open(Encoding.ASCII.GetString(name).TrimEnd('\0'));
            new SafeFileHandle(s, true).Dispose();
            var running = SerialPortEcho.RunAsync(port, TimeSpan.FromSeconds(5));
            // Both before the loop looks at either: the time-out is found first, and its question fails.
            time.Advance(TimeSpan.FromSeconds(6));
            new SafeFileHandle(m, true).Dispose();
            await running;
        }, new EventLoopOptions { TimeProvider = time });
    }

    [Test]
    public void ProcessExit_OfWhatEndsAtOnce() => Run.OnLoop(async () =>
    {
        for (var i = 0; i < 100; i++) Assert.That(await ProcessExit.RunAsync("true", []), Is.Zero);
        Assert.That(await ProcessExit.RunAsync("/bin/sh", ["-c", "exit 3"]), Is.EqualTo(3));
        await Expect.Throws<Win32Exception>(() => ProcessExit.RunAsync("/no/such", []));
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
    [TestCase(0)]
    [TestCase(1)]
    [TestCase(1, true)]
    public void GracefulShutdown_OnSigterm_LetsTheConnectedEnd(int connections, bool hurry = false) => Run.OnThread(() => Run.Wait(Task.Run(async () =>
    {
        using var process = SampleProgramTests.Start("GracefulShutdown", "--port", "0");
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
            if (connections > 0)
            {
                await client.ConnectAsync(IPAddress.Loopback, port);
                await Trip();
            }
            Assert.That(kill(process.Id, 15), Is.Zero);
            Assert.That(await process.StandardOutput.ReadLineAsync().WaitAsync(Run.Limit), Does.StartWith($"SIGTERM: no more connections, {connections}"));
            if (connections > 0)
            {
                await Trip();
                using var late = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
                Assert.That(() => late.Connect(IPAddress.Loopback, port), Throws.TypeOf<SocketException>());
                if (hurry) Assert.That(kill(process.Id, 15), Is.Zero);
                else client.Shutdown(SocketShutdown.Send);
            }
            Assert.That(await process.StandardOutput.ReadLineAsync().WaitAsync(Run.Limit), Is.EqualTo(hurry ? "At once, then: the rest is closed." : "All have ended."));
            await process.WaitForExitAsync().WaitAsync(Run.Limit);
            Assert.That(process.ExitCode, Is.EqualTo(hurry ? 1 : 0));
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
        var patience = new TaskCompletionSource();
        var stopping = server.StopAsync(patience.Task);
        await client.SendAsync(new byte[1]);
        Assert.That(await client.ReceiveAsync(new byte[1]), Is.EqualTo(1), "who is connected goes on");
        Assert.That(stopping.IsCompleted, Is.False);
        patience.SetResult();
        Assert.That(await stopping, Is.False);
        Assert.That(await client.ReceiveAsync(new byte[1]), Is.Zero);
        await running;
    });
}
