using System.Buffers;
using System.IO.Pipelines;
using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;

namespace Amy.Async.Kestrel.Tests;

/// <summary>Connection handlers without HTTP: what a connection is, and how it ends.</summary>
[TestFixture(false)]
[TestFixture(true)]
internal sealed class RawTests(bool inline)
{
    internal static async Task Echo(ConnectionContext connection)
    {
        var (input, output) = (connection.Transport.Input, connection.Transport.Output);
        while (true)
        {
            var read = await input.ReadAsync();
            foreach (var part in read.Buffer) await output.WriteAsync(part);
            input.AdvanceTo(read.Buffer.End);
            if (read.IsCompleted) return;
        }
    }

    private static async Task<byte[]> ReceiveAll(Socket socket)
    {
        var all = new MemoryStream();
        var buffer = new byte[65536];
        for (int n; (n = await socket.ReceiveAsync(buffer).Within()) > 0;) all.Write(buffer, 0, n);
        return all.ToArray();
    }

    [Test]
    public async Task Echo_ReturnsEverything_AndEndsWhenThePeerDoes()
    {
        await using var server = await Server.Raw(inline, Echo);
        using var socket = await server.Connect();
        var data = new byte[3_000_000];
        new Random(3).NextBytes(data);
        var receiving = ReceiveAll(socket);
        await socket.SendAsync(data).Within();
        socket.Shutdown(SocketShutdown.Send);
        Assert.That((await receiving.Within()).AsSpan().SequenceEqual(data));
    }

    [Test]
    public async Task Application_RunsWhereTheOptionSays()
    {
        var places = new List<EventLoop?>();
        await using var server = await Server.Raw(inline, async connection =>
        {
            var input = connection.Transport.Input;
            while (true)
            {
                var read = await input.ReadAsync();
                Assert.That(SynchronizationContext.Current, Is.Null);
                if (read.IsCompleted) return;
                lock (places) places.Add(EventLoop.Current);
                input.AdvanceTo(read.Buffer.End);
                await Task.Yield(); // elsewhere for a moment: the next read brings it back
                await connection.Transport.Output.WriteAsync(new byte[] { 1 });
            }
        });
        using var socket = await server.Connect();
        var buffer = new byte[16];
        for (var i = 0; i < 20; i++)
        {
            await socket.SendAsync(new byte[] { 2 });
            Assert.That(await socket.ReceiveAsync(buffer).Within(), Is.EqualTo(1));
        }
        lock (places)
        {
            Assert.That(places, Has.Count.EqualTo(20));
            if (!inline) Assert.That(places, Is.All.Null);
            else Assert.That(places.Where(p => p is not null).Distinct().Count(), Is.EqualTo(1), "one loop");
            if (inline) Assert.That(places.Count(p => p is not null), Is.GreaterThanOrEqualTo(15)); // data may be there before the await
        }
    }

    [Test]
    public async Task Connection_HasTheFeaturesOfASocketTransport()
    {
        var seen = new TaskCompletionSource<string>();
        await using var server = await Server.Raw(inline, async connection =>
        {
            try
            {
                var features = connection.Features;
                Assert.That(features.Get<IConnectionSocketFeature>()!.Socket.RemoteEndPoint, Is.EqualTo(connection.RemoteEndPoint));
                Assert.That(features.Get<IConnectionIdFeature>()!.ConnectionId, Is.EqualTo(connection.ConnectionId).And.Length.EqualTo(13));
                Assert.That(features.Get<IConnectionTransportFeature>()!.Transport, Is.SameAs(connection.Transport));
                Assert.That(features.Get<IConnectionItemsFeature>()!.Items, Is.SameAs(connection.Items));
                Assert.That(features.Get<IConnectionLifetimeFeature>()!.ConnectionClosed, Is.EqualTo(connection.ConnectionClosed));
                Assert.That(features.Get<IMemoryPoolFeature>()!.MemoryPool.MaxBufferSize, Is.GreaterThan(0));
                Assert.That(features.Get<IConnectionEndPointFeature>()!.LocalEndPoint, Is.EqualTo(connection.LocalEndPoint));
                Assert.That(features.Get<IConnectionCompleteFeature>(), Is.Not.Null);
                Assert.That(features.Get<IConnectionLifetimeNotificationFeature>(), Is.Not.Null);
                Assert.That(features.Get<IDuplexPipe>(), Is.Null, "no feature");
                Assert.That(features.Select(f => f.Key), Has.Member(typeof(IConnectionSocketFeature)).And.Member(typeof(IConnectionCompleteFeature)));
                var revision = features.Revision;
                features.Set("a feature");
                Assert.That(features.Get<string>(), Is.EqualTo("a feature"));
                Assert.That(features.Revision, Is.GreaterThan(revision));
                features.Set<string>(null);
                Assert.That(features.Get<string>(), Is.Null);
                features.Set<IConnectionItemsFeature>(null);
                Assert.That(features[typeof(IConnectionItemsFeature)], Is.Null);
                Assert.That(connection.LocalEndPoint, Is.InstanceOf<IPEndPoint>());
                seen.SetResult(connection.RemoteEndPoint!.ToString()!);
            }
            catch (Exception e)
            {
                seen.SetException(e);
            }
            await Task.CompletedTask;
        });
        using var socket = await server.Connect();
        Assert.That(await seen.Task.Within(), Is.EqualTo(socket.LocalEndPoint!.ToString()));
    }

