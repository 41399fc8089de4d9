using System.Collections.Concurrent;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Amy.Async.Native;

namespace Amy.Async.Bench;

/// <summary>
/// Random clients and servers on a few loops, who do all that one can do to a connection, beside timers, channels, posts and
/// collections, and strict books: each byte arrives or somebody has broken its connection off, each operation ends once, and
/// in the end everything is back where it was.
/// </summary>
/// <remarks>All dice follow from the seed, worker by worker and connection by connection. When which thread runs, and what the
/// kernel does meanwhile, does not: the same seed does much the same things, in another order, and not the same to the byte.</remarks>
internal sealed partial class Torture
{
    private readonly TortureOptions _options;
    private readonly FaultyCalls? _faults;
    private readonly List<EventLoop> _loops = [];
    private readonly List<AsyncSocket> _listeners = [];
    private readonly ConcurrentDictionary<long, Conversation> _unclaimed = new(); // connections that no server has found yet
    private readonly ConcurrentDictionary<Task, string> _background = new();
    private CancellationToken _time; // cancelled when the phase is over; set before its workers begin
    private long _conversations;
    private long _broken;
    private long _failedUnbroken; // failures of connections that nobody broke off: injected ones

    internal Torture(TortureOptions options)
    {
        _options = options;
        if (options.Faults) _faults = new FaultyCalls(FaultMix.All(options.Seed, percent: 0.05));
    }

    internal TortureLedger Ledger { get; } = new();

    internal Random Random(ulong number) => new((int)FaultSource.Mix(_options.Seed ^ FaultSource.Mix(number)));

    internal EventLoop AnyLoop(Random random) => _loops[random.Next(_loops.Count)];

    /// <summary>Whether no server has found it (yet).</summary>
    internal bool IsUnclaimed(Conversation conversation) => _unclaimed.ContainsKey(conversation.Id);

    /// <summary>On another thread, a moment later.</summary>
    internal void Elsewhere(Action action, int spins) => Track("something elsewhere", Task.Run(() =>
    {
        Thread.SpinWait(spins);
        action();
    }));

    internal void FailedUnbroken(string what)
    {
        if (_faults is null) Ledger.Violate(what);
        else Interlocked.Increment(ref _failedUnbroken);
    }

    /// <summary>Runs to the end. False: something was wrong; what, has been reported.</summary>
    internal bool Run(Action<string> report)
    {
        report(string.Create(CultureInfo.InvariantCulture, $"seed {_options.Seed}: {_options.Duration.TotalMinutes:0.##} minutes, {_options.Loops} loops, poller {_options.Poller}, faults {(_options.Faults ? "on" : "off")}"));
        var descriptors = 0; // after the warm-up: by then the platform's sockets have what they keep
        var memory = 0L;
        var grown = 0L;
        _ = Settle();
        var abandoned = Volatile.Read(ref SocketSource.Abandoned);
        try
        {
            var options = new EventLoopOptions { Poller = _options.Poller, SystemCalls = _faults ?? SystemCalls.Instance };
            for (var i = 0; i < _options.Loops; i++) _loops.Add(EventLoop.Start(options));
            foreach (var loop in _loops) RegisterTwice(loop);
            var warmUp = TimeSpan.FromTicks(Math.Min(_options.Duration.Ticks / 5, TimeSpan.FromSeconds(30).Ticks));
            if (Phase(0, warmUp)) (memory, descriptors) = (Memory(), Settle());
            if (Ledger.Violations.Count == 0 && Phase(1, _options.Duration - warmUp))
            {
                grown = Memory() - memory;
                Compare(descriptors, atMost: false);
            }
        }
        catch (Exception e)
        {
            Ledger.Violate(e.ToString());
        }
        finally
        {
            if (_faults is not null) _faults.Source.IsOn = false;
            var stopping = Task.WhenAll(_loops.Select(l => l.StopAsync()));
            if (!stopping.Wait(_options.Patience)) Ledger.Violate("a loop does not stop");
        }
        Audit(descriptors, grown);
        abandoned = Volatile.Read(ref SocketSource.Abandoned) - abandoned;
        if (abandoned > 0) Ledger.Violate($"{abandoned} sockets were never disposed of, but collected");
        foreach (var line in Ledger.Report()) report(line);
        if (_faults is not null) report($"faults: {_faults.Summary()}; {_failedUnbroken} connections failed of them");
        report($"{_conversations} connections, {_broken} broken off; {Ledger.Bytes} bytes; {Ledger.Operations} operations; {grown / 1024} KiB more in use than after the warm-up");
        foreach (var violation in Ledger.Violations) report($"VIOLATION (seed {_options.Seed}): {violation}");
        return Ledger.Violations.Count == 0;
    }

