using System.Net;
using System.Net.Sockets;
using System.Runtime.ExceptionServices;
using Amy.Async.Native;

namespace Amy.Async.Tests;

/// <summary>Runs things with a limit: a test that hangs fails instead.</summary>
internal static class Run
{
    internal static readonly TimeSpan Limit = TimeSpan.FromSeconds(60);

    /// <summary>EventLoop.Run on a thread of its own, until main ends.</summary>
    internal static void OnLoop(Func<Task> main, EventLoopOptions? options = null) =>
        OnThread(() => EventLoop.Run(main, options ?? new EventLoopOptions { SpinDuration = TimeSpan.Zero }));

    /// <summary>Runs on a thread of its own, without a context, and throws here what it throws there.</summary>
    internal static void OnThread(Action action)
    {
        ExceptionDispatchInfo? failure = null;
        var thread = new Thread(() =>
        {
            try
            {
                action();
            }
            catch (Exception e)
            {
                failure = ExceptionDispatchInfo.Capture(e);
            }
        })
        { IsBackground = true };
        thread.Start();
        if (!thread.Join(Limit)) Assert.Fail($"It did not end within {Limit}.");
        failure?.Throw();
    }

    /// <summary>Starts a thread that waits on a poller; a failed test that disposes the poller under it ends it quietly.</summary>
    internal static Thread Waiter(Action action)
    {
        var thread = new Thread(() =>
        {
            try
            {
                action();
            }
            catch (ObjectDisposedException)
            {
            }
        })
        { IsBackground = true };
        thread.Start();
        return thread;
    }

    /// <summary>Waits for a task from a test's own thread.</summary>
    internal static void Wait(Task task)
    {
        if (!((IAsyncResult)task).AsyncWaitHandle.WaitOne(Limit)) Assert.Fail($"It did not end within {Limit}.");
        task.GetAwaiter().GetResult();
    }

    internal static T Wait<T>(Task<T> task)
    {
        Wait((Task)task);
        return task.Result;
    }

    /// <summary>Waits until something holds; for what another thread does without telling.</summary>
    internal static void Until(Func<bool> condition, string what) =>
        Assert.That(SpinWait.SpinUntil(condition, Limit), Is.True, what);
}

/// <summary>Connections on this machine.</summary>
internal static class Pair
{
    internal static Socket ListenPlain(AddressFamily family = AddressFamily.InterNetwork)
    {
        var listener = new Socket(family, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(family == AddressFamily.InterNetwork ? IPAddress.Loopback : IPAddress.IPv6Loopback, 0));
        listener.Listen(512);
        return listener;
    }

    /// <summary>Two connected TCP sockets of System.Net.Sockets.</summary>
    internal static (Socket Client, Socket Server) Tcp()
    {
        using var listener = ListenPlain();
        var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        client.Connect(listener.LocalEndPoint!);
        var server = listener.Accept();
        server.NoDelay = true;
        return (client, server);
    }

    /// <summary>Two connected Unix-domain stream sockets of System.Net.Sockets.</summary>
    internal static (Socket Client, Socket Server) Unix()
    {
        var path = TemporaryPath();
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(path));
        listener.Listen(1);
        var client = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        client.Connect(new UnixDomainSocketEndPoint(path));
        return (client, listener.Accept());
    }

    /// <summary>Two connected descriptors that no Socket, whose finalizer closes, stands behind.</summary>
    internal static (AsyncFd A, AsyncFd B) Fds(EventLoop? loop = null)
    {
        var (x, y) = Unix();
        return (Take(x), Take(y));

        AsyncFd Take(Socket socket)
        {
            var descriptor = (int)socket.SafeHandle.DangerousGetHandle();
            socket.SafeHandle.SetHandleAsInvalid();
            return AsyncFd.FromDescriptor(descriptor, loop, ownsHandle: true);
        }
    }

    internal static (Socket Client, Socket Server) Of(string kind) => kind == "tcp" ? Tcp() : Unix();

    internal static string TemporaryPath() => Path.Combine(Path.GetTempPath(), "amy-" + Guid.NewGuid().ToString("N")[..12]);

    /// <summary>Two connected AsyncSockets on the current loop.</summary>
    internal static async Task<(AsyncSocket Client, AsyncSocket Server)> Async(EventLoop? loop = null)
    {
        using var listener = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0), loop: loop);
        var accepting = listener.AcceptAsync();
        var client = await AsyncSocket.ConnectAsync(listener.LocalEndPoint!, loop);
        return (client, await accepting);
    }
}

