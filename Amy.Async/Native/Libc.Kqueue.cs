using System.Runtime.InteropServices;
using Amy.Async.Compat;

namespace Amy.Async.Native;

// What only the kqueue selector calls. Of FreeBSD's versions of kevent, a look-up by name finds the newest, whose structure has
// 64 bytes.
internal static unsafe partial class Libc
{
    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int kqueue();

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int kevent(int kq, void* changelist, int nchanges, void* eventlist, int nevents, TimeSpec* timeout);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int pipe(int* fds);

    /// <summary>Linux and the BSDs, not macOS (EntryPointNotFoundException).</summary>
    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int pipe2(int* fds, int flags);

    /// <summary>
    /// fcntl(2) as Apple's arm64 wants it: variadic arguments travel on the stack there, even when registers are free, so the
    /// six registers behind the two named arguments are filled first.
    /// </summary>
    [DllImport(Library, EntryPoint = "fcntl", SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int fcntl_on_stack(int fd, int cmd, nint x2, nint x3, nint x4, nint x5, nint x6, nint x7, nint arg);
}

/// <summary>libkqueue: the same two functions, from a library of their own.</summary>
internal static unsafe class Libkqueue
{
    private const string Library = "libkqueue.so.0";

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int kqueue();

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int kevent(int kq, void* changelist, int nchanges, void* eventlist, int nevents, TimeSpec* timeout);
}
