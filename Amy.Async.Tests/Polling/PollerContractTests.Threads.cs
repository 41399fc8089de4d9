using System.Buffers;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async.Bench;
using Amy.Async.Samples;

namespace Amy.Async.Tests.Polling;

// Many threads and one poller: amy's multi-threaded example, and registering under stress.
internal abstract partial class PollerContractTests
{
    /// <summary>The long run is the benchmark project's command "registrations".</summary>
    [Test]
    public void RegisterAndDeregister_FromFourThreadsWhileWaiting_LosesNothingAndWakesNobody()
    {
        using var poller = Create();
        var failure = new RegistrarStress(poller, threads: 4, operations: 200_000, Run.Limit).Run(out var notifications);
        Assert.That(failure, Is.Null);
        Assert.That(notifications, Is.Positive);
        Assert.That(poller.WakesWritten, Is.LessThanOrEqualTo(1), "the one that ended the wait");
    }

    /// <summary>A signal interrupts the wait; it goes on to the same deadline.</summary>
    [Test]
    [System.Runtime.Versioning.UnsupportedOSPlatform("windows")]
    public void Wait_InterruptedByASignal_GoesOn()
    {
        using var poller = Create();
        var signals = 0;
        using var registration = PosixSignalRegistration.Create(PosixSignal.SIGWINCH, context => { Interlocked.Increment(ref signals); context.Cancel = true; });
        var thread = 0;
        var waited = TimeSpan.Zero;
        Notification[]? notes = null;
        var waiter = Run.Waiter(() =>
        {
            Volatile.Write(ref thread, gettid());
            var clock = Stopwatch.StartNew();
            notes = Wait(poller, TimeSpan.FromMilliseconds(300));
            waited = clock.Elapsed;
        });
        Run.Until(() => Volatile.Read(ref thread) != 0 && poller.IsSleeping, "the poller sleeps");
        for (var i = 0; i < 10; i++)
        {
            var before = Volatile.Read(ref signals);
            Assert.That((int)syscall(s_tgkill, Environment.ProcessId, thread, 28 /* SIGWINCH */), Is.Zero);
            Run.Until(() => Volatile.Read(ref signals) > before, "the signal was handled");
        }
        Assert.That(waiter.Join(Run.Limit), Is.True);
        Assert.That(notes, Is.Empty);
        Assert.That(waited, Is.GreaterThanOrEqualTo(TimeSpan.FromMilliseconds(300)));
    }

    [DllImport("libc")]
    private static extern int gettid();

    // Bare: musl has no tgkill(2) of its own.
    private static readonly nint s_tgkill = RuntimeInformation.ProcessArchitecture == System.Runtime.InteropServices.Architecture.X64 ? 234 : 131;

    [DllImport("libc")]
    private static extern nint syscall(nint number, nint process, nint thread, nint signal);

    /// <summary>mio.</summary>
    [Test]
    public void Reregister_BeforeAndDuringAWait_TakesEffect()
    {
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        using (a)
        using (b)
        {
            var id = poller.Registrar.Register(b, Interest.Readable);
            poller.Registrar.Reregister(id, Interest.Writable);
            Assert.That(Wait(poller, s_soon), Is.EqualTo(new[] { new Notification(id, Readiness.Writable, 1) }));
            poller.Registrar.Reregister(id, Interest.Readable);
            Notification[]? notes = null;
            var waiter = Run.Waiter(() => notes = Wait(poller, Run.Limit));
            Run.Until(() => poller.IsSleeping, "the poller sleeps");
            poller.Registrar.Reregister(id, Interest.Both);
            Assert.That(waiter.Join(Run.Limit), Is.True);
            Assert.That(notes, Is.EqualTo(new[] { new Notification(id, Readiness.Writable, 1) }));
            Assert.That(poller.WakesWritten, Is.Zero, "the descriptor's readiness ended the wait, no wake-up");
            Assert.Throws<InvalidOperationException>(() => poller.Registrar.Reregister(id + 1, Interest.Both));
        }
    }

    /// <summary>What is no longer asked for is no longer told: on kqueue it was a filter of its own.</summary>
    [Test]
    public void Reregister_ToTheOtherDirection_SilencesTheFirst()
    {
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        using (a)
        using (b)
        {
            var id = poller.Registrar.Register(b, Interest.Readable);
            poller.Registrar.Reregister(id, Interest.Writable);
            Assert.That(Wait(poller, s_soon), Is.EqualTo(new[] { new Notification(id, Readiness.Writable, 1) }));
            a.Send([1]);
            Run.Until(() => b.Available > 0, "the byte arrives");
            Assert.That(Wait(poller, TimeSpan.Zero), Is.Empty);
            poller.Registrar.Reregister(id, Interest.Readable);
            Assert.That(Wait(poller, s_soon), Is.EqualTo(new[] { new Notification(id, Readiness.Readable, 1) }));
        }
    }

