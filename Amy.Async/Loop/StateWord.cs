using System.Diagnostics;

namespace Amy.Async;

/// <summary>The two sides of a descriptor; each has one operation at a time.</summary>
internal enum Direction
{
    /// <summary>Receive, accept, readable.</summary>
    Read = 0,

    /// <summary>Send, connect, writable; also a timer's only side.</summary>
    Write = 1,
}

/// <summary>
/// Everything that threads share about one awaitable thing (a descriptor, a timer), in one 64-bit word that changes only
/// by compare-exchange. All races of the library between operations, edges, cancelling and closing are settled here.
/// </summary>
/// <remarks>
/// <code>
///  63       48 47       32 31    22 21 20 19 18 17 16 15     8 7      0
/// | version W | version R |  free  | U  E  WC RC S  C | write  | read   |     C closed, S loop stopped; seen: RC WC hang-ups,
///                                                      flags of one direction:      E error, U out-of-band (urgent) data
///  1 Ready    something may be there: try the system call before waiting.
///             Absent ("drained"): we saw that nothing is there, and no edge has come since.
///  2 Busy     an operation owns the direction, from its first try to the end of GetResult
///  4 Armed    it waits; from here on only the loop may complete it
///  8 Inside   a thread is in, or about to make, a system call for this direction: the descriptor stays open
/// 16 Awaited  a continuation is stored
/// 32 Done     the result is stored, and not fetched yet
/// </code>
/// <para>One direction's life. "op" is the thread that holds Busy, "loop" the loop's thread, "any" any thread.</para>
/// <code>
/// state                       next                               by    with
/// idle                        Busy|Inside, Ready cleared         op    Begin    (Ready, or a try that is forced)
/// idle                        Busy                               op    Begin    (drained: arm without a try)
/// Busy|Inside                 idle                               op    End      (completed at once)
/// Busy[|Inside], drained      Busy|Armed                         op    Arm
/// Busy[|Inside], Ready        Busy|Inside, Ready cleared         op    Arm      (an edge came: try again)
/// Busy|Armed                  Busy|Inside, Ready cleared         loop  Edge, Take
/// Busy|Armed                  Busy                               loop  Withdraw (cancelled, closed, stopped: no try)
/// Busy|Inside, Busy           Busy|Done                          op, loop  Complete
/// Busy                        Busy|Awaited                       any   Await
/// Busy|Done[|Awaited]         idle, version + 1                  any   Fetch
/// Busy|Done, not Awaited      as idle, version + 1               op    Begin    (a result that nobody awaited)
/// </code>
/// <para><b>An edge during the try is not lost.</b> O tries, L is the loop. O clears Ready <i>before</i> its call (Begin, Arm)
/// and then sees EAGAIN. If data came after O's call, L sets Ready (Edge) and O's Arm, one compare-exchange that demands
/// Ready to be absent, fails and O tries again; or Arm came first, and then Edge sees Armed and L does the call itself.</para>
/// <para><b>One completer.</b> Armed is cleared once per arming, and only by the loop's thread (Edge, Take, Withdraw), so a
/// cancellation, a time-out and an edge cannot complete an operation twice.</para>
/// <para><b>Closing.</b> After Closed no Inside bit is set any more (Begin, Arm, Edge, Take refuse), so the Inside bits only
/// go out. Exactly one transition reaches "Closed and no Inside": Close itself, or the End, Withdraw, Complete that clears
/// the last one. Its caller is told (mustClose) and closes the descriptor; nobody can be in a system call on it then.</para>
/// <para><b>Stale tokens.</b> A version belongs to one operation. Await and Fetch demand it in the same compare-exchange, so
/// a ValueTask awaited twice, one after the other, or kept beyond its operation, is found out and changes nothing. (Two threads that
/// await one ValueTask in the same instant may take each other's continuation: that much trust is asked of the user.)</para>
/// </remarks>
internal struct StateWord
{
    private const long Ready = 1;
    private const long Busy = 2;
    private const long Armed = 4;
    private const long Inside = 8;
    private const long Awaited = 16;
    private const long Done = 32;

    private const long Closed = 1L << 16;
    private const long Stopped = 1L << 17;

    /// <summary>The peer writes no more; sticky.</summary>
    internal const long SeenReadClosed = 1L << 18;

    /// <summary>The peer reads no more; sticky.</summary>
    internal const long SeenWriteClosed = 1L << 19;

    /// <summary>An error was reported; sticky.</summary>
    internal const long SeenError = 1L << 20;

    /// <summary>Out-of-band data was reported; sticky.</summary>
    internal const long SeenUrgent = 1L << 21;

    private const long Ended = Closed | Stopped;
    private const long AnyInside = Inside | Inside << 8;

    private long _bits;

    private StateWord(long bits) => _bits = bits;

    /// <summary>A fresh descriptor: both directions may be ready.</summary>
    internal static StateWord MaybeReady => new(Ready | Ready << 8);

