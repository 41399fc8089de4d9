namespace Amy.Async.Bench;

/// <summary>
/// The message of a trip: a window into random bytes that moves on by one each time. No byte of the table equals its
/// neighbour, so every byte of a message differs from the trip before: a stale, lost or shifted byte is noticed.
/// </summary>
internal sealed class Message
{
    private const int Windows = 4096;

    // Whoever reads has room for more than a message, as programs do: a read that fills its buffer says nothing of what is left.
    private const int Spare = 64;

    internal readonly int Size;
    internal readonly byte[] Table;
    internal readonly byte[] Back;

    internal Message(int size)
    {
        Size = size;
        Back = new byte[size + Spare];
        Table = new byte[Windows + size];
        var random = new Random(size);
        random.NextBytes(Table);
        for (var i = 1; i < Windows; i++)
            while (Table[i] == Table[i - 1] || (i == Windows - 1 && Table[i] == Table[0]))
                Table[i] = (byte)random.Next(256);
        for (var i = Windows; i < Table.Length; i++) Table[i] = Table[i - Windows]; // so that the last window differs from the first
    }

    internal int Offset { get; private set; }

    internal Memory<byte> Sent => Table.AsMemory(Offset, Size);

    internal void Change() => Offset = (Offset + 1) % Windows;

    internal void Verify()
    {
        if (!Sent.Span.SequenceEqual(Back.AsSpan(0, Size))) throw new InvalidDataException("The echo differs from what was sent.");
    }
}
