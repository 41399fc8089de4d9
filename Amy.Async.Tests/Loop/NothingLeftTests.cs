namespace Amy.Async.Tests.Loop;

/// <summary>What is counted after each fixture, in a fixture of its own.</summary>
[TestFixture]
internal sealed class NothingLeftTests
{
    [Test]
    public void Count_SeesWhatIsOpenRegisteredArmedAndPending_AndThatItHasGone()
    {
        var before = NothingLeftAttribute.Count();
        var (x, peer) = Pair.Tcp();
        using (peer)
        using (var loop = EventLoop.Start())
        using (var ours = new AsyncSocket(x, loop))
        {
            var receiving = ours.ReceiveAsync(new byte[1]).AsTask();
            var delay = loop.Delay(TimeSpan.FromHours(1)).AsTask();
            Run.Wait(loop.InvokeAsync(static () => { })); // behind the delay's entry into the queue
            var more = NothingLeftAttribute.More(before, NothingLeftAttribute.Count());
            foreach (var what in new[] { "socket:", "anon_inode:[eventpoll]", "1 x running loop", "1 x amy.loop.registrations", "1 x amy.loop.timers.pending", "1 x armed awaiter" })
                Assert.That(more, Does.Contain(what));
            peer.Send(new byte[1]);
            Run.Wait(receiving);
            _ = Assert.ThrowsAsync<ObjectDisposedException>(() =>
            {
                loop.Dispose();
                return delay;
            });
        }
        Run.Until(() => NothingLeftAttribute.More(before, NothingLeftAttribute.Count()).Length == 0, "nothing is left");
    }
}
