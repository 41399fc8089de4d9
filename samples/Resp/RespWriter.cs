using System.Buffers.Text;
using System.Text;

namespace Amy.Async.Samples;

/// <summary>The replies of one connection that are not sent yet, in one buffer.</summary>
public sealed class RespWriter
{
    private const int FirstSize = 16 << 10;
    private const int Large = 64 << 10;

    private byte[] _buffer = new byte[FirstSize];
    private int _length;

    public ReadOnlyMemory<byte> Written => _buffer.AsMemory(0, _length);

    /// <summary>Enough to be sent before the next command is looked at.</summary>
    public bool IsLarge => _length >= Large;

    public void Clear()
    {
        _length = 0;
        if (_buffer.Length > 2 * Large) _buffer = new byte[FirstSize];
    }

    /// <summary>A reply as it stands on the wire.</summary>
    public void Raw(ReadOnlySpan<byte> reply)
    {
        reply.CopyTo(Room(reply.Length));
        _length += reply.Length;
    }

    public void Error(string message) => Raw(Encoding.UTF8.GetBytes($"-{message.ReplaceLineEndings(" ")}\r\n"));

    public void Number(long value) => Header((byte)':', value);

    public void Array(int count) => Header((byte)'*', count);

    public void Null() => Raw("$-1\r\n"u8);

    public void Bulk(ReadOnlySpan<byte> value)
    {
        Header((byte)'$', value.Length);
        var room = Room(value.Length + 2);
        value.CopyTo(room);
        "\r\n"u8.CopyTo(room[value.Length..]);
        _length += value.Length + 2;
    }

    private void Header(byte type, long value)
    {
        var room = Room(24);
        room[0] = type;
        Utf8Formatter.TryFormat(value, room[1..], out var digits);
        "\r\n"u8.CopyTo(room[(digits + 1)..]);
        _length += digits + 3;
    }

    private Span<byte> Room(int size)
    {
        if (_buffer.Length - _length < size) System.Array.Resize(ref _buffer, Math.Max(_buffer.Length * 2, _length + size));
        return _buffer.AsSpan(_length);
    }
}
