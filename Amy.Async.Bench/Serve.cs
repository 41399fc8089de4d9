using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async.Bench.Patterns;

namespace Amy.Async.Bench;

/// <summary>The echo server alone: AsyncSocket, one loop, a 4 KiB buffer per connection.</summary>
internal static class Serve
{
    internal static int Run(string address, int port, string? unix, int? spinMicroseconds)
    {
        var options = spinMicroseconds is { } spin ? new EventLoopOptions { SpinDuration = TimeSpan.FromMicroseconds(spin) } : new EventLoopOptions();
        EventLoop.Run(async () =>
        {
            EndPoint endPoint = unix is null ? new IPEndPoint(IPAddress.Parse(address), port) : new UnixDomainSocketEndPoint(unix);
            using var listener = AsyncSocket.Listen(endPoint, new AsyncSocketOptions { Backlog = 4096 });
            using var stop = new CancellationTokenSource();
            using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Stop);
            using var terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Stop);
            void Stop(PosixSignalContext context)
            {
                context.Cancel = true;
                stop.Cancel();
            }
            Console.WriteLine($"listening on {listener.LocalEndPoint}"); // from here on a signal ends it cleanly
            try
            {
                while (true) _ = Echo.Run(await listener.AcceptAsync(stop.Token), 4096);
            }
            catch (OperationCanceledException)
            {
                // asked to end: what is open ends with the loop
            }
            var s = EventLoop.Current!.Statistics;
            Console.WriteLine($"{s.Turns} turns, {s.Events} events, {s.Resumes} resumes, {s.SpinsPaid} spins paid, {s.SpinsInVain} in vain, {s.BudgetYields} budget yields");
        }, options);
        return 0;
    }
}
