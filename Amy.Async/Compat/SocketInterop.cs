using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
#if NETSTANDARD2_0
using System.Reflection;
#endif

namespace Amy.Async.Compat;

/// <summary>What System.Net.Sockets shows of its descriptors on this target.</summary>
/// <remarks>
/// netstandard2.0 has no <c>Socket.SafeHandle</c>, no <c>SafeSocketHandle</c> and no <c>SocketAddress.Buffer</c>. The first
/// two are found by reflection where the runtime has them (.NET 5 and later); elsewhere these members throw
/// <see cref="PlatformNotSupportedException"/>.
/// </remarks>
internal static class SocketInterop
{
    private const int UnixPathOffset = 2; // sun_path

#if NETSTANDARD2_0
    private static readonly Func<Socket, SafeHandle>? s_handleOf = FindHandle();

    internal static SafeHandle HandleOf(Socket socket) =>
        (s_handleOf ?? throw new PlatformNotSupportedException("This runtime does not show the handle of a Socket."))(socket);

    internal static Socket FromDescriptor(int descriptor)
    {
        var assembly = typeof(Socket).Assembly;
        var handleType = assembly.GetType("System.Net.Sockets.SafeSocketHandle");
        var constructor = handleType is null ? null : typeof(Socket).GetConstructor([handleType]);
        if (handleType is null || constructor is null) throw new PlatformNotSupportedException("This runtime cannot make a Socket of a descriptor.");
        var handle = Activator.CreateInstance(handleType, (IntPtr)descriptor, true);
        return (Socket)constructor.Invoke([handle]);
    }

    private static void CopyBytes(SocketAddress address, Span<byte> destination)
    {
        for (var i = 0; i < address.Size; i++) destination[i] = address[i];
    }

    // The size of an address cannot be changed here: what is there beyond the kernel's length is cleared.
    internal static void Assign(SocketAddress address, ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length > address.Size) throw TooSmall(address.Size, bytes.Length);
        for (var i = 0; i < address.Size; i++) address[i] = i < bytes.Length ? bytes[i] : (byte)0;
    }

    internal static Task<IPAddress[]> ResolveAsync(string host, AddressFamily family, CancellationToken token)
    {
        token.ThrowIfCancellationRequested(); // no more than that here
        return Filtered(Dns.GetHostAddressesAsync(host), family);
    }

    private static async Task<IPAddress[]> Filtered(Task<IPAddress[]> all, AddressFamily family) =>
        Array.FindAll(await all.ConfigureAwait(false), address => address.AddressFamily == family);

    // UnixDomainSocketEndPoint came with .NET Core 2.1 and is not in netstandard2.0.
    internal static EndPoint? UnixPrototype()
    {
        var type = typeof(Socket).Assembly.GetType("System.Net.Sockets.UnixDomainSocketEndPoint");
        return type is null ? null : (EndPoint?)Activator.CreateInstance(type, "prototype");
    }

    private static Func<Socket, SafeHandle>? FindHandle()
    {
        var getter = typeof(Socket).GetProperty("SafeHandle", BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic)?.GetGetMethod(true);
        return (Func<Socket, SafeHandle>?)getter?.CreateDelegate(typeof(Func<Socket, SafeHandle>));
    }
#else
    internal static SafeHandle HandleOf(Socket socket) => socket.SafeHandle;

    /// <summary>A socket that owns the descriptor; only if this throws, the caller still does.</summary>
    internal static Socket FromDescriptor(int descriptor)
    {
        var handle = new SafeSocketHandle(descriptor, ownsHandle: true);
        try
        {
            return new Socket(handle);
        }
        catch
        {
            handle.SetHandleAsInvalid();
            throw;
        }
    }

    internal static void Assign(SocketAddress address, ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length > address.Buffer.Length) throw TooSmall(address.Buffer.Length, bytes.Length);
        bytes.CopyTo(address.Buffer.Span);
        address.Size = bytes.Length;
    }

    internal static Task<IPAddress[]> ResolveAsync(string host, AddressFamily family, CancellationToken token) =>
        Dns.GetHostAddressesAsync(host, family, token);

    internal static EndPoint? UnixPrototype() => new UnixDomainSocketEndPoint("prototype");

    private static void CopyBytes(SocketAddress address, Span<byte> destination) =>
        address.Buffer.Span[..address.Size].CopyTo(destination);
#endif

    private static ArgumentException TooSmall(int size, int needed) =>
        new($"The SocketAddress has room for {size} bytes, and the address has {needed}. Make it with new SocketAddress(family).");

    /// <summary>The file of a Unix-domain address, or null. An abstract name has none, and begins with a zero that is shown as '@',
    /// with which a file's name may begin as well.</summary>
    internal static string? UnixPath(EndPoint endPoint)
    {
        if (endPoint.AddressFamily != AddressFamily.Unix) return null;
        var address = endPoint.Serialize();
        return address.Size > UnixPathOffset && address[UnixPathOffset] != 0 ? endPoint.ToString() : null;
    }

    /// <summary>The bytes of an address, as the kernel wants them.</summary>
    /// <exception cref="ArgumentException">There are more than any address has.</exception>
    internal static void CopyTo(SocketAddress address, Span<byte> destination)
    {
        if (address.Size > destination.Length) throw new ArgumentException($"A SocketAddress of {address.Size} bytes is no address: the largest has {destination.Length}.");
        CopyBytes(address, destination);
    }

    /// <summary>The end point of the kernel's <c>struct sockaddr</c>, made by one of its family; null: it is not an address of that.</summary>
    internal static EndPoint? ToEndPoint(EndPoint kind, ReadOnlySpan<byte> bytes)
    {
        try
        {
            return kind.Create(ToSocketAddress(kind.AddressFamily, bytes));
        }
        catch (ArgumentException)
        {
            return null;
        }
    }

    private static SocketAddress ToSocketAddress(AddressFamily family, ReadOnlySpan<byte> bytes)
    {
        var address = new SocketAddress(family, Math.Max(bytes.Length, 2));
        for (var i = 2; i < bytes.Length; i++) address[i] = bytes[i]; // the family, written by the constructor, stays
        return address;
    }
}
