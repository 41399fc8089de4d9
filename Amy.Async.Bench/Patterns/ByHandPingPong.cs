using System.Net.Sockets;

namespace Amy.Async.Bench.Patterns;

/// <summary>
/// The loop of limits/epoll.c in C#: its system calls, called as the library calls them, and nothing else. No library, no
/// await. What this takes longer than C is the runtime's.
/// </summary>
internal unsafe class ByHandPingPong : PingPong
{
    protected const int Events = 64;
    protected const int StuckMs = 10_000;

    protected readonly Socket _client;
    protected readonly Socket _server;
    protected readonly int _epoll = RawEpoll.Create();

    internal ByHandPingPong(bool unix)
    {
        (_client, _server) = Connect(unix);
        _client.Blocking = _server.Blocking = false;
        RawEpoll.Watch(_epoll, _client);
        RawEpoll.Watch(_epoll, _server);
    }

    internal override Round Run(int size, bool timed, long amount)
    {
        var message = new Message(size);
        var echo = new byte[ServerBuffer];
        var events = stackalloc byte[Events * RawEpoll.EventSize];
        var (client, server) = ((int)_client.Handle, (int)_server.Handle);
        var cpu = Environment.CpuUsage.TotalTime;
        Clock.Start(timed, amount);
        var bytes = GC.GetAllocatedBytesForCurrentThread();
        message.Change();
        RawEpoll.Send(client, message.Sent.Span);
        var (got, going) = (0, true);
        while (going)
        {
            var n = RawEpoll.Wait(_epoll, events, Events, StuckMs);
            if (n == 0) throw new TimeoutException("No event.");
            for (var i = 0; i < n && going; i++)
            {
                var descriptor = RawEpoll.Descriptor(events, i, out var readable);
                if (!readable) continue;
                if (descriptor == server)
                {
                    var received = RawEpoll.Receive(descriptor, echo);
                    if (received > 0) RawEpoll.Send(descriptor, echo.AsSpan(0, received));
                    continue;
                }
                got += Math.Max(0, RawEpoll.Receive(client, message.Back.AsSpan(got)));
                if (got < size) continue;
                got = 0;
                message.Verify();
                going = Clock.Next();
                if (!going) break;
                message.Change();
                RawEpoll.Send(client, message.Sent.Span);
            }
        }
        bytes = GC.GetAllocatedBytesForCurrentThread() - bytes;
        return Clock.Result(Environment.CpuUsage.TotalTime - cpu, bytes);
    }
}

/// <summary>Likewise, with async methods. What they take longer than the loop without is the compiler's and the runtime's part of an await.</summary>
internal abstract class AsyncByHandPingPong(bool unix) : ByHandPingPong(unix)
{
    protected readonly byte[] Echo = new byte[ServerBuffer];
    private readonly bool _unix = unix;
    private bool _echoes;
    private bool _going;

    internal override unsafe Round Run(int size, bool timed, long amount)
    {
        var events = stackalloc byte[Events * RawEpoll.EventSize];
        var (client, server) = ((int)_client.Handle, (int)_server.Handle);
        if (!_echoes) _ = EchoAsync(server);
        _echoes = _going = true;
        var cpu = Environment.CpuUsage.TotalTime;
        Clock.Start(timed, amount);
        var bytes = GC.GetAllocatedBytesForCurrentThread();
        var asking = RunAsync(client, new Message(size));
        while (_going)
        {
            var n = RawEpoll.Wait(_epoll, events, Events, StuckMs);
            if (n == 0) throw new TimeoutException("No event.");
            for (var i = 0; i < n; i++)
            {
                var descriptor = RawEpoll.Descriptor(events, i, out var readable);
                if (readable) OnReadable(descriptor == server);
            }
        }
        asking.GetAwaiter().GetResult();
        bytes = GC.GetAllocatedBytesForCurrentThread() - bytes;
        return Clock.Result(Environment.CpuUsage.TotalTime - cpu, bytes);
    }

    // Over a Unix-domain pair as the library has to.
    protected int Read(int descriptor, Span<byte> buffer) => _unix ? RawEpoll.ReceiveMessage(descriptor, buffer) : RawEpoll.Receive(descriptor, buffer);

    protected abstract void OnReadable(bool server);

    protected abstract Task EchoAsync(int descriptor);

    protected abstract Task AskAsync(int descriptor, Message message);

    private async Task RunAsync(int descriptor, Message message)
    {
        try
        {
            await AskAsync(descriptor, message);
        }
        finally
        {
            _going = false;
        }
    }
}

/// <summary>
/// They await the least that can be awaited: one field for a continuation, no threads, no token, no cancellation, no context,
/// no check of anything.
/// </summary>
internal sealed class AwaitedByHandPingPong(bool unix) : AsyncByHandPingPong(unix)
{
    private readonly LeastAwaitable _clientReadable = new();
    private readonly LeastAwaitable _serverReadable = new();

    protected override void OnReadable(bool server) => (server ? _serverReadable : _clientReadable).Resume();

    protected override async Task EchoAsync(int descriptor)
    {
        while (true)
        {
            int n;
            while ((n = Read(descriptor, Echo)) <= 0) await _serverReadable;
            RawEpoll.Send(descriptor, Echo.AsSpan(0, n));
            await _serverReadable; // as after a short read
        }
    }

    protected override async Task AskAsync(int descriptor, Message message)
    {
        do
        {
            message.Change();
            RawEpoll.Send(descriptor, message.Sent.Span);
            for (var got = 0; got < message.Size;)
            {
                await _clientReadable;
                got += Math.Max(0, Read(descriptor, message.Back.AsSpan(got)));
            }
            message.Verify();
        }
        while (Clock.Next());
    }
}

/// <summary>They await a <see cref="ValueTask{T}"/>, as users of the library do, whose source is the least there can be.</summary>
internal sealed class ValueTaskByHandPingPong : AsyncByHandPingPong
{
    private readonly LeastValueTask _clientReceive;
    private readonly LeastValueTask _serverReceive;

    internal ValueTaskByHandPingPong(bool unix) : base(unix) =>
        (_clientReceive, _serverReceive) = (new LeastValueTask((int)_client.Handle, unix), new LeastValueTask((int)_server.Handle, unix));

    protected override void OnReadable(bool server) => (server ? _serverReceive : _clientReceive).Resume();

    protected override async Task EchoAsync(int descriptor)
    {
        while (true)
        {
            var n = await _serverReceive.ReceiveAsync(Echo);
            RawEpoll.Send(descriptor, Echo.AsSpan(0, n));
        }
    }

    protected override async Task AskAsync(int descriptor, Message message)
    {
        do
        {
            message.Change();
            RawEpoll.Send(descriptor, message.Sent.Span);
            for (var got = 0; got < message.Size;) got += await _clientReceive.ReceiveAsync(message.Back.AsMemory(got));
            message.Verify();
        }
        while (Clock.Next());
    }
}
