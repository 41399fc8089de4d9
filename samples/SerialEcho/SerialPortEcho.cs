using System.ComponentModel;
using System.Runtime.InteropServices;
using System.Text;
using Microsoft.Win32.SafeHandles;

namespace Amy.Async.Samples;

/// <summary>
/// A serial port (or a pseudo-terminal) that answers with what it gets, and asks "?" when it has heard nothing for a while:
/// reading with a time-out, which takes no thread and no timer of its own.
/// </summary>
public static class SerialPortEcho
{
    private const int O_RDWR = 2, O_NOCTTY = 0x100, O_NONBLOCK = 0x800, O_CLOEXEC = 0x80000;
    private const int EIO = 5;

    /// <summary>Opens a terminal and makes it raw: bytes as they are, nothing echoed or edited by the system.</summary>
    public static AsyncFd Open(string path)
    {
        var descriptor = open(Encoding.UTF8.GetBytes(path + '\0'), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
        if (descriptor < 0) throw new Win32Exception();
        var handle = new SafeFileHandle(descriptor, ownsHandle: true);
        var settings = new byte[128]; // struct termios has 60 bytes on Linux
        if (tcgetattr(descriptor, settings) == 0)
        {
            cfmakeraw(settings);
            if (tcsetattr(descriptor, 0, settings) == 0) return new AsyncFd(handle);
        }
        var error = new Win32Exception();
        handle.Dispose();
        throw error;
    }

    /// <summary>Echoes until the other end hangs up.</summary>
    public static async Task RunAsync(AsyncFd port, TimeSpan silence)
    {
        port.ReadTimeout = silence;
        var buffer = new byte[256];
        try
        {
            while (true)
            {
                int n;
                try
                {
                    n = await port.ReadAsync(buffer);
                    if (n == 0) return;
                }
                catch (TimeoutException)
                {
                    buffer[0] = (byte)'?';
                    n = 1;
                }
                await port.WriteAsync(buffer.AsMemory(0, n));
            }
        }
        catch (IOException e) when (e.HResult == EIO)
        {
            // Unplugged, in reading or in writing.
        }
    }

    [DllImport("libc", SetLastError = true)]
    private static extern int open(byte[] path, int flags);

    [DllImport("libc", SetLastError = true)]
    private static extern int tcgetattr(int fd, byte[] settings);

    [DllImport("libc", SetLastError = true)]
    private static extern int tcsetattr(int fd, int when, byte[] settings);

    [DllImport("libc")]
    private static extern void cfmakeraw(byte[] settings);
}
