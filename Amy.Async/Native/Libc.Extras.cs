using System.Runtime.InteropServices;
using Amy.Async.Compat;

namespace Amy.Async.Native;

// What only the extras call.
internal static unsafe partial class Libc
{
    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub), OnlyOn(Systems.Linux)]
    internal static extern nint sendfile(int out_fd, int in_fd, long* offset, nuint count);

    /// <summary>
    /// fcntl(2) with an integer. Variadic: where variadic arguments do not travel like others (Apple's arm64), this
    /// declaration is wrong, and <see cref="FileControl"/> is right.
    /// </summary>
    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub), OnlyOn(Systems.Linux)]
    internal static extern int fcntl(int fd, int cmd, nint arg);

    /// <summary>open(2), without O_CREAT, so without its variadic argument.</summary>
    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int open(byte* path, int flags);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int isatty(int fd);

    /// <summary>ptsname_r(3): 0 for the master of a pseudo-terminal, else an error number.</summary>
    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub), OnlyOn(Systems.Linux)]
    internal static extern int ptsname_r(int fd, byte* buf, nuint buflen);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub)]
    internal static extern int getpid();

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub), OnlyOn(Systems.Linux)]
    internal static extern int sched_getaffinity(int pid, nuint cpusetsize, void* mask);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub), OnlyOn(Systems.Linux)]
    internal static extern int sched_setaffinity(int pid, nuint cpusetsize, void* mask);

    [DllImport(Library, SetLastError = LastError.IsSavedByTheStub), OnlyOn(Systems.Linux)]
    internal static extern int sched_getcpu();
}
