using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Tests.Sockets;

/// <summary>Exactly 0 bytes per operation after warm-up, counted on the loop's thread.</summary>
[TestFixture]
internal sealed class AllocationTests
{
    private const int WarmUp = 3000;
    private const int Counted = 3000;

    private static async Task AssertNone(Func<int, Task> rounds)
    {
        await rounds(WarmUp);
        var before = 0L;
        var after = 0L;
        // The rounds are one async method, whose state machine is made before the first count.
        async Task Count()
        {
            await EventLoop.Current!.Yield();
            before = GC.GetAllocatedBytesForCurrentThread();
            await rounds(Counted);
            after = GC.GetAllocatedBytesForCurrentThread();
        }
        await Count();
        Assert.That(after - before, Is.LessThan(1000), "no more than the state machine of the one method, whatever the number of rounds");
        Assert.That((after - before) / Counted, Is.Zero);
    }

    private static async Task Echo(AsyncSocket socket)
    {
        var buffer = new byte[64];
        int n;
        while ((n = await socket.ReceiveAsync(buffer)) > 0) await socket.SendAsync(buffer.AsMemory(0, n));
    }

    [TestCase("tcp", false)]
    [TestCase("unix", false)]
    [TestCase("tcp", true)]
    public void ReceiveAndSend(string kind, bool withToken) => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Of(kind);
        using var a = new AsyncSocket(x);
        using var b = new AsyncSocket(y);
        using var source = new CancellationTokenSource();
        var token = withToken ? source.Token : default;
        var echo = Echo(b);
        var buffer = new byte[64];
        await AssertNone(async rounds =>
        {
            for (var i = 0; i < rounds; i++)
            {
                await a.SendAsync(buffer.AsMemory(0, 1), token);
                await a.ReceiveAsync(buffer, token);
            }
        });
        a.Shutdown(SocketShutdown.Send);
        await echo;
    });

    [Test]
    public void ReceiveWithConfigureAwaitFalse() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var buffer = new byte[64];
            await AssertNone(async rounds =>
            {
                for (var i = 0; i < rounds; i++)
                {
                    var receiving = a.ReceiveAsync(buffer);
                    b.TrySend(buffer.AsSpan(0, 1), out _);
                    await receiving.ConfigureAwait(false);
                }
                await a.Loop.SwitchTo();
            });
        }
    });

    [Test]
    public void ReadableAndEmptyReceive() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using (a)
        using (b)
        {
            var buffer = new byte[64];
            await AssertNone(async rounds =>
            {
                for (var i = 0; i < rounds; i++)
                {
                    var readable = a.ReadableAsync();
                    b.TrySend(buffer.AsSpan(0, 1), out _);
                    await readable;
                    await a.ReceiveAsync(Memory<byte>.Empty);
                    await a.ReceiveAsync(buffer);
                    await a.WritableAsync();
                }
            });
        }
    });

    [Test]
    public void PlainReadable() => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Tcp();
        using (x)
        using (y)
        {
            var buffer = new byte[64];
            x.Blocking = false;
            await AssertNone(async rounds =>
            {
                for (var i = 0; i < rounds; i++)
                {
                    y.Send(buffer, 0, 1, SocketFlags.None);
                    while (x.Receive(buffer, 0, 64, SocketFlags.None, out var error) <= 0 || error != SocketError.Success) await x.ReadableAsync();
                }
            });
        }
    });

    [Test]
    public void PostYieldDelay() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        var count = 0;
        Action post = () => count++;
        Action<object> postWithState = _ => count++;
        var state = new object();
        await AssertNone(async rounds =>
        {
            for (var i = 0; i < rounds; i++)
            {
                loop.Post(post);
                loop.Post(postWithState, state);
                await loop.Yield();
                if (i % 100 == 0) await loop.Delay(TimeSpan.FromTicks(10));
            }
        });
        Assert.That(count, Is.EqualTo(2 * (WarmUp + Counted)));
    });

    [Test]
    public void DelayCancelled() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        using var source = new CancellationTokenSource();
        await AssertNone(async rounds =>
        {
            for (var i = 0; i < rounds; i++) await loop.Delay(TimeSpan.FromTicks(1), source.Token);
        });
    });
}
