using System.Buffers;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace Amy.Async.Bench;

/// <summary>
/// The echo server alone: AsyncSocket, one loop, 4 KiB buffers, which a connection has only while it has something to answer. So
/// a thousand of them use a few buffers that stay in the processor's cache.
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
            var buffers = new Stack<byte[]>(); // the loop's
            try
            {
                while (true) _ = Answer(await listener.AcceptAsync(stop.Token), new Buffer(buffers));
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

    private static async Task Answer(AsyncSocket socket, Buffer buffer)
    {
        using (socket)
        {
            try
            {
                int n;
                while ((n = await socket.ReceiveAsync(buffer)) > 0)
                {
                    await socket.SendAsync(buffer.First(n));
                    buffer.GiveBack();
                }
            }
            catch (SocketException)
            {
                buffer.GiveBack(); // this peer is gone; the others are not concerned
            }
        }
    }

    /// <summary>A connection's, taken when there is something to receive.</summary>
    private sealed class Buffer(Stack<byte[]> buffers) : IBufferWriter<byte>
    {
        private byte[]? _taken;

        public Memory<byte> GetMemory(int sizeHint = 0) => _taken ??= buffers.TryPop(out var buffer) ? buffer : new byte[BufferSize];

        public Span<byte> GetSpan(int sizeHint = 0) => GetMemory(sizeHint).Span;

        public void Advance(int count)
        {
            if (count == 0) GiveBack();
        }

        internal ReadOnlyMemory<byte> First(int count) => _taken.AsMemory(0, count);

        internal void GiveBack()
        {
            if (_taken is not null) buffers.Push(_taken);
            _taken = null;
        }
    }
}
