using System.Diagnostics;
using System.Diagnostics.CodeAnalysis;
using System.IO.Pipes;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Text;
using Microsoft.Win32.SafeHandles;

namespace Amy.Async.Tests.Sockets;

/// <summary>Descriptors of every kind that Linux can poll, through <see cref="AsyncFd"/>.</summary>
[TestFixture]
[SuppressMessage("Usage", "CA1806", Justification = "What is closed or written in passing is looked at by its effect.")]
[SuppressMessage("Globalization", "CA2101", Justification = "Paths here are ASCII.")]
internal class AsyncFdTests
{
    private static class C
    {
        [DllImport("libc", SetLastError = true)]
        internal static extern int pipe2(int[] fds, int flags);

        [DllImport("libc", SetLastError = true)]
        internal static extern int close(int fd);

        [DllImport("libc", SetLastError = true)]
        internal static extern int dup(int fd);

        [DllImport("libc", SetLastError = true)]
        internal static extern int dup2(int from, int to);

        [DllImport("libc", SetLastError = true)]
        internal static extern nint write(int fd, byte[] data, nint count);

        [DllImport("libc", SetLastError = true)]
        internal static extern nint read(int fd, byte[] data, nint count);

        [DllImport("libc", SetLastError = true)]
        internal static extern int fcntl(int fd, int command, nint argument);

        [DllImport("libc", SetLastError = true, CharSet = CharSet.Ansi)]
        internal static extern int open([MarshalAs(UnmanagedType.LPStr)] string path, int flags);

        [DllImport("libc", SetLastError = true)]
        internal static extern int openpty(out int master, out int slave, nint name, nint termios, nint size);

        [DllImport("libc", SetLastError = true)]
        internal static extern int eventfd(uint value, int flags);

        [DllImport("libc", SetLastError = true)]
        internal static extern int timerfd_create(int clock, int flags);

        [DllImport("libc", SetLastError = true)]
        internal static extern int timerfd_settime(int fd, int flags, long[] value, nint old);

        [DllImport("libc", SetLastError = true)]
        internal static extern int inotify_init1(int flags);

        [DllImport("libc", SetLastError = true, CharSet = CharSet.Ansi)]
        internal static extern int inotify_add_watch(int fd, [MarshalAs(UnmanagedType.LPStr)] string path, uint mask);

        [DllImport("libc", SetLastError = true, CharSet = CharSet.Ansi)]
        internal static extern int mkfifo([MarshalAs(UnmanagedType.LPStr)] string path, uint mode);

        [DllImport("libc", SetLastError = true)]
        internal static extern nint syscall(nint number, nint a, nint b);

        [DllImport("libc", SetLastError = true)]
        internal static extern int socket(int domain, int type, int protocol);

        [DllImport("libc", SetLastError = true)]
        internal static extern nint send(int fd, byte[] data, nint count, int flags);

        [DllImport("libc", SetLastError = true)]
        internal static extern int ioctl(int fd, nuint request, ref int argument);

        [DllImport("libc", SetLastError = true)]
        internal static extern int tcflow(int fd, int action);

        [DllImport("libc", SetLastError = true)]
        internal static extern void cfmakeraw(byte[] termios);

        [DllImport("libc", SetLastError = true)]
        internal static extern int tcgetattr(int fd, byte[] termios);

        [DllImport("libc", SetLastError = true)]
        internal static extern int tcsetattr(int fd, int when, byte[] termios);
    }

    private const int F_GETFL = 3;
    private const int O_NONBLOCK = 0x800;

    private static bool IsNonBlocking(int fd) => (C.fcntl(fd, F_GETFL, 0) & O_NONBLOCK) != 0;

    private static (int Read, int Write) PipeOf()
    {
        var fds = new int[2];
        Assert.That(C.pipe2(fds, 0x80000), Is.Zero);
        return (fds[0], fds[1]);
    }

