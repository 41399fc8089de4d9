#if !AMY_NETSTANDARD
using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.RegularExpressions;

namespace Amy.Async.Tests.Samples;

/// <summary>The samples as programs: what they say without arguments, that servers serve and end, and that failures are a line.</summary>
[TestFixture]
internal sealed partial class SampleProgramTests
{
    [DllImport("libc", SetLastError = true)]
    private static extern int kill(int pid, int signal);

    [DllImport("libc", SetLastError = true)]
    private static extern int mkfifo(byte[] path, uint mode);

    [GeneratedRegex(@"127\.0\.0\.1:(\d+)")]
    private static partial Regex Address();

    /// <summary>A sample's assembly, for <c>dotnet</c>.</summary>
    internal static string Program(string sample) => Repository.Program(Path.Combine("samples", sample));

    internal static Process Start(string sample, params string[] arguments) => Start(sample, default, arguments);

    private static Process Start(string sample, (string? Name, string Value) variable, string[] arguments)
    {
        var start = new ProcessStartInfo("dotnet", [Program(sample), .. arguments]) { RedirectStandardOutput = true, RedirectStandardError = true };
        if (variable.Name is not null) start.Environment[variable.Name] = variable.Value;
        return Process.Start(start)!;
    }

    private static async Task<(int ExitCode, string Output, string Errors)> RunAsync(string sample, params string[] arguments)
    {
        using var process = Start(sample, arguments);
        try
        {
            var (output, errors) = (process.StandardOutput.ReadToEndAsync(), process.StandardError.ReadToEndAsync());
            await process.WaitForExitAsync().WaitAsync(Run.Limit);
            return (process.ExitCode, await output, await errors);
        }
        finally
        {
            if (!process.HasExited) process.Kill();
        }
    }

    private static void Do(Func<Task> test) => Run.OnThread(() => Run.Wait(Task.Run(test)));

    private static IEnumerable<string> All() => Directory.GetDirectories(Path.Combine(Repository.Root, "samples")).Select(f => Path.GetFileName(f)!).Order();

    [TestCaseSource(nameof(All))]
    public void WithoutArguments_TellsWhichItTakes(string sample) => Do(async () =>
    {
        var (code, output, errors) = await RunAsync(sample);
        Assert.That((code, output), Is.EqualTo((2, "")), errors);
        Assert.That(errors, Does.Match($"^usage: {sample} .+\n$"));
    });

    [Test]
    public void PlatformCheck_OnThisPlatform_FindsAllAsItShouldBe() => Do(async () =>
    {
        var (code, output, errors) = await RunAsync("PlatformCheck", "run");
        Assert.That((code, errors), Is.EqualTo((0, "")), output);
        Assert.That(output, Does.Contain("sendfile").And.Contain("is of the same file").And.Contain("ms took"));
    });

