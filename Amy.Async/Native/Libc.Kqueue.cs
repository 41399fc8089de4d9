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