    private static AsyncFd Own(int fd)
    {
        Assert.That(fd, Is.GreaterThanOrEqualTo(0), $"errno {Marshal.GetLastPInvokeError()}");
        return AsyncFd.FromDescriptor(fd, ownsHandle: true);
    }

    private static void MakeRaw(int fd)
    {
        var termios = new byte[128];
        Assert.That(C.tcgetattr(fd, termios), Is.Zero);
        C.cfmakeraw(termios);
        Assert.That(C.tcsetattr(fd, 0, termios), Is.Zero);
    }

    [Test]
    public void Pipe_ReadsAndWrites_WaitsBothWays_AndEnds() => Run.OnLoop(async () =>
    {
        var (r, w) = PipeOf();
        using var reader = Own(r);
        var writer = Own(w);
        var data = Enumerable.Range(0, 1_000_000).Select(i => (byte)(i * 13)).ToArray();
        var writing = writer.WriteAsync(data).AsTask();
        Assert.That(writing.IsCompleted, Is.False, "more than a pipe holds");
        var all = new MemoryStream();
        var buffer = new byte[10_000];
        while (all.Length < data.Length) all.Write(buffer, 0, await reader.ReadAsync(buffer));
        Assert.That(await writing, Is.EqualTo(data.Length));
        Assert.That(all.ToArray().AsSpan().SequenceEqual(data), Is.True);
        Assert.That((reader.BytesRead, writer.BytesWritten), Is.EqualTo((1_000_000L, 1_000_000L)));
        Assert.That(reader.TryRead(buffer, out _), Is.False);
        var reading = reader.ReadAsync(buffer);
        writer.Dispose();
        Assert.That(await reading, Is.Zero);
        Assert.That(await reader.ReadAsync(buffer), Is.Zero);
        Assert.That((await reader.ReadableAsync()).HasFlag(Readiness.ReadClosed), Is.True);
    });

    [Test]
    public void Pipe_WithoutReader_IsEPIPE() => Run.OnLoop(async () =>
    {
        var (r, w) = PipeOf();
        using var writer = Own(w);
        var waiting = writer.WriteAsync(new byte[200_000]).AsTask();
        C.close(r);
        var error = await Expect.Throws<IOException>(async () => await waiting);
        Assert.That(error.HResult, Is.EqualTo(32), "EPIPE");
        Assert.That(writer.BytesWritten, Is.EqualTo(65536));
    });

    [Test]
    public void NonBlocking_IsSetAndTakenBack_AlsoForTheLastOfTwoThatShare() => Run.OnLoop(async () =>
    {
        var (r, w) = PipeOf();
        var copy = C.dup(r);
        var one = AsyncFd.FromDescriptor(r);
        Assert.That(IsNonBlocking(r), Is.True);
        var two = AsyncFd.FromDescriptor(copy);
        one.Dispose();
        Assert.That(IsNonBlocking(copy), Is.True, "the other still needs it");
        Assert.That(two.TryRead(new byte[1], out _), Is.False, "and would block otherwise");
        two.Dispose();
        Assert.That(IsNonBlocking(r), Is.False);

        // Whoever comes second has not changed it, and leaves it to the first.
        one = AsyncFd.FromDescriptor(r);
        two = AsyncFd.FromDescriptor(copy);
        two.Dispose();
        Assert.That(IsNonBlocking(r), Is.True);
        one.Dispose();
        Assert.That(IsNonBlocking(r), Is.False);

        // What was non-blocking before stays so.
        C.fcntl(r, 4, O_NONBLOCK);
        AsyncFd.FromDescriptor(r).Dispose();
        Assert.That(IsNonBlocking(r), Is.True);
        foreach (var fd in new[] { r, w, copy }) C.close(fd);
        await Task.CompletedTask;
    });

