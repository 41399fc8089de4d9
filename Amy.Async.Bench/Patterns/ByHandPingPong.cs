using System.ComponentModel;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Amy.Async.Bench.Patterns;

/// <summary>
/// The loop of limits/epoll.c in C#: its system calls, called as the library calls them, and nothing else. No library, no
/// await. What this takes longer than C is the runtime's.
/// </summary>
internal unsafe class ByHandPingPong : PingPong
{
    protected const int In = 1, Out = 4, PeerClosed = 0x2000, Edge = 1 << 31; // EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLET
    protected const int Events = 64;
    protected const int StuckMs = 10_000;
    private const int NoSignal = 0x4000, DontWait = 0x40; // MSG_NOSIGNAL, MSG_DONTWAIT

    // asm/unistd_64.h of x86-64, asm-generic/unistd.h of arm64; epoll_event is packed on x86-64 only.
    private static readonly bool s_x64 = RuntimeInformation.ProcessArchitecture == Architecture.X64;
    protected static readonly nint s_epollWait = s_x64 ? 232 : 22, s_receive = s_x64 ? 45 : 207, s_receiveMessage = s_x64 ? 47 : 212, s_send = s_x64 ? 44 : 206;
    protected static readonly int s_eventSize = s_x64 ? 12 : 16;

    protected readonly Socket _client;
    protected readonly Socket _server;
    protected readonly int _epoll = epoll_create1(0x80000);

    internal ByHandPingPong(bool unix)
    {
        (_client, _server) = Connect(unix);
        _client.Blocking = _server.Blocking = false;
        Watch(_client);
        Watch(_server);
    }

    internal override Round Run(int size, bool timed, long amount)
    {
        var message = new Message(size);
        var echo = new byte[ServerBuffer];
        var events = stackalloc byte[Events * s_eventSize];
        var (client, server) = ((int)_client.Handle, (int)_server.Handle);
        var cpu = Environment.CpuUsage.TotalTime;
        Clock.Start(timed, amount);
        var bytes = GC.GetAllocatedBytesForCurrentThread();
        message.Change();
        Send(client, message.Sent.Span);
        var (got, going) = (0, true);
        while (going)
        {
            var n = (int)syscall(s_epollWait, _epoll, events, Events, StuckMs, null, 0);
            if (n == 0) throw new TimeoutException("No event.");
            for (var i = 0; i < n && going; i++)
            {
                var e = events + i * s_eventSize;
                if ((*(uint*)e & In) == 0) continue;
                var descriptor = *(int*)(e + s_eventSize - 8);
                if (descriptor == server)
                {
                    var received = Receive(descriptor, echo);
                    if (received > 0) Send(descriptor, echo.AsSpan(0, received));
                    continue;
                }
                got += Math.Max(0, Receive(client, message.Back.AsSpan(got)));
                if (got < size) continue;
                got = 0;
                message.Verify();
                going = Clock.Next();
                if (!going) break;
                message.Change();
                Send(client, message.Sent.Span);
            }
        }
        bytes = GC.GetAllocatedBytesForCurrentThread() - bytes;
        return Clock.Result(Environment.CpuUsage.TotalTime - cpu, bytes);
    }

    private void Watch(Socket socket)
    {
        var e = stackalloc byte[s_eventSize];
        *(uint*)e = unchecked((uint)(In | Out | PeerClosed | Edge));
        *(long*)(e + s_eventSize - 8) = socket.Handle;
        if (epoll_ctl(_epoll, 1, (int)socket.Handle, e) != 0) throw new Win32Exception();
    }

    protected static int Receive(int descriptor, Span<byte> buffer)
    {
        fixed (byte* b = buffer) return (int)syscall(s_receive, descriptor, b, buffer.Length, DontWait, null, 0);
    }

