using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async.Native;

namespace Amy.Async.Tests.Native;

/// <summary>The translations for macOS and FreeBSD, which are pure functions of bytes and numbers, and the emulations, which run
/// on Linux too.</summary>
[TestFixture]
internal sealed class PortableTests
{
    private static readonly PlatformNumbers[] s_all = [PlatformNumbers.MacOS, PlatformNumbers.FreeBsd, PortableLinux.Numbers];

    private static readonly PortableSystemCalls s_calls = PortableLinux.Calls;

    // ---- options, flags, addresses

    [TestCase(SocketConstants.SO_REUSEADDR, 4, 4)]
    [TestCase(SocketConstants.SO_KEEPALIVE, 8, 8)]
    [TestCase(SocketConstants.SO_BROADCAST, 0x20, 0x20)]
    [TestCase(SocketConstants.SO_REUSEPORT, 0x200, 0x10000)]
    [TestCase(SocketConstants.SO_SNDBUF, 0x1001, 0x1001)]
    [TestCase(SocketConstants.SO_RCVBUF, 0x1002, 0x1002)]
    [TestCase(SocketConstants.SO_ERROR, 0x1007, 0x1007)]
    [TestCase(SocketConstants.SO_TYPE, 0x1008, 0x1008)]
    [TestCase(SocketConstants.SO_DOMAIN, PlatformNumbers.None, 0x1019)]
    [TestCase(SocketConstants.SO_PROTOCOL, PlatformNumbers.None, 0x1016)]
    [TestCase(SocketConstants.SO_TIMESTAMPNS, 0x400, 0x400)]
    [TestCase(SocketConstants.SO_RXQ_OVFL, PlatformNumbers.None, PlatformNumbers.None)]
    [TestCase(4711, PlatformNumbers.None, PlatformNumbers.None)]
    public void SocketOption_IsTranslated(int name, int macOS, int freeBsd)
    {
        foreach (var (numbers, expected) in new[] { (PlatformNumbers.MacOS, macOS), (PlatformNumbers.FreeBsd, freeBsd) })
        {
            var (level, translated) = (SocketConstants.SOL_SOCKET, name);
            Assert.That(numbers.TryTranslateOption(ref level, ref translated), Is.EqualTo(expected != PlatformNumbers.None));
            Assert.That(translated, Is.EqualTo(expected));
            Assert.That(level, Is.EqualTo(0xffff));
        }
    }

    [TestCase(SocketConstants.IPPROTO_IPV6, SocketConstants.IPV6_V6ONLY, 27, 27)]
    [TestCase(SocketConstants.IPPROTO_IPV6, SocketConstants.IPV6_RECVPKTINFO, 61, 36)]
    [TestCase(SocketConstants.IPPROTO_IP, SocketConstants.IP_PKTINFO, 26, PlatformNumbers.None)]
    [TestCase(SocketConstants.IPPROTO_TCP, SocketConstants.TCP_NODELAY, 1, 1)]
    public void ProtocolOption_IsTranslated(int protocol, int name, int macOS, int freeBsd)
    {
        foreach (var (numbers, expected) in new[] { (PlatformNumbers.MacOS, macOS), (PlatformNumbers.FreeBsd, freeBsd) })
        {
            var (level, translated) = (protocol, name);
            Assert.That(numbers.TryTranslateOption(ref level, ref translated), Is.EqualTo(expected != PlatformNumbers.None));
            Assert.That((level, translated), Is.EqualTo((protocol, expected)));
        }
    }

