using System.Threading.Tasks.Sources;

namespace Amy.Async.Tests;

/// <summary>
/// The runtime allocates its own object for each frame that suspends, whatever is awaited. So zero bytes means here: to await
/// one of ours takes exactly what it takes to await the cheapest source there could be, in the same method.
/// </summary>
[TestFixture]
internal sealed class SuspensionTests
{
    private const int WarmUp = 3000;
    private const int Few = 1000;
    private const int Many = 4000;

    /// <summary>Nothing but a continuation, resumed by the loop's next turn.</summary>
    private sealed class BareSource : IValueTaskSource<int>
    {
        private static readonly Action<object, object?> s_resume = static (source, _) => ((BareSource)source).Resume();

        private Action<object?>? _continuation;
        private object? _state;
        private short _token;
        private bool _ended;

        internal ValueTask<int> NextAsync()
        {
            _ended = false;
            return new ValueTask<int>(this, ++_token);
        }

        public ValueTaskSourceStatus GetStatus(short token) => _ended ? ValueTaskSourceStatus.Succeeded : ValueTaskSourceStatus.Pending;

        public int GetResult(short token) => 1;

        public void OnCompleted(Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags)
        {
            (_continuation, _state) = (continuation, state);
            EventLoop.Current!.Enqueue(s_resume, this);
        }

        private void Resume()
        {
            _ended = true;
            _continuation!(_state);
        }
    }

    private static async Task<long> BytesPerSuspension(Func<ValueTask<int>> begin)
    {
        async Task<long> Rounds(int count)
        {
            await EventLoop.Current!.Yield();
            var before = GC.GetAllocatedBytesForCurrentThread();
            for (var i = 0; i < count; i++)
            {
                var pending = begin();
                if (pending.IsCompleted) throw new InvalidOperationException("It did not wait.");
                await pending;
            }
            return GC.GetAllocatedBytesForCurrentThread() - before;
        }
        await Rounds(WarmUp);
        var few = await Rounds(Few);
        var difference = await Rounds(Many) - few;
        Assert.That(difference % (Many - Few), Is.Zero);
        return difference / (Many - Few);
    }

    private static void CostsWhatTheRuntimeTakes(Func<Task<Func<ValueTask<int>>>> prepare) => Run.OnLoop(async () =>
    {
        var bare = new BareSource();
        var runtime = await BytesPerSuspension(bare.NextAsync);
        TestContext.Out.WriteLine($"{runtime} bytes per suspension");
        Assert.That(await BytesPerSuspension(await prepare()), Is.EqualTo(runtime));
    });

    [Test]
    public void Receive_AllocatesNothingItself() => CostsWhatTheRuntimeTakes(async () =>
    {
        var (a, b) = await Pair.Async();
        var (one, buffer) = (new byte[1], new byte[8]);
        return () =>
        {
            var pending = a.ReceiveAsync(buffer);
            b.TrySend(one, out _);
            return pending;
        };
    });

    [Test]
    public void ReceiveWithAToken_AllocatesNothingItself() => CostsWhatTheRuntimeTakes(async () =>
    {
        var (a, b) = await Pair.Async();
        var (one, buffer, source) = (new byte[1], new byte[8], new CancellationTokenSource());
        a.ReceiveTimeout = TimeSpan.FromMinutes(1);
        return () =>
        {
            var pending = a.ReceiveAsync(buffer, source.Token);
            b.TrySend(one, out _);
            return pending;
        };
    });

    [Test]
    public void ReceiveOverAUnixSocket_AllocatesNothingItself() => CostsWhatTheRuntimeTakes(() =>
    {
        var (x, y) = Pair.Unix();
        var (a, b) = (new AsyncSocket(x), new AsyncSocket(y));
        var (one, buffer) = (new byte[1], new byte[8]);
        return Task.FromResult<Func<ValueTask<int>>>(() =>
        {
            var pending = a.ReceiveAsync(buffer);
            b.TrySend(one, out _);
            return pending;
        });
    });

    [Test]
    public void ReadOfAStream_AllocatesNothingItself() => CostsWhatTheRuntimeTakes(async () =>
    {
        var (a, b) = await Pair.Async();
        var (one, buffer, stream) = (new byte[1], new byte[8], a.AsStream());
        return () =>
        {
            var pending = stream.ReadAsync(buffer);
            b.TrySend(one, out _);
            return pending;
        };
    });

    [Test]
    public void ReadOfADescriptor_AllocatesNothingItself() => CostsWhatTheRuntimeTakes(() =>
    {
        var (a, b) = Pair.Fds();
        var (one, buffer) = (new byte[1], new byte[8]);
        return Task.FromResult<Func<ValueTask<int>>>(() =>
        {
            var pending = a.ReadAsync(buffer);
            b.TryWrite(one, out _);
            return pending;
        });
    });
}
