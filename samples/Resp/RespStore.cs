using System.Diagnostics.CodeAnalysis;
using System.Runtime.InteropServices;

namespace Amy.Async.Samples;

/// <summary>Keys and values, looked up by span: a command allocates nothing but what it stores.</summary>
public sealed class RespStore
{
    private readonly Dictionary<byte[], byte[]> _values;
    private readonly Dictionary<byte[], byte[]>.AlternateLookup<ReadOnlySpan<byte>> _lookup;

    public RespStore()
    {
        _values = new Dictionary<byte[], byte[]>(new ByKey());
        _lookup = _values.GetAlternateLookup<ReadOnlySpan<byte>>();
    }

    public int Count => _values.Count;

    public bool TryGet(ReadOnlySpan<byte> key, [MaybeNullWhen(false)] out byte[] value) => _lookup.TryGetValue(key, out value);

    public void Set(ReadOnlySpan<byte> key, ReadOnlySpan<byte> value)
    {
        ref var slot = ref CollectionsMarshal.GetValueRefOrAddDefault(_lookup, key, out _);
        if (slot?.Length == value.Length) value.CopyTo(slot); // in place
        else slot = value.ToArray();
    }

    public bool Remove(ReadOnlySpan<byte> key) => _lookup.Remove(key);

    public void Clear() => _values.Clear();

    // HashCode is seeded anew in each process: keys that collide cannot be prepared.
    private sealed class ByKey : IEqualityComparer<byte[]>, IAlternateEqualityComparer<ReadOnlySpan<byte>, byte[]>
    {
        public bool Equals(byte[]? x, byte[]? y) => x.AsSpan().SequenceEqual(y);

        public int GetHashCode(byte[] key) => GetHashCode(key.AsSpan());

        public bool Equals(ReadOnlySpan<byte> span, byte[] key) => span.SequenceEqual(key);

        public int GetHashCode(ReadOnlySpan<byte> span)
        {
            var hash = new HashCode();
            hash.AddBytes(span);
            return hash.ToHashCode();
        }

        public byte[] Create(ReadOnlySpan<byte> span) => span.ToArray();
    }
}
