using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Threading.Channels;
using Amy.Async.Native;

namespace Amy.Async.Bench;

// What goes on beside the connections.
internal sealed partial class Torture
{
    private Task TimeAsync(Random random)
    {
        var loop = AnyLoop(random);
        return loop.InvokeAsync(async () =>
        {
            while (!_time.IsCancellationRequested)
            {
                var delay = TimeSpan.FromMicroseconds(random.Next(3000));
                var token = random.Next(3) == 0 ? new CancellationTokenSource(random.Next(3)).Token : default;
                var start = Stopwatch.GetTimestamp();
                var outcome = await Ledger.Try("delay", () => loop.Delay(delay, token));
                if (outcome == Outcome.Completed && Stopwatch.GetElapsedTime(start) < delay) Ledger.Violate($"a delay of {delay} ended after {Stopwatch.GetElapsedTime(start)}");
                if (outcome is not (Outcome.Completed or Outcome.Cancelled)) Ledger.Violate($"a delay ended as {outcome}");
            }
        });
    }

    // From one loop to another; each item arrives once and in order.
    private async Task ChannelAsync(Random random)
    {
        while (!_time.IsCancellationRequested)
        {
            var channel = Channel.CreateBounded<int>(random.Next(1, 64));
            var count = random.Next(1, 2000);
            var writing = AnyLoop(random).InvokeAsync(async () =>
            {
                for (var i = 0; i < count; i++) await channel.Writer.WriteAsync(i);
                channel.Writer.Complete();
            });
            var got = 0;
            var reading = AnyLoop(random).InvokeAsync(async () =>
            {
                await foreach (var i in channel.Reader.ReadAllAsync())
                    if (i != got++) Ledger.Violate("a channel is out of order");
            });
            var outcome = await Ledger.Try("channel", () => new ValueTask(Task.WhenAll(writing, reading)));
            if (outcome != Outcome.Completed || got != count) Ledger.Violate($"{count} items went into a channel, {got} came out ({outcome})");
        }
    }

    // Each poster's items run once, in its order, on the loop.
    private async Task PostAsync(Random random)
    {
        while (!_time.IsCancellationRequested)
        {
            var loop = AnyLoop(random);
            var count = random.Next(1, 500);
            var ran = 0;
            var done = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            for (var i = 0; i < count; i++)
            {
                var expected = i;
                loop.Post(() =>
                {
                    if (ran++ != expected || !loop.IsCurrent) Ledger.Violate("posts are out of order, or elsewhere than on the loop");
                    if (expected == count - 1) done.SetResult();
                });
                if (random.Next(50) == 0) Thread.SpinWait(random.Next(2000)); // so that the loop falls asleep in between
            }
            if (await Ledger.Try("post", () => new ValueTask(done.Task)) != Outcome.Completed) Ledger.Violate("a post was lost");
            if (random.Next(3) == 0) await Task.Delay(1);
        }
    }

    // Numbers that were closed a moment ago stand for something else at once: pairs that come and go, with waits of ours and
    // of plain sockets pending when they go.
    private async Task NumbersAsync(Random random)
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen(16);
        while (!_time.IsCancellationRequested)
        {
            var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
            client.Connect(listener.LocalEndPoint!);
            var server = listener.Accept();
            var ours = new AsyncSocket(server, AnyLoop(random));
            client.Blocking = false;
            var loop = AnyLoop(random);
            var buffer = new byte[16];
            var got = 0;
            var waiting = Ledger.Try("receive, passing", async () => got = await ours.ReceiveAsync(buffer));
            var plain = random.Next(2) == 0 ? loop.InvokeAsync(() => Ledger.Try("readable, plain", async () => await client.ReadableAsync())) : null;
            var sends = random.Next(2) == 0;
            if (sends)
            {
                client.Send([7, 8, 9]);
                var received = await waiting;
                if (received == Outcome.Completed ? got is 0 or > 3 || buffer[0] != 7 : received != Outcome.Failed || _faults is null) Ledger.Violate($"3 bytes were sent, {got} received ({received})");
                if (plain is not null && random.Next(2) == 0)
                {
                    var outcome = await Ledger.Try("send, passing", async () => await ours.SendAsync(new byte[] { 1 }));
                    if (outcome == Outcome.Completed && await plain != Outcome.Completed) Ledger.Violate("a plain wait has missed its byte");
                    if (outcome != Outcome.Completed && (outcome != Outcome.Failed || _faults is null)) Ledger.Violate($"a send ended as {outcome}");
                }
            }
            if (plain is not null) loop.Forget(client);
            ours.Dispose();
            client.Dispose();
            var end = await waiting;
            if (!sends && end is not (Outcome.Disposed or Outcome.Failed)) Ledger.Violate($"a receive on a disposed socket ended as {end}");
            if (plain is not null) await plain;
        }
    }

    // What waits on a loop that stops ends, and the loop's own descriptors come back.
    private async Task ShortLivedLoopAsync(Random random)
    {
        while (!_time.IsCancellationRequested)
        {
            var loop = EventLoop.Start(new EventLoopOptions { Poller = _options.Poller, SystemCalls = _faults ?? SystemCalls.Instance });
            using var listener = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0), null, loop);
            var accepting = Ledger.Try("accept, loop stops", async () => await listener.AcceptAsync());
            var delaying = Ledger.Try("delay, loop stops", () => loop.Delay(TimeSpan.FromHours(1)));
            if (random.Next(2) == 0) await Task.Delay(random.Next(20));
            await loop.StopAsync();
            var outcomes = await Task.WhenAll(accepting, delaying);
            foreach (var outcome in outcomes)
                if (outcome is not (Outcome.Disposed or Outcome.Cancelled)) Ledger.Violate($"a loop stopped, and what waited ended as {outcome}");
            await Task.Delay(20);
        }
    }

    private async Task CollectAsync(Random random)
    {
        while (!_time.IsCancellationRequested)
        {
            Ledger.Did("collection");
            GC.Collect(random.Next(3));
            await Task.Delay(random.Next(20, 200));
        }
    }
}
