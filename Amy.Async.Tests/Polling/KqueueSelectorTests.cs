using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async.Native;

namespace Amy.Async.Tests.Polling;

/// <summary>What the kqueue selector makes of what kqueue does, in both layouts.</summary>
[TestFixture(32)]
[TestFixture(64)]
internal sealed class KqueueSelectorTests(int size)
{
    private const long Id = 1L << 32 | 5;
    private const long OtherId = 1L << 32 | 6;

    private KqueueAbi Layout => size == 32 ? KqueueDouble.Layout32 : KqueueDouble.Layout64;

    private ScriptedKqueue Calls() => new() { Layout = Layout };

    private KqueueSelector Create(KqueueDouble calls) => new(calls, Layout);

    private static Dictionary<long, Readiness> Wait(Selector selector, long timeout = 10_000_000_000)
    {
        var n = selector.Wait(timeout);
        Assert.That(n, Is.Not.Negative);
        var events = new Dictionary<long, Readiness>();
        for (var i = 0; i < n; i++)
        {
            var id = selector.Get(i, out var readiness);
            events.Add(id, readiness); // throws if an id comes twice
        }
        return events;
    }

    private static int Number(Socket socket) => (int)socket.SafeHandle.DangerousGetHandle();

    private void WithPair(Action<KqueueSelector, ScriptedKqueue, Socket, Socket> test)
    {
        var (a, b) = Pair.Tcp();
        using (a)
        using (b)
        {
            a.Blocking = b.Blocking = false;
            var calls = Calls();
            var selector = Create(calls);
            try
            {
                test(selector, calls, a, b);
            }
            finally
            {
                selector.Close();
            }
        }
    }

    [Test]
    public void Wait_ReadAndWriteOfOneRegistration_AreOneNotification() => WithPair((selector, _, a, b) =>
    {
        a.Send([1]);
        Run.Until(() => b.Available > 0, "the byte arrives");
        selector.Add(Number(b), Id, Interest.Both);
        selector.Add(Number(a), OtherId, Interest.Both);
        Assert.That(Wait(selector), Is.EquivalentTo(new Dictionary<long, Readiness> { [Id] = Readiness.Readable | Readiness.Writable, [OtherId] = Readiness.Writable }));
    });

    [Test]
    public void Wait_EventsOfOneNumberAndTwoIds_AreNotMerged() => WithPair((selector, calls, _, _) =>
    {
        // Slots that collide, the wake-up's own id, and ids of one slot with two generations.
        calls.Answer = (events, abi) =>
        {
            abi.Set(events, 0, 7, Kqueue.EVFILT_READ, Kqueue.EV_CLEAR, 0, Id);
            abi.Set(events, 1, 0, abi.EVFILT_USER, Kqueue.EV_CLEAR, 0, Selector.WakeId);
            abi.Set(events, 2, 7, Kqueue.EVFILT_WRITE, Kqueue.EV_CLEAR, 0, OtherId);
            abi.Set(events, 3, 7, Kqueue.EVFILT_WRITE, Kqueue.EV_CLEAR, 0, Id);
            abi.Set(events, 4, 7, Kqueue.EVFILT_READ, Kqueue.EV_CLEAR, 0, Id + (1L << 32));
            abi.Set(events, 5, 9, Kqueue.EVFILT_READ, Kqueue.EV_CLEAR, 0, 1L << 32); // slot 0, like the wake-up
            abi.Set(events, 6, 9, Kqueue.EVFILT_WRITE, Kqueue.EV_CLEAR, 0, 1L << 32);
            return 7;
        };
        Assert.That(Wait(selector), Is.EquivalentTo(new Dictionary<long, Readiness>
        {
            [Id] = Readiness.Readable | Readiness.Writable,
            [Selector.WakeId] = Readiness.Readable,
            [OtherId] = Readiness.Writable,
            [Id + (1L << 32)] = Readiness.Readable,
            [1L << 32] = Readiness.Readable | Readiness.Writable,
        }));
    });