    [TestCase("Chat", "--port", "0")]
    [TestCase("Echo", "--port", "0")]
    [TestCase("FromSocketAsyncEventArgs", "before", "--port", "0")]
    [TestCase("FromSocketAsyncEventArgs", "after", "--port", "0")]
    [TestCase("GracefulShutdown", "--port", "0")]
    [TestCase("HostedService", "--port", "0")]
    [TestCase("HttpEcho", "--port", "0")]
    [TestCase("MultithreadedServer", "--port", "0", "--workers", "1")]
    [TestCase("Resp", "--port", "0")]
    [TestCase("TcpProxy", "--port", "0", "--to", "127.0.0.1:9")]
    [TestCase("Web", "--port", "0")]
    public void Server_SaysWhereItListens_AndEndsOnSigterm(string sample, params string[] arguments) => Do(async () =>
    {
        using var process = Start(sample, arguments);
        try
        {
            var errors = process.StandardError.ReadToEndAsync();
            var port = 0;
            while (port == 0 && await process.StandardOutput.ReadLineAsync().WaitAsync(Run.Limit) is { } line)
                if (Address().Match(line) is { Success: true } match) port = int.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture);
            using (var client = new TcpClient()) await client.ConnectAsync("127.0.0.1", port);
            Assert.That(kill(process.Id, 15), Is.Zero);
            await process.StandardOutput.ReadToEndAsync().WaitAsync(Run.Limit);
            await process.WaitForExitAsync().WaitAsync(Run.Limit);
            Assert.That((process.ExitCode, await errors), Is.EqualTo((0, "")));
        }
        finally
        {
            if (!process.HasExited) process.Kill();
        }
    });

    [TestCase("Chat", "--port", "P")]
    [TestCase("Echo", "--port", "P")]
    [TestCase("FromSocketAsyncEventArgs", "before", "--port", "P")]
    [TestCase("FromSocketAsyncEventArgs", "after", "--port", "P")]
    [TestCase("GracefulShutdown", "--port", "P")]
    [TestCase("HostedService", "--port", "P")]
    [TestCase("HttpEcho", "--port", "P")]
    [TestCase("MultithreadedServer", "--port", "P", "--workers", "1")]
    [TestCase("RequestClient", "--port", "P")]
    [TestCase("Resp", "--port", "P")]
    [TestCase("TcpProxy", "--port", "P", "--to", "127.0.0.1:9")]
    [TestCase("Web", "--port", "P")]
    public void Server_WhosePortIsInUse_SaysSo(string sample, params string[] arguments) => Do(async () =>
    {
        using var taken = Pair.ListenPlain();
        var port = ((System.Net.IPEndPoint)taken.LocalEndPoint!).Port.ToString(CultureInfo.InvariantCulture);
        var (code, _, errors) = await RunAsync(sample, [.. arguments.Select(a => a == "P" ? port : a)]);
        Assert.That(code, Is.EqualTo(1), errors);
        Assert.That(errors, Does.Match("^.*in use.*\n$"));
    });

    // A loop, its thread pool and the clients' connections on a runtime that knows of one processor: other waits, other orders.
    [TestCase("--port", "0")]
    [TestCase("--port", "0", "--inline")]
    public void Web_OnOneProcessor_ServesAndEnds(params string[] arguments) => Do(async () =>
    {
        using var process = Start("Web", ("DOTNET_PROCESSOR_COUNT", "1"), arguments);
        try
        {
            var port = "";
            while (port.Length == 0 && await process.StandardOutput.ReadLineAsync().WaitAsync(Run.Limit) is { } line)
                if (Address().Match(line) is { Success: true } match) port = match.Groups[1].Value;
            using var client = new HttpClient();
            for (var round = 0; round < 20; round++)
            {
                var answers = await Task.WhenAll(Enumerable.Range(0, 16).Select(_ => client.GetStringAsync(new Uri($"http://127.0.0.1:{port}/")))).WaitAsync(Run.Limit);
                Assert.That(answers, Is.All.EqualTo("hello from the loop\n"));
            }
            Assert.That(kill(process.Id, 15), Is.Zero);
            await process.StandardOutput.ReadToEndAsync().WaitAsync(Run.Limit);
            await process.WaitForExitAsync().WaitAsync(Run.Limit);
            Assert.That(process.ExitCode, Is.Zero);
        }
        finally
        {
            if (!process.HasExited) process.Kill();
        }
    });

    [Test]
    public void Echo_OnAUnixPath_LeavesNoFile_AndSaysWhenThereIsOne() => Do(async () =>
    {
        var path = Pair.TemporaryPath();
        using var process = Start("Echo", "--unix", path);
        try
        {
            Assert.That(await process.StandardOutput.ReadLineAsync().WaitAsync(Run.Limit), Does.Contain(path));
            Assert.That(File.Exists(path), Is.True);
            Assert.That(kill(process.Id, 15), Is.Zero);
            await process.WaitForExitAsync().WaitAsync(Run.Limit);
            Assert.That(process.ExitCode, Is.Zero);
        }
        finally
        {
            if (!process.HasExited) process.Kill();
        }
        Assert.That(File.Exists(path), Is.False);
        await File.WriteAllTextAsync(path, "");
        var (code, _, errors) = await RunAsync("Echo", "--unix", path);
        File.Delete(path);
        Assert.That(code, Is.EqualTo(1), errors);
        Assert.That(errors, Does.Match("^.*in use.*\n$"));
    });

    [TestCase("MultithreadedServer", "--port", "0", "--workers", "0")]
    [TestCase("MultithreadedServer", "--port", "0", "--workers", "-1")]
    [TestCase("MultithreadedServer", "abc")]
    [TestCase("Echo", "--unix", "")]
    public void WrongArguments_TellsWhichItTakes(string sample, params string[] arguments) => Do(async () =>
    {
        var (code, _, errors) = await RunAsync(sample, arguments);
        Assert.That(code, Is.EqualTo(2), errors);
        Assert.That(errors, Does.StartWith("usage: "));
    });

    [TestCase("SerialEcho", "/dev/null")]
    [TestCase("SerialEcho", "/no/such")]
    [TestCase("TailFollow", "/no/such")]
    [TestCase("TailFollow", "/tmp")]
    [TestCase("TailFollow", "FIFO")]
    [TestCase("TailFollow", "LONG")]
    [TestCase("WaitForProcess", "/no/such")]
    public void WhatCannotBeDone_IsALine(string sample, string argument) => Do(async () =>
    {
        var path = Pair.TemporaryPath();
        if (argument == "FIFO") Assert.That(mkfifo(Encoding.UTF8.GetBytes(path + '\0'), 0x180), Is.Zero);
        if (argument == "LONG") await File.WriteAllTextAsync(path, new string('x', 2 << 20));
        var (code, output, errors) = await RunAsync(sample, argument is "FIFO" or "LONG" ? path : argument);
        File.Delete(path);
        Assert.That((code, output), Is.EqualTo((1, "")), errors);
        Assert.That(errors, Does.Match("^.+\n$"));
    });

    [Test]
    public void WaitForProcess_HandsTheExitCodeOn() => Do(async () =>
        Assert.That(await RunAsync("WaitForProcess", "/bin/sh", "-c", "exit 7"), Is.EqualTo((7, "/bin/sh ended with 7\n", ""))));

    [Test]
    public void RequestClient_AsksAndEnds() => Do(async () =>
    {
        var (code, output, errors) = await RunAsync("RequestClient", "--port", "0");
        Assert.That((code, errors), Is.EqualTo((0, "")));
        for (var i = 0; i < 20; i++) Assert.That(output, Does.Contain($"re: question {i}\n"));
        Assert.That(output, Does.EndWith("No answer within 100 ms.\n"));
    });
}
#endif