    [Test]
    public void RegularFilesAndDevNull_AreRefused_AndLeftAlone() => Run.OnLoop(() =>
    {
        var path = Path.GetTempFileName();
        using (var file = File.OpenHandle(path))
        {
            Assert.That(() => new AsyncFd(file), Throws.TypeOf<NotSupportedException>().With.Message.Contains("regular file"));
            Assert.That(file.IsClosed, Is.False);
            Assert.That(IsNonBlocking((int)file.DangerousGetHandle()), Is.False);
        }
        File.Delete(path);
        var nothing = C.open("/dev/null", 2);
        Assert.That(() => AsyncFd.FromDescriptor(nothing, ownsHandle: true), Throws.TypeOf<NotSupportedException>());
        Assert.That(C.fcntl(nothing, F_GETFL, 0), Is.GreaterThanOrEqualTo(0), "still the caller's");
        C.close(nothing);
        Assert.That(() => AsyncFd.FromDescriptor(nothing), Throws.InstanceOf<ObjectDisposedException>());
        Assert.That(() => AsyncFd.FromDescriptor(-1), Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new AsyncFd(null!), Throws.ArgumentNullException);
        Assert.That(() => new AsyncFd(new SafeFileHandle(-1, true)), Throws.ArgumentException);
        return Task.CompletedTask;
    });

    [Test]
    public void SecondAttachment_IsRefused_AndTheFirstWorks() => Run.OnLoop(async () =>
    {
        var (r, w) = PipeOf();
        using var one = Own(r);
        Assert.That(() => AsyncFd.FromDescriptor(r), Throws.InvalidOperationException);
        C.write(w, [1, 2], 2);
        Assert.That(await one.ReadAsync(new byte[5]), Is.EqualTo(2));
        Assert.That(IsNonBlocking(r), Is.True);
        C.close(w);
    });

    [Test]
    public void Fifo_LivesAgain_WhenAnotherWriterOpensIt() => Run.OnLoop(async () =>
    {
        var path = Pair.TemporaryPath();
        Assert.That(C.mkfifo(path, 0x180), Is.Zero);
        using var reader = Own(C.open(path, O_NONBLOCK));
        var buffer = new byte[10];
        Assert.That(await reader.ReadAsync(buffer), Is.Zero, "no writer yet");
        for (var i = 0; i < 3; i++)
        {
            var writer = C.open(path, 1);
            C.write(writer, [7, 8, 9], 3);
            Assert.That(await reader.ReadAsync(buffer), Is.EqualTo(3));
            var waiting = reader.ReadAsync(buffer);
            Assert.That(waiting.IsCompleted, Is.False);
            C.close(writer);
            Assert.That(await waiting, Is.Zero);
        }
        File.Delete(path);
    });

    [Test]
    public void Pty_EchoesBothWays_AndEndsWithEIO() => Run.OnLoop(async () =>
    {
        Assert.That(C.openpty(out var m, out var s, 0, 0, 0), Is.Zero);
        MakeRaw(s);
        using var master = Own(m);
        var slave = new AsyncFd(new SafeFileHandle(s, true));
        var buffer = new byte[100];
        for (var i = 0; i < 20; i++)
        {
            var reading = slave.ReadAsync(buffer);
            await master.WriteAsync(Encoding.ASCII.GetBytes($"line {i}"));
            var n = await reading;
            Assert.That(Encoding.ASCII.GetString(buffer, 0, n), Is.EqualTo($"line {i}"));
            await slave.WriteAsync(buffer.AsMemory(0, n));
            Assert.That(await master.ReadAsync(buffer), Is.EqualTo(n));
        }
        slave.ReadTimeout = TimeSpan.FromMilliseconds(20);
        await Expect.Throws<TimeoutException>(async () => await slave.ReadAsync(buffer));
        slave.Dispose();
        var error = await Expect.Throws<IOException>(async () => await master.ReadAsync(buffer));
        Assert.That(error.HResult, Is.EqualTo(5), "EIO");
    });

    /// <summary>Without /proc a terminal is shared, and gets its flags back at the end.</summary>
    protected virtual bool OpensTerminalsAnew => true;