    private static IEnumerable<TestCaseData> Ends()
    {
        yield return new(Kqueue.EVFILT_READ, Kqueue.EV_CLEAR, 0u, Readiness.Readable);
        yield return new(Kqueue.EVFILT_READ, Kqueue.EV_EOF, 0u, Readiness.Readable | Readiness.ReadClosed);
        yield return new(Kqueue.EVFILT_READ, Kqueue.EV_EOF, 104u, Readiness.Readable | Readiness.ReadClosed | Readiness.WriteClosed | Readiness.Error);
        yield return new(Kqueue.EVFILT_WRITE, Kqueue.EV_EOF, 0u, Readiness.Writable | Readiness.WriteClosed);
        yield return new(Kqueue.EVFILT_WRITE, Kqueue.EV_EOF, 111u, Readiness.Writable | Readiness.ReadClosed | Readiness.WriteClosed | Readiness.Error);
    }

    [TestCaseSource(nameof(Ends))]
    public void Get_EndOfFile_IsThatOfTheDirectionAndWithAnErrorOfBoth(short filter, ushort flags, uint filterFlags, Readiness expected) => WithPair((selector, calls, _, _) =>
    {
        calls.Answer = (events, abi) =>
        {
            abi.Set(events, 0, 7, filter, flags, filterFlags, Id);
            return 1;
        };
        Assert.That(Wait(selector)[Id], Is.EqualTo(expected));
    });

    [Test]
    public void Get_ErrorOfTheSystem_IsTranslatedInOnePlace()
    {
        var asked = new List<int>();
        var abi = new KqueueAbi("numbers of its own", Layout.EventSize, Layout.EVFILT_USER, Layout.EVFILT_EXCEPT, n =>
        {
            asked.Add(n);
            return n == 1002 ? Errno.ENOENT : n;
        });
        var calls = new ScriptedKqueue { Layout = abi, OnReceipt = (filter, flags, error) => error == Errno.ENOENT ? 1002 : error };
        var selector = new KqueueSelector(calls, abi);
        var (a, b) = Pair.Tcp();
        using (a)
        using (b)
        {
            selector.Add(Number(a), Id, Interest.Readable);
            calls.DropKnotes(Number(a));
            Assert.That(selector.Modify(Number(a), Id, Interest.Readable), Is.EqualTo(-Errno.ENOENT));
            Assert.That(asked, Does.Contain(1002));
        }
        selector.Close();
    }

    [Test]
    public void Add_BothFilters_IsOneCall() => WithPair((selector, calls, a, _) =>
    {
        calls.Controls = 0;
        Assert.That(selector.Add(Number(a), Id, Interest.Both | Interest.Priority), Is.Zero);
        Assert.That(selector.Modify(Number(a), Id, Interest.Both), Is.Zero);
        Assert.That(selector.Remove(Number(a)), Is.Zero);
        Assert.That(calls.Controls, Is.EqualTo(3));
    });

    [Test]
    public void Add_Twice_IsEexistAndTheFirstStays() => WithPair((selector, _, a, _) =>
    {
        Assert.That(selector.Add(Number(a), Id, Interest.Writable), Is.Zero);
        Assert.That(selector.Add(Number(a), OtherId, Interest.Both), Is.EqualTo(-Errno.EEXIST));
        Assert.That(Wait(selector), Is.EquivalentTo(new Dictionary<long, Readiness> { [Id] = Readiness.Writable }));
    });

    [Test]
    public void Add_WithoutInterest_IsKnownAndSilent() => WithPair((selector, _, a, b) =>
    {
        a.Send([1]);
        Run.Until(() => b.Available > 0, "the byte arrives");
        Assert.That(selector.Add(Number(b), Id, 0), Is.Zero);
        Assert.That(Wait(selector, 0), Is.Empty);
        Assert.That(selector.Add(Number(b), OtherId, 0), Is.EqualTo(-Errno.EEXIST));
        Assert.That(Wait(selector, 0), Is.Empty);
        Assert.That(selector.Modify(Number(b), Id, Interest.Readable), Is.Zero);
        Assert.That(Wait(selector), Is.EquivalentTo(new Dictionary<long, Readiness> { [Id] = Readiness.Readable }));
    });

    [Test]
    public void Add_ClosedDescriptor_IsEbadf()
    {
        var calls = Calls();
        var selector = Create(calls);
        Assert.That(selector.Add(1 << 20, Id, Interest.Both), Is.EqualTo(-Errno.EBADF));
        Assert.That(selector.Add(-1, Id, Interest.Both), Is.EqualTo(-Errno.EBADF));
        Assert.That(selector.Modify(1 << 20, Id, Interest.Both), Is.EqualTo(-Errno.ENOENT));
        selector.Close();
    }