    [Test]
    public async Task PeerResets_ReadThrowsConnectionReset_AndClosedIsTold()
    {
        var seen = new TaskCompletionSource<Exception>();
        var closed = new TaskCompletionSource();
        await using var server = await Server.Raw(inline, async connection =>
        {
            connection.ConnectionClosed.Register(closed.SetResult);
            try
            {
                while (true)
                {
                    var read = await connection.Transport.Input.ReadAsync();
                    connection.Transport.Input.AdvanceTo(read.Buffer.End);
                    await connection.Transport.Output.WriteAsync(new byte[1]);
                }
            }
            catch (Exception e)
            {
                seen.SetResult(e);
            }
        });
        using (var socket = await server.Connect())
        {
            await socket.SendAsync(new byte[1]);
            await socket.ReceiveAsync(new byte[1]).Within();
            socket.LingerState = new LingerOption(true, 0);
        }
        Assert.That(await seen.Task.Within(), Is.InstanceOf<ConnectionResetException>());
        await closed.Task.Within();
    }

    [Test]
    public async Task Abort_ResetsThePeer_AndFailsTheReadWithItsReason()
    {
        var seen = new TaskCompletionSource<Exception>();
        await using var server = await Server.Raw(inline, async connection =>
        {
            var read = await connection.Transport.Input.ReadAsync();
            connection.Transport.Input.AdvanceTo(read.Buffer.End);
            var reading = connection.Transport.Input.ReadAsync().AsTask();
            connection.Abort(new ConnectionAbortedException("enough"));
            var flushed = await connection.Transport.Output.WriteAsync(new byte[10]);
            Assert.That(flushed.IsCompleted);
            try
            {
                await reading;
            }
            catch (Exception e)
            {
                seen.SetResult(e);
            }
        });
        using var socket = await server.Connect();
        await socket.SendAsync(new byte[1]);
        Assert.That(await seen.Task.Within(), Is.InstanceOf<ConnectionAbortedException>().And.Message.EqualTo("enough"));
        var failure = await Limits.Throws<SocketException>(() => socket.ReceiveAsync(new byte[1]));
        Assert.That(failure.SocketErrorCode, Is.EqualTo(SocketError.ConnectionReset));
    }

    [Test]
    public async Task PeerCloses_WhileNobodyReads_ClosedIsTold()
    {
        var closed = new TaskCompletionSource();
        await using var server = await Server.Raw(inline, async connection =>
        {
            using var registration = connection.ConnectionClosed.Register(closed.SetResult);
            await closed.Task;
        });
        using (var socket = await server.Connect()) await socket.SendAsync(new byte[1000]); // never read
        await closed.Task.Within();
    }

