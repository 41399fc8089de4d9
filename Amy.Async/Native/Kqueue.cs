using System.Runtime.CompilerServices;
using Amy.Async.Compat;

namespace Amy.Async.Native;

// The constants that all of kqueue's systems share: sys/event.h of macOS (xnu), FreeBSD and libkqueue.

internal static class Kqueue
{
    internal const short EVFILT_READ = -1;
    internal const short EVFILT_WRITE = -2;

    internal const ushort EV_ADD = 0x0001;
    internal const ushort EV_DELETE = 0x0002;
    internal const ushort EV_ENABLE = 0x0004;
    internal const ushort EV_DISABLE = 0x0008;
    internal const ushort EV_ONESHOT = 0x0010;
    internal const ushort EV_CLEAR = 0x0020;
    internal const ushort EV_RECEIPT = 0x0040;
    internal const ushort EV_ERROR = 0x4000;
    internal const ushort EV_EOF = 0x8000;

    internal const uint NOTE_TRIGGER = 0x01000000;

    /// <summary>Of EVFILT_EXCEPT.</summary>
    internal const uint NOTE_OOB = 0x00000002;

    internal const int F_SETFD = 2;
    internal const int FD_CLOEXEC = 1;
}

/// <summary>
/// What kqueue's systems do not share: the size of <c>struct kevent</c>, and some numbers. The fields up to the user data
/// have the same offsets in all of them; FreeBSD has four words more behind (since version 12), which stay zero.
/// </summary>
/// <param name="name">Of the system, for messages.</param>
/// <param name="eventSize"><c>sizeof(struct kevent)</c>.</param>
/// <param name="userFilter">EVFILT_USER.</param>
/// <param name="exceptFilter">EVFILT_EXCEPT, or 0 where there is none.</param>
/// <param name="toErrno">See <see cref="ToErrno"/>; null: the numbers are Linux's.</param>
internal sealed class KqueueAbi(string name, int eventSize, short userFilter, short exceptFilter, Func<int, int>? toErrno = null)
{
    private const int FilterOffset = 8;
    private const int FlagsOffset = 10;
    private const int FilterFlagsOffset = 12;
    private const int DataOffset = 16;
    private const int UserDataOffset = 24;

    /// <summary>xnu's bsd/sys/event.h. EVFILT_EXCEPT came with macOS 10.13; before that it is refused, which the selector bears.</summary>
    internal static readonly KqueueAbi MacOS = new("macOS", 32, userFilter: -10, exceptFilter: -15, ErrorNumbers.MacOS.ToLinux);

    /// <summary>FreeBSD's sys/event.h since version 12. It tells of no out-of-band data.</summary>
    internal static readonly KqueueAbi FreeBsd = new("FreeBSD", 64, userFilter: -11, exceptFilter: 0, ErrorNumbers.FreeBsd.ToLinux);

    /// <summary>
    /// libkqueue's sys/event.h: kqueue on other systems, here on Linux. No out-of-band data either. EV_ADD with EV_DISABLE leaves
    /// its epoll instance watching, and forgets about it with the deletion: its kevent_copyin_one marks the knote as disabled
    /// before its filter looks whether it is. Knotes outlive a descriptor that is closed (its BUGS.md).
    /// </summary>
    internal static readonly KqueueAbi Libkqueue = new("libkqueue", 32, userFilter: -11, exceptFilter: 0) { AddsDisabled = false, SeesCloses = false };

    internal string Name => name;

    internal int EventSize => eventSize;

    internal short EVFILT_USER => userFilter;

    /// <summary>Whether a knote may be added and disabled by one change.</summary>
    internal bool AddsDisabled { get; init; } = true;

    /// <summary>Whether closing a descriptor removes its knotes.</summary>
    internal bool SeesCloses { get; init; } = true;

    /// <summary>0: there is none.</summary>
    internal short EVFILT_EXCEPT => exceptFilter;

    /// <summary>
    /// The one place where an error number that kqueue puts into a structure (<c>data</c> of a receipt, <c>fflags</c> at the end
    /// of a file) becomes one of <see cref="Errno"/>. Those in errno are translated at the seam, as of every system call.
    /// </summary>
    internal int ToErrno(long number) => toErrno is null ? (int)number : toErrno((int)number);

    /// <summary>EV_SET(2): writes an event, with nothing in the fields not named.</summary>
    internal void Set(byte[] events, int index, int ident, short filter, ushort flags, uint filterFlags, long userData)
    {
        ref var e = ref At(events, index);
        Unsafe.InitBlockUnaligned(ref e, 0, (uint)eventSize);
        Unsafe.WriteUnaligned(ref e, (long)ident);
        Unsafe.WriteUnaligned(ref Unsafe.Add(ref e, FilterOffset), filter);
        Unsafe.WriteUnaligned(ref Unsafe.Add(ref e, FlagsOffset), flags);
        Unsafe.WriteUnaligned(ref Unsafe.Add(ref e, FilterFlagsOffset), filterFlags);
        Unsafe.WriteUnaligned(ref Unsafe.Add(ref e, UserDataOffset), userData);
    }

