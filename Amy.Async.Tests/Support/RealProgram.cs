using System.Diagnostics;
using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Tests;

/// <summary>A program from outside, started by a test and ended by its id.</summary>
internal sealed class RealProgram : IDisposable
{
    private readonly Process _process;

    private RealProgram(Process process) => _process = process;

    internal Process Process => _process;

    /// <summary>Where it is, or the test is reported as skipped.</summary>
    internal static string Find(string name)
    {
        foreach (var folder in new[] { "/usr/bin", "/usr/sbin", "/bin", "/usr/local/bin" })
            if (File.Exists(Path.Combine(folder, name))) return Path.Combine(folder, name);
        Assert.Ignore($"{name} is missing: the test with it was not run.");
        return "";
    }

    internal static RealProgram Start(string name, params string[] arguments)
    {
        var start = new ProcessStartInfo(Find(name), arguments) { RedirectStandardInput = true, RedirectStandardOutput = true, RedirectStandardError = true };
        return new RealProgram(Process.Start(start)!);
    }

    /// <summary>A program of the repository (see <see cref="Repository.Program"/>).</summary>
    internal static RealProgram Dotnet(params string[] arguments) =>
        new(Process.Start(new ProcessStartInfo("dotnet", arguments) { RedirectStandardInput = true, RedirectStandardOutput = true })!);

    /// <summary>Runs it to its end; what it printed.</summary>
    internal static async Task<(int ExitCode, string Output)> RunAsync(string name, string? input, params string[] arguments)
    {
        using var program = Start(name, arguments);
        using var limit = new CancellationTokenSource(Run.Limit);
        var output = program._process.StandardOutput.ReadToEndAsync(limit.Token);
        var errors = program._process.StandardError.ReadToEndAsync(limit.Token);
        if (input is not null) await program._process.StandardInput.WriteAsync(input);
        program._process.StandardInput.Close();
        await program._process.WaitForExitAsync(limit.Token);
        return (program._process.ExitCode, await output + await errors);
    }

    /// <summary>A server on a port that was free a moment ago; waits until it listens.</summary>
    internal static async Task<RealProgram> ServeAsync(string name, int port, params string[] arguments)
    {
        var program = Start(name, arguments);
        _ = program._process.StandardOutput.ReadToEndAsync();
        _ = program._process.StandardError.ReadToEndAsync();
        for (var i = 0; i < 500 && !program._process.HasExited; i++)
        {
            try
            {
                using var probe = new TcpClient();
                await probe.ConnectAsync(IPAddress.Loopback, port);
                return program;
            }
            catch (SocketException)
            {
                await Task.Delay(20);
            }
        }
        program.Dispose();
        Assert.Fail($"{name} does not listen.");
        return null!;
    }

    internal static int FreePort()
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        socket.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        return ((IPEndPoint)socket.LocalEndPoint!).Port;
    }

    public void Dispose()
    {
        if (!_process.HasExited) _process.Kill();
        _process.WaitForExit();
        _process.Dispose();
    }
}
