using System.Diagnostics;

namespace Amy.Async.Bench;

/// <summary>A C yardstick, compiled on the spot where there is a compiler; removed at the end.</summary>
internal sealed class Yardstick : IDisposable
{
    private readonly string _folder;
    private readonly string _name;

    private Yardstick(string folder, string name)
    {
        _folder = folder;
        _name = name;
    }

    internal string Program => Path.Combine(_folder, _name);

    /// <summary>That of limits/NAME.c. Null: there is no C compiler, or it fails; <paramref name="why"/> says so.</summary>
    internal static Yardstick? TryCompile(string name, out string why)
    {
        why = "";
        var source = Path.Combine(AppContext.BaseDirectory, "limits", $"{name}.c");
        foreach (var compiler in new[] { "cc", "gcc", "clang" })
        {
            if (!Exists(compiler)) continue;
            var yardstick = new Yardstick(Directory.CreateTempSubdirectory("amy-bench-").FullName, name);
            using var process = Process.Start(new ProcessStartInfo(compiler, ["-O2", "-pthread", "-o", yardstick.Program, source]) { RedirectStandardError = true })!;
            var said = process.StandardError.ReadToEnd();
            process.WaitForExit();
            if (process.ExitCode == 0) return yardstick;
            yardstick.Dispose();
            why = $"{compiler} failed: {said.AsSpan().Trim().ToString().Split('\n')[0]}";
            return null;
        }
        why = "no C compiler (cc, gcc, clang) was found";
        return null;
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private static bool Exists(string program) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).Any(d => File.Exists(Path.Combine(d, program)));
}
