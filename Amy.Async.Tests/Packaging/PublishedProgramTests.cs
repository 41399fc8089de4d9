#if !AMY_NETSTANDARD
using System.Diagnostics;
using System.Runtime.InteropServices;
using Amy.Async.Samples;

namespace Amy.Async.Tests.Packaging;

/// <summary>
/// samples/Portable, published in each way and run: native code and trimmed without a warning, on .NET 8 and on Mono over the
/// library's netstandard2.0 build.
/// </summary>
[TestFixture]
internal sealed class PublishedProgramTests
{
    private static readonly string s_sample = Path.Combine(Repository.Root, "samples", "Portable");

    private static readonly string s_configuration = Path.GetFileName(Path.GetDirectoryName(Path.GetDirectoryName(typeof(PublishedProgramTests).Assembly.Location)))!;

    private string _folder = "";

    [SetUp]
    public void MakeFolder() => _folder = Directory.CreateTempSubdirectory("amy-published").FullName;

    [TearDown]
    public void RemoveFolder() => Directory.Delete(_folder, recursive: true);

    private void Publish(string way)
    {
        DotnetCommand.RestoreOrSkip(s_sample, $"-p:For={way}", $"-p:Configuration={s_configuration}");
        var output = DotnetCommand.Run(s_sample, "publish", "-c", s_configuration, $"-p:For={way}", "--no-restore", "-o", _folder);
        Assert.That(output, Does.Not.Contain("warning"));
    }

    private async Task Runs(IEnumerable<string> checks, string runtime, string program, params string[] arguments)
    {
        var (code, output) = await Start(Path.Combine(_folder, program), [.. arguments, .. checks]);
        Assert.That(code, Is.Zero, output);
        var lines = output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.That(lines[0], Does.StartWith(runtime));
        Assert.That(lines.Skip(1), Is.EqualTo(checks.Select(c => $"{c}: ok")));
        TestContext.Out.WriteLine(lines[0]);
    }

    private static async Task<(int ExitCode, string Output)> Start(string program, string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true, RedirectStandardError = true })!;
        var (output, errors) = (process.StandardOutput.ReadToEndAsync(), process.StandardError.ReadToEndAsync());
        try
        {
            await process.WaitForExitAsync().WaitAsync(Run.Limit);
        }
        finally
        {
            if (!process.HasExited) process.Kill();
        }
        return (process.ExitCode, await output + await errors);
    }

    [Test]
    public async Task NativeAot_PublishesWithoutAWarning_AndRuns()
    {
        if (!File.Exists("/usr/bin/clang")) RealProgram.Find("gcc"); // whose linker it needs
        Publish("aot");
        Assert.That(Directory.GetFiles(_folder, "*.dll"), Is.Empty, "one native file");
        await Runs(Checks.All.Keys, $".NET {Environment.Version}", "Portable");
    }

    [Test]
    public async Task FullyTrimmed_PublishesWithoutAWarning_AndRuns()
    {
        Publish("trimmed");
        var core = Path.Combine(RuntimeEnvironment.GetRuntimeDirectory(), "System.Private.CoreLib.dll");
        Assert.That(new FileInfo(Path.Combine(_folder, "System.Private.CoreLib.dll")).Length, Is.LessThan(new FileInfo(core).Length / 2));
        Assert.That(new FileInfo(Path.Combine(_folder, "Amy.Async.dll")).Length, Is.LessThan(new FileInfo(typeof(EventLoop).Assembly.Location).Length));
        await Runs(Checks.All.Keys, $".NET {Environment.Version}", "Portable");
    }

    [Test]
    public async Task Net8_SelfContained_RunsOnTheNetstandardBuild()
    {
        Publish("net8");
        await Runs(Checks.All.Keys, ".NET 8.", "Portable");
    }

    // Its class library has no CertificateRequest, with which that check makes its certificate.
    private static readonly string[] s_notOnMono = ["tls"];

    [Test]
    public async Task Mono_RunsOnTheNetstandardBuild()
    {
        var mono = RealProgram.Find("mono");
        if (!File.Exists("/usr/lib/mono/4.5/Facades/netstandard.dll")) Assert.Ignore("mono-devel is missing, which has netstandard.dll: the test with it was not run.");
        Publish("mono");
        await Runs(Checks.All.Keys.Except(s_notOnMono), "Mono ", mono, Path.Combine(_folder, "Portable.exe"));
    }
}
#endif
