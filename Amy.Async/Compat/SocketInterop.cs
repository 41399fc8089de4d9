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

    internal static void CopyTo(SocketAddress address, Span<byte> destination)
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

    internal static string? UnixPath(EndPoint endPoint) => endPoint.AddressFamily == AddressFamily.Unix ? endPoint.ToString() : null;

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

    /// <summary>The path of a Unix-domain address; abstract ones begin with '@'.</summary>
    internal static string? UnixPath(EndPoint endPoint) => endPoint is UnixDomainSocketEndPoint ? endPoint.ToString() : null;

    internal static void CopyTo(SocketAddress address, Span<byte> destination) =>
        address.Buffer.Span[..address.Size].CopyTo(destination);
#endif

    private static ArgumentException TooSmall(int size, int needed) =>
        new($"The SocketAddress has room for {size} bytes, and the address has {needed}. Make it with new SocketAddress(family).");

    /// <summary>The address whose bytes are the kernel's <c>struct sockaddr</c>, as System.Net.Sockets keeps them too.</summary>
    internal static SocketAddress ToSocketAddress(AddressFamily family, ReadOnlySpan<byte> bytes)
    {
        var address = new SocketAddress(family, Math.Max(bytes.Length, 2));
        for (var i = 2; i < bytes.Length; i++) address[i] = bytes[i]; // the family, written by the constructor, stays
        return address;
    }
}
