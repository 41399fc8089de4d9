using System.Runtime.InteropServices;
using Amy.Async.Native;

namespace Amy.Async.Tests.Native;

/// <summary>The structures and constants that the library has for Linux; AbiTableTests compares them with the headers.</summary>
[TestFixture]
internal sealed class AbiTests
{
    [Test]
    public void Layouts_AreThoseOf64BitLinux()
    {
        Assert.That(Marshal.SizeOf<TimeSpec>(), Is.EqualTo(16));
        Assert.That(Marshal.SizeOf<PollFd>(), Is.EqualTo(8));
        Assert.That(Marshal.SizeOf<Linger>(), Is.EqualTo(8));
        Assert.That(Marshal.SizeOf<IoVector>(), Is.EqualTo(16));
        Assert.That(Marshal.SizeOf<MessageHeader>(), Is.EqualTo(56));
        Assert.That((int)Marshal.OffsetOf<MessageHeader>(nameof(MessageHeader.Vectors)), Is.EqualTo(16));
        Assert.That((int)Marshal.OffsetOf<MessageHeader>(nameof(MessageHeader.Control)), Is.EqualTo(32));
        Assert.That((int)Marshal.OffsetOf<MessageHeader>(nameof(MessageHeader.Flags)), Is.EqualTo(48));
        var x64 = RuntimeInformation.ProcessArchitecture == System.Runtime.InteropServices.Architecture.X64;
        Assert.That(Epoll.EventSize, Is.EqualTo(x64 ? 12 : 16));
        Assert.That(Epoll.DataOffset, Is.EqualTo(x64 ? 4 : 8));
    }

    internal static readonly int[] ControlLengths = [0, 1, 4, 8, 20, 253 * 4];

