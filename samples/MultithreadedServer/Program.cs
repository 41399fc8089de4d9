using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async.Samples;

// dotnet run --project samples/MultithreadedServer -- --port 7008 --workers 2
if (args is not ["--port", var text, "--workers", var number] || !ushort.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var port)
    || !ushort.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out var workers) || workers == 0)
{
    Console.Error.WriteLine("usage: MultithreadedServer --port N --workers N");
    return 2;
}
try
{
    using var ended = new ManualResetEventSlim();
    void End(PosixSignalContext context)
    {
        context.Cancel = true; // not the runtime's way: ours, which disposes
        ended.Set();
    }
    using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, End);
    using var terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, End);
    using var server = new FrameServer(new IPEndPoint(IPAddress.Loopback, port), workers);
    Console.WriteLine($"Frames sent to {server.EndPoint} come back. Ctrl-C ends.");
    ended.Wait();
    return 0;
}
catch (SocketException e)
{
    Console.Error.WriteLine(e.Message); // the port is in use, say
    return 1;
}
