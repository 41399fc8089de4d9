using System.IO.Pipelines;
using System.Net.Sockets;
using System.Text;
using Amy.Async.Fuzz;
using FsCheck;
using FsCheck.Fluent;

namespace Amy.Async.Tests.Properties;

/// <summary>
/// Whatever is sent comes back, however it is cut and by whichever way it comes; what is over the limit is refused, exactly; any
/// bytes at all do no harm.
/// </summary>
[TestFixture]
internal sealed class CodecPropertyTests
{
    private static IEnumerable<MessageStream> SmallerLines(MessageStream stream) => MessageStream.Smaller(stream, lines: true);

    private static IEnumerable<MessageStream> SmallerFrames(MessageStream stream) => MessageStream.Smaller(stream, lines: false);

    private static void CheckLines(MessageStream stream)
    {
        Ways.Buffered(new LineReader(stream.Max), stream.Encoded, stream.Pieces).MustBe(stream.Expected(), "buffered");
        Ways.Sequences(new LineReader(stream.Max), stream.Encoded, stream.Pieces).MustBe(stream.Expected(), "sequences");
        Run.Wait(Ways.PipeLines(stream.Encoded, stream.Max, stream.Pieces)).MustBe(stream.Expected().AsText(), "pipe");
        Decoded.OfLines(stream.Encoded, stream.Max).MustBe(stream.Expected(), "the fuzzer's own judge");
    }

    private static void CheckFrames(MessageStream stream)
    {
        Ways.Buffered(new FrameReader(stream.Max), stream.Encoded, stream.Pieces).MustBe(stream.Expected(), "buffered");
        Ways.Sequences(new FrameReader(stream.Max), stream.Encoded, stream.Pieces).MustBe(stream.Expected(), "sequences");
        Run.Wait(Ways.PipeFrames(stream.Encoded, stream.Max, stream.Pieces)).MustBe(stream.Expected(), "pipe");
        Decoded.OfFrames(stream.Encoded, stream.Max).MustBe(stream.Expected(), "the fuzzer's own judge");
    }

    [Test]
    public void Lines_AnyMessages_CutAnywhere_ComeBackByEachWay() => Property.Holds(300, MessageStream.Lines(), CheckLines, SmallerLines);

    [Test]
    public void Lines_AnyText_CutAnywhere_ComesBackByEachWay() => Property.Holds(300, MessageStream.Lines(text: true), CheckLines, SmallerLines);

    [Test]
    public void Frames_AnyMessages_CutAnywhere_ComeBackByEachWay() => Property.Holds(300, MessageStream.Frames(), CheckFrames, SmallerFrames);

    [Test]
    public void Lines_AboutTheMaximum_AreRefusedExactlyAboveIt() => Property.Holds(300, MessageStream.AtTheLimit(lines: true), CheckLines, SmallerLines);

    [Test]
    public void Frames_AboutTheMaximum_AreRefusedExactlyAboveIt() => Property.Holds(300, MessageStream.AtTheLimit(lines: false), stream =>
    {
        CheckFrames(stream);
        foreach (var message in stream.Messages)
        {
            var writer = new FrameWriter(stream.Max);
            if (message.Length > stream.Max) Assert.Throws<ArgumentException>(() => writer.TryWrite(message));
            else Assert.That(writer.TryWrite(message), Is.True);
        }
    }, SmallerFrames);

    /// <summary>A writer that is drained in pieces writes what one that is drained at once does.</summary>
    [Test]
    public void FrameWriter_DrainedInAnyPieces_WritesTheSame() => Property.Holds(400, MessageStream.Frames(), stream =>
    {
        var writer = new FrameWriter(stream.Max, stream.Max + 4 + stream.Pieces.Sum() % 3000);
        var written = new List<byte>();
        var step = 0;
        foreach (var message in stream.Messages)
            while (!writer.TryWrite(message)) Drain();
        while (!writer.IsEmpty) Drain();
        Assert.That(written.ToArray().AsSpan().SequenceEqual(stream.Encoded), Is.True); // NUnit's own comparison is slow

        void Drain()
        {
            var take = stream.Pieces.Length == 0 ? int.MaxValue : Math.Max(1, stream.Pieces[step++ % stream.Pieces.Length]);
            take = Math.Min(take, writer.Unwritten.Length);
            written.AddRange(writer.Unwritten.Span[..take]);
            writer.Advance(take);
        }
    }, SmallerFrames);

    private static IEnumerable<string> AllTargets() => Targets.All.Keys.Order();

    /// <summary>Bytes that nobody has thought of: as <see cref="Targets"/> says.</summary>
    [TestCaseSource(nameof(AllTargets))]
    public void AnyBytes_DoNoHarm(string target) =>
        Property.Holds(600, Property.Bytes(Gen.Frequency((6, Gen.Choose(0, 150)), (1, Gen.Choose(0, 3000)))), Targets.All[target]);

