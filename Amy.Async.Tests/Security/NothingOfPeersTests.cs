using System.Collections.Concurrent;
using System.Diagnostics.Metrics;
using System.Diagnostics.Tracing;
using System.IO.Pipelines;
using System.Net.Security;
using System.Net.Sockets;
using System.Runtime.ExceptionServices;
using System.Text;
using Amy.Async.Tests.Programs;

namespace Amy.Async.Tests.Security;

/// <summary>Nothing that a peer has sent is in an exception, a trace or a metric of the library.</summary>
[TestFixture]
[NonParallelizable]
internal sealed class NothingOfPeersTests
{
    private const string Marker = "Sesame-4711-open";

    /// <summary>Every exception that is thrown anywhere meanwhile, each measurement, each event of a source of ours.</summary>
    private sealed class Ears : EventListener
    {
        private readonly ConcurrentQueue<string> _heard = [];
        private readonly MeterListener _meters = new();

        internal Ears()
        {
            AppDomain.CurrentDomain.FirstChanceException += OnException;
            _meters.InstrumentPublished = (instrument, listener) =>
            {
                if (instrument.Meter.Name == "Amy.Async") listener.EnableMeasurementEvents(instrument);
            };
            _meters.SetMeasurementEventCallback<long>((instrument, _, tags, _) => Hear(instrument, tags));
            _meters.SetMeasurementEventCallback<int>((instrument, _, tags, _) => Hear(instrument, tags));
            _meters.SetMeasurementEventCallback<double>((instrument, _, tags, _) => Hear(instrument, tags));
            _meters.Start();
        }

        internal int Exceptions { get; private set; }

        internal IEnumerable<string> Heard => _heard;

        internal void Measure() => _meters.RecordObservableInstruments();

        private void Hear(Instrument instrument, ReadOnlySpan<KeyValuePair<string, object?>> tags) =>
            _heard.Enqueue($"{instrument.Name}{string.Join(' ', tags.ToArray().Select(t => $" {t.Key}={t.Value}"))}");

        private void OnException(object? sender, FirstChanceExceptionEventArgs e)
        {
            Exceptions++;
            _heard.Enqueue(e.Exception.ToString());
            foreach (var value in e.Exception.Data.Values) _heard.Enqueue($"{value}");
        }

        protected override void OnEventSourceCreated(EventSource eventSource)
        {
            if (eventSource.GetType().Assembly == typeof(EventLoop).Assembly) EnableEvents(eventSource, EventLevel.Verbose, EventKeywords.All);
        }

        protected override void OnEventWritten(EventWrittenEventArgs eventData) =>
            _heard.Enqueue($"{eventData.EventName} {eventData.Message} {string.Join(' ', eventData.Payload ?? (IEnumerable<object?>)[])}");

        public override void Dispose()
        {
            AppDomain.CurrentDomain.FirstChanceException -= OnException;
            _meters.Dispose();
            base.Dispose();
        }
    }

    private static byte[] Bytes(string text) => Encoding.Latin1.GetBytes(text);

    private static readonly (string Name, byte[] Sent, Func<AsyncSocket, Task> Receive)[] s_peers =
    [
        ("a line that is too long", Bytes(Marker + Marker), Lines),
        ("a line that is not UTF-8", Bytes("\xC3\x28" + Marker + "\n"), Lines),
        ("a last line that is not UTF-8", Bytes("\xC3\x28" + Marker), Lines),
        ("a frame that is too large", Bytes(Marker), async socket => { await foreach (var _ in socket.ReadFramesAsync(100)) { } }),
        ("a frame that is cut off", Bytes("\0\0\0\x50" + Marker), async socket => { await foreach (var _ in socket.ReadFramesAsync(100)) { } }),
        ("a line of a pipe that is too long", Bytes(Marker + Marker), async socket => { await foreach (var _ in socket.AsPipe().Input.ReadLinesAsync(20)) { } }),
        ("a line of a pipe that is not UTF-8", Bytes("\xC3\x28" + Marker + "\n"), async socket => { await foreach (var _ in socket.AsPipe().Input.ReadLinesAsync(100)) { } }),
        ("a frame of a pipe that is too large", Bytes(Marker), async socket => { await foreach (var _ in socket.AsPipe().Input.ReadFramesAsync(100)) { } }),
        ("a frame of a stream that is cut off", Bytes("\0\0\0\x50" + Marker), async socket => { await foreach (var _ in PipeReader.Create(socket.AsStream()).ReadFramesAsync(100)) { } }),
        ("no TLS at all", Bytes(Marker + Marker + "\r\n"), Tls),
        ("a TLS record of nonsense", Bytes("\x16\x03\x01\0\x10" + Marker), Tls),
        ("a buffer that throws", Bytes(Marker), async socket =>
        {
            await socket.ReceiveAsync(new byte[8]);
            socket.Dispose();
            await socket.ReceiveAsync(new byte[8]);
        }),
    ];

    private static async Task Lines(AsyncSocket socket)
    {
        await foreach (var _ in socket.ReadLinesAsync(maxLength: 20)) { }
    }

    private static async Task Tls(AsyncSocket socket)
    {
        using var certificate = TlsTests.MakeCertificate("localhost");
        await using var stream = new SslStream(socket.AsStream());
        await stream.AuthenticateAsServerAsync(certificate);
    }

    private static IEnumerable<TestCaseData> Peers() => s_peers.Select(p => new TestCaseData(p.Sent, p.Receive).SetName($"Peer_Sends_{p.Name.Replace(' ', '_')}_NothingOfItIsTold"));

    [TestCaseSource(nameof(Peers))]
    public void Peer_NothingOfItIsTold(byte[] sent, Func<AsyncSocket, Task> receive)
    {
        using var ears = new Ears();
        Run.OnLoop(async () =>
        {
            foreach (var reset in new[] { false, true })
            {
                var (client, server) = await Pair.Async();
                using (client)
                using (server)
                {
                    var receiving = receive(server);
                    await client.SendAsync(sent);
                    if (reset) client.Abort();
                    else client.Shutdown(SocketShutdown.Send);
                    try
                    {
                        await receiving;
                        Assert.Fail("It is to be refused.");
                    }
                    catch (Exception e) when (e is not AssertionException)
                    {
                        TestContext.Out.WriteLine(e.Message);
                    }
                }
            }
            ears.Measure();
        });
        Assert.That(ears.Exceptions, Is.GreaterThanOrEqualTo(2));
        Assert.That(ears.Heard.Any(h => h.StartsWith("amy.loop.turns", StringComparison.Ordinal)), Is.True, "it listens");
        var hexadecimal = Convert.ToHexString(Bytes(Marker[..8]));
        foreach (var heard in ears.Heard)
        {
            Assert.That(heard, Does.Not.Contain("Sesame"));
            Assert.That(heard, Does.Not.Contain(hexadecimal));
        }
    }

    /// <summary>An encoder's own exception names the bytes that it could not read; it does not go along.</summary>
    [Test]
    public void NotUtf8_TheExceptionHasNoByteOfIt()
    {
        var reader = new LineReader(100);
        new byte[] { 0xC3, 0x28, (byte)'\n' }.CopyTo(reader.GetSpan());
        reader.Advance(3);
        var error = Assert.Throws<InvalidDataException>(() => reader.TryRead(out string? _))!;
        Assert.That(error.ToString(), Does.Not.Contain("C3"));
        Assert.That(error.InnerException, Is.Null);
    }
}
