using System.IO.Pipelines;
using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Tests.Loop;

/// <summary>
/// Cancelling before an operation begins, while it waits, and by another thread at any moment, while what it waits for comes by
/// a third thread at any moment: no byte, datagram or connection is lost or doubled, and no other operation is hit.
/// </summary>
[TestFixture]
internal sealed class CancellationRaceTests
{
    private const int Cycles = 100_000;

    private sealed class Tally
    {
        internal int Completed, Cancelled;
    }

    /// <summary>A thread that cancels what it is handed, a moment later.</summary>
    private sealed class Canceller : IDisposable
    {
        private readonly Thread _thread;
        private CancellationTokenSource? _next; // Interlocked: each is taken once, by the thread or back by its owner
        private volatile bool _stop;

        internal Canceller()
        {
            _thread = new Thread(() =>
            {
                for (var i = 0; !_stop; i++)
                {
                    if (Interlocked.Exchange(ref _next, null) is not { } source)
                    {
                        Thread.Yield();
                        continue;
                    }
                    Thread.SpinWait(i * 7 % 300);
                    source.Cancel();
                }
            })
            { IsBackground = true };
            _thread.Start();
        }

        internal void Hand(CancellationTokenSource source) => Volatile.Write(ref _next, source);

        internal bool TakeBack(CancellationTokenSource source) => Interlocked.CompareExchange(ref _next, null, source) == source;

        public void Dispose()
        {
            _stop = true;
            _thread.Join();
        }
    }

    /// <summary>On the loop: operations one after the other, cancelled in every way, and some that are not.</summary>
    private static async Task<Tally> Race(Func<CancellationToken, Task> operate, int cycles = Cycles)
    {
        var tally = new Tally();
        using var canceller = new Canceller();
        var source = new CancellationTokenSource();
        for (var i = 0; i < cycles; i++)
        {
            var how = i % 8;
            if (how == 0) source.Cancel(); // before
            if (how >= 2) canceller.Hand(source); // at any moment
            try
            {
                var operation = operate(source.Token);
                if (how == 1) source.Cancel(); // during
                await operation;
                tally.Completed++;
            }
            catch (OperationCanceledException e)
            {
                if (e.CancellationToken != source.Token || !source.IsCancellationRequested) Assert.Fail("cancelled by another operation's token");
                tally.Cancelled++;
            }
            if (i % 16 == 15) await operate(CancellationToken.None); // a late cancel would hit this one
            if (how >= 2 && !canceller.TakeBack(source) || !source.TryReset()) source = new CancellationTokenSource(); // the thread may still hold the old one
        }
        source.Dispose();
        Assert.That((tally.Completed > 0, tally.Cancelled > 0), Is.EqualTo((true, true)), $"{tally.Completed} completed, {tally.Cancelled} cancelled");
        TestContext.Out.WriteLine($"{tally.Completed} completed, {tally.Cancelled} cancelled");
        return tally;
    }

    /// <summary>A thread that sends consecutive bytes, a few more each time that all have been received.</summary>
    private sealed class Sender : IDisposable
    {
        private readonly Thread _thread;
        private volatile bool _stop;
        private long _received;

        internal long Sent; // written by the thread

        internal Sender(Socket socket, int most = 3)
        {
            _thread = new Thread(() =>
            {
                var data = new byte[most];
                while (!_stop)
                {
                    if (Volatile.Read(ref _received) < Sent)
                    {
                        Thread.Yield();
                        continue;
                    }
                    var count = 1 + (int)(Sent % most);
                    for (var i = 0; i < count; i++) data[i] = (byte)(Sent + i);
                    Volatile.Write(ref Sent, Sent + count);
                    if (socket.Send(data, 0, count, SocketFlags.None) != count) throw new InvalidOperationException("sent in part");
                }
            })
            { IsBackground = true };
            _thread.Start();
        }

        internal long Received => _received;

        internal void Receive(ReadOnlySpan<byte> data)
        {
            for (var i = 0; i < data.Length; i++)
                if (data[i] != (byte)(_received + i)) Assert.Fail($"byte {_received + i} is {data[i]}");
            Volatile.Write(ref _received, _received + data.Length);
        }

        public void Dispose()
        {
            _stop = true;
            _thread.Join();
        }
    }

