using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Bench;

/// <summary>
/// Connections are opened and closed, one after the other in several rows, both ends in this process: what is left of them in
/// memory and descriptors after each part.
/// </summary>
/// <remarks>
/// Three ways to end, in turn: over TCP the client resets, over TCP the server does, over a Unix-domain socket both close. (A TCP
/// connection that is closed by both leaves a port in TIME_WAIT for a minute, and there are not enough of them.)
/// </remarks>
internal sealed class Churn : IDisposable
{
    private const int Rows = 32;
    private const byte ClientResets = 0, ServerResets = 1, BothClose = 2;
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(5); // of one part

    private readonly EventLoop _server = EventLoop.Start();
    private readonly EventLoop _clients = EventLoop.Start();
    private readonly string _path = Path.Combine(Path.GetTempPath(), "amy-churn-" + Guid.NewGuid().ToString("N")[..8]);
    private readonly AsyncSocket _tcp;
    private readonly AsyncSocket _unix;
    private readonly Func<Task> _row; // made once: what the parts themselves allocate is the same for all
    private long _begun; // on the clients' loop
    private long _target; // likewise
    private int _open; // on the server's loop
    private long _served; // likewise
    private volatile Exception? _failure;

    internal Churn()
    {
        _tcp = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0), loop: _server);
        _unix = AsyncSocket.Listen(new UnixDomainSocketEndPoint(_path), loop: _server);
        foreach (var listener in new[] { _tcp, _unix }) _ = _server.InvokeAsync(() => AcceptAsync(listener));
        _row = RowAsync;
    }

    /// <summary>What the process holds.</summary>
    /// <param name="Connections">Opened and closed so far.</param>
    /// <param name="Managed">Bytes of live objects.</param>
    /// <param name="Anonymous">Bytes of the process's own pages in memory: heaps, stacks, compiled code.</param>
    /// <param name="Descriptors">Open sockets, epoll instances and eventfds; files are opened by the runtime when it likes.</param>
    internal readonly record struct Mark(long Connections, long Managed, long Anonymous, int Descriptors);

    /// <summary>As a command: tells after each part, and whether the growth since the first was allowed.</summary>
    internal static bool Run(long connections, long part, long mostGrowth, Action<string> write)
    {
        using var churn = new Churn();
        write($"{"connections",12} {"managed bytes",14} {"anonymous bytes",16} {"descriptors",12}");
        Mark? first = null;
        var last = default(Mark);
        for (var done = 0L; done < connections; done += part)
        {
            last = churn.Run(Math.Min(part, connections - done));
            first ??= last;
            write(string.Create(CultureInfo.InvariantCulture, $"{last.Connections,12} {last.Managed,14} {last.Anonymous,16} {last.Descriptors,12}"));
        }
        var (managed, own, descriptors) = (last.Managed - first!.Value.Managed, last.Anonymous - first.Value.Anonymous, last.Descriptors - first.Value.Descriptors);
        write(string.Create(CultureInfo.InvariantCulture, $"growth since the first {part}: {managed} managed, {own} anonymous bytes, {descriptors} descriptors"));
        return managed <= mostGrowth && own <= mostGrowth && descriptors <= 0;
    }

    /// <summary>Opens and closes so many, and tells what is left.</summary>
    internal Mark Run(long connections)
    {
        var rows = _clients.InvokeAsync(() =>
        {
            _target += connections;
            return Task.WhenAll(Enumerable.Range(0, Rows).Select(_ => _row()));
        });
        Wait(rows);
        for (var clock = System.Diagnostics.Stopwatch.StartNew(); ;)
        {
            var (open, served) = Wait(_server.InvokeAsync(() => (_open, _served)));
            if (_failure is { } failure) throw new InvalidOperationException("A connection did not end as it should have.", failure);
            if (open == 0 && served == _target) break;
            if (clock.Elapsed > s_limit) throw new TimeoutException($"{open} connections are open, {served} of {_target} were served.");
        }
        for (var i = 0; i < 3; i++)
        {
            GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
            GC.WaitForPendingFinalizers();
        }
        return new Mark(_target, GC.GetTotalMemory(forceFullCollection: true), AnonymousBytes(), Descriptors());
    }

    // proc(5): what the process has of its own, in memory. Not the pages of files that it alone has mapped (the runtime's code), which
    // come and go as the system likes.
    private static long AnonymousBytes() =>
        File.ReadLines("/proc/self/smaps_rollup").Where(l => l.StartsWith("Anonymous:", StringComparison.Ordinal))
            .Sum(l => 1024 * long.Parse(l.Split(' ', StringSplitOptions.RemoveEmptyEntries)[1], CultureInfo.InvariantCulture));

    private static int Descriptors() =>
        Directory.GetFileSystemEntries("/proc/self/fd").Count(f => new FileInfo(f).LinkTarget is { } target && (target.StartsWith("socket:", StringComparison.Ordinal) || target.StartsWith("anon_inode:", StringComparison.Ordinal)));

    private static void Wait(Task task)
    {
        if (!((IAsyncResult)task).AsyncWaitHandle.WaitOne(s_limit)) throw new TimeoutException("The connections do not come to their end.");
        task.GetAwaiter().GetResult();
    }

    private static T Wait<T>(Task<T> task)
    {
        Wait((Task)task);
        return task.Result;
    }

    private async Task RowAsync()
    {
        var buffer = new byte[1];
        while (_begun < _target)
        {
            var way = (byte)(_begun++ % 3);
            using var connection = await AsyncSocket.ConnectAsync(way == BothClose ? new UnixDomainSocketEndPoint(_path) : _tcp.LocalEndPoint!, _clients);
            buffer[0] = way;
            await connection.SendAsync(buffer);
            if (await connection.ReceiveAsync(buffer) != 1 || buffer[0] != way) throw new InvalidDataException("That was not sent.");
            if (way == ClientResets)
            {
                connection.Abort();
                continue;
            }
            if (way == BothClose) connection.Shutdown(SocketShutdown.Send);
            else await connection.SendAsync(buffer); // says that the answer is here: the reset would take it away
            try
            {
                if (await connection.ReceiveAsync(buffer) != 0 || way == ServerResets) throw new InvalidDataException("That is not how it was to end.");
            }
            catch (SocketException e) when (way == ServerResets && e.SocketErrorCode == SocketError.ConnectionReset)
            {
                // as it should be
            }
        }
    }

    private async Task AcceptAsync(AsyncSocket listener)
    {
        try
        {
            while (true) _ = ServeAsync(await listener.AcceptAsync());
        }
        catch (ObjectDisposedException)
        {
            // the end
        }
    }

    private async Task ServeAsync(AsyncSocket connection)
    {
        _open++;
        try
        {
            using (connection)
            {
                var buffer = new byte[1];
                if (await connection.ReceiveAsync(buffer) != 1) throw new InvalidDataException("Nothing was sent.");
                var way = buffer[0];
                await connection.SendAsync(buffer);
                if (way == ClientResets) await connection.ClosedAsync();
                else if (await connection.ReceiveAsync(buffer) != (way == ServerResets ? 1 : 0)) throw new InvalidDataException("That is not how it was to end.");
                if (way == ServerResets) connection.Abort();
            }
        }
        catch (Exception e)
        {
            _failure = e;
        }
        _open--;
        _served++;
    }

    public void Dispose()
    {
        _tcp.Dispose();
        _unix.Dispose();
        _clients.Dispose();
        _server.Dispose();
    }
}