    /// <summary>The second of two filters is refused: the first is taken back.</summary>
    [Test]
    public void Add_OneFilterRefused_UndoesTheOther() => WithPair((selector, calls, a, b) =>
    {
        calls.OnReceipt = (filter, flags, error) => filter == Kqueue.EVFILT_WRITE && (flags & Kqueue.EV_ADD) != 0 ? Errno.EINVAL : error;
        Assert.That(selector.Add(Number(b), Id, Interest.Both), Is.EqualTo(-Errno.EINVAL));
        a.Send([1]);
        Run.Until(() => b.Available > 0, "the byte arrives");
        calls.OnReceipt = null;
        Assert.That(selector.Modify(Number(b), Id, Interest.Both), Is.EqualTo(-Errno.ENOENT));
        // The real write knote that the script hid is there still; reading is what must be silent.
        Assert.That(Wait(selector, 0).Values, Has.None.Matches<Readiness>(r => (r & Readiness.Readable) != 0));
    });

    /// <summary>A change that is refused leaves what was there.</summary>
    [Test]
    public void Modify_Refused_KeepsTheOldRegistration() => WithPair((selector, calls, a, b) =>
    {
        Assert.That(selector.Add(Number(b), Id, Interest.Readable), Is.Zero);
        calls.OnReceipt = (filter, flags, error) => filter == Kqueue.EVFILT_WRITE && (flags & Kqueue.EV_ADD) != 0 ? Errno.ENOMEM : error;
        Assert.That(selector.Modify(Number(b), OtherId, Interest.Both), Is.EqualTo(-Errno.ENOMEM));
        calls.OnReceipt = null;
        a.Send([1]);
        Assert.That(Wait(selector)[Id], Is.EqualTo(Readiness.Readable));
    });

    /// <summary>Out-of-band data is the sockets' alone: beside the others, its refusal is borne.</summary>
    [Test]
    public void Add_PriorityRefused_RegistersTheRest() => WithPair((selector, calls, a, _) =>
    {
        calls.OnReceipt = (filter, flags, error) => filter == Layout.EVFILT_EXCEPT ? Errno.EINVAL : error;
        Assert.That(selector.Add(Number(a), Id, Interest.Both | Interest.Priority), Is.Zero);
        Assert.That(Wait(selector)[Id], Is.EqualTo(Readiness.Writable));
    });

    /// <summary>FreeBSD, and old macOS: a pipe without a reader takes no EVFILT_WRITE.</summary>
    [Test]
    public void Add_EpipeOfTheWriter_IsToleratedAndTold() => WithPair((selector, calls, a, _) =>
    {
        calls.OnReceipt = (filter, flags, error) => filter == Kqueue.EVFILT_WRITE && (flags & Kqueue.EV_ADD) != 0 ? Errno.EPIPE : error;
        calls.Drops = Kqueue.EVFILT_WRITE; // and there is no such knote
        Assert.That(selector.Add(Number(a), Id, Interest.Both), Is.Zero);
        Assert.That(Wait(selector), Is.EquivalentTo(new Dictionary<long, Readiness> { [Id] = Readiness.Writable | Readiness.WriteClosed }));
        Assert.That(Wait(selector, 0), Is.Empty, "once");
        Assert.That(selector.Modify(Number(a), Id, Interest.Writable), Is.Zero);
        Assert.That(Wait(selector), Has.Count.EqualTo(1), "reported again");
        Assert.That(selector.Remove(Number(a)), Is.Zero);
    });

    [Test]
    public void Remove_KnotesGone_IsTolerated() => WithPair((selector, calls, a, _) =>
    {
        Assert.That(selector.Add(Number(a), Id, Interest.Both), Is.Zero);
        calls.DropKnotes(Number(a));
        Assert.That(selector.Remove(Number(a)), Is.Zero);
        Assert.That(selector.Remove(Number(a)), Is.EqualTo(-Errno.ENOENT), "forgotten, whatever the kernel said");
        Assert.That(selector.Add(Number(a), OtherId, Interest.Both), Is.Zero);
    });

