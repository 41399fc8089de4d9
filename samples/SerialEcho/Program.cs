using System.ComponentModel;
using Amy.Async;
using Amy.Async.Samples;

// dotnet run --project samples/SerialEcho -- /dev/ttyUSB0
// Without hardware: socat -d -d pty,raw,echo=0 pty,raw,echo=0, then one end here and the other in a terminal program.
if (args is not [var path])
{
    Console.Error.WriteLine("usage: SerialEcho TERMINAL");
    return 2;
}
try
{
    EventLoop.Run(async () =>
    {
        using var port = SerialPortEcho.Open(path);
        Console.WriteLine($"Echo on {path}; after 5 s of silence it asks. Ctrl-C ends.");
        await SerialPortEcho.RunAsync(port, silence: TimeSpan.FromSeconds(5));
    });
    return 0;
}
catch (Exception e) when (e is Win32Exception or IOException)
{
    Console.Error.WriteLine($"{path}: {e.Message}");
    return 1;
}
