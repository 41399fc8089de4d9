using System.ComponentModel;
using System.Diagnostics;
using System.Runtime.InteropServices;

namespace Amy.Async.Samples;

/// <summary>Waits for the end of a process, any process of this user's, through pidfd_open(2) (Linux 5.3).</summary>
public static class ProcessExit
{
    private const nint PidfdOpen = 434; // the number is the same on all architectures
    private const int ESRCH = 3;

    /// <summary>Starts a program and waits for its end; its exit code.</summary>
    /// <exception cref="Win32Exception">It cannot be started.</exception>
    public static async Task<int> RunAsync(string program, IEnumerable<string> arguments)
    {
        using var process = Process.Start(program, arguments);
        try
        {
            await WaitAsync(process.Id);
        }
        catch (Win32Exception e) when (e.NativeErrorCode == ESRCH)
        {
            // Too quick for us: it has ended, and the runtime, which is its parent, has collected it.
        }
        process.WaitForExit(); // at once: its exit code is there
        return process.ExitCode;
    }

    /// <summary>Completes when the process has ended, on the current loop.</summary>
    /// <exception cref="Win32Exception">There is no such process.</exception>
    public static async Task WaitAsync(int processId, CancellationToken cancellationToken = default)
    {
        var descriptor = (int)syscall(PidfdOpen, processId, 0);
        if (descriptor < 0) throw new Win32Exception();
        using var process = AsyncFd.FromDescriptor(descriptor, ownsHandle: true);
        await process.ReadableAsync(cancellationToken); // readable: ended
    }

    [DllImport("libc", SetLastError = true)]
    private static extern nint syscall(nint number, nint process, nint flags);
}
