using System.Runtime.InteropServices;
using Amy.Async.Compat;

namespace Amy.Async.Native;

// What PortableSystemCalls calls: functions that all systems have in libc, and the two forms of sendfile besides Linux's.
internal static unsafe partial class Libc
{
    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern nint recvfrom(int sockfd, void* buf, nuint len, int flags, void* addr, uint* addrlen);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern nint sendto(int sockfd, void* buf, nuint len, int flags, void* addr, uint addrlen);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern nint recvmsg(int sockfd, void* msg, int flags);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern nint sendmsg(int sockfd, void* msg, int flags);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int accept(int sockfd, void* addr, uint* addrlen);

    /// <summary>ioctl(2) of a request without an argument: nothing variadic travels.</summary>
    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int ioctl(int fd, nuint request);

    /// <summary>
    /// fcntl(2) with an integer, for any calling convention. Apple's arm64 has variadic arguments on the stack only: the six
    /// in the middle fill the registers, so that the last lies at the top of the stack, in a slot of 8 bytes. Everywhere else
    /// the callee finds the third where ordinary arguments are.
    /// </summary>
    [DllImport(Library, EntryPoint = "fcntl", SetLastError = LastError.IsSavedByTheStub)]
    private static extern int fcntl_padded(int fd, int cmd, nint arg, nint r3, nint r4, nint r5, nint r6, nint r7, nint stacked);

    internal static int FileControl(int fd, int cmd, nint arg) => fcntl_padded(fd, cmd, arg, 0, 0, 0, 0, 0, arg);

    /// <summary>fstat(2) into room for the system's <c>struct stat</c>.</summary>
    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub), OnlyOn(Systems.MacOS | Systems.FreeBsd)]
    internal static extern int fstat(int fd, void* buf);

    /// <summary>The same on macOS for x86-64, where <c>fstat</c> alone has an older structure.</summary>
    [DllImport(Library, EntryPoint = "fstat$INODE64", SetLastError = LastError.IsSavedByTheStub), OnlyOn(Systems.MacOS)]
    internal static extern int fstat_inode64(int fd, void* buf);

    /// <summary>sendfile(2) of macOS: <paramref name="len"/> is how much to send, and comes back as how much was sent, also with an error.</summary>
    [DllImport(Library, EntryPoint = "sendfile", SetLastError = LastError.IsSavedByTheStub), OnlyOn(Systems.MacOS)]
    internal static extern int sendfile_apple(int fd, int s, long offset, long* len, void* hdtr, int flags);

    /// <summary>sendfile(2) of FreeBSD: <paramref name="sbytes"/> comes back as how much was sent, also with an error.</summary>
    [DllImport(Library, EntryPoint = "sendfile", SetLastError = LastError.IsSavedByTheStub), OnlyOn(Systems.FreeBsd)]
    internal static extern int sendfile_freebsd(int fd, int s, long offset, nuint nbytes, void* hdtr, long* sbytes, int flags);
}
