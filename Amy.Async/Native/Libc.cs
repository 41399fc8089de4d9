using System.Runtime.InteropServices;
using Amy.Async.Compat;

namespace Amy.Async.Native;

/// <summary>
/// Every libc function that the library calls, and the only <c>DllImport</c>s. All arguments are blittable, so no
/// marshalling happens and the JIT inlines the calls; errno is asked for right after a failed call (see LastError). No
/// function that does I/O may carry SuppressGCTransition: it would hold up collections.
/// </summary>
internal static unsafe partial class Libc
{
    private const string Library = "libc";

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub), OnlyOn(Systems.Linux)]
    internal static extern int epoll_create1(int flags);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub), OnlyOn(Systems.Linux)]
    internal static extern int epoll_ctl(int epfd, int op, int fd, void* @event);

    /// <summary>
    /// syscall(2): the bare system call, for those on the path of each message. libc's own functions for them are
    /// cancellation points of pthreads, which nobody here uses and which a process with threads pays for: 0.7 % of a round
    /// trip over a Unix-domain pair in switching cancellation alone (perf record). Variadic, which makes no difference to
    /// integers on x86-64 and arm64 Linux.
    /// </summary>
    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub), OnlyOn(Systems.Linux)]
    internal static extern nint syscall(nint number, nint a, void* b, nint c, nint d, void* e, nint f);

    /// <summary>Linux 5.11, glibc 2.35; missing in older libcs (EntryPointNotFoundException).</summary>
    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub), OnlyOn(Systems.Linux)]
    internal static extern int epoll_pwait2(int epfd, void* events, int maxevents, TimeSpec* timeout, void* sigmask);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub), OnlyOn(Systems.Linux)]
    internal static extern int eventfd(uint initval, int flags);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern nint read(int fd, void* buf, nuint count);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern nint write(int fd, void* buf, nuint count);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int close(int fd);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int poll(PollFd* fds, nuint nfds, int timeout);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int socket(int domain, int type, int protocol);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int bind(int sockfd, void* addr, uint addrlen);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int listen(int sockfd, int backlog);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int connect(int sockfd, void* addr, uint addrlen);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub), OnlyOn(Systems.Linux | Systems.FreeBsd)]
    internal static extern int accept4(int sockfd, void* addr, uint* addrlen, int flags);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int shutdown(int sockfd, int how);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int getsockname(int sockfd, void* addr, uint* addrlen);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int getpeername(int sockfd, void* addr, uint* addrlen);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int getsockopt(int sockfd, int level, int optname, void* optval, uint* optlen);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int setsockopt(int sockfd, int level, int optname, void* optval, uint optlen);
}
