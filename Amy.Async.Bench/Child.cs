using System.Diagnostics;

namespace Amy.Async.Bench;

/// <summary>A child process that answers a line with a line.</summary>
internal sealed class Child : IDisposable
{
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(30);

    private readonly Process _process;
    private readonly string _name;

    private Child(ProcessStartInfo start, string name)
    {
        start.RedirectStandardInput = start.RedirectStandardOutput = true;
        _name = name;
        _process = Process.Start(start)!;
    }

    /// <summary>This program again, with a hidden command.</summary>
    internal static Child Self(string name, bool inlineCompletions, params string[] arguments)
    {
        var path = Environment.ProcessPath!;
        var hosted = Path.GetFileNameWithoutExtension(path) == "dotnet";
        var start = new ProcessStartInfo(path, hosted ? [typeof(Child).Assembly.Location, .. arguments] : arguments);
        if (inlineCompletions) start.Environment["DOTNET_SYSTEM_NET_SOCKETS_INLINE_COMPLETIONS"] = "1";
        return new Child(start, name);
    }

    internal static Child Of(string name, string program, params string[] arguments) => new(new ProcessStartInfo(program, arguments), name);

    internal string Ask(string line)
    {
        _process.StandardInput.WriteLine(line);
        _process.StandardInput.Flush();
        return Read();
    }

    internal string Read()
    {
        var reading = _process.StandardOutput.ReadLineAsync();
        if (!reading.Wait(s_limit)) throw new TimeoutException($"{_name} did not answer within {s_limit.TotalSeconds} s.");
        var answer = reading.Result ?? throw new EndOfStreamException($"{_name} ended early.");
        return answer.StartsWith("error", StringComparison.Ordinal) ? throw new InvalidDataException($"{_name}: {answer}") : answer;
    }

    public void Dispose()
    {
        _process.StandardInput.Close(); // it ends by itself
        if (!_process.WaitForExit(2000)) _process.Kill();
        _process.Dispose();
    }
}
