using System.ComponentModel;
using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace Amy.Async.Bench.Patterns;

/// <summary>The system calls of the C loops, called as the library calls them, and nothing else.</summary>
internal static unsafe class RawEpoll
{
    internal const int In = 1; // EPOLLIN
    private const int Out = 4, PeerClosed = 0x2000, Edge = 1 << 31; // EPOLLOUT, EPOLLRDHUP, EPOLLET
    private const int NoSignal = 0x4000, DontWait = 0x40; // MSG_NOSIGNAL, MSG_DONTWAIT
    private const int Again = 11; // EAGAIN
    private const int CloseOnExec = 0x80000; // EPOLL_CLOEXEC
    private const int Add = 1; // EPOLL_CTL_ADD

    // asm/unistd_64.h of x86-64, asm-generic/unistd.h of arm64; epoll_event is packed on x86-64 only.
    private static readonly bool s_x64 = RuntimeInformation.ProcessArchitecture == Architecture.X64;
    private static readonly nint s_epollWait = s_x64 ? 232 : 22, s_receive = s_x64 ? 45 : 207, s_receiveMessage = s_x64 ? 47 : 212, s_send = s_x64 ? 44 : 206;
    internal static readonly int EventSize = s_x64 ? 12 : 16;

    internal static int Create() => epoll_create1(CloseOnExec);

    internal static void Watch(int epoll, Socket socket)
    {
        var e = stackalloc byte[EventSize];
        *(uint*)e = unchecked((uint)(In | Out | PeerClosed | Edge));
        *(long*)(e + EventSize - 8) = socket.Handle;
        if (epoll_ctl(epoll, Add, (int)socket.Handle, e) != 0) throw new Win32Exception();
    }

    internal static int Wait(int epoll, byte* events, int capacity, int milliseconds) =>
        (int)syscall(s_epollWait, epoll, events, capacity, milliseconds, null, 0);

    /// <summary>The descriptor of an event; whether it says that there is something to read.</summary>
    internal static int Descriptor(byte* events, int index, out bool readable)
    {
        var e = events + index * EventSize;
        readable = (*(uint*)e & In) != 0;
        return *(int*)(e + EventSize - 8);
    }

    /// <summary>The bytes; 0 at the end; negative: nothing is there, or it failed.</summary>
    internal static int Receive(int descriptor, Span<byte> buffer)
    {
        fixed (byte* b = buffer) return (int)syscall(s_receive, descriptor, b, buffer.Length, DontWait, null, 0);
    }

    // recvmsg(2), whose flags prove that nothing is left behind a short read: on a Unix-domain stream, descriptors that are
    // passed cut reads short.
    internal static int ReceiveMessage(int descriptor, Span<byte> buffer)
    {
        fixed (byte* b = buffer)
        {
            var vector = stackalloc nint[2] { (nint)b, buffer.Length };
            var header = stackalloc nint[7] { 0, 0, (nint)vector, 1, 0, 0, 0 }; // struct msghdr
            return (int)syscall(s_receiveMessage, descriptor, header, DontWait, 0, null, 0);
        }
    }

    /// <summary>Sends all, if need be by trying again and again. False: it failed.</summary>
    internal static bool Send(int descriptor, ReadOnlySpan<byte> buffer)
    {
        fixed (byte* b = buffer)
        {
            for (var sent = 0; sent < buffer.Length;)
            {
                var n = (int)syscall(s_send, descriptor, b + sent, buffer.Length - sent, NoSignal | DontWait, null, 0);
                if (n < 0 && Marshal.GetLastSystemError() != Again) return false;
                sent += Math.Max(0, n);
            }
            return true;
        }
    }

    [DllImport("libc")]
    private static extern int epoll_create1(int flags);

    [DllImport("libc")]
    private static extern int epoll_ctl(int epoll, int operation, int descriptor, void* @event);

    [DllImport("libc")]
    private static extern nint syscall(nint number, nint a, void* b, nint c, nint d, void* e, nint f);
}
