namespace Amy.Async.Tests.Loop;

[TestFixture]
internal sealed class StateWordTests
{
    private const Direction Read = Direction.Read;
    private const Direction Write = Direction.Write;

    [Test]
    public void Begin_WhileBusy_IsRefusedAndTheOtherDirectionIsNot()
    {
        var word = StateWord.MaybeReady;
        Assert.That(word.Begin(Read), Is.EqualTo(StateWord.BeginResult.Attempt));
        Assert.That(word.Begin(Read), Is.EqualTo(StateWord.BeginResult.Busy));
        Assert.That(word.Begin(Write), Is.EqualTo(StateWord.BeginResult.Attempt));
    }

    [Test]
    public void Begin_Drained_Waits_UnlessForced()
    {
        var word = default(StateWord);
        Assert.That(word.Begin(Read), Is.EqualTo(StateWord.BeginResult.Wait));
        word.End(Read, ready: false);
        Assert.That(word.Begin(Read, force: true), Is.EqualTo(StateWord.BeginResult.Attempt));
    }

    [Test]
    public void Edge_DuringTheTry_MakesArmTryAgain()
    {
        var word = StateWord.MaybeReady;
        word.Begin(Read);
        Assert.That(word.Edge(read: true, write: false, 0, out _), Is.False);
        Assert.That(word.Arm(Read), Is.EqualTo(StateWord.ArmResult.Attempt));
        Assert.That(word.Arm(Read), Is.EqualTo(StateWord.ArmResult.Armed));
    }

    [Test]
    public void Edge_BothArmed_TakesTheReaderFirst()
    {
        var word = default(StateWord);
        word.Begin(Read);
        word.Arm(Read);
        word.Begin(Write);
        word.Arm(Write);
        Assert.That(word.Edge(read: true, write: true, 0, out var taken), Is.True);
        Assert.That(taken, Is.EqualTo(Read));
        Assert.That(word.Take(Write), Is.True);
        Assert.That(word.Take(Write), Is.False);
    }

    [Test]
    public void Begin_ResultNeverAwaited_StartsAfreshWithANewVersion()
    {
        var word = default(StateWord);
        word.Begin(Read);
        var old = word.Version(Read);
        word.Complete(Read, ready: false);
        Assert.That(word.Begin(Read), Is.EqualTo(StateWord.BeginResult.Wait));
        Assert.That(word.Version(Read), Is.Not.EqualTo(old));
        Assert.That(word.Fetch(Read, old), Is.False);
        Assert.That(word.IsDone(Read, old), Is.Null);
    }

    [Test]
    public void Begin_ResultAwaitedButNotFetched_IsBusy()
    {
        var word = default(StateWord);
        word.Begin(Read);
        word.Await(Read, 0);
        Assert.That(word.Complete(Read, ready: false).IsAwaited, Is.True);
        Assert.That(word.Begin(Read), Is.EqualTo(StateWord.BeginResult.Busy));
        Assert.That(word.Fetch(Read, 0), Is.True);
        Assert.That(word.Begin(Read), Is.EqualTo(StateWord.BeginResult.Wait));
    }

    [Test]
    public void Await_Twice_IsInvalid()
    {
        var word = default(StateWord);
        word.Begin(Read);
        Assert.That(word.Await(Read, 0), Is.EqualTo(StateWord.AwaitResult.Stored));
        Assert.That(word.Await(Read, 0), Is.EqualTo(StateWord.AwaitResult.Invalid));
        Assert.That(word.CanAwait(Read, 0), Is.False);
    }

    [Test]
    public void Version_WrapsWithoutTouchingItsNeighbours()
    {
        var word = default(StateWord);
        for (var i = 0; i < 70_000; i++)
        {
            word.Begin(Read);
            word.Complete(Read, ready: false);
            Assert.That(word.Fetch(Read, unchecked((short)i)), Is.True);
        }
        Assert.That(word.Version(Write), Is.Zero);
        Assert.That(word.IsEnded, Is.False);
        Assert.That(word.Version(Read), Is.EqualTo(unchecked((short)70_000)));
    }

    [Test]
    public void Close_SomebodyInside_LeavesTheClosingToTheLast()
    {
        var word = StateWord.MaybeReady;
        word.Begin(Read);
        word.Begin(Write);
        Assert.That(word.Close(out var mustClose), Is.True);
        Assert.That(mustClose, Is.False);
        Assert.That(word.Close(out _), Is.False);
        Assert.That(word.End(Write, ready: true), Is.False);
        Assert.That(word.Complete(Read, ready: true).MustClose, Is.True);
        Assert.That(word.Begin(Write), Is.EqualTo(StateWord.BeginResult.Ended));
    }

    [Test]
    public void Withdraw_AfterClose_DoesNotCloseAgain()
    {
        var word = default(StateWord);
        word.Begin(Read);
        word.Arm(Read);
        word.Close(out var mustClose);
        Assert.That(mustClose, Is.True);
        Assert.That(word.Take(Read), Is.False);
        Assert.That(word.Withdraw(Read), Is.True);
        Assert.That(word.Withdraw(Read), Is.False);
        Assert.That(word.Complete(Read, ready: true).MustClose, Is.False);
    }
}