    [Test]
    public void MessageFlags_ComeBackAsLinuxs()
    {
        foreach (var numbers in s_all)
        {
            Assert.That(numbers.ToMessageFlags(0), Is.Zero);
            Assert.That(numbers.ToMessageFlags(numbers.MSG_TRUNC), Is.EqualTo(SocketConstants.MSG_TRUNC));
            Assert.That(numbers.ToMessageFlags(numbers.MSG_CTRUNC), Is.EqualTo(SocketConstants.MSG_CTRUNC));
            Assert.That(numbers.ToMessageFlags(numbers.MSG_TRUNC | numbers.MSG_CTRUNC | 1), Is.EqualTo(SocketConstants.MSG_TRUNC | SocketConstants.MSG_CTRUNC | SocketConstants.MSG_OOB));
        }
        Assert.That(PlatformNumbers.MacOS.ToMessageFlags(8), Is.Zero, "MSG_EOR there is Linux's MSG_CTRUNC");
    }

    [Test]
    public void FileFlags_ChangeOnlyWhereTheyAreKnown()
    {
        var mac = PlatformNumbers.MacOS;
        Assert.That(mac.ToFileFlags(2 | 4 | 8 | 0x40), Is.EqualTo(2 | FileConstants.O_NONBLOCK | FileConstants.O_APPEND));
        Assert.That(mac.FromFileFlags(2 | 0x40, FileConstants.O_NONBLOCK | 2), Is.EqualTo(2 | 0x40 | 4));
        Assert.That(mac.FromFileFlags(2 | 0x40 | 4 | 8, 2), Is.EqualTo(2 | 0x40));
    }

    [Test]
    public void Family_IsReadInTheSystemsLayout()
    {
        Assert.That(PlatformNumbers.MacOS.GetDomain([28, 30, 0, 80]), Is.EqualTo(SocketConstants.AF_INET6));
        Assert.That(PlatformNumbers.FreeBsd.GetDomain([28, 28, 0, 80]), Is.EqualTo(SocketConstants.AF_INET6));
        Assert.That(PlatformNumbers.MacOS.GetDomain([16, 2, 0, 80]), Is.EqualTo(SocketConstants.AF_INET));
        Assert.That(PlatformNumbers.FreeBsd.GetDomain([106, 1]), Is.EqualTo(SocketConstants.AF_UNIX));
        Assert.That(PlatformNumbers.MacOS.GetDomain([16]), Is.Zero);
        Assert.That(PortableLinux.Numbers.GetDomain([10, 0, 0, 80]), Is.EqualTo(SocketConstants.AF_INET6));
    }

    // ---- control messages

    /// <summary>A message in a system's layout, written here by hand and by nothing of the library's.</summary>
    private static byte[] Native(PlatformNumbers numbers, int level, int type, byte[] data)
    {
        var size = numbers.ControlDataOffset + data.Length;
        var bytes = new byte[PlatformNumbers.Align(size, numbers.ControlAlignment)];
        BitConverter.GetBytes(size).CopyTo(bytes, 0);
        BitConverter.GetBytes(level).CopyTo(bytes, numbers.ControlLengthSize);
        BitConverter.GetBytes(type).CopyTo(bytes, numbers.ControlLengthSize + 4);
        data.CopyTo(bytes, numbers.ControlDataOffset);
        return bytes;
    }

    private static byte[] Linux(PlatformNumbers numbers, byte[] native, int room, out bool truncated)
    {
        var control = new byte[room];
        var writer = new ControlWriter(control);
        foreach (var message in new NativeControlMessages(native, numbers))
        {
            if (message.Level == numbers.SOL_SOCKET && message.Type == SocketConstants.SCM_RIGHTS) writer.WriteDescriptors(message.Data);
            else ControlTranslation.Write(message, native, numbers, ref writer);
        }
        truncated = writer.IsTruncated;
        return control[..writer.Length];
    }

    private static ReceivedMessage Message(byte[] control) => new(1, 0, control, []);