    internal void SetData(byte[] events, int index, long data) =>
        Unsafe.WriteUnaligned(ref Unsafe.Add(ref At(events, index), DataOffset), data);

    internal long Ident(byte[] events, int index) => Unsafe.ReadUnaligned<long>(ref At(events, index));

    internal short Filter(byte[] events, int index) => Unsafe.ReadUnaligned<short>(ref Unsafe.Add(ref At(events, index), FilterOffset));

    internal ushort Flags(byte[] events, int index) => Unsafe.ReadUnaligned<ushort>(ref Unsafe.Add(ref At(events, index), FlagsOffset));

    internal uint FilterFlags(byte[] events, int index) => Unsafe.ReadUnaligned<uint>(ref Unsafe.Add(ref At(events, index), FilterFlagsOffset));

    internal long Data(byte[] events, int index) => Unsafe.ReadUnaligned<long>(ref Unsafe.Add(ref At(events, index), DataOffset));

    internal long UserData(byte[] events, int index) => Unsafe.ReadUnaligned<long>(ref Unsafe.Add(ref At(events, index), UserDataOffset));

    private ref byte At(byte[] events, int index) => ref events[index * eventSize];
}

/// <summary>Where <c>kqueue</c> and <c>kevent</c> come from: the C library of macOS and FreeBSD, else libkqueue if it is there.</summary>
internal static class KqueueLibrary
{
    // Looked for when first asked: on Linux that loads a library, which nobody else needs.
    private static readonly Lazy<(KqueueAbi? Abi, bool IsForeign, string? Refusal)> s_found = new(Find);

    /// <summary>Why there is none, or null.</summary>
    internal static string? Refusal => s_found.Value.Refusal;

    internal static KqueueAbi Abi => s_found.Value.Abi ?? throw new PlatformNotSupportedException($"No kqueue here: {Refusal}.");

    /// <summary>It is libkqueue's.</summary>
    internal static bool IsForeign => s_found.Value.IsForeign;

    // NetBSD's kevent is a symbol with versions and layouts of its own, and OpenBSD's numbers are not proven either: a platform
    // without a table is turned away (PlatformDescription) before anybody asks here.
    private static (KqueueAbi?, bool, string?) Find() => PlatformDescription.Current.System switch
    {
        PlatformDescription.MacOS => FromLibc(KqueueAbi.MacOS),
        PlatformDescription.FreeBsd => FromLibc(KqueueAbi.FreeBsd),
        PlatformDescription.Linux => OnLinux(),
        _ => (null, false, $"there is none on {PlatformDescription.Current}"),
    };

    private static (KqueueAbi?, bool, string?) FromLibc(KqueueAbi abi)
    {
        var failure = TryOut(foreign: false);
        return failure is null ? (abi, false, null) : (null, false, failure);
    }

    // A C library of Linux that has kqueue would have libkqueue's, there being no other.
    private static (KqueueAbi?, bool, string?) OnLinux()
    {
        if (TryOut(foreign: false) is null) return (KqueueAbi.Libkqueue, false, null);
        var failure = TryOut(foreign: true);
        return failure is null
            ? (KqueueAbi.Libkqueue, true, null)
            : (null, false, $"Linux has none of its own, and of libkqueue.so.0: {failure}");
    }

    // Null: kqueue(2) makes a queue and kevent(2) takes it. Or descriptors or memory have run out just now (libkqueue says so without
    // an errno), which is not to be remembered as the system's: who makes a queue then is told.
    private static unsafe string? TryOut(bool foreign)
    {
        try
        {
            var queue = foreign ? Libkqueue.kqueue() : Libc.kqueue();
            if (queue < 0) return LastError.Get() is 0 or Errno.ENOMEM or Errno.ENFILE or Errno.EMFILE ? null : $"kqueue fails with errno {LastError.Get()}";
            var none = default(TimeSpec);
            var result = foreign ? Libkqueue.kevent(queue, null, 0, null, 0, &none) : Libc.kevent(queue, null, 0, null, 0, &none);
            var error = LastError.Get();
            _ = Libc.close(queue);
            return result < 0 ? $"kevent fails with errno {error}" : null;
        }
        catch (DllNotFoundException)
        {
            return "not found";
        }
        catch (EntryPointNotFoundException)
        {
            return "it has no kqueue and kevent";
        }
        catch (BadImageFormatException)
        {
            return "it is for another architecture";
        }
    }
}
