#if !AMY_NETSTANDARD
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text.RegularExpressions;
using Amy.Async.Tests.Samples;

namespace Amy.Async.Tests.Faults;

/// <summary>The echo server as a process of its own, while its system calls fail below all of the library's code, or descriptors run out.</summary>
[TestFixture]
internal sealed partial class OutsideFaultTests
{
    [GeneratedRegex(@"127\.0\.0\.1:(\d+)")]
    private static partial Regex Address();

    private static readonly string s_echo = SampleProgramTests.Program("Echo");

    private static async Task<(Process Process, IPEndPoint EndPoint)> ServeAsync(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(RealProgram.Find(program), arguments) { RedirectStandardOutput = true };
        start.Environment["DOTNET_EnableDiagnostics"] = "0"; // it has sockets of its own
        var process = Process.Start(start)!;
        var line = await process.StandardOutput.ReadLineAsync().WaitAsync(Run.Limit) ?? throw new EndOfStreamException("The server ended.");
        return (process, IPEndPoint.Parse(Address().Match(line).Value));
    }

    private static void End(Process process)
    {
        process.Kill();
        process.WaitForExit();
        process.Dispose();
    }

    private static async Task<Socket> ConnectAsync(IPEndPoint endPoint)
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        await socket.ConnectAsync(endPoint).WaitAsync(Run.Limit);
        return socket;
    }

    private static async Task ExchangeAsync(Socket socket, int size, int seed)
    {
        var data = new byte[size];
        new Random(seed).NextBytes(data);
        var sending = socket.SendAsync(data);
        var back = new byte[size];
        for (var got = 0; got < size;)
        {
            var n = await socket.ReceiveAsync(back.AsMemory(got)).AsTask().WaitAsync(Run.Limit);
            if (n == 0) throw new SocketException((int)SocketError.ConnectionReset);
            got += n;
        }
        Assert.That(await sending, Is.EqualTo(size));
        Assert.That(back.AsSpan().SequenceEqual(data), Is.True);
    }

    /// <summary>
    /// What retries by itself cannot be interrupted from within the process: this shows that the retries are there, of a program that
    /// makes each of these calls and says whether they did what they should. (Not read(2), open(2) and close(2): what loads
    /// the program does not retry those.)
    /// </summary>
    [TestCase("recvmsg", "sendmsg")]
    [TestCase("recvmmsg", "sendmmsg")]
    [TestCase("recvfrom", "sendto")]
    [TestCase("sendfile", "poll", "write")]
    public void Strace_EveryCallInterrupted_DoesItAgain(params string[] calls) => Run.Wait(Task.Run(async () =>
    {
        var log = Pair.TemporaryPath();
        try
        {
            var (code, output) = await RealProgram.RunAsync("strace", null,
                ["-f", "-qq", "-o", log, "-e", $"trace={string.Join(",", calls)}", .. calls.SelectMany(c => new[] { "-e", $"inject={c}:error=EINTR:when=1+2" }), "dotnet", SampleProgramTests.Program("PlatformCheck"), "run"]);
            Assert.That(code, Is.Zero, output);
            var injected = File.ReadLines(log).Where(l => l.Contains("(INJECTED)")).ToList();
            foreach (var call in calls) Assert.That(injected.Count(l => l.Contains(call + "(") || l.Contains(call + " resumed")), Is.Positive, call);
        }
        finally
        {
            File.Delete(log);
        }
    }));

    /// <summary>Likewise under an echo server, and what only a server meets.</summary>
    [TestCase("recvfrom:error=EINTR:when=2+3", "sendto:error=EINTR:when=2+3", "accept4:error=EINTR:when=1+2", "epoll_wait:error=EINTR:when=2+3")]
    [TestCase("accept4:error=EMFILE:when=1+2", "epoll_pwait2:error=EINTR:when=1+2")]
    [TestCase("accept4:error=ENOBUFS:when=1+3")]
    [TestCase("accept4:error=ECONNABORTED:when=1+2")]
    [TestCase("accept4:error=ENFILE:when=1+2", "epoll_pwait2:error=EPERM:when=1+1")]
    [TestCase("accept4:error=ENOMEM:when=1+2", "epoll_pwait2:error=ENOSYS:when=1+1")]
    [TestCase("recvfrom:delay_exit=3000:when=1+5", "epoll_wait:delay_enter=3000:when=1+5")]
    public void Strace_FaultsThatNobodyIsToSee_EveryByteComesBack(params string[] inject) => Run.Wait(Task.Run(() => UnderStrace(inject, async endPoint =>
    {
        const int Connections = 10;
        await Task.WhenAll(Enumerable.Range(0, Connections).Select(async n =>
        {
            using var socket = await ConnectAsync(endPoint);
            for (var i = 0; i < 30; i++) await ExchangeAsync(socket, 1 + i * 977, n * 100 + i);
            socket.Shutdown(SocketShutdown.Send);
            Assert.That(await socket.ReceiveAsync(new byte[1]), Is.Zero);
        }));
    })));

    [TestCase("recvfrom:error=ECONNRESET:when=20+20")]
    [TestCase("recvfrom:error=ETIMEDOUT:when=20+20")]
    [TestCase("sendto:error=EPIPE:when=20+20")]
    [TestCase("sendto:error=ENOBUFS:when=20+20")]
    public void Strace_ConnectionsFail_OnlyTheyDo(string inject) => Run.Wait(Task.Run(() => UnderStrace([inject], async endPoint =>
    {
        var failed = 0;
        for (var n = 0; n < 30; n++)
        {
            using var socket = await ConnectAsync(endPoint);
            try
            {
                for (var i = 0; i < 5; i++) await ExchangeAsync(socket, 200, n * 100 + i);
            }
            catch (SocketException)
            {
                failed++;
            }
        }
        Assert.That(failed, Is.InRange(1, 25));
    })));

    private static async Task UnderStrace(string[] inject, Func<IPEndPoint, Task> test)
    {
        if (inject.Any(i => i.StartsWith("epoll_pwait2", StringComparison.Ordinal))) TestPoller.SkipOnLibkqueue("the server in a process of its own has no such call");
        var log = Pair.TemporaryPath();
        try
        {
            var calls = string.Join(",", inject.Select(i => i[..i.IndexOf(':', StringComparison.Ordinal)]));
            // -D: the server is our child, the tracer is not; killing the server ends both.
            var (process, endPoint) = await ServeAsync("strace",
                ["-D", "-f", "-qq", "--seccomp-bpf", "-o", log, "-e", $"trace={calls}", .. inject.SelectMany(i => new[] { "-e", $"inject={i}" }), "dotnet", s_echo, "--port", "0"]);
            try
            {
                await test(endPoint);
            }
            finally
            {
                End(process);
            }
            var injected = File.ReadLines(log).Where(l => l.Contains("(INJECTED)") || l.Contains("(DELAYED)")).ToList();
            foreach (var call in calls.Split(','))
                Assert.That(injected.Count(l => l.Contains(call + "(") || l.Contains(call + " resumed")), Is.Positive, call);
        }
        finally
        {
            File.Delete(log);
        }
    }

    [Test]
    public void DescriptorLimit_Reached_ExistingConnectionsAreServedAndAcceptingGoesOnByItself() => Run.Wait(Task.Run(async () =>
    {
        const int Limit = 150, Connections = 300;
        var (process, endPoint) = await ServeAsync("sh", "-c", $"ulimit -n {Limit} && exec dotnet \"$0\" --port 0", s_echo);
        var sockets = new List<Socket>();
        try
        {
            using var existing = await ConnectAsync(endPoint);
            await ExchangeAsync(existing, 100, 1);
            for (var i = 0; i < Connections; i++) sockets.Add(await ConnectAsync(endPoint)); // the backlog takes what the server does not
            await Task.WhenAll(sockets.Select(s => s.SendAsync(new byte[] { 42 })));
            Run.Until(() => Directory.GetFileSystemEntries($"/proc/{process.Id}/fd").Length >= Limit, "the server has come to its limit");
            for (var i = 0; i < 100; i++) await ExchangeAsync(existing, 10_000, i);
            Assert.That(sockets.Any(s => s.Available == 0), Is.True, "some are not accepted");

            // As descriptors come back, those that waited are served: each of them, in the end.
            foreach (var socket in sockets)
            {
                Assert.That(await socket.ReceiveAsync(new byte[1].AsMemory()).AsTask().WaitAsync(Run.Limit), Is.EqualTo(1));
                socket.Dispose();
            }
            for (var i = 0; i < 10; i++)
            {
                await ExchangeAsync(existing, 1000, i);
                using var another = await ConnectAsync(endPoint);
                await ExchangeAsync(another, 1000, i);
            }
        }
        finally
        {
            foreach (var socket in sockets) socket.Dispose();
            End(process);
        }
    }));
}
#endif
