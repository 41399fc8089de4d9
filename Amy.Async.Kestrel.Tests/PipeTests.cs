using System.Buffers;
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
}
