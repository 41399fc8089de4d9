using System.Runtime.InteropServices;

namespace Amy.Async.Native;

// What kind of file a descriptor is, for those kernels that would watch one that is always ready.
internal unsafe partial class SystemCalls
{
    /// <summary>statx(2): a regular file or a directory. False if the kernel does not say.</summary>
    internal virtual bool IsOnDisk(int descriptor)
    {
        var buffer = stackalloc byte[FileConstants.StatxSize];
        byte path = 0;
        if (Libc.syscall(SystemCallNumber.Statx, descriptor, &path, FileConstants.AT_EMPTY_PATH, FileConstants.STATX_TYPE, buffer, 0) < 0) return false;
        return IsOnDisk(*(ushort*)(buffer + FileConstants.StatxModeOffset));
    }

    /// <summary>The type in <c>st_mode</c>, which is numbered alike everywhere.</summary>
    protected static bool IsOnDisk(ushort mode) => (mode & FileConstants.S_IFMT) is FileConstants.S_IFREG or FileConstants.S_IFDIR;
}

internal sealed unsafe partial class PortableSystemCalls
{
    private const int MostOfStat = 256; // no system's struct stat is larger

    /// <summary>fstat(2). On x86-64, macOS has the structure of today's headers under another name.</summary>
    internal override bool IsOnDisk(int descriptor)
    {
        var buffer = stackalloc byte[MostOfStat];
        var old = numbers.SendFile == SendFileForm.Apple && RuntimeInformation.ProcessArchitecture == Architecture.X64;
        if ((old ? Libc.fstat_inode64(descriptor, buffer) : Libc.fstat(descriptor, buffer)) < 0) return false;
        return IsOnDisk(*(ushort*)(buffer + numbers.StatModeOffset));
    }
}