    [Test]
    public void Descriptors_TravelBothWays([Range(0, 2)] int system, [Values(1, 2, 3, 253)] int count)
    {
        var numbers = s_all[system];
        var data = MemoryMarshal.AsBytes<int>(Enumerable.Range(100, count).ToArray()).ToArray();
        var linux = new byte[ControlMessage.GetSpace(data.Length)];
        ControlMessage.Write(linux, SocketConstants.SOL_SOCKET, SocketConstants.SCM_RIGHTS, data.Length, out var payload);
        data.CopyTo(payload);

        var native = new byte[2000];
        var length = ControlTranslation.ToNative(linux, native, numbers);
        Assert.That(native[..length], Is.EqualTo(Native(numbers, numbers.SOL_SOCKET, 1, data)));
        Assert.That(Linux(numbers, native[..length], linux.Length, out var truncated), Is.EqualTo(linux));
        Assert.That(truncated, Is.False);
    }

    [Test]
    public void Descriptors_WithoutRoom_AreCutShort([Range(0, 2)] int system)
    {
        var numbers = s_all[system];
        var native = Native(numbers, numbers.SOL_SOCKET, 1, MemoryMarshal.AsBytes<int>([1, 2, 3]).ToArray());
        var linux = Linux(numbers, native, 16 + 8, out var truncated);
        Assert.That(truncated, Is.True);
        var messages = new ControlMessages(linux);
        Assert.That(messages.MoveNext(), Is.True);
        Assert.That(MemoryMarshal.Cast<byte, int>(messages.Current.Data).ToArray(), Is.EqualTo(new[] { 1, 2 }));
        Assert.That(Linux(numbers, native, 15, out truncated), Is.Empty);
        Assert.That(truncated, Is.True);
    }

    [Test]
    public void ToNative_WithoutRoomOrMalformed_IsRefused()
    {
        var linux = new byte[ControlMessage.GetSpace(8)];
        ControlMessage.Write(linux, 1, 1, 8, out _);
        Assert.That(ControlTranslation.ToNative(linux, new byte[10], PlatformNumbers.MacOS), Is.EqualTo(-Errno.EINVAL));
        linux[0] = 200;
        Assert.That(ControlTranslation.ToNative(linux, new byte[1000], PlatformNumbers.MacOS), Is.EqualTo(-Errno.EINVAL));
        linux[0] = 3;
        Assert.That(ControlTranslation.ToNative(linux, new byte[1000], PlatformNumbers.MacOS), Is.EqualTo(-Errno.EINVAL));
        Assert.That(ControlTranslation.ToNative([], new byte[1000], PlatformNumbers.MacOS), Is.Zero);
    }

    [Test]
    public void NativeMessages_OfAWrongLength_EndTheWalk([Range(0, 2)] int system)
    {
        var numbers = s_all[system];
        var good = Native(numbers, 5, 6, [1, 2, 3]);
        foreach (var length in new[] { 0, numbers.ControlDataOffset - 1, 1000, -1 })
        {
            var bad = Native(numbers, 5, 6, [1]);
            BitConverter.GetBytes(length).CopyTo(bad, 0);
            var count = 0;
            foreach (var message in new NativeControlMessages((byte[])[.. good, .. bad], numbers))
            {
                count++;
                Assert.That(message.Data.ToArray(), Is.EqualTo(new byte[] { 1, 2, 3 }));
            }
            Assert.That(count, Is.EqualTo(1));
        }
    }

    [Test]
    public void Timestamps_OfMicrosecondsAndNanoseconds_AreToldAlike()
    {
        var time = DateTimeOffset.FromUnixTimeSeconds(1_700_000_000).AddTicks(1_234_560);
        byte[] micro = [.. BitConverter.GetBytes(1_700_000_000L), .. BitConverter.GetBytes(123_456L)];
        byte[] nano = [.. BitConverter.GetBytes(1_700_000_000L), .. BitConverter.GetBytes(123_456_000L)];
        Assert.That(Message(Linux(PlatformNumbers.MacOS, Native(PlatformNumbers.MacOS, 0xffff, 2, micro), 256, out _)).Timestamp, Is.EqualTo(time));
        Assert.That(Message(Linux(PlatformNumbers.FreeBsd, Native(PlatformNumbers.FreeBsd, 0xffff, 2, micro), 256, out _)).Timestamp, Is.EqualTo(time));
        Assert.That(Message(Linux(PlatformNumbers.FreeBsd, Native(PlatformNumbers.FreeBsd, 0xffff, 5, nano), 256, out _)).Timestamp, Is.EqualTo(time));
        Assert.That(Message(Linux(PortableLinux.Numbers, Native(PortableLinux.Numbers, 1, 29, micro), 256, out _)).Timestamp, Is.EqualTo(time));
    }

