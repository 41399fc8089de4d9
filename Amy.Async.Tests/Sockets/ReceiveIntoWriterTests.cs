using System.Buffers;
using System.Net.Sockets;

namespace Amy.Async.Tests.Sockets;

/// <summary>Receiving into memory that is asked for when there is something.</summary>
[TestFixture]
internal sealed class ReceiveIntoWriterTests
{
    /// <summary>Notes what it is asked.</summary>
    private sealed class Notes(int size) : IBufferWriter<byte>
    {
        private readonly byte[] _memory = new byte[size];

        internal List<int> Advances { get; } = [];

        internal int Asked { get; private set; }

        internal Exception? Refusal { get; set; }

        internal ReadOnlySpan<byte> Memory => _memory;

        public void Advance(int count) => Advances.Add(count);

        public Memory<byte> GetMemory(int sizeHint = 0)
        {
            if (Refusal is not null) throw Refusal;
            Asked++;
            return _memory;
        }

        public Span<byte> GetSpan(int sizeHint = 0) => GetMemory(sizeHint).Span;
    }

    [Test]
    public void Receive_ThatWaits_AsksWhenThereIsData() => Run.OnLoop(async () =>
    {
        var (client, server) = await Pair.Async();
        var notes = new Notes(64);
        var receiving = server.ReceiveAsync(notes);
        Assert.That(notes.Advances, Is.All.EqualTo(0), "nothing there yet");
        var before = notes.Asked;
        await EventLoop.Current!.Yield();
        Assert.That(notes.Asked, Is.EqualTo(before), "not asked while it waits");
        await client.SendAsync(new byte[] { 1, 2, 3 });
        Assert.That(await receiving, Is.EqualTo(3));
        Assert.That(notes.Memory[..3].ToArray(), Is.EqualTo(new byte[] { 1, 2, 3 }));
        Assert.That(notes.Advances[^1], Is.EqualTo(3));
        Assert.That(notes.Advances, Has.Count.EqualTo(notes.Asked));
        client.Dispose();
        Assert.That(await server.ReceiveAsync(notes), Is.Zero);
        Assert.That(notes.Advances[^1], Is.Zero);
        server.Dispose();
    });

    [Test]
    public void Receive_OfWhatIsThere_CompletesAtOnce() => Run.OnLoop(async () =>
    {
        var (client, server) = await Pair.Async();
        await client.SendAsync(new byte[10]);
        await server.ReadableAsync();
        var writer = new ArrayBufferWriter<byte>();
        var receiving = server.ReceiveAsync(writer);
        Assert.That(receiving.IsCompleted);
        Assert.That(await receiving, Is.EqualTo(10));
        Assert.That(writer.WrittenCount, Is.EqualTo(10));
        client.Dispose();
        server.Dispose();
    });

    [Test]
    public void Receive_WriterThatRefuses_FailsTheReceiveAndFreesTheDirection() => Run.OnLoop(async () =>
    {
        var (client, server) = await Pair.Async();
        var notes = new Notes(64);
        var receiving = server.ReceiveAsync(notes);
        notes.Refusal = new InvalidOperationException("full");
        await client.SendAsync(new byte[5]);
        var failure = await Expect.Throws<InvalidOperationException>(async () => await receiving);
        Assert.That(failure.Message, Is.EqualTo("full"));
        failure = await Expect.Throws<InvalidOperationException>(async () => await server.ReceiveAsync(notes));
        Assert.That(failure.Message, Is.EqualTo("full"));
        notes.Refusal = null;
        Assert.That(await server.ReceiveAsync(notes), Is.EqualTo(5));
        client.Dispose();
        server.Dispose();
    });

    [Test]
    public void Receive_CancelledOrReset_TellsAndTakesNothing() => Run.OnLoop(async () =>
    {
        TestPoller.SkipOnLibkqueue("it takes the error of a connection away (SO_ERROR) before a call can tell it");
        var (client, server) = await Pair.Async();
        var notes = new Notes(64);
        using var cancel = new CancellationTokenSource();
        var receiving = server.ReceiveAsync(notes, cancel.Token);
        cancel.Cancel();
        await Expect.Throws<OperationCanceledException>(async () => await receiving);
        Assert.That(notes.Advances, Is.All.EqualTo(0));
        receiving = server.ReceiveAsync(notes);
        client.Abort();
        var failure = await Expect.Throws<SocketException>(async () => await receiving);
        Assert.That(failure.SocketErrorCode, Is.EqualTo(SocketError.ConnectionReset));
        server.Dispose();
    });

#if !AMY_NETSTANDARD
    [Test]
    public void Receive_AgainAndAgain_AllocatesNothing() => Run.OnLoop(async () =>
    {
        var (client, server) = await Pair.Async();
        var notes = new Notes(64);
        notes.Advances.Capacity = 32_000;
        var message = new byte[8];
        async ValueTask<long> Trips(int count)
        {
            var before = GC.GetAllocatedBytesForCurrentThread();
            for (var i = 0; i < count; i++)
            {
                var receiving = server.ReceiveAsync(notes);
                await client.SendAsync(message);
                if (await receiving != 8) Assert.Fail("not what was sent"); // a constraint would allocate
            }
            return GC.GetAllocatedBytesForCurrentThread() - before;
        }
        await Trips(1000);
        var one = await Trips(1);
        Assert.That(await Trips(3000), Is.EqualTo(one), "what the first trip of a call costs, and no more");
        client.Dispose();
        server.Dispose();
    });
#endif
}
