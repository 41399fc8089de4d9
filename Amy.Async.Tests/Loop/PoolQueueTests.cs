using System.Net.Sockets;

namespace Amy.Async.Tests.Loop;

/// <summary>
/// Awaiters that go on on the thread pool and are handed to it in batches: each goes on once, none waits for another, none
/// sees what another left behind. Both ways of asking for a thread: at the first item, and after a dispatch.
/// </summary>
[TestFixture(false)]
[TestFixture(true)]
internal sealed class PoolQueueTests(bool asksLate)
{
    private const int Pairs = 48;

    private EventLoop _loop = null!;
    private (AsyncSocket Here, Socket There)[] _pairs = null!;

    [SetUp]
    public void Open()
    {
        _loop = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
        _loop.Pool.AsksLate = asksLate;
        _pairs = [.. Enumerable.Range(0, Pairs).Select(_ =>
        {
            var (a, b) = Pair.Tcp();
            return (new AsyncSocket(a, _loop), b);
        })];
    }

    [TearDown]
    public void Close()
    {
        foreach (var (here, there) in _pairs)
        {
            here.Dispose();
            there.Dispose();
        }
        _loop.Dispose();
    }

    /// <summary>All become readable while the loop is away, so that it finds them in one look.</summary>
    private void SendToAllAtOnce()
    {
        var sent = new ManualResetEventSlim(); // not disposed: the loop may still be in its Wait
        var away = new ManualResetEventSlim();
        _loop.Post(() =>
        {
            away.Set();
            sent.Wait(Run.Limit);
        });
        Assert.That(away.Wait(Run.Limit));
        foreach (var (_, there) in _pairs) there.Send(new byte[1]);
        sent.Set();
    }

    [Test]
    public void AwaiterThatBlocks_HoldsNobodyElse()
    {
        var waiting = Pairs - 4; // each of the first four blocks until the others have gone on: the pool has, or starts, threads for them
        var others = new CountdownEvent(waiting); // not disposed: the last to signal is still in it
        var armed = 0;
        var tasks = _pairs.Select((pair, i) => Task.Run(async () =>
        {
            var receiving = pair.Here.ReceiveAsync(new byte[8]).ConfigureAwait(false);
            Interlocked.Increment(ref armed);
            Assert.That(await receiving, Is.EqualTo(1));
            Assert.That(_loop.IsCurrent, Is.False);
            if (i >= 4) others.Signal();
            else if (!others.Wait(Run.Limit)) Assert.Fail("held up by an awaiter that blocks");
        })).ToArray();
        Run.Until(() => Volatile.Read(ref armed) == Pairs, "all wait");
        SendToAllAtOnce();
        Run.Wait(Task.WhenAll(tasks));
    }

    [Test]
    public void WhatAnAwaiterLeavesBehind_TheNextDoesNotSee()
    {
        var local = new AsyncLocal<string?>();
        var (dirty, alien) = (0, 0);
        var all = new CountdownEvent(Pairs); // not disposed: the last to signal is still in it
        foreach (var (here, _) in _pairs)
        {
            // A bare callback, without a state machine, which would put back what it changed.
            using (ExecutionContext.SuppressFlow())
            {
                var awaiter = here.ReceiveAsync(new byte[8]).ConfigureAwait(false).GetAwaiter();
                awaiter.UnsafeOnCompleted(() =>
                {
                    if (local.Value is not null) Interlocked.Increment(ref dirty);
                    if (SynchronizationContext.Current is not null) Interlocked.Increment(ref alien);
                    local.Value = "left behind";
                    SynchronizationContext.SetSynchronizationContext(new SynchronizationContext());
                    awaiter.GetResult();
                    all.Signal();
                });
            }
        }
        SendToAllAtOnce();
        Assert.That(all.Wait(Run.Limit));
        Assert.That((dirty, alien), Is.EqualTo((0, 0)), "awaiters that saw another's AsyncLocal, another's context");
    }

    [Test]
    public void EachAwaiter_GoesOnOnce_ManyRounds()
    {
        const int Rounds = 500;
        var tasks = _pairs.SelectMany(pair => (Task[])
        [
            Task.Run(async () =>
            {
                var buffer = new byte[64];
                for (var i = 0; i < Rounds; i++)
                {
                    await pair.Here.SendAsync(new[] { (byte)i }).ConfigureAwait(false);
                    var n = await pair.Here.ReceiveAsync(buffer).ConfigureAwait(false);
                    if (n != 1 || buffer[0] != (byte)i) Assert.Fail($"{n} bytes, {buffer[0]} for {(byte)i}");
                }
            }),
            Task.Run(async () =>
            {
                var buffer = new byte[1];
                for (var i = 0; i < Rounds; i++)
                {
                    Assert.That(await pair.There.ReceiveAsync(buffer), Is.EqualTo(1));
                    await pair.There.SendAsync(buffer);
                }
            }),
        ]).ToArray();
        Run.Wait(Task.WhenAll(tasks));
    }

    [Test]
    public void LoopThatStops_LeavesNoAwaiterBehind()
    {
        var armed = 0;
        var tasks = _pairs.Select(pair => Task.Run(async () =>
        {
            try
            {
                var receiving = pair.Here.ReceiveAsync(new byte[8]).ConfigureAwait(false);
                Interlocked.Increment(ref armed);
                await receiving;
                return false;
            }
            catch (ObjectDisposedException)
            {
                return true;
            }
        })).ToArray();
        Run.Until(() => Volatile.Read(ref armed) == Pairs, "all wait");
        _loop.Dispose();
        Assert.That(Run.Wait(Task.WhenAll(tasks)), Is.All.True);
    }
}