    internal enum BeginResult
    {
        /// <summary>The caller holds Busy and Inside: try.</summary>
        Attempt,

        /// <summary>The caller holds Busy: drained (or told not to try), arm.</summary>
        Wait,

        /// <summary>Another operation is in progress.</summary>
        Busy,

        /// <summary>Closed, or the loop has stopped.</summary>
        Ended,
    }

    internal enum ArmResult
    {
        /// <summary>The loop owns the operation now.</summary>
        Armed,

        /// <summary>The caller holds Inside (again): try.</summary>
        Attempt,

        /// <summary>Closed, or the loop has stopped. The caller's bits are as before; it completes with an error.</summary>
        Ended,
    }

    internal enum AwaitResult
    {
        /// <summary>The continuation will be resumed by the completer.</summary>
        Stored,

        /// <summary>The operation is done already: the caller sees to the resume.</summary>
        AlreadyDone,

        /// <summary>A stale version, or awaited before.</summary>
        Invalid,
    }

    /// <summary>What <see cref="Complete"/> found.</summary>
    internal readonly record struct Completion(bool IsAwaited, bool MustClose);

    private long Bits => Volatile.Read(ref _bits);

    internal bool IsClosed => (Bits & Closed) != 0;

    internal bool IsEnded => (Bits & Ended) != 0;

    /// <summary>Whether a thread is in a system call of either direction.</summary>
    internal bool IsAnyInside => (Bits & AnyInside) != 0;

    internal bool IsArmed(Direction d) => (Bits & Armed << Shift(d)) != 0;

    internal bool IsReady(Direction d) => (Bits & Ready << Shift(d)) != 0;

    internal bool IsBusy(Direction d) => (Bits & Busy << Shift(d)) != 0;

    /// <summary>Whether any of these <c>Seen…</c> bits is set.</summary>
    internal bool HasSeen(long seen) => (Bits & seen) != 0;

    /// <summary>The version of the operation in progress. Only stable for whoever holds Busy.</summary>
    internal short Version(Direction d) => (short)(Bits >> VersionShift(d));

    /// <summary>Takes the direction for an operation.</summary>
    /// <param name="d">The direction.</param>
    /// <param name="force">Try even if drained.</param>
    /// <param name="defer">Do not try, even if ready (the turn's budget is used up): Ready stays, <see cref="Arm"/> ignores it.</param>
    /// <param name="keep">A result that nobody has awaited stays: Busy.</param>
    internal BeginResult Begin(Direction d, bool force = false, bool defer = false, bool keep = false)
    {
        while (true)
        {
            var bits = Bits;
            if ((bits & Ended) != 0) return BeginResult.Ended;
            var flags = bits >> Shift(d);
            var next = bits;
            if ((flags & Busy) != 0)
            {
                if (keep || (flags & (Done | Awaited)) != Done) return BeginResult.Busy;
                next = NextVersion(next, d) & ~(Done << Shift(d)); // completed, never awaited: its ValueTask is stale now
            }
            var attempt = !defer && (force || (flags & Ready) != 0);
            next |= Busy << Shift(d);
            if (attempt) next = next & ~(Ready << Shift(d)) | Inside << Shift(d);
            if (Exchange(next, bits)) return attempt ? BeginResult.Attempt : BeginResult.Wait;
        }
    }

    /// <summary>Gives the direction back after an operation that completed at once. True: the caller closes the descriptor.</summary>
    internal bool End(Direction d, bool ready)
    {
        while (true)
        {
            var bits = Bits;
            Debug.Assert((bits & (Armed | Done) << Shift(d)) == 0 && (bits & Busy << Shift(d)) != 0);
            var next = bits & ~((Busy | Inside) << Shift(d));
            if (ready) next |= Ready << Shift(d);
            if (Exchange(next, bits)) return MustClose(bits, next);
        }
    }

    /// <summary>Hands the operation to the loop, unless an edge has come since the last try.</summary>
    internal ArmResult Arm(Direction d, bool evenIfReady = false)
    {
        while (true)
        {
            var bits = Bits;
            Debug.Assert((bits & (Armed | Done) << Shift(d)) == 0 && (bits & Busy << Shift(d)) != 0);
            if ((bits & Ended) != 0) return ArmResult.Ended;
            var again = !evenIfReady && (bits & Ready << Shift(d)) != 0;
            var next = again
                ? bits & ~(Ready << Shift(d)) | Inside << Shift(d)
                : bits & ~(Inside << Shift(d)) | Armed << Shift(d);
            if (Exchange(next, bits)) return again ? ArmResult.Attempt : ArmResult.Armed;
        }
    }

