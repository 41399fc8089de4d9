using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Bench.Patterns;

/// <summary>Both ends of one connection in this process, in one way of awaiting.</summary>
internal abstract class PingPong
{
    protected const int ServerBuffer = 1 << 16;
    protected readonly RoundClock Clock = new();

    internal static PingPong Create(string pattern, bool unix, TimeSpan? spin) => pattern switch
    {
        "amy" => new AmyPingPong(unix, spin),
        "amy-readable" => new ReadablePingPong(unix, spin),
        "by-hand" => new ByHandPingPong(unix),
        "by-hand-await" => new AwaitedByHandPingPong(unix),
        "by-hand-valuetask" => new ValueTaskByHandPingPong(unix),
        "saea" => new ArgsPingPong(unix),
        "socket" => new SocketPingPong(unix),
        _ => throw new ArgumentException($"Unknown pattern '{pattern}'."),
    };

    internal abstract Round Run(int size, bool timed, long amount);

    protected static (Socket Client, Socket Server) Connect(bool unix)
    {
        var endPoint = ListenAt(unix);
        Socket New() => new(endPoint.AddressFamily, SocketType.Stream, unix ? ProtocolType.Unspecified : ProtocolType.Tcp);
        using var listener = New();
        listener.Bind(endPoint);
        listener.Listen(1);
        var client = New();
        client.Connect(listener.LocalEndPoint!);
        var server = listener.Accept();
        if (!unix) client.NoDelay = server.NoDelay = true;
        return (client, server);
    }

    protected static EndPoint ListenAt(bool unix) => unix
        ? new UnixDomainSocketEndPoint(Path.Combine(Path.GetTempPath(), $"amy-bench-{Guid.NewGuid():N}"))
        : new IPEndPoint(IPAddress.Loopback, 0);

    protected static EventLoop StartLoop(TimeSpan? spin) =>
        EventLoop.Start(spin is { } s ? new EventLoopOptions { SpinDuration = s } : new EventLoopOptions());
}

/// <summary>AsyncSocket, both ends on one loop.</summary>
internal sealed class AmyPingPong : PingPong
{
    private readonly EventLoop _loop;
    private readonly AsyncSocket _client;

    internal AmyPingPong(bool unix, TimeSpan? spin)
    {
        _loop = StartLoop(spin);
        using var listener = AsyncSocket.Listen(ListenAt(unix), loop: _loop);
        var accepting = listener.AcceptAsync().AsTask();
        _client = AsyncSocket.ConnectAsync(listener.LocalEndPoint!, _loop).AsTask().GetAwaiter().GetResult();
        var echo = accepting.GetAwaiter().GetResult();
        _loop.Post(() => _ = Echo.Run(echo, ServerBuffer));
    }

    internal override Round Run(int size, bool timed, long amount) => _loop.InvokeAsync(() => RunAsync(size, timed, amount)).GetAwaiter().GetResult();

    private async Task<Round> RunAsync(int size, bool timed, long amount)
    {
        var message = new Message(size);
        await _loop.Yield();
        var cpu = Environment.CpuUsage.TotalTime;
        Clock.Start(timed, amount);
        var bytes = GC.GetAllocatedBytesForCurrentThread();
        do
        {
            message.Change();
            await _client.SendAsync(message.Sent);
            for (var got = 0; got < size;)
            {
                var n = await _client.ReceiveAsync(message.Back.AsMemory(got));
                if (n == 0) throw new EndOfStreamException();
                got += n;
            }
            message.Verify();
        }
        while (Clock.Next());
        bytes = GC.GetAllocatedBytesForCurrentThread() - bytes;
        return Clock.Result(Environment.CpuUsage.TotalTime - cpu, bytes);
    }
}

/// <summary>Plain sockets, read when ReadableAsync says so; both ends on one loop.</summary>
internal sealed class ReadablePingPong : PingPong
{
    private readonly EventLoop _loop;
    private readonly Socket _client;

    internal ReadablePingPong(bool unix, TimeSpan? spin)
    {
        _loop = StartLoop(spin);
        var (client, server) = Connect(unix);
        client.Blocking = server.Blocking = false;
        _client = client;
        _loop.Post(() => _ = Echo.RunReadable(server, ServerBuffer));
    }

    internal override Round Run(int size, bool timed, long amount) => _loop.InvokeAsync(() => RunAsync(size, timed, amount)).GetAwaiter().GetResult();

    private async Task<Round> RunAsync(int size, bool timed, long amount)
    {
        var message = new Message(size);
        await _loop.Yield();
        var cpu = Environment.CpuUsage.TotalTime;
        Clock.Start(timed, amount);
        var bytes = GC.GetAllocatedBytesForCurrentThread();
        do
        {
            message.Change();
            await Echo.SendAll(_client, message.Table, message.Offset, size);
            for (var got = 0; got < size;)
            {
                await _client.ReadableAsync();
                var n = _client.Receive(message.Back, got, message.Back.Length - got, SocketFlags.None, out var error);
                if (error == SocketError.WouldBlock) continue;
                if (error != SocketError.Success) throw new SocketException((int)error);
                if (n == 0) throw new EndOfStreamException();
                got += n;
            }
            message.Verify();
        }
        while (Clock.Next());
        bytes = GC.GetAllocatedBytesForCurrentThread() - bytes;
        return Clock.Result(Environment.CpuUsage.TotalTime - cpu, bytes);
    }
}

