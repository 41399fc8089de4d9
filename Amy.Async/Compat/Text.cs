#if NETSTANDARD2_0
using System.Runtime.InteropServices;
#endif
using System.Text;

namespace Amy.Async.Compat;

internal static class Text
{
#if NETSTANDARD2_0
    internal static string GetString(Encoding encoding, ReadOnlyMemory<byte> bytes) =>
        MemoryMarshal.TryGetArray(bytes, out var array)
            ? encoding.GetString(array.Array!, array.Offset, array.Count)
            : encoding.GetString(bytes.ToArray());
#else
    internal static string GetString(Encoding encoding, ReadOnlyMemory<byte> bytes) => encoding.GetString(bytes.Span);
#endif
}