    [Test]
    public void PacketInformation_OfMacOS_IsTold()
    {
        byte[] v4 = [7, 0, 0, 0, 0, 0, 0, 0, 127, 0, 0, 1];
        Assert.That(Message(Linux(PlatformNumbers.MacOS, Native(PlatformNumbers.MacOS, 0, 26, v4), 256, out _)).PacketInformation, Is.EqualTo(new PacketInformation(System.Net.IPAddress.Loopback, 7)));
        byte[] v6 = [.. System.Net.IPAddress.IPv6Loopback.GetAddressBytes(), 9, 0, 0, 0];
        foreach (var numbers in new[] { PlatformNumbers.MacOS, PlatformNumbers.FreeBsd })
            Assert.That(Message(Linux(numbers, Native(numbers, 41, 46, v6), 256, out _)).PacketInformation, Is.EqualTo(new PacketInformation(System.Net.IPAddress.IPv6Loopback, 9)));
    }

    /// <summary>Two messages there, in either order, are one here: the destination, and the interface (struct sockaddr_dl).</summary>
    [Test]
    public void PacketInformation_OfFreeBsd_IsMadeOfTwoMessages([Values] bool interfaceFirst)
    {
        var numbers = PlatformNumbers.FreeBsd;
        var address = Native(numbers, 0, 7, [127, 0, 0, 1]);
        var link = Native(numbers, 0, 20, [54, 18, 3, 1, 24, 0, 0, 0]);
        var linux = Linux(numbers, interfaceFirst ? [.. link, .. address] : [.. address, .. link], 256, out var truncated);
        Assert.That(truncated, Is.False);
        Assert.That(linux, Has.Length.EqualTo(ControlMessage.GetSpace(12)));
        Assert.That(Message(linux).PacketInformation, Is.EqualTo(new PacketInformation(System.Net.IPAddress.Loopback, 0x103)));
    }

    [Test]
    public void UnknownMessages_KeepTheirNumbers([Range(0, 2)] int system)
    {
        var numbers = s_all[system];
        byte[] native = [.. Native(numbers, 77, 78, [1, 2, 3, 4, 5]), .. Native(numbers, numbers.SOL_SOCKET, 99, [6]), .. Native(numbers, 0, 98, [7]), .. Native(numbers, 41, 97, [8])];
        var found = new List<(int, int, int)>();
        foreach (var message in new ControlMessages(Linux(numbers, native, 256, out _))) found.Add((message.Level, message.Type, message.Data[0]));
        Assert.That(found, Is.EqualTo(new[] { (77, 78, 1), (numbers.SOL_SOCKET, 99, 6), (0, 98, 7), (41, 97, 8) }));
    }

    // ---- results

    [TestCase(0, 10, 10)]
    [TestCase(0, 0, 0)]
    [TestCase(-Errno.EAGAIN, 10, 10)]
    [TestCase(-Errno.EAGAIN, 0, -Errno.EAGAIN)]
    [TestCase(-Errno.EPIPE, 0, -Errno.EPIPE)]
    [TestCase(-Errno.EOPNOTSUPP, 0, -Errno.EINVAL)]
    public void SendFile_TellsWhatWasSent(int result, long sent, int expected) =>
        Assert.That(PortableSystemCalls.SendFileResult(result, sent), Is.EqualTo(expected));