/// <summary>Socket.ReceiveAsync; both ends in one process, on the thread pool.</summary>
internal sealed class SocketPingPong : PingPong
{
    // To wait on this allocates nothing; to block on a task does, and would be counted.
    private readonly AutoResetEvent _over = new(false);
    private readonly Socket _client;

    internal SocketPingPong(bool unix)
    {
        (_client, var server) = Connect(unix);
        _ = Task.Run(() => Echo.Run(server, ServerBuffer));
    }

    internal override Round Run(int size, bool timed, long amount)
    {
        var round = Task.Run(() => RunAsync(size, timed, amount));
        _ = round.ContinueWith(_ => _over.Set(), TaskScheduler.Default);
        _over.WaitOne();
        return round.GetAwaiter().GetResult();
    }

    private async Task<Round> RunAsync(int size, bool timed, long amount)
    {
        var message = new Message(size);
        await Task.Yield(); // this method's own state is on the heap from here on, and not in the count
        var cpu = Environment.CpuUsage.TotalTime;
        Clock.Start(timed, amount);
        var bytes = GC.GetTotalAllocatedBytes(precise: true);
        do
        {
            message.Change();
            for (var sent = 0; sent < size;) sent += await _client.SendAsync(message.Sent[sent..], SocketFlags.None).ConfigureAwait(false);
            for (var got = 0; got < size;)
            {
                var n = await _client.ReceiveAsync(message.Back.AsMemory(got), SocketFlags.None).ConfigureAwait(false);
                if (n == 0) throw new EndOfStreamException();
                got += n;
            }
            message.Verify();
        }
        while (Clock.Next());
        bytes = GC.GetTotalAllocatedBytes(precise: true) - bytes;
        return Clock.Result(Environment.CpuUsage.TotalTime - cpu, bytes);
    }
}

/// <summary>SocketAsyncEventArgs; both ends in one process, callbacks on the thread pool.</summary>
internal sealed class ArgsPingPong : PingPong
{
    private readonly Socket _client;
    private readonly SocketAsyncEventArgs _send = new();
    private readonly SocketAsyncEventArgs _receive = new();
    private Message _message = new(1);
    private readonly AutoResetEvent _over = new(false); // as above
    private readonly Action _trips; // made once, as in a usual program
    private Exception? _error;

    internal ArgsPingPong(bool unix)
    {
        (_client, var server) = Connect(unix);
        new ArgsEcho(server, ServerBuffer).Start();
        _trips = Trips;
        Action afterSend = () => { if (Sent()) Receive(); };
        Action afterReceive = () => { if (Received()) _trips(); };
        _send.Completed += (_, _) => Guard(afterSend);
        _receive.Completed += (_, _) => Guard(afterReceive);
    }

    internal override Round Run(int size, bool timed, long amount)
    {
        _message = new Message(size);
        _error = null;
        var cpu = Environment.CpuUsage.TotalTime;
        Clock.Start(timed, amount);
        var bytes = GC.GetTotalAllocatedBytes(precise: true);
        Guard(_trips);
        _over.WaitOne();
        bytes = GC.GetTotalAllocatedBytes(precise: true) - bytes;
        return _error is { } error ? throw error : Clock.Result(Environment.CpuUsage.TotalTime - cpu, bytes);
    }

    private void Guard(Action action)
    {
        try
        {
            action();
        }
        catch (Exception e)
        {
            _error = e;
            _over.Set();
        }
    }

    // Trip after trip, as long as everything completes synchronously.
    private void Trips()
    {
        do
        {
            _message.Change();
            _send.SetBuffer(_message.Table, _message.Offset, _message.Size);
            if (_client.SendAsync(_send) || !Sent()) return;
            _receive.SetBuffer(_message.Back, 0, _message.Size);
            if (_client.ReceiveAsync(_receive)) return;
        }
        while (Received());
    }

    private bool Sent()
    {
        while (true)
        {
            Check(_send);
            if (_send.BytesTransferred == _send.Count) return true;
            _send.SetBuffer(_send.Offset + _send.BytesTransferred, _send.Count - _send.BytesTransferred);
            if (_client.SendAsync(_send)) return false;
        }
    }

    private void Receive()
    {
        _receive.SetBuffer(_message.Back, 0, _message.Size);
        if (!_client.ReceiveAsync(_receive) && Received()) Trips();
    }

    // True: the trip is complete, and there is another.
    private bool Received()
    {
        while (true)
        {
            Check(_receive);
            if (_receive.BytesTransferred == 0) throw new EndOfStreamException();
            if (_receive.BytesTransferred == _receive.Count)
            {
                _message.Verify();
                if (Clock.Next()) return true;
                _over.Set();
                return false;
            }
            _receive.SetBuffer(_receive.Offset + _receive.BytesTransferred, _receive.Count - _receive.BytesTransferred);
            if (_client.ReceiveAsync(_receive)) return false;
        }
    }

    private static void Check(SocketAsyncEventArgs args)
    {
        if (args.SocketError != SocketError.Success) throw new SocketException((int)args.SocketError);
    }
}
