#if !AMY_NETSTANDARD
using System.Diagnostics;
using System.Text.RegularExpressions;

namespace Amy.Async.Tests;

/// <summary>The SDK's commands, run by tests that build, pack or publish.</summary>
internal static partial class DotnetCommand
{
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(4);

    [GeneratedRegex(@"error NU1(101|102|103|301)")]
    private static partial Regex CannotBeHad();

    /// <summary>Fails unless it ends well; what it printed.</summary>
    internal static string Run(string folder, params string[] arguments)
    {
        var (code, output) = Try(folder, arguments);
        Assert.That(code, Is.Zero, $"dotnet {string.Join(' ', arguments)}\n{output}");
        return output;
    }

    /// <summary>Restores packages, or the test is reported as skipped: they cannot be had where no feed is reached.</summary>
    internal static void RestoreOrSkip(string folder, params string[] arguments)
    {
        var (code, output) = Try(folder, ["restore", .. arguments]);
        if (code != 0 && CannotBeHad().IsMatch(output)) Assert.Ignore($"Packages could not be restored: the test with them was not run.\n{output}");
        Assert.That(code, Is.Zero, $"dotnet restore {string.Join(' ', arguments)}\n{output}");
    }

    private static (int ExitCode, string Output) Try(string folder, string[] arguments)
    {
        var start = new ProcessStartInfo("dotnet", [.. arguments, .. arguments[0].EndsWith(".dll", StringComparison.Ordinal) ? Array.Empty<string>() : ["-nodeReuse:false"]])
        {
            WorkingDirectory = folder,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        foreach (var name in new[] { "MSBuildSDKsPath", "MSBUILD_EXE_PATH", "MSBuildExtensionsPath", "MSBuildLoadMicrosoftTargetsReadOnly" }) start.Environment.Remove(name);
        using var process = Process.Start(start)!;
        var output = process.StandardOutput.ReadToEndAsync();
        var error = process.StandardError.ReadToEndAsync();
        if (!process.WaitForExit(s_limit))
        {
            process.Kill(entireProcessTree: true);
            Assert.Fail($"dotnet {string.Join(' ', arguments)} did not end");
        }
        return (process.ExitCode, output.Result + error.Result);
    }
}
#endif
