using System.Net;
using System.Net.Sockets;
using Amy.Async.Compat;
using Amy.Async.Native;

namespace Amy.Async;

/// <summary>
/// Between <see cref="EndPoint"/> and the kernel's <c>struct sockaddr</c>. <see cref="SocketAddress"/> has that layout
/// already, so only bytes are copied.
/// </summary>
internal static class Address
{
    /// <summary>The bytes of an end point's address, in <paramref name="buffer"/>.</summary>
    internal static ReadOnlySpan<byte> Write(EndPoint endPoint, Span<byte> buffer)
    {
        var address = endPoint.Serialize();
        SocketInterop.CopyTo(address, buffer);
        return buffer.Slice(0, address.Size);
    }

    /// <summary>The end point for the kernel's address, made by <paramref name="kind"/>, an end point of the same family; null: it is none.</summary>
    internal static EndPoint? Read(ReadOnlySpan<byte> bytes, EndPoint? kind) => bytes.Length < 2 || kind is null
        ? null
        : SocketInterop.ToEndPoint(kind, bytes);

    /// <summary>An end point of a family that can make others of it, or null.</summary>
    internal static EndPoint? Prototype(AddressFamily family) => family switch
    {
        AddressFamily.InterNetwork => new IPEndPoint(IPAddress.Any, 0),
        AddressFamily.InterNetworkV6 => new IPEndPoint(IPAddress.IPv6Any, 0),
        AddressFamily.Unix => SocketInterop.UnixPrototype(),
        _ => null,
    };

    internal static int Domain(AddressFamily family) => family switch
    {
        AddressFamily.InterNetwork => SocketConstants.AF_INET,
        AddressFamily.InterNetworkV6 => SocketConstants.AF_INET6,
        AddressFamily.Unix => SocketConstants.AF_UNIX,
        _ => throw new NotSupportedException($"Address family {family} is not supported; InterNetwork, InterNetworkV6 and Unix are."),
    };

    internal static AddressFamily Family(int domain) => domain switch
    {
        SocketConstants.AF_INET => AddressFamily.InterNetwork,
        SocketConstants.AF_INET6 => AddressFamily.InterNetworkV6,
        SocketConstants.AF_UNIX => AddressFamily.Unix,
        _ => AddressFamily.Unknown,
    };
}