    [Test]
    public void Terminal_IsOpenedAnew_SoThatOthersStayBlocking() => Run.OnLoop(async () =>
    {
        Assert.That(C.openpty(out var m, out var s, 0, 0, 0), Is.Zero);
        MakeRaw(s);
        using (var slave = new AsyncFd(new SafeFileHandle(s, ownsHandle: false), ownsHandle: false))
        {
            Assert.That(IsNonBlocking(s), Is.EqualTo(!OpensTerminalsAnew), "the shell's is as it was");
            var reading = slave.ReadAsync(new byte[10]);
            C.write(m, [1, 2, 3], 3);
            Assert.That(await reading, Is.EqualTo(3));
            await slave.WriteAsync("back"u8.ToArray());
            Assert.That((int)C.read(m, new byte[10], 10), Is.EqualTo(4));
        }
        Assert.That(IsNonBlocking(s), Is.False);
        Assert.That(C.fcntl(s, F_GETFL, 0), Is.GreaterThanOrEqualTo(0), "still open");
        C.close(s);
        C.close(m);
    });

    [Test]
    public void Priority_OfATerminalInPacketMode_BesidesAPendingRead() => Run.OnLoop(async () =>
    {
        TestPoller.SkipWithoutPriority();
        Assert.That(C.openpty(out var m, out var s, 0, 0, 0), Is.Zero);
        var on = 1;
        Assert.That(C.ioctl(m, 0x5420, ref on), Is.Zero, "TIOCPKT");
        using var master = Own(m);
        for (var i = 0; i < 3; i++)
        {
            var priority = master.PriorityAsync();
            Assert.That(priority.IsCompleted, Is.False);
            await Expect.Throws<InvalidOperationException>(async () => await master.PriorityAsync());
            Assert.That(C.tcflow(s, i % 2 == 0 ? 0 : 1), Is.Zero); // output stopped, started: the packet says so
            Assert.That((await priority).HasFlag(Readiness.Priority), Is.True);
            var packet = new byte[10];
            Assert.That(await master.ReadAsync(packet), Is.EqualTo(1));
            Assert.That(packet[0] & 0x0c, Is.Not.Zero);
        }
        using var source = new CancellationTokenSource();
        var cancelled = master.PriorityAsync(source.Token);
        source.Cancel();
        await Expect.Throws<OperationCanceledException>(async () => await cancelled);
        var disposed = master.PriorityAsync();
        master.Dispose();
        await Expect.Throws<ObjectDisposedException>(async () => await disposed);
        C.close(s);
    });

    [Test]
    public void Priority_ThatLasts_IsAnsweredEachTime() => Run.OnLoop(async () =>
    {
        TestPoller.SkipWithoutPriority();
        var (x, y) = Pair.Tcp();
        using (x)
        using (y)
        {
            using var fd = new AsyncFd(y.SafeHandle, ownsHandle: false);
            var first = fd.PriorityAsync();
            x.Send([1], SocketFlags.OutOfBand);
            await first;
            await fd.PriorityAsync(); // the urgent byte was not read yet
            await fd.PriorityAsync();
            Assert.That(y.Receive(new byte[1], SocketFlags.OutOfBand), Is.EqualTo(1));
            var next = fd.PriorityAsync();
            // An edge of the byte that was read may still be on its way, once or twice; a condition that lasted would answer for ever.
            for (var answers = 0; ; answers++)
            {
                await EventLoop.Current!.Yield();
                await EventLoop.Current!.Yield();
                if (!next.IsCompleted) break;
                Assert.That(answers, Is.LessThan(2));
                await next;
                next = fd.PriorityAsync();
            }
            x.Send([2], SocketFlags.OutOfBand);
            await next;
        }
    });