    /// <summary>mio: closing a registered descriptor leaves no event behind, and a dup of it none either after Deregister.</summary>
    [Test]
    public void Deregister_ThenClose_WhileADupLives_IsSilent()
    {
        using var poller = Create();
        var (a, b) = NonBlockingPair();
        using (a)
        {
            var dup = dup_((int)b.Handle);
            var id = poller.Registrar.Register(b, Interest.Readable);
            poller.Registrar.Deregister(id);
            b.Dispose();
            a.Send([1]);
            Assert.That(Wait(poller, TimeSpan.FromMilliseconds(20)), Is.Empty);
            Assert.That(close(dup), Is.Zero);
        }
    }

    [DllImport("libc", EntryPoint = "dup")]
    private static extern int dup_(int descriptor);

    [DllImport("libc")]
    private static extern int close(int descriptor);

    /// <summary>
    /// amy: a ready listener, an accepted socket registered by a worker, then re-registered for writing: exactly one
    /// notification each, and nobody woken by registering.
    /// </summary>
    [Test]
    public void ListenerThenAcceptedThenReregisteredByAWorker_OneNotificationEach()
    {
        using var poller = Create();
        using var listener = Pair.ListenPlain();
        listener.Blocking = false;
        var listenerId = poller.Registrar.Register(listener, Interest.Readable);
        using var work = new System.Collections.Concurrent.BlockingCollection<Notification>();
        using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        Socket? accepted = null;
        long id = 0;
        var worker = Run.Waiter(() =>
        {
            foreach (var note in work.GetConsumingEnumerable())
            {
                if (note.Id == listenerId)
                {
                    accepted = listener.Accept();
                    accepted.Blocking = false;
                    Volatile.Write(ref id, poller.Registrar.Register(accepted, Interest.Readable));
                }
                else if (note.Readiness == Readiness.Readable)
                {
                    accepted!.Receive(new byte[10]);
                    poller.Registrar.Reregister(note.Id, Interest.Writable);
                }
            }
        });
        var peer = Run.Waiter(() =>
        {
            client.Connect(listener.LocalEndPoint!);
            Run.Until(() => Volatile.Read(ref id) != 0, "registered");
            client.Send([1]);
        });
        var told = new List<Notification>();
        while (told.Count < 3)
        {
            var notes = Wait(poller, Run.Limit);
            Assert.That(notes, Has.Length.EqualTo(1));
            told.Add(notes[0]);
            work.Add(notes[0]);
        }
        Assert.That(told, Is.EqualTo(new[]
        {
            new Notification(listenerId, Readiness.Readable, 1), new Notification(id, Readiness.Readable, 1), new Notification(id, Readiness.Writable, 1),
        }));
        Assert.That(Wait(poller, TimeSpan.FromMilliseconds(20)), Is.Empty);
        Assert.That(poller.WakesWritten, Is.Zero);
        work.CompleteAdding();
        worker.Join();
        peer.Join();
        accepted!.Dispose();
    }

    /// <summary>amy: the multi-threaded example of its guide; the server is the sample of this repository.</summary>
    [Test]
    public void MultithreadedServer_FortyRealClients_AreAnsweredAndRegisteringWakesNobody()
    {
        using var server = new FrameServer(new IPEndPoint(IPAddress.Loopback, 0), workers: 2);
        Exception? failure = null;
        var clients = Enumerable.Range(0, 40).Select(n => new Thread(() =>
        {
            try
            {
                Converse(server.EndPoint, n);
            }
            catch (Exception e)
            {
                failure = e;
            }
        })).ToArray();
        foreach (var client in clients) client.Start();
        foreach (var client in clients) Assert.That(client.Join(Run.Limit), Is.True);
        Assert.That(failure, Is.Null);
        Assert.That(server.Poller.WakesWritten, Is.Zero);
    }

    // Blocking, as a program of another kind would be; frames from empty to more than the kernel's buffers hold.
    private static void Converse(EndPoint server, int seed)
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { ReceiveTimeout = 30_000, SendTimeout = 30_000 };
        socket.Connect(server);
        var random = new Random(seed);
        var reader = new FrameReader(1 << 20);
        for (var i = 0; i < 20; i++)
        {
            var sent = new byte[i == 10 && seed % 8 == 0 ? 900_000 : random.Next(3000)];
            random.NextBytes(sent);
            var output = new ArrayBufferWriter<byte>();
            FrameWriter.Write(output, sent);
            for (var at = 0; at < output.WrittenCount;) at += socket.Send(output.WrittenSpan.Slice(at, Math.Min(100_000, output.WrittenCount - at)));
            ReadOnlyMemory<byte> back;
            while (!reader.TryRead(out back))
            {
                var received = socket.Receive(reader.GetSpan());
                if (received == 0) throw new EndOfStreamException();
                reader.Advance(received);
            }
            if (!back.Span.SequenceEqual(sent)) throw new InvalidDataException($"frame {i} of client {seed}");
        }
    }
}
