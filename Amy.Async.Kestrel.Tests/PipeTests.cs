using System.Buffers;
using System.IO.Pipelines;
using System.Net.Sockets;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.Extensions.Logging;

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

    // Flushes until one waits; in great pieces, so that none is joined for trial before, which would wait for a moment only.
    private static Task FillUp(ConnectionContext connection)
    {
        var chunk = new byte[2 << 20];
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

    // What a receive has ended with is taken on the loop's thread, which is held here by the log.
    [Test]
    public async Task Cancel_WhileTheResultIsTaken_ComesTooLateForTheRead()
    {
        using var log = new HoldingLog(text => text.EndsWith("reset.", StringComparison.Ordinal));
        await using var pair = new Pair(inline, log: log);
        var (connection, peer) = await pair.Connect();
        var input = connection.Transport.Input;
        using var source = new CancellationTokenSource();
        var read = input.ReadAsync(source.Token).AsTask();
        peer.Close(0);
        await log.Held.Within();
        try
        {
            Assert.That(() => input.ReadAsync().AsTask(), Throws.InvalidOperationException, "another read is in progress");
            Assert.That(input.TryRead(out _), Is.False);
            source.Cancel();
            input.CancelPendingRead();
            Assert.That(read.IsCompleted, Is.False);
        }
        finally
        {
            log.Release();
        }
        await Limits.Throws<ConnectionResetException>(() => read);
        Assert.That((await input.ReadAsync().AsTask().Within()).IsCanceled, Is.True, "the next one's");
        await Limits.Throws<ConnectionResetException>(() => input.ReadAsync().AsTask());
        await connection.DisposeAsync().AsTask().Within();
    }

    private sealed class HoldingLog(Func<string, bool> where) : ILoggerProvider, ILogger
    {
        private readonly TaskCompletionSource _held = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly ManualResetEventSlim _release = new();

        internal Task Held => _held.Task;

        internal void Release() => _release.Set();

        public ILogger CreateLogger(string categoryName) => this;

        public IDisposable? BeginScope<TState>(TState state) where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            if (_held.Task.IsCompleted || !where(formatter(state, exception))) return;
            _held.SetResult();
            _release.Wait(Limits.Limit);
        }

        public void Dispose() => _release.Set();
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
        var filled = Fill(connection); // so that flushes are not joined, but wait for the kernel
        using var release = new ManualResetEventSlim();
        var counted = new TaskCompletionSource<long>(TaskCreationOptions.RunContinuationsAsynchronously);
        var writing = Task.Run(async () =>
        {
            var total = filled;
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

    // The kernel's buffers, past the pipe.
    private static long Fill(ConnectionContext connection)
    {
        var socket = connection.Features.Get<IConnectionSocketFeature>()!.Socket;
        var (chunk, total) = (new byte[65536], 0L);
        while (true)
        {
            total += socket.Send(chunk, 0, chunk.Length, SocketFlags.None, out var error);
            if (error == SocketError.WouldBlock) return total;
            Assert.That(error, Is.EqualTo(SocketError.Success));
        }
    }

    [Test]
    public async Task Flushes_OfAnApplicationThatDoesNotYield_HoldFewBuffers_AndAreSent()
    {
        await using var pair = new Pair(inline);
        var (connection, peer) = await pair.Connect();
        peer.Send(new byte[1]);
        var most = 0;
        var writing = WriteMany();
        await Task.Run(() => ReceiveCounted(peer, 5000, 0)).Within(); // all but some while the application has its thread
        await writing.Within();
        Assert.That(most, Is.LessThan(150)); // the pipe's own besides, and those that the loop keeps
        await connection.DisposeAsync().AsTask().Within();

        async Task WriteMany()
        {
            await connection.Transport.Input.ReadAsync();
            for (var i = 0; i < 5000; i++)
            {
                var write = Write(connection, (byte)i);
                Assert.That(write.IsCompleted, Is.True);
                most = Math.Max(most, pair.Pools.Out);
            }
        }
    }

    [Test]
    public async Task Flushes_InSwarms_AreJoined_AndEveryByteArrivesInOrder()
    {
        const int FlushesOfASwarm = 2000;
        await using var pair = new Pair(inline);
        var (connection, peer) = await pair.Connect();
        var waited = 0;
        var next = 0;
        for (var swarm = 0; swarm < 200 && waited < FlushesOfASwarm / 2; swarm++) // whether a trial meets company is a matter of luck
        {
            waited = 0;
            var first = (byte)next;
            var receiving = Task.Run(() => ReceiveCounted(peer, FlushesOfASwarm, first));
            for (var i = 0; i < FlushesOfASwarm; i++)
            {
                await Write(connection, (byte)next++);
                if (pair.Pools.Out > 0) waited++;
            }
            await receiving.Within();
        }
        // The kernel takes so few bytes at once: a buffer that is still out after its flush waits for others.
        Assert.That(waited, Is.AtLeast(FlushesOfASwarm / 2), "each flush was a send of its own");
        await connection.DisposeAsync().AsTask().Within();
        Assert.That(peer.Receive(new byte[1]), Is.Zero, "the end, after all that was flushed");
        peer.Dispose();
        Limits.Until(() => pair.Pools.Out == 0, "all buffers are back");
        Assert.That(pair.Pools.ReturnedTwice, Is.Zero);
    }

    [Test]
    public async Task Complete_BehindAFlushThatIsJoined_SendsIt_ThenEnds()
    {
        await using var pair = new Pair(inline);
        for (var flushes = 1; flushes <= 40; flushes++) // the trial is among them
        {
            var (connection, peer) = await pair.Connect();
            using (peer)
            {
                for (var i = 0; i < flushes; i++) await Write(connection, (byte)i);
                connection.Transport.Output.Complete();
                await Task.Run(() => ReceiveCounted(peer, flushes, 0)).Within();
                Assert.That(await peer.ReceiveAsync(new byte[1]).Within(), Is.Zero);
                await connection.DisposeAsync().AsTask().Within();
            }
        }
        Limits.Until(() => pair.Pools.Out == 0, "all buffers are back");
        Assert.That(pair.Pools.ReturnedTwice, Is.Zero);
    }

    [Test]
    public async Task Flush_OnTheLoop_JoinedOrNot_GoesOnOnTheLoop()
    {
        if (!inline) Assert.Ignore("The application is not on the loop.");
        await using var pair = new Pair(inline, options => options.MaxWriteBufferSize = 0); // each flush that is joined waits
        var (connection, peer) = await pair.Connect();
        using var _ = peer;
        var onLoop = OnLoop();
        peer.Send(new byte[1]);
        Assert.That(await onLoop.Within(), Is.EqualTo(100));
        await connection.DisposeAsync().AsTask().Within();

        async Task<int> OnLoop()
        {
            await connection.Transport.Input.ReadAsync();
            var onIt = 0;
            for (var i = 0; i < 100; i++)
            {
                await Write(connection, (byte)i);
                if (EventLoop.Current is not null) onIt++;
            }
            return onIt;
        }
    }

    [Test]
    public async Task Flushes_WithoutEnd_OnAnotherThread_LeaveTheLoopToOthers()
    {
        await using var pair = new Pair(inline: true);
        var (flooding, peer) = await pair.Connect();
        var (other, otherPeer) = await pair.Connect();
        var over = false;
        var draining = Task.Run(() =>
        {
            var buffer = new byte[65536];
            while (peer.Receive(buffer) > 0)
            {
            }
        });
        var begun = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var flood = Flood();
        peer.Send(new byte[1]);
        await begun.Task.Within();
        for (var i = 0; i < 100; i++)
        {
            var read = other.Transport.Input.ReadAsync();
            otherPeer.Send(new byte[1]);
            var result = await read.AsTask().Within();
            other.Transport.Input.AdvanceTo(result.Buffer.End);
        }
        Volatile.Write(ref over, true);
        await flood.Within();
        await flooding.DisposeAsync().AsTask().Within();
        await other.DisposeAsync().AsTask().Within();
        await draining.Within();

        async Task Flood()
        {
            await flooding.Transport.Input.ReadAsync();
            for (var i = 0; i < 20; i++) await Write(flooding, 0); // the trial is among them: what is joined is sent by the loop
            await Task.Run(async () =>
            {
                begun.SetResult();
                while (!Volatile.Read(ref over)) await Write(flooding, 0);
            });
        }
    }

    // In one time by memory and flush, in the other as a whole.
    private static async ValueTask Write(ConnectionContext connection, byte value)
    {
        var output = connection.Transport.Output;
        if (value % 2 == 0)
        {
            output.GetSpan(1)[0] = value;
            output.Advance(1);
            await output.FlushAsync();
        }
        else await output.WriteAsync(new[] { value });
    }

    private static void ReceiveCounted(Socket peer, int count, byte next)
    {
        var buffer = new byte[4096];
        while (count > 0)
        {
            var received = peer.Receive(buffer, Math.Min(count, buffer.Length), SocketFlags.None);
            Assert.That(received, Is.Positive);
            for (var i = 0; i < received; i++)
                if (buffer[i] != next++) Assert.Fail($"Byte {buffer[i]} instead of {next - 1}.");
            count -= received;
        }
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