    /// <summary>A deletion that is refused does not keep the other from being done: whatever is left would tell of an id that is no more.</summary>
    [TestCase(Kqueue.EVFILT_READ, Readiness.Writable)]
    [TestCase(Kqueue.EVFILT_WRITE, Readiness.Readable)]
    public void Remove_OneKnoteGone_RemovesTheOther(short gone, Readiness wouldBe) => WithPair((selector, calls, a, b) =>
    {
        a.Send([1]);
        Run.Until(() => b.Available > 0, "the byte arrives");
        Assert.That(selector.Add(Number(b), Id, Interest.Both), Is.Zero);
        Assert.That(calls.Drop(Number(b), gone), Is.True);
        Assert.That(Wait(selector)[Id], Is.EqualTo(wouldBe), "the other is there");
        Assert.That(selector.Remove(Number(b)), Is.Zero);
        Assert.That(calls.Drop(Number(b), Kqueue.EVFILT_READ), Is.False);
        Assert.That(calls.Drop(Number(b), Kqueue.EVFILT_WRITE), Is.False);
    });

    [TestCase(Interest.Both)]
    [TestCase((Interest)0)]
    public void Modify_KnotesGone_IsEnoentAndLeavesNothing(Interest old) => WithPair((selector, calls, a, _) =>
    {
        Assert.That(selector.Add(Number(a), Id, old), Is.Zero);
        calls.DropKnotes(Number(a));
        Assert.That(selector.Modify(Number(a), Id, Interest.Both), Is.EqualTo(-Errno.ENOENT));
        Assert.That(Wait(selector, 0), Is.Empty);
        Assert.That(selector.Add(Number(a), Id, Interest.Writable), Is.Zero);
        Assert.That(Wait(selector), Has.Count.EqualTo(1));
    });

    [TestCase(Interest.Readable, Kqueue.EVFILT_WRITE)]
    [TestCase(Interest.Writable, Kqueue.EVFILT_READ)]
    public void Modify_ToOneDirection_LeavesNoKnoteOfTheOther(Interest interest, short other) => WithPair((selector, calls, a, _) =>
    {
        Assert.That(selector.Add(Number(a), Id, Interest.Both), Is.Zero);
        Assert.That(selector.Modify(Number(a), Id, interest), Is.Zero);
        Assert.That(calls.Drop(Number(a), other), Is.False);
    });

    /// <summary>The plain waits rely on it: what is there already is an edge again.</summary>
    [Test]
    public void Modify_StillReady_ReportsAgain() => WithPair((selector, _, a, b) =>
    {
        a.Send([1]);
        Run.Until(() => b.Available > 0, "the byte arrives");
        selector.Add(Number(b), Id, Interest.Readable);
        Assert.That(Wait(selector), Has.Count.EqualTo(1));
        Assert.That(Wait(selector, 0), Is.Empty);
        Assert.That(selector.Modify(Number(b), Id, Interest.Readable), Is.Zero);
        Assert.That(Wait(selector)[Id], Is.EqualTo(Readiness.Readable));
        Assert.That(selector.Modify(Number(b), OtherId, Interest.Both), Is.Zero);
        Assert.That(Wait(selector)[OtherId], Is.EqualTo(Readiness.Readable | Readiness.Writable));
    });

    /// <summary>More arrives while something is still unread: an edge of its own.</summary>
    [Test]
    public void Wait_SecondArrivalWithoutReading_IsASecondEdge() => WithPair((selector, _, a, b) =>
    {
        selector.Add(Number(b), Id, Interest.Readable);
        a.Send([1]);
        Assert.That(Wait(selector), Has.Count.EqualTo(1));
        Assert.That(Wait(selector, 0), Is.Empty);
        a.Send([2]);
        Assert.That(Wait(selector), Has.Count.EqualTo(1));
    });

