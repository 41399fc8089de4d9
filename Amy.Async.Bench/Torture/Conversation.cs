namespace Amy.Async.Bench;

/// <summary>
/// One connection of a torture, seen from both its ends: how much each has sent and received, with a sum over all of it. What
/// is sent follows from the number of the connection and the place in its stream, so that the receiver knows each byte.
/// </summary>
/// <remarks>The first eight bytes of the client's are the number, by which the server finds this.</remarks>
internal sealed class Conversation(long id, ulong seed)
{
    internal const int HeaderSize = sizeof(long);

    /// <summary>What one direction's sender (Sent, SentSum, HasEnded) and receiver (the others) have seen.</summary>
    internal sealed class Direction
    {
        internal long Sent;
        internal ulong SentSum;
        internal volatile bool HasEnded; // before the sender's shutdown
        internal long Received;
        internal ulong ReceivedSum;
        internal bool SawEnd;
    }

    private readonly Direction[] _directions = [new(), new()];

    private int _ends;

    internal long Id => id;

    internal ulong Seed => seed;

    /// <summary>
    /// The client has a receive buffer that is smaller than a segment of the loopback. Once such a window is full, Linux may go on by
    /// the timer that probes it alone, 2,000 bytes every 200 ms (seen in tcp_info), so that what is sent there must not be large.
    /// </summary>
    internal bool IsNarrow { get; init; }

    /// <summary>
    /// Somebody has broken the connection off (a reset, a dispose before the end, an injected failure): what was sent need not
    /// arrive. Set before that is done.
    /// </summary>
    internal volatile bool IsBroken;

    /// <summary>What the client (0) or the server (1) sends.</summary>
    internal Direction From(int side) => _directions[side];

    internal byte ByteAt(int side, long position)
    {
        if (side == 0 && position < HeaderSize) return (byte)(id >> (int)(position * 8));
        return (byte)((position * 0x9E3779B1 + id * 40503 + side * 77) >> 9);
    }

    internal void Fill(int side, long position, Span<byte> buffer)
    {
        for (var i = 0; i < buffer.Length; i++) buffer[i] = ByteAt(side, position + i);
    }

    internal void AddSent(int side, ReadOnlySpan<byte> bytes)
    {
        var direction = _directions[side];
        direction.SentSum = Sum(direction.SentSum, bytes);
        direction.Sent += bytes.Length;
    }

    /// <summary>False: a byte is not what was sent.</summary>
    internal bool AddReceived(int side, ReadOnlySpan<byte> bytes)
    {
        var direction = _directions[side];
        for (var i = 0; i < bytes.Length; i++)
            if (bytes[i] != ByteAt(side, direction.Received + i)) return false;
        direction.ReceivedSum = Sum(direction.ReceivedSum, bytes);
        direction.Received += bytes.Length;
        return true;
    }

    /// <summary>An end has come to its end. True: it was the second, and the books may be closed.</summary>
    internal bool Leave() => Interlocked.Increment(ref _ends) == 2;

    /// <summary>What is wrong with the books, or null. After both ends have left, or one that was alone.</summary>
    internal string? Audit(bool alone)
    {
        for (var side = 0; side < 2; side++)
        {
            var d = _directions[side];
            var name = side == 0 ? "client to server" : "server to client";
            if (d.Received > d.Sent) return $"{name}: {d.Received} bytes received, {d.Sent} sent";
            if (IsBroken) continue;
            if (alone) return "the server never heard of it, and nobody broke it off";
            if (d.Received != d.Sent) return $"{name}: {d.Sent} bytes sent, {d.Received} received";
            if (d.ReceivedSum != d.SentSum) return $"{name}: the sums of {d.Sent} bytes differ";
            if (!d.HasEnded || !d.SawEnd) return $"{name}: the end was {(d.HasEnded ? "" : "not ")}sent and {(d.SawEnd ? "" : "not ")}seen";
        }
        return null;
    }

    private static ulong Sum(ulong sum, ReadOnlySpan<byte> bytes)
    {
        foreach (var b in bytes) sum = sum * 0x100000001B3 + b + 1;
        return sum;
    }
}
