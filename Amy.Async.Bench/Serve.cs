using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace Amy.Async.Bench;

/// <summary>
/// The echo server alone: AsyncSocket, one loop, a buffer of 4 KiB that all connections receive into, as the C server's do: an
/// awaiter runs right behind its receive, and is done with the buffer before it awaits again (docs/loops.md).
/// </summary>
internal static class Serve
{
    private const int BufferSize = 4096;

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
            var buffer = new byte[BufferSize];
            try
            {
                while (true) _ = Answer(await listener.AcceptAsync(stop.Token), buffer);
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

    private static async Task Answer(AsyncSocket socket, byte[] shared)
    {
        using (socket)
        {
            try
            {
                int n;
                while ((n = await socket.ReceiveAsync(shared)) > 0)
                {
                    socket.TrySend(shared.AsSpan(0, n), out var sent);
                    if (sent < n) await socket.SendAsync(shared.AsSpan(sent, n - sent).ToArray());
                }
            }
            catch (SocketException)
            {
                // this peer is gone; the others are not concerned
            }
        }
    }
}