    /// <summary>What the library uses on Linux: name in C, value here.</summary>
    internal static IEnumerable<(string Name, long Value)> Table()
    {
        foreach (var field in typeof(Errno).GetFields(System.Reflection.BindingFlags.Static | System.Reflection.BindingFlags.NonPublic))
            yield return (field.Name, (int)field.GetRawConstantValue()!);
        foreach (var field in typeof(SocketConstants).GetFields(System.Reflection.BindingFlags.Static | System.Reflection.BindingFlags.NonPublic))
            if (!field.Name.Any(char.IsLower)) yield return (field.Name, (int)field.GetRawConstantValue()!);
        yield return (RuntimeInformation.ProcessArchitecture == System.Runtime.InteropServices.Architecture.X64 ? "__NR_epoll_wait" : "__NR_epoll_pwait", SystemCallNumber.EpollWait);
        yield return ("__NR_recvfrom", SystemCallNumber.Recvfrom);
        yield return ("__NR_recvmsg", SystemCallNumber.Recvmsg);
        yield return ("__NR_sendto", SystemCallNumber.Sendto);
        yield return ("__NR_sendmsg", SystemCallNumber.Sendmsg);
        yield return ("__NR_recvmmsg", SystemCallNumber.Recvmmsg);
        yield return ("__NR_sendmmsg", SystemCallNumber.Sendmmsg);
        yield return ("__NR_kcmp", SystemCallNumber.Kcmp);
        yield return ("__NR_statx", SystemCallNumber.Statx);
        foreach (var field in typeof(FileConstants).GetFields(System.Reflection.BindingFlags.Static | System.Reflection.BindingFlags.NonPublic))
            if (!field.Name.Any(char.IsLower)) yield return (field.Name, (int)field.GetRawConstantValue()!);
        yield return ("sizeof(struct statx)", FileConstants.StatxSize);
        yield return ("offsetof(struct statx, stx_mode)", FileConstants.StatxModeOffset);
        yield return ("offsetof(struct statx, stx_ino)", FileConstants.StatxInodeOffset);
        yield return ("offsetof(struct statx, stx_dev_major)", FileConstants.StatxDeviceOffset);
        yield return ("sizeof(struct mmsghdr)", Marshal.SizeOf<BatchHeader>());
        yield return ("offsetof(struct mmsghdr, msg_len)", (long)Marshal.OffsetOf<BatchHeader>(nameof(BatchHeader.Length)));
        yield return ("sizeof(struct cmsghdr)", Marshal.SizeOf<ControlHeader>());
        yield return ("offsetof(struct cmsghdr, cmsg_level)", (long)Marshal.OffsetOf<ControlHeader>(nameof(ControlHeader.Level)));
        yield return ("offsetof(struct cmsghdr, cmsg_type)", (long)Marshal.OffsetOf<ControlHeader>(nameof(ControlHeader.Type)));
        foreach (var length in ControlLengths) yield return ($"CMSG_SPACE({length})", ControlMessage.GetSpace(length));
        yield return ("EPOLL_CTL_ADD", Epoll.CTL_ADD);
        yield return ("EPOLL_CTL_DEL", Epoll.CTL_DEL);
        yield return ("EPOLL_CTL_MOD", Epoll.CTL_MOD);
        yield return ("EPOLL_CLOEXEC", Epoll.CLOEXEC);
        yield return ("EPOLLIN", Epoll.IN);
        yield return ("EPOLLPRI", Epoll.PRI);
        yield return ("EPOLLOUT", Epoll.OUT);
        yield return ("EPOLLERR", Epoll.ERR);
        yield return ("EPOLLHUP", Epoll.HUP);
        yield return ("EPOLLRDHUP", Epoll.RDHUP);
        yield return ("EPOLLET", Epoll.ET);
        yield return ("POLLIN", PollEvents.IN);
        yield return ("POLLPRI", PollEvents.PRI);
        yield return ("POLLOUT", PollEvents.OUT);
        yield return ("POLLERR", PollEvents.ERR);
        yield return ("POLLHUP", PollEvents.HUP);
        yield return ("POLLNVAL", PollEvents.NVAL);
        yield return ("POLLRDHUP", PollEvents.RDHUP);
        yield return ("EFD_CLOEXEC", EventFd.CLOEXEC);
        yield return ("EFD_NONBLOCK", EventFd.NONBLOCK);
        yield return ("sizeof(struct epoll_event)", Epoll.EventSize);
        yield return ("offsetof(struct epoll_event, data)", Epoll.DataOffset);
        yield return ("sizeof(struct msghdr)", Marshal.SizeOf<MessageHeader>());
        yield return ("offsetof(struct sockaddr, sa_family)", 0); // nothing above the seam looks into an address
        yield return ("CMSG_LEN(0)", ControlMessage.HeaderSize);
        yield return ("offsetof(struct msghdr, msg_name)", (long)Marshal.OffsetOf<MessageHeader>(nameof(MessageHeader.Name)));
        yield return ("offsetof(struct msghdr, msg_namelen)", (long)Marshal.OffsetOf<MessageHeader>(nameof(MessageHeader.NameLength)));
        yield return ("offsetof(struct msghdr, msg_iovlen)", (long)Marshal.OffsetOf<MessageHeader>(nameof(MessageHeader.VectorCount)));
        yield return ("offsetof(struct msghdr, msg_controllen)", (long)Marshal.OffsetOf<MessageHeader>(nameof(MessageHeader.ControlLength)));
        yield return ("offsetof(struct pollfd, events)", (long)Marshal.OffsetOf<PollFd>(nameof(PollFd.Events)));
        yield return ("offsetof(struct pollfd, revents)", (long)Marshal.OffsetOf<PollFd>(nameof(PollFd.Returned)));
        yield return ("offsetof(struct iovec, iov_len)", (long)Marshal.OffsetOf<IoVector>(nameof(IoVector.Length)));
        yield return ("offsetof(struct msghdr, msg_iov)", (long)Marshal.OffsetOf<MessageHeader>(nameof(MessageHeader.Vectors)));
        yield return ("offsetof(struct msghdr, msg_control)", (long)Marshal.OffsetOf<MessageHeader>(nameof(MessageHeader.Control)));
        yield return ("offsetof(struct msghdr, msg_flags)", (long)Marshal.OffsetOf<MessageHeader>(nameof(MessageHeader.Flags)));
        yield return ("sizeof(struct timespec)", Marshal.SizeOf<TimeSpec>());
        yield return ("sizeof(struct pollfd)", Marshal.SizeOf<PollFd>());
        yield return ("sizeof(struct linger)", Marshal.SizeOf<Linger>());
        yield return ("sizeof(struct iovec)", Marshal.SizeOf<IoVector>());
    }

    [Test]
    public void Milliseconds_RoundUpAndClamp()
    {
        Assert.That(SystemCalls.ToMilliseconds(-1), Is.EqualTo(-1));
        Assert.That(SystemCalls.ToMilliseconds(0), Is.Zero);
        Assert.That(SystemCalls.ToMilliseconds(1), Is.EqualTo(1));
        Assert.That(SystemCalls.ToMilliseconds(1_000_000), Is.EqualTo(1));
        Assert.That(SystemCalls.ToMilliseconds(1_000_001), Is.EqualTo(2));
        Assert.That(SystemCalls.ToMilliseconds(long.MaxValue), Is.EqualTo(int.MaxValue));
    }

    [TestCase(Errno.ECONNRESET, System.Net.Sockets.SocketError.ConnectionReset)]
    [TestCase(Errno.EPIPE, System.Net.Sockets.SocketError.Shutdown)]
    [TestCase(Errno.EADDRINUSE, System.Net.Sockets.SocketError.AddressAlreadyInUse)]
    [TestCase(4711, System.Net.Sockets.SocketError.SocketError)]
    public void Errno_BecomesTheSocketErrorOfDotNet(int errno, System.Net.Sockets.SocketError expected) =>
        Assert.That(SystemError.Socket(errno).SocketErrorCode, Is.EqualTo(expected));
}
