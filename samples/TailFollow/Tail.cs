using System.Buffers;
using System.ComponentModel;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;

namespace Amy.Async.Samples;

/// <summary>
/// <c>tail -f</c>: the lines of a file, and those that are appended to it, as inotify(7) tells of them. The wait is for the
/// kernel's word, not for a clock; the file itself is read as files are, because the kernel does not poll those.
/// </summary>
public static class Tail
{
    private const uint IN_MODIFY = 0x2, IN_ATTRIB = 0x4, IN_DELETE_SELF = 0x400, IN_MOVE_SELF = 0x800;
    private const int IN_CLOEXEC = 0x80000, IN_NONBLOCK = 0x800;
    private const int MaxLine = 1 << 20;

    /// <summary>Ends when the file is deleted or moved away, or with the token. A file that shrinks is read from its start.</summary>
    public static async IAsyncEnumerable<string> FollowAsync(string path, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        using var file = new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        using var watch = Watch(path);
        var lines = new LineReader(MaxLine);
        var events = new byte[4096];
        while (true)
        {
            if (file.Length < file.Position) file.Position = 0;
            for (int n; (n = file.Read(lines.GetSpan())) > 0;)
            {
                lines.Advance(n);
                while (lines.TryRead(out ReadOnlyMemory<byte> line)) yield return Encoding.UTF8.GetString(line.Span);
            }
            var length = await watch.ReadAsync(events, cancellationToken);
            if (HasEnded(events.AsSpan(0, length)) || !File.Exists(path)) yield break; // while it is open here, a deleted one tells only of its attributes
        }
    }

    private static AsyncFd Watch(string path)
    {
        var descriptor = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (descriptor < 0) throw new Win32Exception();
        var watch = AsyncFd.FromDescriptor(descriptor, ownsHandle: true);
        if (inotify_add_watch(descriptor, Encoding.UTF8.GetBytes(path + '\0'), IN_MODIFY | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF) >= 0) return watch;
        var error = new Win32Exception();
        watch.Dispose();
        throw error;
    }

    // struct inotify_event: wd, mask, cookie, len, then len bytes of name.
    private static bool HasEnded(ReadOnlySpan<byte> events)
    {
        while (events.Length >= 16)
        {
            if ((MemoryMarshal.Read<uint>(events[4..]) & (IN_DELETE_SELF | IN_MOVE_SELF)) != 0) return true;
            events = events[(16 + MemoryMarshal.Read<int>(events[12..]))..];
        }
        return false;
    }

    [DllImport("libc", SetLastError = true)]
    private static extern int inotify_init1(int flags);

    [DllImport("libc", SetLastError = true)]
    private static extern int inotify_add_watch(int fd, byte[] path, uint mask);
}
