using System.Net.Sockets;

namespace Amy.Async.Bench;

/// <summary>
/// One end of a connection: sends, receives, and does all that one can do to a socket. Runs on a loop, and from there on the
/// loop that the socket moves to, or on the thread pool.
/// </summary>
/// <remarks>A sender that was cancelled, or ran out of time, goes on behind what went out: that nothing is sent twice or left out
/// is what the receiver finds.</remarks>
internal sealed class TortureEnd
{
    private const int MostAtOnce = 64 * 1024;

    private readonly Torture _torture;
    private readonly Conversation _conversation;
    private readonly int _side;
    private readonly bool _onLoop;
    private readonly Random _random; // the sender's, and of what is done in between
    private readonly Random _receiverRandom;
    private readonly byte[] _out = new byte[MostAtOnce];
    private readonly byte[] _in = new byte[MostAtOnce];
    private readonly int[] _inUse = new int[2];
    private volatile AsyncSocket _socket;
    private volatile bool _isDisposed; // by us, before it is done
    private bool _sawEnd; // the peer's
    private bool _failed;

    internal TortureEnd(Torture torture, Conversation conversation, int side, AsyncSocket socket, bool onLoop)
    {
        _torture = torture;
        _conversation = conversation;
        _side = side;
        _socket = socket;
        _onLoop = onLoop;
        _random = torture.Random(conversation.Seed + (ulong)side * 2 + 1);
        _receiverRandom = torture.Random(conversation.Seed + (ulong)side * 2 + 2);
    }

    private TortureLedger Ledger => _torture.Ledger;

    private bool IsOver => _isDisposed || _failed;

    internal async Task RunAsync()
    {
        try
        {
            if (_side == 0) await Send(Conversation.HeaderSize);
            var rounds = _random.Next(10) == 0 ? 0 : _random.Next(1, 12);
            for (var round = 0; round < rounds && !IsOver && !Ledger.Broken.IsCancellationRequested; round++) await Round();
            if (IsOver) return;
            _conversation.From(_side).HasEnded = true;
            Shutdown();
            while (!_sawEnd && !IsOver) await Receive(CancellationToken.None);
        }
        finally
        {
            if (IsOver) _conversation.IsBroken = true;
            _isDisposed = true;
            if (_random.Next(4) == 0) Elsewhere(_socket.Dispose);
            else _socket.Dispose();
        }
    }

    // Sends and receives side by side, then stops receiving, for what may be done only while nothing is in progress.
    private async Task Round()
    {
        var quiet = new CancellationTokenSource(); // not disposed: it may be cancelled, elsewhere, after the round
        var receiving = ReceiveUntil(quiet.Token);
        await Send(Amount());
        if (_random.Next(3) == 0) await Pause(_random);
        var what = _random.Next(100);
        if (what < 5) BreakOff(what);
        if (_random.Next(2) == 0) Elsewhere(quiet.Cancel);
        else quiet.Cancel();
        await receiving;
        if (IsOver) return;
        if (what is >= 10 and < 30) await Move();
        else if (what is >= 30 and < 40) Attach();
        else if (what is >= 40 and < 45) await Invoke();
    }

    private int Amount() => _random.Next(100) switch
    {
        _ when _side == 1 && _conversation.IsNarrow => _random.Next(1, 8 * 1024),
        < 50 => _random.Next(1, 200),
        < 90 => _random.Next(1, 16 * 1024),
        < 99 => _random.Next(1, 200_000),
        _ => _random.Next(1, 2_000_000),
    };

    // ---- sending

    private async Task Send(int amount)
    {
        while (amount > 0 && !IsOver)
        {
            var size = Math.Min(amount, _random.Next(1, _random.Next(3) == 0 ? 100 : MostAtOnce));
            var socket = _socket;
            var before = socket.BytesSent;
            _conversation.Fill(_side, _conversation.From(_side).Sent, _out.AsSpan(0, size));
            var outcome = await SendOnce(socket, _out.AsMemory(0, size));
            var sent = (int)(socket.BytesSent - before);
            _conversation.AddSent(_side, _out.AsSpan(0, sent));
            amount -= sent;
            Judge("send", outcome);
        }
    }