    [Test]
    public void EventFd_CountsWhatAnotherThreadAdds() => Run.OnLoop(async () =>
    {
        using var counter = Own(C.eventfd(0, 0x80000));
        var buffer = new byte[8];
        var adding = Task.Run(() =>
        {
            for (var i = 0; i < 1000; i++) C.write((int)counter.Handle.DangerousGetHandle(), BitConverter.GetBytes(3UL), 8);
        });
        var sum = 0UL;
        while (sum < 3000)
        {
            Assert.That(await counter.ReadAsync(buffer), Is.EqualTo(8));
            sum += BitConverter.ToUInt64(buffer);
        }
        await adding;
        Assert.That(sum, Is.EqualTo(3000));
        Assert.That(await counter.WriteAsync(BitConverter.GetBytes(5UL)), Is.EqualTo(8));
        Assert.That(await counter.ReadAsync(buffer), Is.EqualTo(8));
        Assert.That(BitConverter.ToUInt64(buffer), Is.EqualTo(5));
    });

    [Test]
    public void TimerFd_Ticks() => Run.OnLoop(async () =>
    {
        using var timer = Own(C.timerfd_create(1, 0x80000));
        var fd = (int)timer.Handle.DangerousGetHandle();
        Assert.That(C.timerfd_settime(fd, 0, [0, 2_000_000, 0, 2_000_000], 0), Is.Zero);
        var buffer = new byte[8];
        var ticks = 0UL;
        while (ticks < 5)
        {
            Assert.That(await timer.ReadAsync(buffer), Is.EqualTo(8));
            ticks += BitConverter.ToUInt64(buffer);
        }
    });

    [Test]
    public void Inotify_TellsOfAFile() => Run.OnLoop(async () =>
    {
        var folder = Directory.CreateTempSubdirectory("amy-inotify");
        using var inotify = Own(C.inotify_init1(0x80000));
        Assert.That(C.inotify_add_watch((int)inotify.Handle.DangerousGetHandle(), folder.FullName, 0x100), Is.Positive);
        var buffer = new byte[4096];
        var reading = inotify.ReadAsync(buffer);
        Assert.That(reading.IsCompleted, Is.False);
        File.WriteAllText(Path.Combine(folder.FullName, "made"), "");
        var n = await reading;
        Assert.That(Encoding.ASCII.GetString(buffer, 16, n - 16).TrimEnd('\0'), Is.EqualTo("made"));
        folder.Delete(recursive: true);
    });

    [Test]
    public void PidFd_IsReadableWhenTheProcessEnds() => Run.OnLoop(async () =>
    {
        using var child = Process.Start(new ProcessStartInfo("/bin/sh", ["-c", "read x; exit 3"]) { RedirectStandardInput = true })!;
        using var pidfd = Own((int)C.syscall(434, child.Id, 0));
        var ended = pidfd.ReadableAsync();
        Assert.That(ended.IsCompleted, Is.False);
        child.StandardInput.Close();
        await ended;
        child.WaitForExit();
        Assert.That(child.ExitCode, Is.EqualTo(3));
    });

    [Test]
    public void Netlink_Answers() => Run.OnLoop(async () =>
    {
        using var netlink = Own(C.socket(16, 3 | 0x80000, 0)); // AF_NETLINK, SOCK_RAW, NETLINK_ROUTE
        var request = new byte[20]; // struct nlmsghdr: RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP; then rtgenmsg
        BitConverter.TryWriteBytes(request.AsSpan(0), 20);
        BitConverter.TryWriteBytes(request.AsSpan(4), (short)18);
        BitConverter.TryWriteBytes(request.AsSpan(6), (short)0x301);
        Assert.That(await netlink.WriteAsync(request), Is.EqualTo(20));
        var buffer = new byte[16384];
        var text = "";
        do
        {
            var n = await netlink.ReadAsync(buffer);
            text += Encoding.Latin1.GetString(buffer, 0, n);
        }
        while (BitConverter.ToInt16(buffer, 4) != 3); // NLMSG_DONE
        Assert.That(text, Does.Contain("lo\0"));
    });

