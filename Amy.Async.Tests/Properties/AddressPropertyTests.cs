using System.Net;
using System.Net.Sockets;
using Amy.Async.Compat;
using Amy.Async.Native;
using FsCheck;
using FsCheck.Fluent;

namespace Amy.Async.Tests.Properties;

/// <summary>Between end points and the kernel's addresses: there and back, for any; and what is no address does no harm.</summary>
[TestFixture]
internal sealed class AddressPropertyTests
{
    private static readonly Gen<byte[]> s_any = Property.Bytes(Gen.Choose(0, SocketConstants.AddressCapacity));

    private static Gen<IPEndPoint> IP(int size) =>
        from bytes in Gen.ArrayOf(Gen.Choose(0, 255), size)
        from port in Gen.Choose(0, 65535)
        from scope in Gen.Choose(0, int.MaxValue)
        from isLocal in Gen.Elements(false, true)
        select new IPEndPoint(Of([.. bytes.Select(b => (byte)b)], isLocal, scope), port);

    // A scope belongs to an address of one link.
    private static IPAddress Of(byte[] bytes, bool isLocal, long scope)
    {
        if (bytes.Length == 4) return new IPAddress(bytes);
        if (isLocal) (bytes[0], bytes[1]) = (0xFE, 0x80);
        var address = new IPAddress(bytes);
        if (address.IsIPv6LinkLocal) address.ScopeId = scope;
        return address;
    }

    // A path of up to 107 bytes and a zero, or an abstract name of up to 107 bytes behind one.
    private static readonly Gen<UnixDomainSocketEndPoint> s_unix =
        from length in Gen.OneOf(Gen.Choose(1, 107), Gen.Elements(106, 107))
        from letters in Gen.ArrayOf(Gen.Choose(1, 126), length)
        from isAbstract in Gen.Elements(false, true)
        select new UnixDomainSocketEndPoint((isAbstract ? "\0" : "/") + new string([.. letters.Skip(1).Select(c => (char)c)]));

    private static EndPoint? ThereAndBack(EndPoint endPoint)
    {
        Span<byte> buffer = stackalloc byte[SocketConstants.AddressCapacity];
        return Address.Read(Address.Write(endPoint, buffer), Address.Prototype(endPoint.AddressFamily));
    }

    [Test]
    public void EndPoints_OfAnyFamily_ThereAndBack_AreTheSame()
    {
        Property.Holds(500, IP(4), endPoint => Assert.That(ThereAndBack(endPoint), Is.EqualTo(endPoint)));
        Property.Holds(500, IP(16), endPoint => Assert.That(ThereAndBack(endPoint), Is.EqualTo(endPoint)));
        Property.Holds(500, s_unix, endPoint =>
        {
            Assert.That(ThereAndBack(endPoint), Is.EqualTo(endPoint));
            var path = SocketInterop.UnixPath(endPoint);
            var text = endPoint.ToString()!;
            Assert.That(path, Is.EqualTo(endPoint.Serialize()[2] == 0 ? null : text), "abstract names have no file");
        });
    }

    /// <summary>Abstract names of any letters are what the kernel tells, of the listener and of who has connected.</summary>
    [Test]
    public void AbstractNames_ThroughTheKernel_AreTheSame()
    {
        using var loop = EventLoop.Start(new EventLoopOptions { SpinDuration = TimeSpan.Zero });
        var letters =
            from letter in Gen.ArrayOf(Gen.Choose(0, 0x2FF), 20)
            from length in Gen.Choose(0, 20)
            select new string([.. letter.Take(length).Select(c => (char)c)]);
        Property.Holds(60, letters, name => Run.Wait(loop.InvokeAsync(async () =>
        {
            var here = new UnixDomainSocketEndPoint("\0" + Guid.NewGuid() + name);
            var there = new UnixDomainSocketEndPoint("\0" + Guid.NewGuid() + name);
            using var listener = AsyncSocket.Listen(here);
            Assert.That(listener.LocalEndPoint, Is.EqualTo(here));
            using var client = await AsyncSocket.ConnectAsync(here, new AsyncSocketOptions { LocalEndPoint = there });
            using var server = await listener.AcceptAsync();
            Assert.That((client.RemoteEndPoint, client.LocalEndPoint, server.RemoteEndPoint), Is.EqualTo(((EndPoint?)here, (EndPoint?)there, (EndPoint?)there)));
        })));
    }

    /// <summary>Garbage is no end point, or one that is the same there and back; never an exception.</summary>
    [Test]
    public void AnyBytes_AsAnAddress_AreNoneOrOne()
    {
        foreach (var family in new[] { AddressFamily.InterNetwork, AddressFamily.InterNetworkV6, AddressFamily.Unix })
            Property.Holds(500, s_any, bytes =>
            {
                if (Address.Read(bytes, Address.Prototype(family)) is { } endPoint) Assert.That(ThereAndBack(endPoint), Is.EqualTo(endPoint));
            });
        Assert.That(Address.Read(new byte[16], null), Is.Null);
    }

    /// <summary>What is too large for the kernel, or for whoever asked, is an argument error, whichever end point makes it.</summary>
    [Test]
    public void AnySize_OfASocketAddress_FitsOrIsRefused() => Property.Holds(500, Gen.Choose(2, 400), size =>
    {
        var address = new SocketAddress(AddressFamily.InterNetworkV6, size);
        var room = new byte[SocketConstants.AddressCapacity];
        if (size > room.Length) Assert.Throws<ArgumentException>(() => SocketInterop.CopyTo(address, room));
        else SocketInterop.CopyTo(address, room);
        if (size > room.Length) Assert.Throws<ArgumentException>(() => Address.Write(new Odd(size), room));
        if (size < 28) Assert.Throws<ArgumentException>(() => SocketInterop.Assign(address, new byte[28]));
        else SocketInterop.Assign(address, new byte[28]);
    });

    private sealed class Odd(int size) : EndPoint
    {
        public override AddressFamily AddressFamily => AddressFamily.InterNetworkV6;

        public override SocketAddress Serialize() => new(AddressFamily.InterNetworkV6, size);
    }
}
