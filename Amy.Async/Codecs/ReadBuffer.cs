namespace Amy.Async;

/// <summary>
/// Bytes that came in and were not read yet: one array that grows with what is really there, up to a limit, never with what
/// a peer announces. What is unread moves to the front when room is needed.
/// </summary>
/// <param name="limit">The most bytes unread.</param>
/// <param name="spacious">The array may become twice as large, and what is unread moves only if at least as much is gained:
/// for a queue that is drained slowly, where it would move for each message.</param>
internal struct ReadBuffer(int limit, bool spacious = false)
{
    private const int FirstSize = 4096;

    private readonly int _limit = Math.Max(limit, FirstSize);
    private readonly int _capacity = (int)Math.Min(0x7FFFFFC7, Math.Max(limit, FirstSize) * (spacious ? 2L : 1));
    private byte[] _bytes = [];
    private int _start;
    private int _end;

    internal readonly int Length => _end - _start;

    internal readonly ReadOnlyMemory<byte> Unread => new(_bytes, _start, Length);

    internal Memory<byte> GetRoom(int sizeHint)
    {
        if (sizeHint < 0) throw new ArgumentOutOfRangeException(nameof(sizeHint), sizeHint, "A size is not negative.");
        if (_start == _end) _start = _end = 0; // here, not when the last is consumed: room may be out then, being filled
        var wanted = Math.Max(sizeHint, 1);
        if (_bytes.Length - _end < wanted) MakeRoom(wanted);
        return new Memory<byte>(_bytes, _end, _bytes.Length - _end);
    }

    internal void Advance(int count)
    {
        if (count < 0 || count > _bytes.Length - _end) throw new ArgumentOutOfRangeException(nameof(count), count, "Not that much room was given.");
        _end += count;
    }

    internal void Consume(int count) => _start += count;

    private void MakeRoom(int wanted)
    {
        var needed = (long)Length + wanted;
        if (needed > _limit)
            throw new InvalidOperationException($"There is no room for {wanted} more bytes ({Length} are unread, {_limit} is the limit). Read what is there first.");
        var target = _bytes;
        var moves = !spacious || _start >= Length || _bytes.Length == _capacity;
        if (needed > _bytes.Length || !moves) target = new byte[(int)Math.Min(_capacity, Math.Max(Math.Max(needed, FirstSize), 2L * _bytes.Length))];
        Buffer.BlockCopy(_bytes, _start, target, 0, Length);
        _end -= _start;
        _start = 0;
        _bytes = target;
    }
}