    [Test]
    public void ChildsStandardStreams_ThroughPipes() => Run.OnLoop(async () =>
    {
        using var input = new AnonymousPipeServerStream(PipeDirection.Out, HandleInheritability.Inheritable);
        using var output = new AnonymousPipeServerStream(PipeDirection.In, HandleInheritability.Inheritable);
        using var child = Process.Start(new ProcessStartInfo("/bin/sh", ["-c", $"tr a-z A-Z < /dev/fd/{input.GetClientHandleAsString()} > /dev/fd/{output.GetClientHandleAsString()}"]))!;
        input.DisposeLocalCopyOfClientHandle();
        output.DisposeLocalCopyOfClientHandle();
        var writer = new AsyncFd(input.SafePipeHandle);
        using var reader = new AsyncFd(output.SafePipeHandle);
        await writer.WriteAsync("shout this"u8.ToArray());
        writer.Dispose();
        using var text = new StreamReader(reader.AsStream());
        Assert.That(await text.ReadToEndAsync(), Is.EqualTo("SHOUT THIS"));
        child.WaitForExit();
    });

    [Test]
    public void HandleClosedByItsOwner_UnderAWait_EndsIt() => Run.OnLoop(async () =>
    {
        var (r, w) = PipeOf();
        var handle = new SafeFileHandle(r, true);
        using var fd = new AsyncFd(handle, ownsHandle: false);
        var reading = fd.ReadAsync(new byte[1]);
        handle.Dispose();
        await Expect.Throws<ObjectDisposedException>(async () => await reading);
        await Expect.Throws<ObjectDisposedException>(async () => await fd.ReadAsync(new byte[1]));
        C.close(w);
    });

    [TestCase("closed")]
    [TestCase("reused")]
    [TestCase("dup stays open")]
    public void RawDescriptor_ClosedByItsOwner_UnderAWait_EndsIt(string how) => Run.OnLoop(async () =>
    {
        TestPoller.SkipWithoutFiles();
        if (how == "dup stays open") TestPoller.SkipOnLibkqueue("what it has of a closed number with a dup cannot be removed any more");
        var (r, w) = PipeOf();
        var copy = how == "dup stays open" ? C.dup(r) : -1;
        using var fd = AsyncFd.FromDescriptor(r);
        var reading = fd.ReadableAsync();
        Assert.That(reading.IsCompleted, Is.False);
        var (r2, w2) = PipeOf();
        C.write(w2, [1], 1);
        if (how == "closed") C.close(r);
        else Assert.That(C.dup2(r2, r), Is.EqualTo(r)); // the number stands for another file now, and that is readable
        await Expect.Throws<ObjectDisposedException>(async () => await reading);
        await Expect.Throws<ObjectDisposedException>(async () => await fd.ReadAsync(new byte[1]));
        if (how != "closed")
        {
            Assert.That((int)C.read(r2, new byte[5], 5), Is.EqualTo(1), "nothing was taken from the other file");
            C.close(r);
        }
        if (copy >= 0) C.close(copy);
        foreach (var d in new[] { w, r2, w2 }) C.close(d);
    });

    [Test]
    public void RawDescriptor_ReusedBetweenOperations_IsFoundStale() => Run.OnLoop(async () =>
    {
        TestPoller.SkipWithoutFiles();
        var (r, w) = PipeOf();
        using var fd = AsyncFd.FromDescriptor(r);
        C.write(w, [1], 1);
        Assert.That(await fd.ReadAsync(new byte[5]), Is.EqualTo(1));
        var (r2, w2) = PipeOf();
        C.write(w2, [2], 1);
        C.dup2(r2, r);
        await Expect.Throws<ObjectDisposedException>(async () => await fd.ReadAsync(new byte[5]));
        Assert.That((int)C.read(r2, new byte[5], 5), Is.EqualTo(1), "nothing was taken from the other file");
        foreach (var d in new[] { r, w, r2, w2 }) C.close(d);
    });

    [Test]
    public void RawDescriptor_Reused_TheOtherFilesBlockingModeIsLeftAlone() => Run.OnLoop(() =>
    {
        TestPoller.SkipWithoutFiles();
        var (r, w) = PipeOf();
        var fd = AsyncFd.FromDescriptor(r);
        var (r2, w2) = PipeOf();
        C.fcntl(r2, 4, O_NONBLOCK);
        C.dup2(r2, r);
        fd.Dispose();
        Assert.That(IsNonBlocking(r2), Is.True);
        foreach (var d in new[] { r, w, r2, w2 }) C.close(d);
        return Task.CompletedTask;
    });