    [Test]
    public void Send_ThatFailsWithEprototype_IsTriedAgainAndThenABrokenPipe()
    {
        var tries = 0;
        var count = 0;
        int result;
        do
        {
            result = -Errno.EPROTOTYPE;
            count++;
        }
        while (PortableSystemCalls.MustSendAgain(ref result, ref tries) && count < 1000);
        Assert.That(result, Is.EqualTo(-Errno.EPIPE));
        Assert.That(count, Is.InRange(2, 20));
        result = -Errno.EINTR;
        Assert.That(PortableSystemCalls.MustSendAgain(ref result, ref tries), Is.True);
        result = -Errno.EAGAIN;
        Assert.That(PortableSystemCalls.MustSendAgain(ref result, ref tries), Is.False);
        Assert.That(result, Is.EqualTo(-Errno.EAGAIN));
    }

    // ---- emulations, on Linux

    [Test]
    public void Socket_MadeAndThenSetUp_IsNonBlockingAndCloseOnExec()
    {
        var socket = s_calls.Socket(SocketConstants.AF_INET6, SocketConstants.SOCK_STREAM, 0);
        Assert.That(socket, Is.Positive);
        try
        {
            AssertSetUp(socket);
            Assert.That(s_calls.GetOption(socket, SocketConstants.SOL_SOCKET, SocketConstants.SO_DOMAIN, out var domain), Is.Zero);
            Assert.That(domain, Is.EqualTo(SocketConstants.AF_INET6));
            Assert.That(s_calls.GetOption(socket, SocketConstants.SOL_SOCKET, SocketConstants.SO_PROTOCOL, out var protocol), Is.Zero);
            Assert.That(protocol, Is.EqualTo(SocketConstants.IPPROTO_TCP));
        }
        finally
        {
            s_calls.Close(socket);
        }
    }

    [Test]
    public void Accepted_IsNonBlockingAndCloseOnExec()
    {
        using var listener = Pair.ListenPlain();
        using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        client.Connect(listener.LocalEndPoint!);
        var accepted = s_calls.Accept((int)listener.SafeHandle.DangerousGetHandle());
        Assert.That(accepted, Is.Positive);
        AssertSetUp(accepted);
        s_calls.Close(accepted);
    }

    private static void AssertSetUp(int descriptor)
    {
        // By other means than those under test: /proc tells the flags in octal.
        var line = File.ReadLines($"/proc/self/fdinfo/{descriptor}").First(l => l.StartsWith("flags:", StringComparison.Ordinal));
        var flags = Convert.ToInt32(line["flags:".Length..].Trim(), 8);
        Assert.That(flags & FileConstants.O_NONBLOCK, Is.Not.Zero);
        Assert.That(flags & FileConstants.O_CLOEXEC, Is.Not.Zero);
    }

    [Test]
    public void Protocol_OfWhatIsNotTcp_IsUnknown()
    {
        var socket = s_calls.Socket(SocketConstants.AF_INET, SocketConstants.SOCK_DGRAM, 0);
        Assert.That(s_calls.GetOption(socket, SocketConstants.SOL_SOCKET, SocketConstants.SO_PROTOCOL, out var protocol), Is.Zero);
        Assert.That(protocol, Is.Zero);
        s_calls.Close(socket);
    }

    [Test]
    public void Poll_WithoutRdhup_TellsTheEndOnceWhatCameBeforeIsRead()
    {
        var (client, server) = Pair.Tcp();
        using (client)
        using (server)
        {
            var descriptor = (int)server.SafeHandle.DangerousGetHandle();
            const short asked = PollEvents.IN | PollEvents.RDHUP;
            Assert.That(s_calls.Poll(descriptor, asked), Is.Zero);
            client.Send([1]);
            client.Shutdown(SocketShutdown.Send);
            Run.Until(() => s_calls.Poll(descriptor, PollEvents.IN) != 0, "It is readable.");
            Assert.That(s_calls.Poll(descriptor, asked), Is.EqualTo(PollEvents.IN));
            Assert.That(server.Receive(new byte[1]), Is.EqualTo(1));
            Run.Until(() => s_calls.Poll(descriptor, asked) == (PollEvents.IN | PollEvents.RDHUP), "The end is told.");
        }
    }

