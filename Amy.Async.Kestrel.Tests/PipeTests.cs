using System.Buffers;
using System.IO.Pipelines;
using System.Net.Sockets;
using Microsoft.AspNetCore.Connections;

namespace Amy.Async.Kestrel.Tests;

/// <summary>The two pipes of a connection at the edges of their contract: misuse, threads that meet, loops that stop.</summary>
[TestFixture(false)]
[TestFixture(true)]
internal sealed class PipeTests(bool inline)
{
    [Test]
    public async Task Read_WhileAnotherWaits_Throws_AndHarmsNeitherItNorTheLoop()
    {
        await using var pair = new Pair(inline);
        var (connection, peer) = await pair.Connect();
        var waiting = connection.Transport.Input.ReadAsync().AsTask();
        Assert.That(() => connection.Transport.Input.ReadAsync().AsTask(), Throws.InvalidOperationException);
        Assert.That(connection.Transport.Input.TryRead(out _), Is.False);
        await peer.SendAsync(new byte[3]);
        Assert.That((await waiting.Within()).Buffer.Length, Is.EqualTo(3));
        var (another, _) = await pair.Connect(); // of the same loop
        await another.DisposeAsync().AsTask().Within();
        await connection.DisposeAsync().AsTask().Within();
    }

    [Test]
    public async Task LoopsStop_ConnectionsThatLive_AreTold()
    {
        await using var pair = new Pair(inline);
        var (reading, _) = await pair.Connect();
        var (idle, _) = await pair.Connect();
        var (writing, _) = await pair.Connect();
        var read = reading.Transport.Input.ReadAsync().AsTask();
        var flush = FillUp(writing);
        Assert.That(flush.IsCompleted, Is.False);
        var closed = new[] { reading, idle, writing }.Select(Closed).ToArray();
        await pair.StopAsync().Within();
        await Limits.Throws<ConnectionAbortedException>(() => read);
        await flush.Within();
        await Task.WhenAll(closed).Within();
        foreach (var connection in new[] { reading, idle, writing }) await connection.DisposeAsync().AsTask().Within();
        Limits.Until(() => pair.Pools.Out == 0, "all buffers are back");
        Assert.That(pair.Pools.ReturnedTwice, Is.Zero);
    }

    private static Task Closed(ConnectionContext connection)
    {
        var closed = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        connection.ConnectionClosed.Register(closed.SetResult);
        return closed.Task;
    }

    // Flushes until one waits.
    private static Task FillUp(ConnectionContext connection)
    {
        var chunk = new byte[60_000];
        for (var i = 0; i < 1000; i++)
        {
            var flush = connection.Transport.Output.WriteAsync(chunk);
            if (!flush.IsCompleted) return flush.AsTask();
        }
        return Task.CompletedTask;
    }

    [Test]
    public async Task Abort_UnderAFlushThatWaits_ResumesIt()
    {
        await using var pair = new Pair(inline);
        for (var i = 0; i < 20; i++)
        {
            var (connection, peer) = await pair.Connect();
            var closed = 0;
            connection.ConnectionClosed.Register(() => Interlocked.Increment(ref closed));
            var flush = FillUp(connection);
            Assert.That(flush.IsCompleted, Is.False);
            if (i % 2 == 0) connection.Abort();
            else peer.Close(0);
            await flush.Within();
            await connection.DisposeAsync().AsTask().Within();
            Assert.That(closed, Is.EqualTo(1));
            peer.Dispose();
        }
        Limits.Until(() => pair.Pools.Out <= 16, "all buffers are back but those that the loop keeps");
        Assert.That(pair.Pools.ReturnedTwice, Is.Zero);
    }

    [Test]
    public async Task Complete_UnderAReadThatEnds_LosesNoBuffer()
    {
        await using var pair = new Pair(inline);
        for (var i = 0; i < 1000; i++)
        {
            var (connection, peer) = await pair.Connect();
            await peer.SendAsync(new byte[100]);
            var first = await connection.Transport.Input.ReadAtLeastAsync(100).AsTask().Within();
            connection.Transport.Input.AdvanceTo(first.Buffer.Start, first.Buffer.End); // a part of a message is kept
            var read = connection.Transport.Input.ReadAsync().AsTask();
            if (i % 3 == 0) connection.Transport.Input.CancelPendingRead();
            var sending = Task.Run(() => peer.Send(new byte[5000]));
            Thread.SpinWait(i * 20);
            await connection.DisposeAsync().AsTask().Within(); // completes the reader
            await sending.Within();
            try
            {
                await read.Within();
            }
            catch (Exception e) when (e is ConnectionAbortedException or InvalidOperationException)
            {
            }
            peer.Dispose();
        }
        await pair.StopAsync().Within();
        Limits.Until(() => pair.Pools.Out == 0, "all buffers are back");
        Assert.That(pair.Pools.ReturnedTwice, Is.Zero);
    }

