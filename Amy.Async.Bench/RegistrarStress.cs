using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Bench;

/// <summary>
/// Threads register, change and remove descriptors while the poller waits. Every registration of a readable descriptor must
/// be told of, exactly with its own id; none may be told of after its removal was seen by the waiting thread; nobody may be
/// woken by registering.
/// </summary>
/// <remarks>
/// How foreign and late notifications show. Each thread owns two UDP sockets: one that always has a datagram, one that
/// never has. The quiet one's ids must never be told. The loud one is registered, and the thread waits for its
/// notification every so often (each one would be a switch of threads), then removes it. The waiting thread checks every
/// id against the range of ids given so far and against the quiet ones.
/// </remarks>
internal sealed class RegistrarStress
{
    private const int CheckEvery = 512;

    private readonly Poller _poller;
    private readonly int _threads;
    private readonly long _operations;
    private readonly TimeSpan _limit;
    private readonly long[] _awaited; // per thread: the id whose notification it waits for
    private readonly long[] _told;
    private long _notifications;
    private long _foreign;
    private volatile bool _ends;

    /// <param name="poller">Waited on by this run alone.</param>
    /// <param name="threads">That register.</param>
    /// <param name="operations">Registrations and removals in all.</param>
    /// <param name="limit">For one notification to come.</param>
    internal RegistrarStress(Poller poller, int threads, long operations, TimeSpan limit)
    {
        _poller = poller;
        _threads = threads;
        _operations = operations;
        _limit = limit;
        _awaited = new long[threads];
        _told = new long[threads];
    }

    /// <summary>Runs to the end. Returns what went wrong, or null.</summary>
    internal string? Run(out long notifications)
    {
        string? failure = null;
        var waiter = new Thread(Wait) { IsBackground = true };
        waiter.Start();
        var threads = Enumerable.Range(0, _threads).Select(n => new Thread(() =>
        {
            if (Register(n) is { } problem) Interlocked.CompareExchange(ref failure, problem, null);
        })
        { IsBackground = true }).ToArray();
        foreach (var thread in threads) thread.Start();
        foreach (var thread in threads) thread.Join();
        _ends = true;
        _poller.Registrar.Wake();
        waiter.Join();
        notifications = _notifications;
        return failure ?? (_foreign == 0 ? null : $"{_foreign} notifications of quiet or foreign registrations");
    }

    private void Wait()
    {
        while (!_ends)
            foreach (var note in _poller.Wait(Timeout.InfiniteTimeSpan))
            {
                _notifications++;
                if (note.Id <= 0 || note.Count != 1 || (note.Readiness & Readiness.Readable) == 0) Interlocked.Increment(ref _foreign);
                for (var n = 0; n < _threads; n++)
                    if (Volatile.Read(ref _awaited[n]) == note.Id) Volatile.Write(ref _told[n], note.Id);
            }
    }

    private string? Register(int n)
    {
        using var loud = Bound();
        using var quiet = Bound();
        loud.SendTo([1], loud.LocalEndPoint!);
        var registrar = _poller.Registrar;
        var last = 0L;
        for (long i = 0; i < _operations / _threads / 4; i++)
        {
            var silent = registrar.Register(quiet, Interest.Readable);
            var id = registrar.Register(loud, Interest.Readable);
            if (id == last || silent == id) return $"id {id} was given twice";
            last = id;
            if (i % CheckEvery == 0)
            {
                Volatile.Write(ref _awaited[n], id);
                registrar.Reregister(id, Interest.Readable); // reports again: the first report may have come before the line above
                var start = Environment.TickCount64;
                while (Volatile.Read(ref _told[n]) != id)
                {
                    if (Environment.TickCount64 - start > _limit.TotalMilliseconds) return $"the notification of {id} was lost after {i} rounds";
                    Thread.Yield();
                }
                Volatile.Write(ref _awaited[n], silent);
            }
            registrar.Deregister(id);
            registrar.Deregister(silent);
            if (Volatile.Read(ref _told[n]) == silent) return $"the quiet registration {silent} was told of";
        }
        return null;
    }

    private static Socket Bound()
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp) { Blocking = false };
        socket.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        return socket;
    }
}