    // recvmsg(2), whose flags prove that nothing is left behind a short read: on a Unix-domain stream, descriptors that are
    // passed cut reads short.
    protected static int ReceiveMessage(int descriptor, Span<byte> buffer)
    {
        fixed (byte* b = buffer)
        {
            var vector = stackalloc nint[2] { (nint)b, buffer.Length };
            var header = stackalloc nint[7] { 0, 0, (nint)vector, 1, 0, 0, 0 }; // struct msghdr
            return (int)syscall(s_receiveMessage, descriptor, header, DontWait, 0, null, 0);
        }
    }

    protected static void Send(int descriptor, ReadOnlySpan<byte> buffer)
    {
        fixed (byte* b = buffer)
            for (var sent = 0; sent < buffer.Length;)
                sent += Math.Max(0, (int)syscall(s_send, descriptor, b + sent, buffer.Length - sent, NoSignal | DontWait, null, 0));
    }

    [DllImport("libc")]
    private static extern int epoll_create1(int flags);

    [DllImport("libc")]
    private static extern int epoll_ctl(int epoll, int operation, int descriptor, void* @event);

    [DllImport("libc")]
    protected static extern nint syscall(nint number, nint a, void* b, nint c, nint d, void* e, nint f);
}

/// <summary>
/// Likewise, with async methods that await the least that can be awaited: one field for a continuation, no threads, no token, no
/// cancellation, no context, no check of anything. Over a Unix-domain pair it reads as the library has to. What this takes longer than the loop without is the compiler's and the
/// runtime's part of an await.
/// </summary>
internal sealed class AwaitedByHandPingPong(bool unix) : ByHandPingPong(unix)
{
    private sealed class Readable : INotifyCompletion
    {
        private Action? _continuation;

        public bool IsCompleted => false;

        public Readable GetAwaiter() => this;

        public void GetResult()
        {
        }

        public void OnCompleted(Action continuation) => _continuation = continuation;

        internal void Resume() => _continuation!();
    }

    private readonly Readable _clientReadable = new();
    private readonly Readable _serverReadable = new();
    private readonly byte[] _echo = new byte[ServerBuffer];
    private readonly bool _unix = unix;
    private bool _echoes;
    private bool _going;

    internal override unsafe Round Run(int size, bool timed, long amount)
    {
        var events = stackalloc byte[Events * s_eventSize];
        var (client, server) = ((int)_client.Handle, (int)_server.Handle);
        if (!_echoes) _ = EchoAsync(server);
        _echoes = _going = true;
        var cpu = Environment.CpuUsage.TotalTime;
        Clock.Start(timed, amount);
        var bytes = GC.GetAllocatedBytesForCurrentThread();
        var asking = AskAsync(client, new Message(size));
        while (_going)
        {
            var n = (int)syscall(s_epollWait, _epoll, events, Events, StuckMs, null, 0);
            if (n == 0) throw new TimeoutException("No event.");
            for (var i = 0; i < n; i++)
            {
                var e = events + i * s_eventSize;
                if ((*(uint*)e & In) == 0) continue;
                (*(int*)(e + s_eventSize - 8) == server ? _serverReadable : _clientReadable).Resume();
            }
        }
        asking.GetAwaiter().GetResult();
        bytes = GC.GetAllocatedBytesForCurrentThread() - bytes;
        return Clock.Result(Environment.CpuUsage.TotalTime - cpu, bytes);
    }

    private int Read(int descriptor, Span<byte> buffer) => _unix ? ReceiveMessage(descriptor, buffer) : Receive(descriptor, buffer);

    private async Task EchoAsync(int descriptor)
    {
        while (true)
        {
            int n;
            while ((n = Read(descriptor, _echo)) <= 0) await _serverReadable;
            Send(descriptor, _echo.AsSpan(0, n));
            await _serverReadable; // as after a short read
        }
    }

    private async Task AskAsync(int descriptor, Message message)
    {
        do
        {
            message.Change();
            Send(descriptor, message.Sent.Span);
            for (var got = 0; got < message.Size;)
            {
                await _clientReadable;
                got += Math.Max(0, Read(descriptor, message.Back.AsSpan(got)));
            }
            message.Verify();
        }
        while (Clock.Next());
        _going = false;
    }
}
