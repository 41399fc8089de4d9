using System.Net.Sockets;
using Amy.Async.Native;

namespace Amy.Async.Tests.Loop;

/// <summary>Connections that move to another loop while somebody else ends them, or one of the loops.</summary>
[TestFixture]
internal sealed class MovingRaceTests
{
    private const int Rounds = 1000;

    /// <summary>Counts how often the descriptor that was accepted last is closed.</summary>
    private sealed class WatchingCalls : SystemCalls
    {
        internal int Closed;
        private volatile int _watched = -1;

        internal override int Accept(int listener)
        {
            var n = base.Accept(listener);
            if (n < 0) return n;
            _watched = n;
            Volatile.Write(ref Closed, 0);
            return n;
        }

        internal override int Close(int descriptor)
        {
            if (descriptor == _watched) Interlocked.Increment(ref Closed); // before the number is free for others
            return base.Close(descriptor);
        }
    }

    // The rounds differ in when the other thread goes: at once, just before the move or just behind it; and one in four has an
    // operation pending, which forbids the move. Whoever comes first wins.
    [TestCase("dispose")]
    [TestCase("abort")]
    [TestCase("source stops")]
    [TestCase("target stops")]
    public void Move_RacingWithAnEnd_ClosesOnce_AndNoOperationHangs(string what) => Run.OnThread(() =>
    {
        var calls = new WatchingCalls();
        var options = new EventLoopOptions { SpinDuration = TimeSpan.Zero, SystemCalls = calls };
        using var acceptor = EventLoop.Start(options);
        var end = new UnixDomainSocketEndPoint(Pair.TemporaryPath());
        using var listener = AsyncSocket.Listen(end, loop: acceptor);
        using var go = new Barrier(2);
        var (source, target) = (EventLoop.Start(options), EventLoop.Start(options));
        var (moves, refusals, begun) = (0, 0, -1);
        for (var round = 0; round < Rounds; round++)
        {
            using var client = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            client.Connect(end);
            var server = Run.Wait(listener.AcceptAsync(source).AsTask());
            var other = Task.Run(() =>
            {
                go.SignalAndWait(Run.Limit);
                var wait = default(SpinWait);
                for (var i = 0; i < 1_000_000 && Volatile.Read(ref begun) != round; i++) wait.SpinOnce(sleep1Threshold: -1);
                Thread.SpinWait(round * 13 % 64);
                if (what == "dispose") server.Dispose();
                else if (what == "abort") server.Abort();
                else (what == "source stops" ? source : target).Dispose();
            });
            go.SignalAndWait(Run.Limit);
            if (round % 4 < 2)
            {
                Volatile.Write(ref begun, round);
                Thread.SpinWait(round * 7 % 512);
            }
            var before = round % 4 == 0 ? Receive(server) : null;
            if (round % 4 == 2) Volatile.Write(ref begun, round);
            AsyncSocket? moved = null;
            try
            {
                moved = server.MoveToAsync(target).GetAwaiter().GetResult();
                moves++;
            }
            catch (ObjectDisposedException)
            {
                refusals++;
            }
            catch (InvalidOperationException) when (before is not null)
            {
            }
            Volatile.Write(ref begun, round);
            var after = moved is null ? null : Receive(moved);
            Run.Wait(other);
            moved?.Dispose();
            server.Dispose();
            if (before is not null) Run.Wait(before);
            if (after is not null) Run.Wait(after);
            Run.Until(() => Volatile.Read(ref calls.Closed) > 0, $"round {round}: it is closed");
            try
            {
                Assert.That(client.Receive(new byte[1]), Is.Zero);
            }
            catch (SocketException)
            {
                // reset
            }
            Assert.That(calls.Closed, Is.EqualTo(1), $"round {round}");
            if (what == "source stops") source = EventLoop.Start(options);
            if (what == "target stops") target = EventLoop.Start(options);
        }
        source.Dispose();
        target.Dispose();
        TestContext.Out.WriteLine($"{moves} moves, {refusals} refusals");
        Assert.That(moves, Is.GreaterThanOrEqualTo(Rounds / 4));
    });

    // Nothing is sent: it ends with the connection or the loop.
    private static async Task Receive(AsyncSocket socket)
    {
        try
        {
            Assert.That(await socket.ReceiveAsync(new byte[1]), Is.Zero);
        }
        catch (Exception e) when (e is ObjectDisposedException or SocketException)
        {
        }
    }

    [TestCase(true)]
    [TestCase(false)]
    public void Move_WithAResultThatNobodyAwaited_IsRefused_AndTheResultIsKept(bool receive) => Run.OnThread(() =>
    {
        using var source = EventLoop.Start();
        using var target = EventLoop.Start();
        var (x, y) = Pair.Unix();
        using (x)
        using (var server = new AsyncSocket(y, source))
        {
            x.ReceiveBufferSize = y.SendBufferSize = 4608;
            var buffer = new byte[receive ? 8 : 1 << 20];
            var operation = receive ? Wait(server.ReceiveAsync(buffer)) : Wait(server.SendAsync(buffer));
            Assert.That(() => server.MoveToAsync(target), Throws.InvalidOperationException.With.Message.Contains("in progress"));
            if (receive) x.Send(new byte[3]);
            else for (var left = buffer.Length; left > 0;) left -= x.Receive(new byte[4096]);
            Run.Until(() => operation.IsDone(), "it is done");
            Assert.That(() => server.MoveToAsync(target), Throws.InvalidOperationException.With.Message.Contains("would be lost"));
            Assert.That(operation.Fetch(), Is.EqualTo(receive ? 3 : buffer.Length));
            using var moved = server.MoveToAsync(target).GetAwaiter().GetResult();
            Assert.That(moved.Loop, Is.SameAs(target));
        }
    });

    private static (Func<bool> IsDone, Func<int> Fetch) Wait(ValueTask<int> operation) =>
        (() => operation.IsCompleted, () => operation.GetAwaiter().GetResult());
}