internal static class Descriptors
{
    /// <summary>
    /// Open sockets, epoll instances and eventfds of this process. Files and pipes are left out: the runtime and the test
    /// host open some of their own when they like.
    /// </summary>
    internal static int Count() => All().Count(IsOfOurs);

    /// <summary>What they are, for a message.</summary>
    internal static string List() => string.Join("; ", All().Where(IsOfOurs));

    private static IEnumerable<string> All() =>
        Directory.GetFileSystemEntries("/proc/self/fd").Select(f => $"{Path.GetFileName(f)} {new FileInfo(f).LinkTarget}");

    private static bool IsOfOurs(string descriptor) => descriptor.Contains("socket:") || descriptor.Contains("anon_inode:");

    /// <summary>Closes what only finalizers know of, so that counts are of this test alone.</summary>
    internal static int Settle()
    {
        for (var i = 0; i < 3; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
        return Count();
    }
}

/// <summary>System calls that count, and that tests make fail.</summary>
internal class CountingCalls : KqueueDouble
{
    internal int Writes, Waits, Controls, Receives, Sends, Accepts, Closes, Options;
    internal Func<int, int?>? OnAccept; // gets the number of the call; null: the real one

    internal override int Write(int descriptor, ReadOnlySpan<byte> buffer)
    {
        Interlocked.Increment(ref Writes);
        return base.Write(descriptor, buffer);
    }

    internal override int EpollWait(int epoll, byte[] events, int capacity, long timeout)
    {
        Interlocked.Increment(ref Waits);
        return base.EpollWait(epoll, events, capacity, timeout);
    }

    internal override int EpollControl(int epoll, int operation, int descriptor, uint events, long data)
    {
        Interlocked.Increment(ref Controls);
        return base.EpollControl(epoll, operation, descriptor, events, data);
    }

    internal override int Kevent(int queue, byte[]? changes, int changeCount, byte[]? events, int capacity, long timeout)
    {
        if (changeCount == 0) Interlocked.Increment(ref Waits);
        else if (capacity == 0) Interlocked.Increment(ref Writes); // a wake-up
        else Interlocked.Increment(ref Controls);
        return base.Kevent(queue, changes, changeCount, events, capacity, timeout);
    }

    internal override int Receive(int socket, Span<byte> buffer)
    {
        Interlocked.Increment(ref Receives);
        return base.Receive(socket, buffer);
    }

    internal override int Send(int socket, ReadOnlySpan<byte> buffer)
    {
        Interlocked.Increment(ref Sends);
        return base.Send(socket, buffer);
    }

    internal override int Accept(int listener)
    {
        var n = Interlocked.Increment(ref Accepts);
        return OnAccept?.Invoke(n) ?? base.Accept(listener);
    }

    internal override int SetOption(int socket, int level, int name, int value)
    {
        Interlocked.Increment(ref Options);
        return base.SetOption(socket, level, name, value);
    }

    internal override int Close(int descriptor)
    {
        Interlocked.Increment(ref Closes);
        return base.Close(descriptor);
    }
}

internal static class Expect
{
    /// <summary>Awaits the failure. NUnit's own ThrowsAsync blocks the thread, which may be the loop's.</summary>
    internal static async Task<T> Throws<T>(Func<Task> action) where T : Exception
    {
        try
        {
            await action();
        }
        catch (T e)
        {
            return e;
        }
        throw new AssertionException($"Expected {typeof(T).Name}, but nothing was thrown.");
    }
}
