using System.Net;
using System.Net.Sockets;
using Amy.Async.Compat;

namespace Amy.Async;

/// <summary>
/// Connecting by name as RFC 8305 asks: addresses of both families are looked up at the same time and tried in turn; a new
/// attempt begins when the last one has failed or has had 250 ms, and the first that succeeds ends all others.
/// </summary>
/// <remarks>
/// <para>Which part of the RFC is where: section 3 (two queries; IPv4's answer waits 50 ms for IPv6's, and
/// one that comes late is still used) in <see cref="FirstAnswer"/> and <see cref="Absorb"/>; section 4 (families in turn, IPv6
/// first) in <see cref="Next"/>; section 5 (the delay between attempts, and stopping them) in <see cref="Run"/>. Within a
/// family the resolver's order stands.</para>
/// <para>The attempts run on the loop, one thread: their continuations are its posts and dispatches, so that the fields need no
/// lock.</para>
/// </remarks>
internal sealed class HappyEyeballs(DnsEndPoint name, AsyncSocketOptions options, EventLoop loop)
{
    /// <summary>Section 5: "Connection Attempt Delay".</summary>
    internal static readonly TimeSpan AttemptDelay = TimeSpan.FromMilliseconds(250);

    /// <summary>Section 3: "Resolution Delay".</summary>
    internal static readonly TimeSpan ResolutionDelay = TimeSpan.FromMilliseconds(50);

    internal delegate Task<IPAddress[]> Resolver(string host, AddressFamily family, CancellationToken token);

    private readonly Queue<IPAddress> _six = new(); // not tried yet
    private readonly Queue<IPAddress> _four = new();
    private bool _lastWasSix;

    /// <summary>For tests.</summary>
    internal Resolver Resolve { get; init; } = SocketInterop.ResolveAsync;

    internal async ValueTask<AsyncSocket> ConnectAsync(CancellationToken token)
    {
        token.ThrowIfCancellationRequested();
        if (loop.IsCurrent) return await Run(token).ConfigureAwait(false);
        return await loop.InvokeAsync(() => Run(token), token).ConfigureAwait(false);
    }

    // On the loop's thread, with its context.
    private async Task<AsyncSocket> Run(CancellationToken token)
    {
        using var rest = CancellationTokenSource.CreateLinkedTokenSource(token); // ends what has not won
        var attempts = new List<Task<AsyncSocket>>();
        var lookups = new List<Task<IPAddress[]>>();
        try
        {
            foreach (var family in Families()) lookups.Add(Resolve(name.Host, family, rest.Token));
            await FirstAnswer(lookups, rest.Token);
            Exception? failure = null;
            Task? delay = null;
            var isDue = true; // the next attempt's turn
            while (true)
            {
                token.ThrowIfCancellationRequested(); // also look-ups that ended for that
                Absorb(lookups, ref failure);
                if (isDue && Next() is { } address)
                {
                    attempts.Add(Attempt(address, rest.Token));
                    delay = loop.Delay(AttemptDelay, rest.Token).AsTask();
                    isDue = false;
                }
                if (attempts.Count == 0 && lookups.Count == 0) throw failure ?? new SocketException((int)SocketError.HostNotFound);
                Task[] all = isDue || delay is null || !HasNext ? [.. attempts, .. lookups] : [.. attempts, .. lookups, delay];
                var finished = await Task.WhenAny(all);
                token.ThrowIfCancellationRequested();
                if (finished == delay) isDue = true;
                if (finished is not Task<AsyncSocket> attempt) continue; // a look-up's answer is taken at the next turn
                attempts.Remove(attempt);
                if (attempt.Status == TaskStatus.RanToCompletion) return await attempt;
                failure = attempt.Exception?.InnerException ?? failure;
                isDue = true; // at once
            }
        }
        finally
        {
            rest.Cancel();
            foreach (var loser in attempts) _ = DisposeLater(loser);
            foreach (var lookup in lookups) Observe(lookup);
        }
    }

    private async Task<AsyncSocket> Attempt(IPAddress address, CancellationToken token) =>
        await AsyncSocket.Connect(new IPEndPoint(address, name.Port), options, loop, token);

    // An attempt that succeeded too late.
    private static async Task DisposeLater(Task<AsyncSocket> loser)
    {
        try
        {
            (await loser).Dispose();
        }
        catch (Exception e) when (e is SocketException or OperationCanceledException or ObjectDisposedException)
        {
            // It lost, one way or another.
        }
    }

    private static void Observe(Task task) => task.ContinueWith(static t => _ = t.Exception, CancellationToken.None, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);

    // ---- looking up

    private AddressFamily[] Families() => name.AddressFamily is AddressFamily.InterNetwork or AddressFamily.InterNetworkV6
        ? [name.AddressFamily]
        : [AddressFamily.InterNetworkV6, AddressFamily.InterNetwork];

    /// <summary>Until an answer has addresses, or none will; IPv4's, when it comes first, gives IPv6's a little more time.</summary>
    private async Task FirstAnswer(List<Task<IPAddress[]>> lookups, CancellationToken token)
    {
        if (lookups.Count == 1)
        {
            await Task.WhenAny(lookups);
            return;
        }
        var (six, four) = (lookups[0], lookups[1]);
        await Task.WhenAny(six, four);
        if (IsUseful(six)) return;
        if (!IsUseful(four)) await Task.WhenAny(four.IsCompleted ? six : four);
        else if (!six.IsCompleted) await Task.WhenAny(six, loop.Delay(ResolutionDelay, token).AsTask());
    }

    private static bool IsUseful(Task<IPAddress[]> answer) => answer.Status == TaskStatus.RanToCompletion && answer.GetAwaiter().GetResult().Length > 0;

    // Takes what has been answered.
    private void Absorb(List<Task<IPAddress[]>> lookups, ref Exception? failure)
    {
        for (var i = lookups.Count - 1; i >= 0; i--)
        {
            var lookup = lookups[i];
            if (!lookup.IsCompleted) continue;
            lookups.RemoveAt(i);
            if (lookup.Status != TaskStatus.RanToCompletion) failure ??= lookup.Exception?.InnerException;
            else
                foreach (var address in lookup.GetAwaiter().GetResult()) (address.AddressFamily == AddressFamily.InterNetworkV6 ? _six : _four).Enqueue(address);
        }
    }

    private bool HasNext => _six.Count + _four.Count > 0;

    // The families in turn, IPv6 first.
    private IPAddress? Next()
    {
        if (!HasNext) return null;
        var six = _four.Count == 0 || _six.Count > 0 && !_lastWasSix;
        _lastWasSix = six;
        return (six ? _six : _four).Dequeue();
    }
}