    [TestCase("tcp", "receive", Cycles)]
    [TestCase("unix", "receive", Cycles)]
    [TestCase("tcp", "readable", Cycles)]
    [TestCase("unix", "plain readable", Cycles)]
    [TestCase("tcp", "vectors", Cycles / 4)]
    [TestCase("unix", "message", Cycles / 4)]
    [TestCase("tcp", "stream", Cycles / 4)]
    [TestCase("tcp", "pipe", Cycles / 4)]
    [TestCase("unix", "descriptor", Cycles)]
    public void Receive_LosesNoByte(string kind, string operation, int cycles) => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Of(kind);
        using (x)
        using (y)
        {
            using var a = operation == "plain readable" || operation == "descriptor" ? null : new AsyncSocket(x);
            using var fd = operation == "descriptor" ? new AsyncFd(x.SafeHandle, ownsHandle: false) : null;
            var stream = operation == "stream" ? a!.AsStream() : null;
            var input = operation == "pipe" ? a!.AsPipe().Input : null;
            var buffer = new byte[2];
            var vectors = new[] { new ArraySegment<byte>(buffer, 0, 1), new ArraySegment<byte>(buffer, 1, 1) };
            var sender = new Sender(y);
            using (sender)
            {
                await Race(operation switch
                {
                    "receive" => async t => sender.Receive(buffer.AsSpan(0, await a!.ReceiveAsync(buffer, t))),
                    "vectors" => async t => sender.Receive(buffer.AsSpan(0, await a!.ReceiveAsync(vectors, t))),
                    "message" => async t => sender.Receive(buffer.AsSpan(0, (await a!.ReceiveMessageAsync(buffer, default, null, t)).Count)),
                    "stream" => async t => sender.Receive(buffer.AsSpan(0, await stream!.ReadAsync(buffer, t))),
                    "descriptor" => async t => sender.Receive(buffer.AsSpan(0, await fd!.ReadAsync(buffer, t))),
                    "readable" => async t =>
                    {
                        await a!.ReadableAsync(t);
                        if (!a.TryReceive(buffer, out var n)) Assert.Fail("not readable");
                        sender.Receive(buffer.AsSpan(0, n));
                    }
                    ,
                    "plain readable" => async t =>
                    {
                        await x.ReadableAsync(t);
                        var n = x.Receive(buffer, SocketFlags.None, out var error);
                        if (error != SocketError.WouldBlock) sender.Receive(buffer.AsSpan(0, n)); // it may be spurious
                    }
                    ,
                    _ => async t =>
                    {
                        var result = await input!.ReadAsync(t);
                        foreach (var part in result.Buffer) sender.Receive(part.Span);
                        input.AdvanceTo(result.Buffer.End);
                    }
                    ,
                }, cycles);
            }
            while (sender.Received < sender.Sent) // what was on its way
            {
                if (input is not null)
                {
                    var result = await input.ReadAsync();
                    foreach (var part in result.Buffer) sender.Receive(part.Span);
                    input.AdvanceTo(result.Buffer.End);
                }
                else if (fd is not null) sender.Receive(buffer.AsSpan(0, await fd.ReadAsync(buffer)));
                else if (a is not null) sender.Receive(buffer.AsSpan(0, await a.ReceiveAsync(buffer)));
                else sender.Receive(buffer.AsSpan(0, x.Receive(buffer)));
            }
            Assert.That(x.Available, Is.Zero, "and none is there twice");
            if (a is not null) Assert.That(a.BytesReceived, Is.EqualTo(sender.Sent));
        }
    });

    [Test]
    public void ReceiveFrom_LosesNoDatagram() => Run.OnLoop(async () =>
    {
        using var a = AsyncSocket.BindDatagram(new IPEndPoint(IPAddress.Loopback, 0));
        using var peer = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        peer.Connect(a.LocalEndPoint!);
        var remote = new SocketAddress(AddressFamily.InterNetwork);
        var buffer = new byte[8];
        var sender = new Sender(peer, most: 1);
        using (sender)
            await Race(async t => sender.Receive(buffer.AsSpan(0, await a.ReceiveFromAsync(buffer, remote, t))));
        while (sender.Received < sender.Sent) sender.Receive(buffer.AsSpan(0, await a.ReceiveFromAsync(buffer, remote)));
        Assert.That(a.TryReceive(buffer, out _), Is.False);
    });

    // A cancelled send may have sent a part: BytesSent says how much, and the next one goes on there.
    [TestCase("tcp", "send", Cycles)]
    [TestCase("unix", "send", Cycles)]
    [TestCase("tcp", "writable", Cycles)]
    [TestCase("tcp", "sequence", Cycles / 4)]
    [TestCase("unix", "descriptor", Cycles)]
    public void Send_BytesSentIsExact(string kind, string operation, int cycles) => Run.OnLoop(async () =>
    {
        const int period = 251, most = 5000;
        var data = new byte[most + period];
        for (var i = 0; i < data.Length; i++) data[i] = (byte)(i % period);
        var (x, y) = Pair.Of(kind);
        using (x)
        using (y)
        {
            x.SendBufferSize = 4608;
            if (kind == "unix") y.ReceiveBufferSize = 4608; // so small a window of TCP is opened by timers only
            using var a = operation == "descriptor" ? null : new AsyncSocket(x);
            using var fd = operation == "descriptor" ? new AsyncFd(x.SafeHandle, ownsHandle: false) : null;
            var received = 0L;
            var reader = Task.Factory.StartNew(() =>
            {
                var buffer = new byte[4000];
                while (y.Receive(buffer) is var n and > 0)
                {
                    for (var i = 0; i < n; i++)
                        if (buffer[i] != (received + i) % period) throw new InvalidOperationException($"byte {received + i} is {buffer[i]}");
                    received += n;
                }
            }, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
            long Sent() => a?.BytesSent ?? fd!.BytesWritten;
            Memory<byte> Next() => data.AsMemory((int)(Sent() % period), 1000 + (int)(Sent() % (most - 1000)));
            await Race(operation switch
            {
                "send" => async t => await a!.SendAsync(Next(), t),
                "sequence" => async t => await a!.SendAsync(new System.Buffers.ReadOnlySequence<byte>(Next()), t),
                "descriptor" => async t => await fd!.WriteAsync(Next(), t),
                _ => async t =>
                {
                    await a!.WritableAsync(t);
                    while (a.TrySend(Next().Span, out _)) continue;
                }
                ,
            }, cycles);
            x.Shutdown(SocketShutdown.Send);
            await reader;
            Assert.That(received, Is.EqualTo(Sent()));
        }
    });

    // A listener of the Unix domain: ports would run out.
    [Test]
    public void Accept_LosesNoConnection() => Run.OnLoop(async () =>
    {
        var end = new UnixDomainSocketEndPoint(Pair.TemporaryPath());
        using var listener = AsyncSocket.Listen(end);
        var buffer = new byte[4];
        int accepted = 0, made = 0;
        var stop = false;
        var connecting = new Thread(() =>
        {
            while (!Volatile.Read(ref stop))
            {
                if (Volatile.Read(ref accepted) < made)
                {
                    Thread.Yield();
                    continue;
                }
                using var client = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                client.Connect(end);
                client.Send(BitConverter.GetBytes(made));
                Volatile.Write(ref made, made + 1);
            }
        })
        { IsBackground = true };
        connecting.Start();
        async Task Accept(CancellationToken token)
        {
            using var connection = await listener.AcceptAsync(token);
            Assert.That(await connection.ReceiveAsync(buffer, CancellationToken.None), Is.EqualTo(4));
            if (BitConverter.ToInt32(buffer) != accepted) Assert.Fail($"connection {accepted} is {BitConverter.ToInt32(buffer)}");
            Volatile.Write(ref accepted, accepted + 1);
        }
        await Race(Accept);
        Volatile.Write(ref stop, true);
        connecting.Join();
        while (accepted < made) await Accept(CancellationToken.None);
        Assert.That(listener.Socket.Poll(0, SelectMode.SelectRead), Is.False, "and none is left");
    });

    // What was cancelled leaves no descriptor, what was not is a connection. (Of the Unix domain, connecting never waits but for a
    // full backlog.)
    [Test]
    public void Connect_LeavesNoDescriptor() => Run.OnLoop(async () =>
    {
        var before = Descriptors.Settle();
        using var listener = Pair.ListenPlain();
        var end = listener.LocalEndPoint!;
        var (connected, accepted) = (0, 0);
        using var last = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        last.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        var endMark = last.LocalEndPoint!; // accepted behind all others
        var accepting = new Thread(() =>
        {
            var buffer = new byte[1];
            while (true)
            {
                using var connection = listener.Accept();
                if (connection.RemoteEndPoint!.Equals(endMark)) return;
                connection.LingerState = new LingerOption(true, 0); // no port stays behind
                if (connection.Receive(buffer, 0, 1, SocketFlags.None, out _) == 1) accepted++; // else the other side was cancelled
            }
        })
        { IsBackground = true };
        accepting.Start();
        var one = new byte[1];
        var tally = await Race(async t =>
        {
            using var connection = await AsyncSocket.ConnectAsync(end, null, t);
            if (await connection.SendAsync(one, CancellationToken.None) != 1) Assert.Fail("no connection");
            connected++;
        });
        last.Connect(end);
        Assert.That(accepting.Join(Run.Limit), Is.True);
        last.Dispose();
        listener.Dispose();
        Assert.That(accepted, Is.EqualTo(connected));
        Assert.That(Descriptors.Settle(), Is.LessThanOrEqualTo(before), Descriptors.List());
    });

    // To a receiver whose queue is full most of the time.
    [Test]
    public void SendOfADatagram_SendsItOnceOrNotAtAll() => Run.OnLoop(async () =>
    {
        var end = new UnixDomainSocketEndPoint(Pair.TemporaryPath());
        using var receiver = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        receiver.Bind(end);
        var sender = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
        sender.Connect(end);
        using var a = new AsyncSocket(sender);
        var (sent, received) = (0, 0);
        var reading = Task.Factory.StartNew(() =>
        {
            var buffer = new byte[8];
            while (receiver.Receive(buffer) == 4)
            {
                if (BitConverter.ToInt32(buffer) != received) throw new InvalidOperationException($"datagram {received} is {BitConverter.ToInt32(buffer)}");
                received++;
            }
        }, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);
        await Race(async t =>
        {
            for (var i = 0; i < 3; i++, sent++) await a.SendAsync(BitConverter.GetBytes(sent), t);
        });
        await a.SendAsync(new byte[1]);
        await reading;
        File.Delete(end.ToString()!);
        Assert.That(received, Is.EqualTo(sent));
    });

    [Test]
    public void Delay_EndsOnce_AndLeavesNoTimer() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        var i = 0;
        var tally = await Race(async t => await loop.Delay(TimeSpan.FromTicks(i++ % 500), t));
        Assert.That(tally.Completed + tally.Cancelled, Is.EqualTo(Cycles));
        Assert.That(loop.Statistics.TimersPending, Is.Zero);
    });

    [Test]
    public void Tick_IsNotTakenByACancelledWait() => Run.OnLoop(async () =>
    {
        var loop = EventLoop.Current!;
        using var timer = loop.CreateTimer(TimeSpan.FromTicks(300));
        var tally = await Race(async t => Assert.That(await timer.WaitForNextTickAsync(t), Is.True), Cycles / 4);
        Assert.That(tally.Completed + tally.Cancelled, Is.EqualTo(Cycles / 4));
    });

    // From a thread that is no loop's: begun, cancelled and completed by four different threads.
    [TestCase("tcp")]
    [TestCase("unix")]
    public void Receive_FromAnotherThread_LosesNoByte(string kind)
    {
        using var loop = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
        var (x, y) = Pair.Of(kind);
        using var a = new AsyncSocket(x, loop);
        using (y)
        {
            var buffer = new byte[2];
            var sender = new Sender(y);
            using (sender)
                Run.Wait(Task.Run(() => Race(async t => sender.Receive(buffer.AsSpan(0, await a.ReceiveAsync(buffer, t))), Cycles / 4)));
            while (sender.Received < sender.Sent) sender.Receive(buffer.AsSpan(0, Run.Wait(a.ReceiveAsync(buffer).AsTask())));
            Assert.That(a.BytesReceived, Is.EqualTo(sender.Sent));
            Assert.That(x.Available, Is.Zero);
        }
    }
}