    [Test]
    public async Task PeerCloses_BehindMoreThanTheReadBuffer_ClosedIsToldWhenItIsRead()
    {
        var go = new TaskCompletionSource();
        var total = new TaskCompletionSource<(long, bool)>();
        await using var server = await Server.Raw(inline, async connection =>
        {
            await go.Task;
            var before = connection.ConnectionClosed.IsCancellationRequested;
            var count = 0L;
            while (true)
            {
                var read = await connection.Transport.Input.ReadAsync();
                count += read.Buffer.Length;
                connection.Transport.Input.AdvanceTo(read.Buffer.End);
                if (!read.IsCompleted) continue;
                total.SetResult((count, before));
                return;
            }
        }, options => options.MaxReadBufferSize = 10_000);
        using var socket = await server.Connect();
        await socket.SendAsync(new byte[60_000]).Within();
        socket.Shutdown(SocketShutdown.Send);
        go.SetResult();
        Assert.That(await total.Task.Within(), Is.EqualTo((60_000L, false)));
    }

    [Test]
    public async Task Flush_ToPeerThatDoesNotRead_WaitsAndGoesOnWhenItReads()
    {
        var written = 0L;
        await using var server = await Server.Raw(inline, async connection =>
        {
            var chunk = new byte[100_000];
            for (var i = 0; i < 200; i++)
            {
                var flushed = await connection.Transport.Output.WriteAsync(chunk);
                Assert.That(flushed.IsCompleted, Is.False);
                Interlocked.Add(ref written, chunk.Length);
            }
        });
        using var socket = await server.Connect();
        var before = -1L;
        Limits.Until(() =>
        {
            var now = Interlocked.Read(ref written);
            var stands = now > 0 && now == before;
            before = now;
            Thread.Sleep(100);
            return stands;
        }, "the writer stands still");
        Assert.That(before, Is.LessThan(20_000_000));
        var all = await ReceiveAll(socket).Within();
        Assert.That(all, Has.Length.EqualTo(20_000_000));
    }

    [Test]
    public async Task Read_Cancelled_GoesOnWithTheNext()
    {
        var seen = new TaskCompletionSource<string>();
        await using var server = await Server.Raw(inline, async connection =>
        {
            var input = connection.Transport.Input;
            var pending = input.ReadAsync();
            input.CancelPendingRead();
            var read = await pending;
            Assert.That(read.IsCanceled);
            Assert.That(read.Buffer.IsEmpty);
            input.AdvanceTo(read.Buffer.End);
            using var cancel = new CancellationTokenSource();
            var second = input.ReadAsync(cancel.Token).AsTask();
            await cancel.CancelAsync();
            try
            {
                await second;
                seen.SetResult("not cancelled");
            }
            catch (OperationCanceledException e)
            {
                Assert.That(e.CancellationToken, Is.EqualTo(cancel.Token));
            }
            input.CancelPendingRead(); // before a read: the next is cancelled
            Assert.That((await input.ReadAsync()).IsCanceled);
            await connection.Transport.Output.WriteAsync(new byte[1]);
            read = await input.ReadAtLeastAsync(6);
            seen.SetResult(System.Text.Encoding.ASCII.GetString(read.Buffer.ToArray()));
        });
        using var socket = await server.Connect();
        await socket.ReceiveAsync(new byte[1]).Within();
        await socket.SendAsync("abc"u8.ToArray());
        await socket.SendAsync("def"u8.ToArray());
        Assert.That(await seen.Task.Within(), Is.EqualTo("abcdef"));
        Assert.That(server.Log.Faults, Is.Empty);
    }

    [Test]
    public async Task PartlyConsumed_IsReadAgain_AcrossBuffers()
    {
        var seen = new TaskCompletionSource<bool>();
        var data = new byte[200_000];
        new Random(4).NextBytes(data);
        await using var server = await Server.Raw(inline, async connection =>
        {
            var input = connection.Transport.Input;
            var got = new List<byte>();
            var step = 1;
            while (got.Count < data.Length)
            {
                var read = await input.ReadAsync();
                if (read.Buffer.Length < Math.Min(step, data.Length - got.Count))
                {
                    input.AdvanceTo(read.Buffer.Start, read.Buffer.End);
                    continue;
                }
                var part = read.Buffer.Slice(0, Math.Min(step, read.Buffer.Length));
                got.AddRange(part.ToArray());
                input.AdvanceTo(part.End);
                step = step * 3 % 20_011 + 1;
            }
            Assert.That(input.TryRead(out _), Is.False);
            seen.SetResult(got.ToArray().AsSpan().SequenceEqual(data));
        });
        using var socket = await server.Connect();
        await socket.SendAsync(data).Within();
        Assert.That(await seen.Task.Within());
    }
}