    /// <summary>
    /// Loop only: an event. Makes the directions ready and takes at most one armed operation, the reader's first; with both
    /// armed the writer's follows by <see cref="Take"/>. True: <paramref name="taken"/> is Inside now, try.
    /// </summary>
    internal bool Edge(bool read, bool write, long seen, out Direction taken)
    {
        while (true)
        {
            var bits = Bits;
            var next = bits | seen;
            taken = read && (bits & Armed) != 0 ? Direction.Read : Direction.Write;
            var take = (bits & Ended) == 0 && (taken == Direction.Read ? read : write) && (bits & Armed << Shift(taken)) != 0;
            if (read) next |= Ready;
            if (write) next |= Ready << 8;
            if (take) next = next & ~((Armed | Ready) << Shift(taken)) | Inside << Shift(taken);
            if (next == bits) return false;
            if (Exchange(next, bits)) return take;
        }
    }

    /// <summary>Loop only: takes an armed operation whose direction is ready. True: Inside now, try.</summary>
    internal bool Take(Direction d)
    {
        while (true)
        {
            var bits = Bits;
            if ((bits & Ended) != 0 || (bits >> Shift(d) & (Armed | Ready)) != (Armed | Ready)) return false;
            if (Exchange(bits & ~((Armed | Ready) << Shift(d)) | Inside << Shift(d), bits)) return true;
        }
    }

    /// <summary>Loop only: takes an armed operation in order to complete it without a try. False: not armed (any more).</summary>
    internal bool Withdraw(Direction d)
    {
        while (true)
        {
            var bits = Bits;
            if ((bits & Armed << Shift(d)) == 0) return false;
            if (Exchange(bits & ~(Armed << Shift(d)), bits)) return true;
        }
    }

    /// <summary>Publishes the stored result (all writes before are visible to whoever fetches).</summary>
    internal Completion Complete(Direction d, bool ready)
    {
        while (true)
        {
            var bits = Bits;
            Debug.Assert((bits & (Armed | Done) << Shift(d)) == 0 && (bits & Busy << Shift(d)) != 0);
            var next = bits & ~(Inside << Shift(d)) | Done << Shift(d);
            if (ready) next |= Ready << Shift(d);
            if (Exchange(next, bits)) return new((bits & Awaited << Shift(d)) != 0, MustClose(bits, next));
        }
    }

    /// <summary>Whether the operation of this version is done; null: the version is stale.</summary>
    internal bool? IsDone(Direction d, short version)
    {
        var bits = Bits;
        if ((bits & Busy << Shift(d)) == 0 || (short)(bits >> VersionShift(d)) != version) return null;
        return (bits & Done << Shift(d)) != 0;
    }

    /// <summary>Whether a continuation may be stored: the version is right and nobody awaits yet.</summary>
    internal bool CanAwait(Direction d, short version)
    {
        var bits = Bits;
        return (bits >> Shift(d) & (Busy | Awaited)) == Busy && (short)(bits >> VersionShift(d)) == version;
    }

    /// <summary>Publishes the stored continuation.</summary>
    internal AwaitResult Await(Direction d, short version)
    {
        while (true)
        {
            var bits = Bits;
            if ((bits >> Shift(d) & (Busy | Awaited)) != Busy || (short)(bits >> VersionShift(d)) != version) return AwaitResult.Invalid;
            if (Exchange(bits | Awaited << Shift(d), bits))
                return (bits & Done << Shift(d)) != 0 ? AwaitResult.AlreadyDone : AwaitResult.Stored;
        }
    }

    /// <summary>
    /// Ends the operation whose result the caller has copied. False: the version is stale or the result is not there, and
    /// the copy is worthless.
    /// </summary>
    internal bool Fetch(Direction d, short version)
    {
        while (true)
        {
            var bits = Bits;
            if ((bits >> Shift(d) & (Busy | Done)) != (Busy | Done) || (short)(bits >> VersionShift(d)) != version) return false;
            if (Exchange(NextVersion(bits & ~((Busy | Done | Awaited) << Shift(d)), d), bits)) return true;
        }
    }

    /// <summary>Ends everything. False: closed before. <paramref name="mustClose"/>: the caller closes the descriptor.</summary>
    internal bool Close(out bool mustClose)
    {
        while (true)
        {
            var bits = Bits;
            mustClose = false;
            if ((bits & Closed) != 0) return false;
            if (!Exchange(bits | Closed, bits)) continue;
            mustClose = (bits & AnyInside) == 0;
            return true;
        }
    }

    /// <summary>Refuses new operations because the loop ends; the descriptor stays open.</summary>
    internal void Stop()
    {
        while (true)
        {
            var bits = Bits;
            if (Exchange(bits | Stopped, bits)) return;
        }
    }

    private static int Shift(Direction d) => (int)d << 3;

    private static int VersionShift(Direction d) => 32 + ((int)d << 4);

    private static long NextVersion(long bits, Direction d)
    {
        var shift = VersionShift(d);
        return bits & ~(0xFFFFL << shift) | ((bits >> shift) + 1 & 0xFFFF) << shift;
    }

    private static bool MustClose(long before, long after) =>
        (after & Closed) != 0 && (after & AnyInside) == 0 && (before & AnyInside) != 0;

    private bool Exchange(long next, long expected) => Interlocked.CompareExchange(ref _bits, next, expected) == expected;
}
