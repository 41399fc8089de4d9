using System.Buffers.Text;

namespace Amy.Async.Samples;

/// <summary>
/// Takes commands out of the bytes of one connection: arrays of bulk strings, or a line of words (as typed into telnet).
/// Nothing is allocated per command; the buffer grows with what has arrived, never with what is announced.
/// </summary>
public sealed class RespReader
{
    public const int MaxArguments = 1024;
    public const int MaxRequest = 64 << 20; // bytes of one command
    private const int MaxLine = 64 << 10;
    private const int FirstSize = 16 << 10;

    private byte[] _buffer = new byte[FirstSize];
    private int _start; // of the first command not taken out
    private int _end; // of what was received
    private readonly (int Offset, int Length)[] _arguments = new (int, int)[MaxArguments];

    public int Count { get; private set; }

    /// <summary>Whether a protocol error ended the conversation.</summary>
    public bool HasFailed { get; private set; }

    /// <summary>An argument of the last command, valid until more is received.</summary>
    public ReadOnlySpan<byte> this[int index] => _buffer.AsSpan(_arguments[index].Offset, _arguments[index].Length);

    /// <summary>Room to receive into.</summary>
    public Memory<byte> GetMemory()
    {
        if (_start == _end)
        {
            _start = _end = 0;
            if (_buffer.Length > 8 * FirstSize) _buffer = new byte[FirstSize]; // a large command is over
        }
        else if (_end == _buffer.Length)
        {
            var to = _start > _buffer.Length / 2 ? _buffer : new byte[_buffer.Length * 2];
            _buffer.AsSpan(_start, _end - _start).CopyTo(to);
            _buffer = to;
            _end -= _start;
            _start = 0;
        }
        return _buffer.AsMemory(_end);
    }

    public void Advance(int count) => _end += count;

    /// <summary>Takes out a command. False: there is no whole one, or an error, which is written to the reply.</summary>
    public bool TryRead(RespWriter reply)
    {
        while (!HasFailed && _start < _end)
        {
            var position = _start;
            Count = 0;
            var whole = _buffer[position] == (byte)'*' ? ReadArray(ref position, reply) : ReadInline(ref position, reply);
            if (!whole)
            {
                if (!HasFailed && _end - _start > MaxRequest) Fail(reply, "too big request");
                return false;
            }
            _start = position;
            if (Count > 0) return true; // an empty array or line asks for nothing
        }
        return false;
    }

    private bool ReadArray(ref int position, RespWriter reply)
    {
        position++;
        if (!ReadNumber(ref position, reply, "invalid multibulk length", out var count)) return false;
        if (count > MaxArguments) return Fail(reply, "invalid multibulk length");
        for (var i = 0; i < count; i++)
        {
            if (position == _end) return false;
            if (_buffer[position] != (byte)'$') return Fail(reply, $"expected '$', got '{(char)_buffer[position]}'");
            position++;
            if (!ReadNumber(ref position, reply, "invalid bulk length", out var length)) return false;
            if (length is < 0 or > MaxRequest) return Fail(reply, "invalid bulk length");
            if (_end - position < length + 2) return false;
            _arguments[i] = (position, (int)length);
            position += (int)length;
            if (_buffer[position] != (byte)'\r' || _buffer[position + 1] != (byte)'\n') return Fail(reply, "invalid bulk length");
            position += 2;
        }
        Count = (int)Math.Max(count, 0);
        return true;
    }

    // A number up to CR LF.
    private bool ReadNumber(ref int position, RespWriter reply, string error, out long number)
    {
        number = 0;
        var line = _buffer.AsSpan(position, _end - position);
        var end = line.IndexOf((byte)'\n');
        if (end < 0) return line.Length > 32 && Fail(reply, error);
        if (end < 2 || line[end - 1] != (byte)'\r' || !Utf8Parser.TryParse(line[..(end - 1)], out number, out var used) || used != end - 1) return Fail(reply, error);
        position += end + 1;
        return true;
    }

    private bool ReadInline(ref int position, RespWriter reply)
    {
        var line = _buffer.AsSpan(position, _end - position);
        var end = line.IndexOf((byte)'\n');
        if (end < 0) return line.Length > MaxLine && Fail(reply, "too big inline request");
        for (var i = 0; i <= end;)
        {
            while (i <= end && line[i] is (byte)' ' or (byte)'\r' or (byte)'\n' or (byte)'\t') i++;
            var word = i;
            while (i <= end && line[i] is not ((byte)' ' or (byte)'\r' or (byte)'\n' or (byte)'\t')) i++;
            if (i == word) break;
            if (Count == MaxArguments) return Fail(reply, "too big inline request");
            _arguments[Count++] = (position + word, i - word);
        }
        position += end + 1;
        return true;
    }

    private bool Fail(RespWriter reply, string what)
    {
        HasFailed = true;
        reply.Error($"ERR Protocol error: {what}");
        return false;
    }
}