    private Task<Outcome> SendOnce(AsyncSocket socket, ReadOnlyMemory<byte> data)
    {
        switch (_random.Next(12))
        {
            case 0:
                var token = SoonCancelled(_random);
                return Use(1, "send, cancelled", async () => Check(await socket.SendAsync(data, token), data.Length));
            case 1:
                socket.SendTimeout = TimeSpan.FromMilliseconds(_random.Next(1, 4));
                return Use(1, "send, timed", async () =>
                {
                    try
                    {
                        Check(await socket.SendAsync(data), data.Length);
                    }
                    finally
                    {
                        socket.SendTimeout = Timeout.InfiniteTimeSpan;
                    }
                });
            case 2:
                return Use(1, "send, try", async () =>
                {
                    if (!socket.TrySend(data.Span, out _)) await socket.WritableAsync();
                });
            case 3 when data.Length > 3:
                var middle = _random.Next(1, data.Length);
                return Use(1, "send, vectors", async () => Check((int)await socket.SendAsync(Segments(_out, data.Length, middle)), data.Length));
            default:
                return Use(1, "send", async () => Check(await socket.SendAsync(data), data.Length));
        }
    }

    private void Check(int result, int expected)
    {
        if (result != expected) Ledger.Violate($"{Name}: a send of {expected} bytes gave {result}");
    }

    // ---- receiving

    private async Task ReceiveUntil(CancellationToken quiet)
    {
        while (!quiet.IsCancellationRequested && !_sawEnd && !IsOver) await Receive(quiet);
    }

    private async Task Receive(CancellationToken quiet)
    {
        var socket = _socket;
        var count = -1;
        var buffer = _in.AsMemory(0, _receiverRandom.Next(1, _receiverRandom.Next(3) == 0 ? 50 : MostAtOnce));
        var outcome = await ReceiveOnce(socket, buffer, n => count = n, quiet);
        if (count > 0)
        {
            Ledger.Moved(count);
            if (!_conversation.AddReceived(1 - _side, buffer.Span[..count]))
                Ledger.Violate($"{Name}: received something else than was sent, behind byte {_conversation.From(1 - _side).Received}");
        }
        if (count == 0)
        {
            _sawEnd = _conversation.From(1 - _side).SawEnd = true;
            if (!_conversation.IsBroken && !_conversation.From(1 - _side).HasEnded) OnUnsentEnd();
        }
        Judge("receive", outcome);
        if (_receiverRandom.Next(20) == 0) await Pause(_receiverRandom);
    }

    // A server whose receive of the number has failed hangs up without knowing on whom.
    private void OnUnsentEnd()
    {
        if (_side == 0 && _torture.IsUnclaimed(_conversation)) Judge("the server's first receive", Outcome.Failed);
        else Ledger.Violate($"{Name}: an end that nobody sent");
    }

    private Task<Outcome> ReceiveOnce(AsyncSocket socket, Memory<byte> buffer, Action<int> take, CancellationToken quiet)
    {
        switch (_receiverRandom.Next(12))
        {
            case 0:
                var token = SoonCancelled(_receiverRandom);
                return Use(0, "receive, cancelled", async () => take(await socket.ReceiveAsync(buffer, token)));
            case 1:
                socket.ReceiveTimeout = TimeSpan.FromMilliseconds(_receiverRandom.Next(1, 4));
                return Use(0, "receive, timed", async () =>
                {
                    try
                    {
                        take(await socket.ReceiveAsync(buffer, quiet));
                    }
                    finally
                    {
                        socket.ReceiveTimeout = Timeout.InfiniteTimeSpan;
                    }
                });
            case 2:
                return Use(0, "receive, readable", async () =>
                {
                    await socket.ReadableAsync(quiet);
                    if (socket.TryReceive(buffer.Span, out var n)) take(n);
                });
            case 3:
                return Use(0, "receive, empty", async () =>
                {
                    await socket.ReceiveAsync(Memory<byte>.Empty, quiet);
                    if (socket.TryReceive(buffer.Span, out var n)) take(n);
                });
            case 4 when buffer.Length > 3:
                var middle = _receiverRandom.Next(1, buffer.Length);
                return Use(0, "receive, vectors", async () => take(await socket.ReceiveAsync(Segments(_in, buffer.Length, middle), quiet)));
            default:
                return Use(0, "receive", async () => take(await socket.ReceiveAsync(buffer, quiet)));
        }
    }

    // ---- what else one can do

