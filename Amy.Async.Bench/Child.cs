using System.Diagnostics;

namespace Amy.Async.Bench;

/// <summary>A child process that answers a line with a line.</summary>
internal sealed class Child : IDisposable
{
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(30);

    private readonly Process _process;

    private Child(ProcessStartInfo start, string name)
    {
        start.RedirectStandardInput = start.RedirectStandardOutput = true;
        Name = name;
        _process = Process.Start(start)!;
    }

    internal string Name { get; }

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
        try
        {
            _process.StandardInput.WriteLine(line);
            _process.StandardInput.Flush();
        }
        catch (IOException e)
        {
            throw new EndOfStreamException($"{Name} ended early.", e);
        }
        return Read();
    }

    internal string Read()
    {
        var reading = _process.StandardOutput.ReadLineAsync();
        if (!reading.Wait(s_limit)) throw new TimeoutException($"{Name} did not answer within {s_limit.TotalSeconds} s.");
        var answer = reading.Result ?? throw new EndOfStreamException($"{Name} ended early.");
        return answer.StartsWith("error", StringComparison.Ordinal) ? throw new InvalidDataException($"{Name}: {answer["error".Length..].TrimStart(':', ' ')}") : answer;
    }

    /// <summary>Ends them side by side: all are told before the first is waited for.</summary>
    internal static void EndAll(IReadOnlyList<Child> children)
    {
        foreach (var child in children) child.Close();
        foreach (var child in children) child.Dispose();
    }

    public void Dispose()
    {
        Close();
        if (!_process.WaitForExit(2000)) _process.Kill();
        _process.Dispose();
    }

    // The end of its standard input tells it to go; it may have gone before.
    private void Close()
    {
        try
        {
            _process.StandardInput.Close();
        }
        catch (IOException)
        {
            // the pipe's other end is closed: it has ended
        }
    }
}