    private static IEnumerable<TestCaseData> Corpus() =>
        from folder in Directory.GetDirectories(Path.Combine(Repository.Root, "Amy.Async.Fuzz", "corpus")).Order()
        from file in Directory.GetFiles(folder).Order()
        select new TestCaseData(Path.GetFileName(folder), file).SetName($"Corpus_{Path.GetFileName(folder)}_{Path.GetFileName(file)}_DoesNoHarm");

    /// <summary>What a fuzzer begins with, and what it has found.</summary>
    [TestCaseSource(nameof(Corpus))]
    public void Corpus_DoesNoHarm(string target, string file) => Targets.All[target](File.ReadAllBytes(file));

    [Test]
    public void Corpus_HasSomethingForEachTarget_AndForNothingElse() =>
        Assert.That(Corpus().Select(c => (string)c.Arguments[0]!).Distinct(), Is.EquivalentTo(Targets.All.Keys));

    // ---- sockets and streams

    private static async Task Send(AsyncSocket socket, MessageStream stream)
    {
        var at = 0;
        foreach (var end in Ways.Ends(stream.Encoded.Length, [.. stream.Pieces.Select(p => Math.Max(p, stream.Encoded.Length / 50))])) // at most some fifty
        {
            await socket.SendAsync(stream.Encoded.AsMemory(at, end - at));
            at = end;
            await EventLoop.Current!.Yield(); // the peer reads in between
        }
        socket.Shutdown(SocketShutdown.Send);
    }

    private static void OverSockets(bool lines, string kind, string way, int cases)
    {
        using var loop = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
        Property.Holds(cases, lines ? MessageStream.Lines(text: true) : MessageStream.Frames(), stream => Run.Wait(loop.InvokeAsync(async () =>
        {
            var (x, y) = Pair.Of(kind);
            using var client = new AsyncSocket(x);
            using var server = new AsyncSocket(y);
            var receiving = Ways.DecodedOf(messages => lines ? Lines(messages) : Frames(messages));
            await Send(client, stream);
            (await receiving).MustBe(stream.Expected(), way);

            async Task Lines(List<byte[]> messages)
            {
                await foreach (var line in way == "socket" ? server.ReadLinesAsync(stream.Max) : Reader(server, way).ReadLinesAsync(stream.Max)) messages.Add(Encoding.UTF8.GetBytes(line));
            }

            async Task Frames(List<byte[]> messages)
            {
                if (way == "socket")
                    await foreach (var frame in server.ReadFramesAsync(stream.Max)) messages.Add(frame.ToArray());
                else
                    await foreach (var frame in Reader(server, way).ReadFramesAsync(stream.Max))
                        messages.Add(System.Buffers.BuffersExtensions.ToArray(frame));
            }
        })), lines ? SmallerLines : SmallerFrames);
    }

    private static PipeReader Reader(AsyncSocket socket, string way) => way == "pipe" ? socket.AsPipe().Input : PipeReader.Create(socket.AsStream());

    [Test]
    public void Lines_OverASocket_ComeBackByEachAdapter([Values("tcp", "unix")] string kind, [Values("socket", "pipe", "stream")] string way) => OverSockets(lines: true, kind, way, 40);

    [Test]
    public void Frames_OverASocket_ComeBackByEachAdapter([Values("tcp", "unix")] string kind, [Values("socket", "pipe", "stream")] string way) => OverSockets(lines: false, kind, way, 40);

    /// <summary>A writer, sent by the socket that waits and by the one that only tries, and read by frames.</summary>
    [Test]
    public void FrameWriter_OverASocket_EachFrameComesBack([Values("tcp", "unix")] string kind)
    {
        using var loop = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
        Property.Holds(40, MessageStream.Frames(), stream => Run.Wait(loop.InvokeAsync(async () =>
        {
            var (x, y) = Pair.Of(kind);
            using var client = new AsyncSocket(x);
            using var server = new AsyncSocket(y);
            var receiving = Ways.DecodedOf(async messages =>
            {
                await foreach (var frame in server.ReadFramesAsync(stream.Max)) messages.Add(frame.ToArray());
            });
            var writer = new FrameWriter(stream.Max, stream.Max + 4);
            foreach (var message in stream.Messages)
                while (!writer.TryWrite(message))
                {
                    if (stream.Pieces.Length % 2 == 0) await client.SendAsync(writer);
                    else if (!client.TrySend(writer)) await client.WritableAsync();
                }
            await client.SendAsync(writer);
            client.Shutdown(SocketShutdown.Send);
            (await receiving).MustBe(stream.Expected(), kind);
        })), SmallerFrames);
    }
}