    private void BreakOff(int how)
    {
        _conversation.IsBroken = true;
        _isDisposed = true;
        var socket = _socket;
        switch (how)
        {
            case 0:
                Ledger.Did("abort");
                socket.Abort();
                break;
            case 1:
                Ledger.Did("abort, elsewhere");
                Elsewhere(socket.Abort);
                break;
            case 2:
                Ledger.Did("dispose");
                socket.Dispose();
                break;
            default:
                Ledger.Did("dispose, elsewhere");
                Elsewhere(socket.Dispose);
                Elsewhere(socket.Dispose); // twice at once does no harm
                break;
        }
    }

    private async Task Move()
    {
        var target = _torture.AnyLoop(_random);
        var outcome = await Ledger.Try("move", async () => _socket = await _socket.MoveToAsync(target));
        if (outcome != Outcome.Completed)
        {
            Ledger.Violate($"{Name}: moving ended as {outcome}");
            _failed = true;
        }
        else if (_onLoop) await target.SwitchTo();
    }

    // The number stays, the registration is another one.
    private void Attach()
    {
        Ledger.Did("detach and attach");
        var loop = _onLoop ? _socket.Loop : _torture.AnyLoop(_random);
        var socket = _socket.Detach();
        try
        {
            _socket = new AsyncSocket(socket, loop);
        }
        catch (SocketException) // reset by now: what is not connected is refused
        {
            socket.Dispose();
            Judge("attach", Outcome.Failed);
        }
    }

    private async Task Invoke()
    {
        var loop = _torture.AnyLoop(_random);
        var outcome = await Ledger.Try("invoke", async () =>
        {
            if (!await loop.InvokeAsync(() => loop.IsCurrent)) Ledger.Violate("invoked elsewhere than on the loop");
        });
        if (outcome != Outcome.Completed) Ledger.Violate($"an invocation ended as {outcome}");
    }

    private void Shutdown()
    {
        Ledger.Did("half-close");
        try
        {
            _socket.Shutdown(SocketShutdown.Send);
        }
        catch (SocketException e)
        {
            if (!_conversation.IsBroken) Ledger.Violate($"{Name}: half-closing: {e.Message}");
        }
    }

    private async Task Pause(Random random)
    {
        if (!_onLoop) await Task.Yield();
        else if (random.Next(3) > 0) await _socket.Loop.Yield();
        else await _socket.Loop.Delay(TimeSpan.FromMicroseconds(random.Next(2000)));
    }

    private void Elsewhere(Action action) => _torture.Elsewhere(action, _random.Next(200));

    private static ArraySegment<byte>[] Segments(byte[] buffer, int length, int middle) => [new(buffer, 0, middle), new(buffer, middle, length - middle)];

    private static CancellationToken SoonCancelled(Random random)
    {
#pragma warning disable CA2000 // cancelled soon, from elsewhere
        var source = new CancellationTokenSource();
#pragma warning restore CA2000
        switch (random.Next(3))
        {
            case 0:
                ThreadPool.UnsafeQueueUserWorkItem(static s => s.Cancel(), source, preferLocal: false);
                break;
            case 1:
                source.CancelAfter(random.Next(3));
                break;
            default:
                source.Cancel();
                break;
        }
        return source.Token;
    }

    // One operation of a direction: the second end of one would be found here.
    private async Task<Outcome> Use(int direction, string action, Func<ValueTask> operation)
    {
        if (Interlocked.Exchange(ref _inUse[direction], 1) != 0) Ledger.Violate($"{Name}: {action} was begun while another was in progress");
        var outcome = await Ledger.Try(action, operation);
        if (Interlocked.Exchange(ref _inUse[direction], 0) != 1) Ledger.Violate($"{Name}: {action} ended twice");
        return outcome;
    }

    private void Judge(string action, Outcome outcome)
    {
        switch (outcome)
        {
            case Outcome.Disposed when !_isDisposed:
                Ledger.Violate($"{Name}: {action} ended as disposed, and nobody has disposed it");
                _failed = true;
                break;
            case Outcome.Failed:
                _failed = true;
                if (!_conversation.IsBroken) _torture.FailedUnbroken($"{Name}: {action} failed, and nobody has broken the connection off");
                _conversation.IsBroken = true;
                break;
        }
    }

    private string Name => $"connection {_conversation.Id}, {(_side == 0 ? "client" : "server")}{(_onLoop ? "" : " off the loop")}";
}