    /// <summary>EINTR with changes: they were applied, and are given again.</summary>
    [Test]
    public void Changes_Interrupted_AreAppliedOnceInEffect() => WithPair((selector, calls, a, b) =>
    {
        void Interrupted(Func<int> change)
        {
            calls.Interruptions = 2;
            Assert.That(change(), Is.Zero);
            Assert.That(calls.Interruptions, Is.Zero);
        }
        Interrupted(() => selector.Add(Number(b), Id, Interest.Both));
        Assert.That(Wait(selector)[Id], Is.EqualTo(Readiness.Writable));
        Interrupted(() => selector.Modify(Number(b), Id, Interest.Readable));
        Assert.That(Wait(selector, 0), Is.Empty);
        a.Send([1]);
        Assert.That(Wait(selector)[Id], Is.EqualTo(Readiness.Readable));
        Interrupted(() => selector.Remove(Number(b)));
        a.Send([1]);
        Run.Until(() => b.Available > 1, "the byte arrives");
        Assert.That(Wait(selector, 0), Is.Empty);
    });

    [Test]
    public void Wait_Interrupted_IsTheCallersToRetry() => WithPair((selector, calls, _, _) =>
    {
        calls.Answer = (_, _) => -Errno.EINTR;
        Assert.That(selector.Wait(0), Is.EqualTo(-Errno.EINTR));
    });

    [TestCase(-1L, -1L)]
    [TestCase(0L, 0L)]
    [TestCase(1L, 1L)]
    [TestCase(86_400_000_000_000L, 86_400_000_000_000L)]
    [TestCase(long.MaxValue, 86_400_000_000_000L)]
    public void Wait_LongTimeout_IsClamped(long timeout, long given) => WithPair((selector, calls, _, _) =>
    {
        calls.Answer = (_, _) => 0;
        selector.Wait(timeout);
        Assert.That(calls.LastTimeout, Is.EqualTo(given));
    });

    [TestCase(true)]
    [TestCase(false)]
    public void Wake_UserEventOrPipe_WakesOncePerWake(bool userEvents)
    {
        var before = Descriptors.Settle();
        var calls = new ScriptedKqueue { Layout = Layout, HasUserEvents = userEvents };
        var selector = Create(calls);
        Assert.That(calls.Pipes, Is.EqualTo(userEvents ? 0 : 1));
        for (var i = 0; i < 3; i++)
        {
            selector.Wake();
            selector.Wake();
            Assert.That(Wait(selector), Is.EquivalentTo(new Dictionary<long, Readiness> { [Selector.WakeId] = Readiness.Readable }));
            selector.AcknowledgeWake();
            Assert.That(Wait(selector, 0), Is.Empty, "no spin");
        }
        var waiter = Run.Waiter(() => Wait(selector));
        selector.Wake();
        Assert.That(waiter.Join(Run.Limit), Is.True);
        selector.Close();
        Assert.That(Descriptors.Settle(), Is.EqualTo(before));
        Assert.That(calls.OpenPipeEnds, Is.Zero);
    }

    /// <summary>An emulation that takes user events and never tells of them.</summary>
    [Test]
    public void Wake_UserEventsThatDoNothing_AreFoundOutAtTheStart()
    {
        var calls = new ScriptedKqueue { Layout = Layout, IgnoresTriggers = true };
        var selector = Create(calls);
        Assert.That(calls.Pipes, Is.EqualTo(1));
        selector.Wake();
        Assert.That(Wait(selector), Has.Count.EqualTo(1));
        selector.Close();
    }

    [Test]
    public void Get_OutOfBandData_IsPriorityWhereTheSystemTells() => WithPair((selector, _, a, b) =>
    {
        Assert.That(selector.WatchesPriority, Is.EqualTo(size == 32));
        Assert.That(selector.Add(Number(b), Id, Interest.Readable | Interest.Priority), Is.Zero);
        a.Send([1], SocketFlags.OutOfBand);
        if (size == 32) Assert.That(Wait(selector)[Id] & Readiness.Priority, Is.EqualTo(Readiness.Priority));
    });

    /// <summary>xnu's EVFILT_EXCEPT fires for ordinary data, too.</summary>
    [Test]
    public void Get_OrdinaryDataWithPriorityAlone_IsNothing() => WithPair((selector, _, a, b) =>
    {
        Assert.That(selector.Add(Number(b), Id, Interest.Priority), Is.Zero);
        a.Send([1]);
        Run.Until(() => b.Available > 0, "the byte arrives");
        Assert.That(Wait(selector, 0), Is.Empty);
    });

