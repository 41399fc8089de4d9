using System.Net;
using System.Net.Sockets;
using Amy.Async.Compat;

namespace Amy.Async;

/// <summary>
/// Connecting by name as RFC 8305 asks: addresses of both families are looked up at the same time and tried in turn; a new
/// attempt begins when the last one has failed or has had 250 ms, and the first that succeeds ends all others.
/// </summary>
/// <remarks>
/// <para>Which part of the RFC is where: section 3 (two queries; IPv4's answer waits 50 ms for IPv6's) in
/// <see cref="Lookup"/>; section 4 (families in turn, IPv6 first) in <see cref="Interleave"/>; section 5 (the delay between
/// attempts, and stopping them) in <see cref="ConnectAsync"/>. Within a family the resolver's order stands.</para>
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
        var addresses = await Lookup(token);
        using var losers = CancellationTokenSource.CreateLinkedTokenSource(token);
        var attempts = new List<Task<AsyncSocket>>();
        Exception? failure = null;
        try
        {
            while (true)
            {
                if (addresses.Count > 0) attempts.Add(Attempt(addresses.Dequeue(), losers.Token));
                else if (attempts.Count == 0) throw failure ?? new SocketException((int)SocketError.HostNotFound);
                var finished = await FirstOrDelay(attempts, addresses.Count > 0, losers.Token);
                if (finished is null) continue; // the next one has its turn; the others go on
                attempts.Remove(finished);
                if (finished.Status == TaskStatus.RanToCompletion) return await finished;
                token.ThrowIfCancellationRequested();
                failure = finished.Exception?.InnerException ?? failure;
            }
        }
        finally
        {
            losers.Cancel();
            foreach (var loser in attempts) _ = DisposeLater(loser);
        }
    }

    /// <summary>What ends first: one of the attempts, or, if others are to follow, its delay (null).</summary>
    private async Task<Task<AsyncSocket>?> FirstOrDelay(List<Task<AsyncSocket>> attempts, bool more, CancellationToken token)
    {
        if (!more) return await Task.WhenAny(attempts);
        using var enough = CancellationTokenSource.CreateLinkedTokenSource(token);
        var delay = loop.Delay(AttemptDelay, enough.Token).AsTask();
        var first = await Task.WhenAny([.. attempts, delay]);
        enough.Cancel();
        return first == delay ? null : (Task<AsyncSocket>)first;
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

    /// <summary>The addresses in the order in which they are tried.</summary>
    private async Task<Queue<IPAddress>> Lookup(CancellationToken token)
    {
        if (name.AddressFamily is AddressFamily.InterNetwork or AddressFamily.InterNetworkV6)
            return new Queue<IPAddress>(await Resolve(name.Host, name.AddressFamily, token));
        using var enough = CancellationTokenSource.CreateLinkedTokenSource(token);
        var six = Resolve(name.Host, AddressFamily.InterNetworkV6, enough.Token);
        var four = Resolve(name.Host, AddressFamily.InterNetwork, enough.Token);
        try
        {
            var first = await Task.WhenAny(six, four);
            // IPv4 answered first: IPv6 gets a little more time. An answer without addresses is none.
            if (first == four && IsUseful(four)) await Task.WhenAny(six, loop.Delay(ResolutionDelay, enough.Token).AsTask());
            else if (!IsUseful(six)) await Task.WhenAny(Task.WhenAll(six, four), four);
            if (!IsUseful(six) && !IsUseful(four)) await Task.WhenAll(six, four); // throws what the resolver said
        }
        finally
        {
            enough.Cancel();
            Observe(six);
            Observe(four);
        }
        token.ThrowIfCancellationRequested();
        return Interleave(IsUseful(six) ? await six : [], IsUseful(four) ? await four : []);
    }

    private static bool IsUseful(Task<IPAddress[]> answer) => answer.Status == TaskStatus.RanToCompletion && answer.GetAwaiter().GetResult().Length > 0;

    private static void Observe(Task task) => task.ContinueWith(static t => _ = t.Exception, CancellationToken.None, TaskContinuationOptions.OnlyOnFaulted, TaskScheduler.Default);

    private static Queue<IPAddress> Interleave(IPAddress[] six, IPAddress[] four)
    {
        var all = new Queue<IPAddress>();
        for (var i = 0; i < Math.Max(six.Length, four.Length); i++)
        {
            if (i < six.Length) all.Enqueue(six[i]);
            if (i < four.Length) all.Enqueue(four[i]);
        }
        return all;
    }
}
