using System.Runtime.InteropServices;
using Amy.Async.Native;

namespace Amy.Async.Tests.Polling;

/// <summary>That the double is as strict as it says.</summary>
[TestFixture]
internal sealed class KqueueDoubleTests
{
    private static readonly KqueueAbi s_layout = KqueueDouble.Layout32;

    private readonly List<string> _before = [];

    // What these tests do wrong on purpose is not remembered.
    [SetUp]
    public void Remember()
    {
        lock (KqueueDouble.Misuses) _before.AddRange(KqueueDouble.Misuses);
    }

    [TearDown]
    public void Restore()
    {
        lock (KqueueDouble.Misuses)
        {
            KqueueDouble.Misuses.Clear();
            KqueueDouble.Misuses.AddRange(_before);
        }
        _before.Clear();
    }

    private static void Change(Func<int, (short Filter, int Flags, uint FilterFlags, long UserData)> change, Action<Func<int>> check, int size = 0, int capacity = 1)
    {
        var calls = new KqueueDouble { Layout = s_layout };
        var queue = calls.KqueueCreate();
        var descriptor = calls.EventFdCreate();
        try
        {
            var (filter, flags, filterFlags, userData) = change(descriptor);
            var changes = new byte[s_layout.EventSize];
            s_layout.Set(changes, 0, descriptor, filter, (ushort)flags, filterFlags, userData);
            if (size > 0) Array.Resize(ref changes, size);
            var events = new byte[s_layout.EventSize];
            check(() => calls.Kevent(queue, changes, 1, events, capacity, 0) is var n and < 0 ? n : (int)s_layout.Data(events, 0));
        }
        finally
        {
            calls.Close(descriptor);
            calls.Close(queue);
        }
    }

    private static IEnumerable<TestCaseData> Misuses()
    {
        const int add = Kqueue.EV_ADD | Kqueue.EV_CLEAR | Kqueue.EV_RECEIPT;
        yield return new TestCaseData(Kqueue.EVFILT_READ, add | 0x0200, 0u, 1L, 0, 1, "unknown flags");
        yield return new TestCaseData((short)-7, add, 0u, 1L, 0, 1, "no filter");
        yield return new TestCaseData(Kqueue.EVFILT_READ, Kqueue.EV_ADD | Kqueue.EV_RECEIPT, 0u, 1L, 0, 1, "spin");
        yield return new TestCaseData(Kqueue.EVFILT_READ, add | Kqueue.EV_DELETE, 0u, 1L, 0, 1, "at once");
        yield return new TestCaseData(Kqueue.EVFILT_READ, add, 1u, 1L, 0, 1, "fflags");
        yield return new TestCaseData(Kqueue.EVFILT_READ, add, 0u, -1L, 0, 1, "no id");
        yield return new TestCaseData(Kqueue.EVFILT_READ, add, 0u, 1L, 64 - 8, 1, "another size");
        yield return new TestCaseData(Kqueue.EVFILT_READ, add, 0u, 1L, 0, 0, "no room");
    }

    [TestCaseSource(nameof(Misuses))]
    public void Kevent_Misused_ThrowsAndIsRemembered(short filter, int flags, uint filterFlags, long userData, int size, int capacity, string what) =>
        Change(_ => (filter, flags, filterFlags, userData), call =>
        {
            Assert.That(call, Throws.InvalidOperationException.With.Message.Contains(what));
            Assert.That(KqueueDouble.Misuses[^1], Does.Contain(what));
        }, size, capacity);

    [Test]
    public void Kevent_DeletionOfNothing_IsEnoent() =>
        Change(_ => (Kqueue.EVFILT_READ, Kqueue.EV_DELETE | Kqueue.EV_RECEIPT, 0, 1), call => Assert.That(call(), Is.EqualTo(Errno.ENOENT)));

    [Test]
    public void Kevent_FailureWithoutReceipt_IsAnswered() =>
        Change(_ => (Kqueue.EVFILT_READ, Kqueue.EV_ENABLE, 0, 1), call => Assert.That(call(), Is.EqualTo(Errno.ENOENT)));

    /// <summary>A close that the double does not see, with a dup that keeps the file: no event may come of it.</summary>
    [Test]
    public void Kevent_ClosedBehindItsBackWhileADupLives_IsSilent()
    {
        var calls = new KqueueDouble { Layout = s_layout };
        var real = new SystemCalls();
        var queue = calls.KqueueCreate();
        var reader = real.PipeCreate(out var writer);
        var twin = dup(reader);
        var change = new byte[s_layout.EventSize];
        var events = new byte[4 * s_layout.EventSize];
        s_layout.Set(change, 0, reader, Kqueue.EVFILT_READ, Kqueue.EV_ADD | Kqueue.EV_CLEAR | Kqueue.EV_RECEIPT, 0, 7);
        Assert.That(calls.Kevent(queue, change, 1, events, 1, 0), Is.EqualTo(1));
        real.Write(writer, [1]);
        Assert.That(calls.Kevent(queue, null, 0, events, 4, 0), Is.EqualTo(1));
        real.Close(reader);
        real.Write(writer, [2]);
        Assert.That(calls.Kevent(queue, null, 0, events, 4, 0), Is.Zero);
        s_layout.Set(change, 0, reader, Kqueue.EVFILT_READ, Kqueue.EV_DELETE | Kqueue.EV_RECEIPT, 0, 7);
        Assert.That(calls.Kevent(queue, change, 1, events, 1, 0), Is.EqualTo(1));
        Assert.That(s_layout.Data(events, 0), Is.EqualTo(Errno.EBADF));
        real.Close(twin);
        real.Close(writer);
        calls.Close(queue);
    }

    [DllImport("libc")]
    private static extern int dup(int descriptor);
}
