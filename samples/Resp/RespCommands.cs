using System.Buffers.Text;
using System.Text;

namespace Amy.Async.Samples;

/// <summary>What the server understands. False from a command: the conversation is over.</summary>
public static class RespCommands
{
    public static bool Execute(RespStore store, RespReader command, RespWriter reply)
    {
        var name = command[0];
        var count = command.Count;
        switch (name.Length)
        {
            case 3 when Is(name, "GET"u8):
                if (!Arguments(count == 2, name, reply)) break;
                if (store.TryGet(command[1], out var value)) reply.Bulk(value);
                else reply.Null();
                break;
            case 3 when Is(name, "SET"u8):
                if (!Arguments(count >= 3, name, reply)) break;
                if (count > 3)
                {
                    reply.Error("ERR syntax error");
                    break;
                }
                store.Set(command[1], command[2]);
                reply.Raw("+OK\r\n"u8);
                break;
            case 3 when Is(name, "DEL"u8):
                if (!Arguments(count >= 2, name, reply)) break;
                var removed = 0;
                for (var i = 1; i < count; i++)
                    if (store.Remove(command[i])) removed++;
                reply.Number(removed);
                break;
            case 4 when Is(name, "INCR"u8):
                if (Arguments(count == 2, name, reply)) Increment(store, command[1], reply);
                break;
            case 4 when Is(name, "PING"u8):
                if (!Arguments(count <= 2, name, reply)) break;
                if (count == 1) reply.Raw("+PONG\r\n"u8);
                else reply.Bulk(command[1]);
                break;
            case 4 when Is(name, "ECHO"u8):
                if (Arguments(count == 2, name, reply)) reply.Bulk(command[1]);
                break;
            case 4 when Is(name, "QUIT"u8):
                reply.Raw("+OK\r\n"u8);
                return false;
            default:
                return ExecuteRare(store, command, reply);
        }
        return true;
    }

    // What redis-cli and redis-benchmark ask for when they start, and some more.
    private static bool ExecuteRare(RespStore store, RespReader command, RespWriter reply)
    {
        var name = command[0];
        if (Is(name, "DBSIZE"u8)) reply.Number(store.Count);
        else if (Is(name, "FLUSHALL"u8) || Is(name, "FLUSHDB"u8))
        {
            store.Clear();
            reply.Raw("+OK\r\n"u8);
        }
        else if (Is(name, "EXISTS"u8))
        {
            var found = 0;
            for (var i = 1; i < command.Count; i++)
                if (store.TryGet(command[i], out _)) found++;
            reply.Number(found);
        }
        else if (Is(name, "COMMAND"u8)) reply.Array(0);
        else if (Is(name, "CONFIG"u8) && command.Count == 3 && Is(command[1], "GET"u8))
        {
            reply.Array(2);
            reply.Bulk(command[2]);
            reply.Bulk(default);
        }
        else if (Is(name, "SELECT"u8)) reply.Raw(command.Count == 2 && command[1].SequenceEqual("0"u8) ? "+OK\r\n"u8 : "-ERR DB index is out of range\r\n"u8);
        else if (Is(name, "CLIENT"u8)) reply.Raw("+OK\r\n"u8);
        else reply.Error($"ERR unknown command '{Encoding.UTF8.GetString(name[..Math.Min(name.Length, 128)])}'");
        return true;
    }

    private static void Increment(RespStore store, ReadOnlySpan<byte> key, RespWriter reply)
    {
        var number = 0L;
        Span<byte> text = stackalloc byte[20];
        // A number is what stands there as it would be written: neither 007 nor +5.
        if (store.TryGet(key, out var value)
            && !(Utf8Parser.TryParse(value, out number, out _) && Utf8Formatter.TryFormat(number, text, out var digits) && text[..digits].SequenceEqual(value)))
        {
            reply.Error("ERR value is not an integer or out of range");
            return;
        }
        if (number == long.MaxValue)
        {
            reply.Error("ERR increment or decrement would overflow");
            return;
        }
        Utf8Formatter.TryFormat(++number, text, out var length);
        store.Set(key, text[..length]);
        reply.Number(number);
    }

    private static bool Is(ReadOnlySpan<byte> name, ReadOnlySpan<byte> command) => Ascii.EqualsIgnoreCase(name, command);

    private static bool Arguments(bool right, ReadOnlySpan<byte> name, RespWriter reply)
    {
        if (!right) reply.Error($"ERR wrong number of arguments for '{Encoding.UTF8.GetString(name).ToLowerInvariant()}' command");
        return right;
    }
}