    // On kqueue a poller opens a second queue when a number is registered that it knows already. Better now than while we count.
    private void RegisterTwice(EventLoop loop)
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        var id = loop.Registrar.Register(socket, Interest.Readable);
        try
        {
            loop.Registrar.Register(socket, Interest.Readable);
            Ledger.Violate("a socket was registered twice");
        }
        catch (InvalidOperationException)
        {
            loop.Registrar.Deregister(id);
        }
    }

    // ---- a phase: everything starts, runs for a while, and comes to its end

    private bool Phase(ulong number, TimeSpan duration)
    {
        using var time = CancellationTokenSource.CreateLinkedTokenSource(Ledger.Broken, _options.Stop);
        time.CancelAfter(duration);
        _time = time.Token;
        Listen(number);
        var workers = new List<(string, Task)>();
        for (var i = 0; i < _options.Clients; i++) Add("a client", r => ConnectAsync(r));
        for (var i = 0; i < 2; i++) Add("timers", r => TimeAsync(r));
        for (var i = 0; i < 2; i++) Add("a channel", r => ChannelAsync(r));
        for (var i = 0; i < 2; i++) Add("posts", r => PostAsync(r));
        Add("descriptor numbers", r => NumbersAsync(r));
        Add("a short-lived loop", r => ShortLivedLoopAsync(r));
        Add("collections", r => CollectAsync(r));
        time.Token.WaitHandle.WaitOne();
        foreach (var (name, task) in workers) End(name, task);
        foreach (var listener in _listeners) listener.Dispose();
        _listeners.Clear();
        for (var task = _background.FirstOrDefault(); task.Key is not null; task = _background.FirstOrDefault())
        {
            End(task.Value, task.Key);
            _background.TryRemove(task.Key, out _);
        }
        if (!_unclaimed.IsEmpty) Ledger.Violate($"{_unclaimed.Count} connections are in the books still");
        if (Ledger.Violations.Count == 0) ComeToRest();
        return Ledger.Violations.Count == 0;

        void Add(string name, Func<Random, Task> worker)
        {
            var random = Random(number * 1000 + (ulong)workers.Count);
            workers.Add((name, Task.Run(() => worker(random))));
        }
    }

    private void End(string name, Task task)
    {
        try
        {
            if (task.Wait(Ledger.Violations.Count == 0 ? _options.Patience : TimeSpan.FromSeconds(1))) return;
            Ledger.Violate($"{name} did not come to an end; pending: {string.Join(", ", Ledger.Pending().Select(p => $"{p.Count} {p.Action}"))}");
        }
        catch (AggregateException e)
        {
            Ledger.Violate($"{name} failed: {e.InnerException}");
        }
    }

    private void Track(string name, Task task)
    {
        _background[task] = name;
        task.ContinueWith(static (t, all) =>
        {
            if (t.IsCompletedSuccessfully) ((ConcurrentDictionary<Task, string>)all!).TryRemove(t, out _);
        }, _background, CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);
    }

    // What is let go of leaves by the loops' queues.
    private void ComeToRest()
    {
        foreach (var loop in _loops)
        {
            var atRest = false;
            for (var i = 0; i < 50 && !atRest; i++)
            {
                Settle(); // bindings of plain sockets go with them
                atRest = SpinWait.SpinUntil(() => loop.Statistics is { Registrations: 0, TimersPending: 0 }, TimeSpan.FromMilliseconds(200));
            }
            if (atRest) continue;
            Ledger.Violate($"{loop.Statistics.Registrations} registrations and {loop.Statistics.TimersPending} timers are left");
        }
    }

    private void Audit(int descriptors, long grown)
    {
        foreach (var (action, count) in Ledger.Pending()) Ledger.Violate($"{count} of '{action}' {(count > 0 ? "never ended" : "ended twice")}");
        if (Ledger.Violations.Count > 0) return; // what follows is left over by what failed
        if (grown > _options.MostGrowth) Ledger.Violate($"{grown} bytes of managed memory more than after the warm-up");
        Compare(descriptors - 2 * _options.Loops, atMost: true); // each loop had two at least, for its poller and its wake-ups
        if (_conversations == 0 || Ledger.Bytes == 0) Ledger.Violate($"{_conversations} connections came about, {Ledger.Bytes} bytes were sent: too short a time, or nothing works");
        if (_faults is null) return;
        var injected = _faults.Struck(FaultPoint.Send, FaultKind.Error) + _faults.Struck(FaultPoint.Receive, FaultKind.Error);
        if (_failedUnbroken > injected) Ledger.Violate($"{_failedUnbroken} connections failed, {injected} failures were injected");
    }

    private void Compare(int expected, bool atMost)
    {
        var now = Settle();
        if (atMost ? now > expected : now != expected) Ledger.Violate($"{now} descriptors, {expected} were expected: {string.Join("; ", Descriptors())}");
    }

    private static long Memory()
    {
        Settle();
        return GC.GetTotalMemory(forceFullCollection: true);
    }

    private static int Settle()
    {
        for (var i = 0; i < 3; i++)
        {
            GC.Collect();
            GC.WaitForPendingFinalizers();
        }
        return Descriptors().Count();
    }

    // The runtime opens files and pipes when it likes; these are of its user's making.
    private static IEnumerable<string> Descriptors() =>
        Directory.GetFileSystemEntries("/proc/self/fd").Select(f => $"{Path.GetFileName(f)} {new FileInfo(f).LinkTarget}").Where(f => f.Contains("socket:", StringComparison.Ordinal) || f.Contains("anon_inode:", StringComparison.Ordinal));

    // ---- servers

    private void Listen(ulong phase)
    {
        var number = 0UL;
        foreach (var loop in _loops)
            foreach (var endPoint in new EndPoint[] { new IPEndPoint(IPAddress.Loopback, 0), new UnixDomainSocketEndPoint(Path.Combine(Path.GetTempPath(), $"amy-torture-{Environment.ProcessId}-{phase}-{number}")) })
            {
                var listener = AsyncSocket.Listen(endPoint, new AsyncSocketOptions { Backlog = 256 }, loop);
                _listeners.Add(listener);
                var random = Random(500_000 + phase * 1000 + number++);
                Track("a listener", loop.InvokeAsync(() => AcceptAsync(listener, random)));
            }
    }

    private async Task AcceptAsync(AsyncSocket listener, Random random)
    {
        while (true)
        {
            var target = AnyLoop(random);
            AsyncSocket? accepted = null;
            var token = random.Next(10) == 0 ? new CancellationTokenSource(random.Next(5)).Token : default;
            var outcome = await Ledger.Try("accept", async () => accepted = await listener.AcceptAsync(target, token));
            if (outcome == Outcome.Disposed) return;
            if (accepted is not null) Track("a server", ServeAsync(accepted, Random(1_000_000 + (ulong)random.Next())));
            else if (outcome != Outcome.Cancelled) Ledger.Violate($"accepting ended as {outcome}");
        }
    }

    private Task ServeAsync(AsyncSocket socket, Random random)
    {
        var onLoop = random.Next(4) > 0;
        return onLoop ? socket.Loop.InvokeAsync(Serve) : Task.Run(Serve);

        async Task Serve()
        {
            var header = new byte[Conversation.HeaderSize];
            var outcome = Outcome.Completed;
            for (var got = 0; got < header.Length && outcome == Outcome.Completed;)
                outcome = await Ledger.Try("receive, header", async () =>
                {
                    var n = await socket.ReceiveAsync(header.AsMemory(got));
                    if (n == 0) throw new IOException("the end");
                    got += n;
                });
            if (outcome != Outcome.Completed || !_unclaimed.TryRemove(BitConverter.ToInt64(header), out var conversation))
            {
                socket.Dispose(); // nobody of whom we know, or he has gone
                return;
            }
            conversation.AddReceived(0, header);
            await LeaveAsync(conversation, new TortureEnd(this, conversation, 1, socket, onLoop).RunAsync());
        }
    }

    // ---- clients

    private async Task ConnectAsync(Random random)
    {
        while (!_time.IsCancellationRequested)
        {
            var listener = _listeners[random.Next(_listeners.Count)];
            var loop = AnyLoop(random);
            AsyncSocket? socket = null;
            var token = random.Next(12) == 0 ? new CancellationTokenSource(random.Next(2)).Token : default;
            var options = new AsyncSocketOptions { SendBufferSize = random.Next(4) == 0 ? 4096 : null, ReceiveBufferSize = random.Next(4) == 0 ? 4096 : null };
            Task<Outcome> Connect() => Ledger.Try("connect", async () => socket = await AsyncSocket.ConnectAsync(listener.LocalEndPoint!, options, loop, token));
            var outcome = await (random.Next(2) == 0 ? loop.InvokeAsync(Connect) : Connect());
            if (socket is null)
            {
                if (outcome != Outcome.Failed) continue;
                if (_faults is null && listener.LocalEndPoint is IPEndPoint) Ledger.Violate("a connection over TCP failed");
                await Task.Delay(1); // a Unix-domain socket's backlog is full
                continue;
            }
            var conversation = new Conversation(Interlocked.Increment(ref _conversations), (ulong)random.NextInt64()) { IsNarrow = options.ReceiveBufferSize is not null };
            _unclaimed[conversation.Id] = conversation;
            var onLoop = random.Next(4) > 0;
            var end = new TortureEnd(this, conversation, 0, socket, onLoop);
            await LeaveAsync(conversation, onLoop ? loop.InvokeAsync(end.RunAsync) : Task.Run(end.RunAsync));
        }
    }

    private async Task LeaveAsync(Conversation conversation, Task end)
    {
        try
        {
            await end;
        }
        catch (Exception e)
        {
            Ledger.Violate($"connection {conversation.Id}: {e}");
        }
        var alone = _unclaimed.TryRemove(conversation.Id, out _);
        if (!conversation.Leave() && !alone) return;
        if (conversation.IsBroken) Interlocked.Increment(ref _broken);
        if (Ledger.Violations.Count == 0 && conversation.Audit(alone) is { } wrong) Ledger.Violate($"connection {conversation.Id}: {wrong}");
    }
}