    [Test]
    public void ReceiveMessage_WithoutRoomForDescriptors_ClosesThem()
    {
        var (client, server) = Pair.Unix();
        using (client)
        using (server)
        {
            Span<byte> control = stackalloc byte[ControlMessage.GetSpace(8)];
            ControlMessage.Write(control, SocketConstants.SOL_SOCKET, SocketConstants.SCM_RIGHTS, 8, out var payload);
            var own = (int)client.SafeHandle.DangerousGetHandle();
            MemoryMarshal.Cast<byte, int>(payload)[0] = own;
            MemoryMarshal.Cast<byte, int>(payload)[1] = own;
            using var vectors = new Vector([1]);
            var before = Descriptors.Settle();
            Assert.That(s_calls.SendMessage(own, vectors.Span, default, control, 0), Is.EqualTo(1));
            Assert.That(s_calls.ReceiveMessage((int)server.SafeHandle.DangerousGetHandle(), new byte[1], out var ancillary), Is.EqualTo(1));
            Assert.That(ancillary, Is.True);
            Assert.That(Descriptors.Count(), Is.EqualTo(before), Descriptors.List());
        }
    }

    private sealed class Vector : IDisposable
    {
        private readonly PinnedVectors _vectors = new();

        internal Vector(byte[] data) => _vectors.Add(data);

        internal ReadOnlySpan<IoVector> Span => _vectors.Vectors;

        public void Dispose() => _vectors.Clear();
    }

    [Test]
    public void Flags_AreSetThroughThePaddedSignature()
    {
        var (client, server) = Pair.Tcp();
        using (client)
        using (server)
        {
            var descriptor = (int)client.SafeHandle.DangerousGetHandle();
            foreach (var flag in new[] { FileConstants.O_NONBLOCK, 0, FileConstants.O_NONBLOCK })
            {
                Assert.That(s_calls.SetFlags(descriptor, flag), Is.Zero);
                Assert.That(new SystemCalls().GetFlags(descriptor) & FileConstants.O_NONBLOCK, Is.EqualTo(flag));
                Assert.That(s_calls.GetFlags(descriptor) & FileConstants.O_NONBLOCK, Is.EqualTo(flag));
            }
        }
    }

    [Test]
    public void Pinning_WithoutSchedSetaffinity_IsRefused() =>
        Assert.That(() => EventLoop.Start(new EventLoopOptions { SystemCalls = s_calls, Processor = 0 }), Throws.InstanceOf<PlatformNotSupportedException>());

    [Test]
    public void IsOnDisk_FilesAndDirectoriesAre_SocketsAreNot()
    {
        var (x, y) = Pair.Unix();
        var path = Directory.CreateTempSubdirectory("amy-disk").FullName;
        using var file = File.Create(Path.Combine(path, "file"));
        using var folder = new Microsoft.Win32.SafeHandles.SafeFileHandle(s_calls.Open(System.Text.Encoding.UTF8.GetBytes(path + '\0'), 0), ownsHandle: true);
        using (x)
        using (y)
            foreach (var calls in new[] { new SystemCalls(), s_calls })
            {
                Assert.That(calls.IsOnDisk((int)file.SafeFileHandle.DangerousGetHandle()), Is.True);
                Assert.That(calls.IsOnDisk((int)folder.DangerousGetHandle()), Is.True);
                Assert.That(calls.IsOnDisk((int)x.SafeHandle.DangerousGetHandle()), Is.False);
                Assert.That(calls.IsOnDisk(-1), Is.False);
            }
        Directory.Delete(path, recursive: true);
    }
}