    [Test]
    public async Task AdvanceTo_PositionOfAnotherBuffer_Throws_AndLosesNothing()
    {
        await using var pair = new Pair(inline);
        var (connection, peer) = await pair.Connect();
        var input = connection.Transport.Input;
        await peer.SendAsync("hello"u8.ToArray());
        var read = await input.ReadAtLeastAsync(5).AsTask().Within();
        var (other, otherPeer) = await pair.Connect();
        await otherPeer.SendAsync(new byte[1]);
        var foreign = await other.Transport.Input.ReadAsync().AsTask().Within();
        Assert.That(() => input.AdvanceTo(foreign.Buffer.End), Throws.InvalidOperationException);
        Assert.That(() => input.AdvanceTo(read.Buffer.GetPosition(0), foreign.Buffer.End), Throws.Nothing);
        var again = await input.ReadAsync().AsTask().Within();
        Assert.That(again.Buffer.ToArray(), Is.EqualTo("hello"u8.ToArray()));
        input.AdvanceTo(again.Buffer.GetPosition(2));
        Assert.That(() => input.AdvanceTo(again.Buffer.GetPosition(1)), Throws.InvalidOperationException, "back");
        again = await input.ReadAsync().AsTask().Within();
        Assert.That(again.Buffer.ToArray(), Is.EqualTo("llo"u8.ToArray()));
        await connection.DisposeAsync().AsTask().Within();
        await other.DisposeAsync().AsTask().Within();
    }

    [Test]
    public async Task Flush_ThatGoesOn_DoesNotHoldUpWhatIsQueuedBehindIt()
    {
        if (inline) Assert.Ignore("Inline, an application that blocks blocks the loop.");
        await using var pair = new Pair(inline);
        var (connection, peer) = await pair.Connect();
        var output = connection.Transport.Output;
        using var release = new ManualResetEventSlim();
        var counted = new TaskCompletionSource<long>(TaskCreationOptions.RunContinuationsAsynchronously);
        var writing = Task.Run(async () =>
        {
            var total = 0L;
            while (true)
            {
                // Together above the limit of 64 KiB, and the second alone below half of it.
                var flush = Write(45_000);
                if (flush.IsCompleted && pair.Pools.Out == 0) continue; // the kernel took it
                if (flush.IsCompleted) flush = Write(25_000);
                if (flush.IsCompleted) continue;
                counted.SetResult(total);
                await flush.ConfigureAwait(false);
                release.Wait(Limits.Limit);
                return;
            }

            ValueTask<FlushResult> Write(int count)
            {
                output.Write(new byte[count]);
                total += count;
                return output.FlushAsync();
            }
        });
        var total = await counted.Task.Within();
        var buffer = new byte[65536];
        for (var got = 0L; got < total;)
        {
            var n = await peer.ReceiveAsync(buffer).WaitAsync(TimeSpan.FromSeconds(5));
            if (n == 0) Assert.Fail("closed");
            got += n;
        }
        release.Set();
        await writing.Within();
        await connection.DisposeAsync().AsTask().Within();
    }

    [Test]
    public async Task EndPoints_OfAConnectionThatIsOver_AreStillTold()
    {
        var seen = new TaskCompletionSource<(string?, string?)>();
        await using var server = await Server.Raw(inline, async connection =>
        {
            await Closed(connection);
            connection.Abort();
            seen.SetResult((connection.LocalEndPoint?.ToString(), connection.RemoteEndPoint?.ToString()));
        });
        string remote;
        using (var socket = await server.Connect())
        {
            remote = socket.LocalEndPoint!.ToString()!;
            Limits.Until(() => server.Log.Entries.Any(e => e.Id.Id == 1 && e.Category == "Amy.Async.Kestrel"), "accepted");
            socket.LingerState = new LingerOption(true, 0);
        }
        Assert.That(await seen.Task.Within(), Is.EqualTo((server.EndPoint.ToString(), remote)));
    }
}
