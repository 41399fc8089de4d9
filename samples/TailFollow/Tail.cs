using System.Buffers;
using System.ComponentModel;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using Microsoft.Win32.SafeHandles;

namespace Amy.Async.Samples;

/// <summary>
/// <c>tail -f</c>: the lines of a file, and those that are appended to it, as inotify(7) tells of them. The wait is for the
/// kernel's word, not for a clock; the file itself is read as files are, because the kernel does not poll those.
/// </summary>
public static class Tail
{
    private const uint IN_MODIFY = 0x2, IN_ATTRIB = 0x4, IN_DELETE_SELF = 0x400, IN_MOVE_SELF = 0x800;
    private const int IN_CLOEXEC = 0x80000, IN_NONBLOCK = 0x800;
    private const int O_NONBLOCK = 0x800, O_CLOEXEC = 0x80000;
    private const int MaxLine = 1 << 20;

    /// <summary>Ends when the file is deleted or moved away, or with the token. A file that shrinks is read from its start.</summary>
    /// <exception cref="IOException">It cannot be read, or is no regular file.</exception>
    /// <exception cref="InvalidDataException">A line is too long.</exception>
    public static async IAsyncEnumerable<string> FollowAsync(string path, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        using var file = Open(path);
        using var watch = Watch(path);
        var lines = new LineReader(MaxLine);
        var events = new byte[4096];
        var ended = false;
        while (true)
        {
            if (file.Length < file.Position)
            {
                file.Position = 0;
                lines = new LineReader(MaxLine); // half a line of what was there does not begin what is there now
            }
            for (int n; (n = file.Read(lines.GetSpan())) > 0;)
            {
                lines.Advance(n);
                while (lines.TryRead(out ReadOnlyMemory<byte> line)) yield return Encoding.UTF8.GetString(line.Span);
            }
            if (ended) break;
            var length = await watch.ReadAsync(events, cancellationToken);
            // While it is open here, a deleted one tells only of its attributes. What was written before is still to be read.
            ended = HasEnded(events.AsSpan(0, length)) || !File.Exists(path);
        }
        if (lines.TryReadRest(out var rest)) yield return Encoding.UTF8.GetString(rest.Span);
    }

    // Not FileStream's own open(2), which would block on a FIFO until somebody writes to it.
    private static FileStream Open(string path)
    {
        var descriptor = open(Encoding.UTF8.GetBytes(path + '\0'), O_NONBLOCK | O_CLOEXEC);
        if (descriptor < 0) throw new IOException($"{path}: {new Win32Exception().Message}");
        var handle = new SafeFileHandle(descriptor, ownsHandle: true);
        try
        {
            var file = new FileStream(handle, FileAccess.Read);
            if (file.CanSeek) return file;
        }
        catch (UnauthorizedAccessException)
        {
            // A directory.
        }
        handle.Dispose();
        throw new IOException($"{path} is no regular file.");
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
    private static extern int open(byte[] path, int flags);

    [DllImport("libc", SetLastError = true)]
    private static extern int inotify_init1(int flags);

    [DllImport("libc", SetLastError = true)]
    private static extern int inotify_add_watch(int fd, byte[] path, uint mask);
}