    /// <summary>Asking again and again whether a number is still what it was makes no edge after the first time.</summary>
    [Test]
    public void Add_TwiceAgainAndAgain_MakesNoMoreEdges() => WithPair((selector, _, a, b) =>
    {
        a.Send([1]);
        Run.Until(() => b.Available > 0, "the byte arrives");
        Assert.That(selector.Add(Number(b), Id, Interest.Both), Is.Zero);
        Assert.That(selector.Add(Number(b), OtherId, Interest.Both), Is.EqualTo(-Errno.EEXIST));
        Wait(selector);
        for (var i = 0; i < 3; i++)
        {
            Assert.That(selector.Add(Number(b), OtherId, Interest.Both), Is.EqualTo(-Errno.EEXIST));
            Assert.That(Wait(selector, 0), Is.Empty);
        }
        Assert.That(selector.Modify(Number(b), Id, Interest.Readable), Is.Zero);
        Wait(selector);
        Assert.That(selector.Add(Number(b), OtherId, Interest.Both), Is.EqualTo(-Errno.EEXIST));
        Assert.That(Wait(selector, 0), Is.Empty);
        Assert.That(selector.Remove(Number(b)), Is.Zero);
        Assert.That(selector.Add(Number(b), OtherId, Interest.Both), Is.Zero);
    });

    /// <summary>The kernels would take it, and tell of what is behind its position.</summary>
    [Test]
    public void Add_RegularFileOrDirectory_IsRefusedHere() => WithPair((selector, calls, _, b) =>
    {
        var asked = 0;
        calls.OnReceipt = (_, _, error) =>
        {
            asked++;
            return error;
        };
        using var file = File.OpenHandle(typeof(KqueueSelectorTests).Assembly.Location);
        Assert.That(selector.Add((int)file.DangerousGetHandle(), Id, Interest.Readable), Is.EqualTo(-Errno.EPERM));
        Assert.That(asked, Is.Zero);
        Assert.That(selector.Add(Number(b), Id, Interest.Both), Is.Zero);
        Assert.That(asked, Is.EqualTo(2));
    });

    /// <summary>libkqueue adds a disabled knote wrongly, and keeps those of a number that is closed.</summary>
    [Test]
    public void Modify_ClosesAreNotSeen_TheFileItselfTells()
    {
        var layout = new KqueueAbi("like libkqueue", size, userFilter: -11, exceptFilter: 0) { AddsDisabled = false, SeesCloses = false };
        var calls = new ScriptedKqueue { Layout = layout };
        var together = 0;
        calls.OnReceipt = (_, flags, error) =>
        {
            if ((flags & (Kqueue.EV_ADD | Kqueue.EV_DISABLE)) == (Kqueue.EV_ADD | Kqueue.EV_DISABLE)) together++;
            return (flags & Kqueue.EV_DELETE) != 0 ? 0 : error; // a deletion finds what is long gone
        };
        var selector = new KqueueSelector(calls, layout);
        var (a, b) = Pair.Tcp();
        var (c, d) = Pair.Tcp();
        using (a)
        using (c)
        using (d)
        {
            var number = Number(b);
            Assert.That(selector.Add(number, Id, 0), Is.Zero);
            Assert.That(selector.Add(number, OtherId, Interest.Both), Is.EqualTo(-Errno.EEXIST));
            Assert.That(selector.Modify(number, Id, Interest.Readable), Is.Zero);
            b.Dispose();
            Assert.That(LibC.dup2(Number(d), number), Is.EqualTo(number));
            Assert.That(selector.Modify(number, Id, Interest.Readable), Is.EqualTo(-Errno.ENOENT));
            Assert.That(selector.Add(number, Id, Interest.Readable), Is.Zero);
            _ = LibC.close(number);
            Assert.That(LibC.dup2(Number(a), number), Is.EqualTo(number));
            Assert.That(selector.Add(number, OtherId, Interest.Readable), Is.Zero, "another file's");
            c.Send([1]);
            a.Shutdown(SocketShutdown.Both);
            Assert.That(Wait(selector).Keys, Is.EquivalentTo(new[] { OtherId }));
            _ = LibC.close(number);
        }
        selector.Close();
        Assert.That(together, Is.Zero);
    }

    private static class LibC
    {
        [DllImport("libc")]
        internal static extern int dup2(int from, int to);

        [DllImport("libc")]
        internal static extern int close(int descriptor);
    }
}