    [Test]
    public void RawDescriptor_LeftOpen_WorksOnAndOn() => Run.OnLoop(async () =>
    {
        var (r, w) = PipeOf();
        using (var fd = AsyncFd.FromDescriptor(r))
        {
            for (var i = 0; i < 200; i++)
            {
                var reading = fd.ReadAsync(new byte[5]);
                C.write(w, [1, 2], 2);
                Assert.That(await reading, Is.EqualTo(2));
            }
        }
        Assert.That(C.close(r), Is.Zero, "it was not ours to close");
        C.close(w);
    });

    [Test]
    public void Dispose_UnderWaits_EndsThem_AndClosesOnce() => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Unix();
        using (y)
        {
            var fd = new AsyncFd(x.SafeHandle);
            var reading = fd.ReadAsync(new byte[1]).AsTask();
            var writing = fd.WriteAsync(new byte[10_000_000]).AsTask();
            await Expect.Throws<InvalidOperationException>(async () => await fd.ReadableAsync());
            fd.Dispose();
            fd.Dispose();
            await Expect.Throws<ObjectDisposedException>(async () => await reading);
            await Expect.Throws<ObjectDisposedException>(async () => await writing);
            Assert.That(x.SafeHandle.IsClosed, Is.True);
            Assert.That(() => fd.TryRead(new byte[1], out _), Throws.TypeOf<ObjectDisposedException>());
        }
    });

    [Test]
    public void TenThousandCycles_LeakNothing() => Run.OnLoop(async () =>
    {
        var before = Directory.GetFiles("/proc/self/fd").Length;
        var registrations = EventLoop.Current!.Statistics.Registrations;
        for (var i = 0; i < 10_000; i++)
        {
            var (r, w) = PipeOf();
            using var reader = Own(r);
            using var writer = Own(w);
            if (i % 100 != 0) continue;
            var reading = reader.ReadAsync(new byte[1]);
            await writer.WriteAsync(new byte[1]);
            Assert.That(await reading, Is.EqualTo(1));
        }
        Assert.That(EventLoop.Current.Statistics.Registrations, Is.EqualTo(registrations));
        Assert.That(Directory.GetFiles("/proc/self/fd").Length, Is.InRange(before - 5, before + 5), "the runtime opens some of its own");
    });

    [Test]
    public void Forgotten_IsLetGoOf_WhenItIsCollected()
    {
        using var loop = EventLoop.Start();
        var (r, w) = PipeOf();
        [System.Runtime.CompilerServices.MethodImpl(System.Runtime.CompilerServices.MethodImplOptions.NoInlining)]
        void Make() => _ = AsyncFd.FromDescriptor(r, loop, ownsHandle: true);
        Make();
        Run.Until(() =>
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
            return loop.Statistics.Registrations == 0;
        }, "it was let go of");
        Assert.That(C.fcntl(r, F_GETFL, 0), Is.LessThan(0), "and closed");
        C.close(w);
    }

    [Test]
    public void OneDirectionsWait_IsNotEndedByTheOthers() => Run.OnLoop(async () =>
    {
        var (x, y) = Pair.Unix();
        using (x)
        using (y)
        {
            using var fd = new AsyncFd(x.SafeHandle);
            var reading = fd.ReadableAsync();
            for (var i = 0; i < 10; i++) await fd.WritableAsync();
            await EventLoop.Current!.Yield();
            Assert.That(reading.IsCompleted, Is.False);
            y.Send([1]);
            Assert.That((await reading).HasFlag(Readiness.Readable), Is.True);
            Assert.That(await fd.ReadAsync(Memory<byte>.Empty), Is.Zero);
            Assert.That(await fd.ReadAsync(new byte[5]), Is.EqualTo(1));
        }
    });
}
