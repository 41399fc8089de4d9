using System.Runtime.InteropServices;

namespace Amy.Async.Native;

/// <summary>A control message as the kernel wrote it.</summary>
internal readonly ref struct NativeControlMessage(int level, int type, ReadOnlySpan<byte> data)
{
    internal readonly int Level = level;
    internal readonly int Type = type;
    internal readonly ReadOnlySpan<byte> Data = data;
}

/// <summary>The control messages of a buffer in a system's own layout, for <c>foreach</c>.</summary>
internal ref struct NativeControlMessages(ReadOnlySpan<byte> buffer, PlatformNumbers numbers)
{
    private readonly PlatformNumbers _numbers = numbers;
    private ReadOnlySpan<byte> _rest = buffer;

    public NativeControlMessage Current { get; private set; }

    public readonly NativeControlMessages GetEnumerator() => this;

    public bool MoveNext()
    {
        if (_rest.Length < _numbers.ControlLengthSize + 8) return false;
        var length = _numbers.ControlLengthSize == 4 ? MemoryMarshal.Read<uint>(_rest) : (long)MemoryMarshal.Read<ulong>(_rest);
        if (length < _numbers.ControlDataOffset || length > _rest.Length) return false;
        var level = MemoryMarshal.Read<int>(_rest.Slice(_numbers.ControlLengthSize));
        var type = MemoryMarshal.Read<int>(_rest.Slice(_numbers.ControlLengthSize + 4));
        Current = new NativeControlMessage(level, type, _rest.Slice(_numbers.ControlDataOffset, (int)length - _numbers.ControlDataOffset));
        _rest = _rest.Slice(Math.Min(PlatformNumbers.Align((int)length, _numbers.ControlAlignment), _rest.Length));
        return true;
    }
}

/// <summary>Writes control messages in Linux's layout, as long as there is room.</summary>
internal ref struct ControlWriter(Span<byte> buffer)
{
    private const int HeaderSize = 16; // struct cmsghdr of 64-bit Linux; data and messages are aligned to 8

    private readonly Span<byte> _buffer = buffer;

    internal int Length { get; private set; }

    internal bool IsTruncated { get; private set; }

    /// <summary>Where a message's data goes; empty if there is no room for the message.</summary>
    internal Span<byte> Add(int level, int type, int dataLength)
    {
        var room = _buffer.Length - Length - HeaderSize;
        if (dataLength > room)
        {
            IsTruncated = true;
            return default;
        }
        var at = _buffer.Slice(Length);
        MemoryMarshal.Cast<byte, ControlHeader>(at)[0] = new ControlHeader { Length = (nuint)(HeaderSize + dataLength), Level = level, Type = type };
        var end = Math.Min(PlatformNumbers.Align(HeaderSize + dataLength, 8), at.Length);
        at.Slice(HeaderSize + dataLength, end - HeaderSize - dataLength).Clear();
        Length += end;
        return at.Slice(HeaderSize, dataLength);
    }

    internal void Write(int level, int type, ReadOnlySpan<byte> data)
    {
        var to = Add(level, type, data.Length);
        if (!to.IsEmpty) data.CopyTo(to);
    }

    /// <summary>SCM_RIGHTS with as many descriptors as have room: the bytes of them.</summary>
    internal int WriteDescriptors(ReadOnlySpan<byte> data)
    {
        var room = _buffer.Length - Length - HeaderSize;
        var taken = Math.Min(data.Length, room) & ~(sizeof(int) - 1);
        if (taken < data.Length) IsTruncated = true;
        if (taken <= 0) return 0;
        Write(SocketConstants.SOL_SOCKET, SocketConstants.SCM_RIGHTS, data.Slice(0, taken));
        return taken;
    }
}

/// <summary>Control messages between a system's own layout and numbers and those of Linux: pure functions of bytes.</summary>
internal static class ControlTranslation
{
    /// <summary>
    /// Writes one of the kernel's messages as Linux would have. Those that Linux does not know keep their numbers.
    /// </summary>
    /// <param name="message">Not SCM_RIGHTS.</param>
    /// <param name="all">The buffer that it is of.</param>
    /// <param name="numbers">The system's.</param>
    /// <param name="writer">Where to.</param>
    internal static void Write(NativeControlMessage message, ReadOnlySpan<byte> all, PlatformNumbers numbers, ref ControlWriter writer)
    {
        if (message.Level == numbers.SOL_SOCKET)
        {
            if (message.Type == numbers.SCM_TIMESTAMP && message.Data.Length >= 12) WriteTime(message.Data, 1000, ref writer);
            else if (message.Type == numbers.SCM_REALTIME && message.Data.Length >= 16) WriteTime(message.Data, 1, ref writer);
            else if (message.Type == numbers.SO_RXQ_OVFL) writer.Write(SocketConstants.SOL_SOCKET, SocketConstants.SO_RXQ_OVFL, message.Data);
            else writer.Write(message.Level, message.Type, message.Data);
        }
        else if (message.Level == SocketConstants.IPPROTO_IP)
        {
            if (message.Type == numbers.IP_PKTINFO) writer.Write(message.Level, SocketConstants.IP_PKTINFO, message.Data);
            else if (message.Type == numbers.IP_RECVDSTADDR && message.Data.Length >= 4) WriteDestination(message.Data, all, numbers, ref writer);
            else if (message.Type != numbers.IP_RECVIF) writer.Write(message.Level, message.Type, message.Data);
        }
        else
        {
            var type = message.Level == SocketConstants.IPPROTO_IPV6 && message.Type == numbers.IPV6_PKTINFO ? SocketConstants.IPV6_PKTINFO : message.Type;
            writer.Write(message.Level, type, message.Data);
        }
    }

    // struct timeval, whose second part has 4 or 8 bytes but is less than a million, or struct timespec: as the latter.
    private static void WriteTime(ReadOnlySpan<byte> data, int nanoseconds, ref ControlWriter writer)
    {
        var to = writer.Add(SocketConstants.SOL_SOCKET, SocketConstants.SO_TIMESTAMPNS, 16);
        if (to.IsEmpty) return;
        MemoryMarshal.Cast<byte, TimeSpec>(to)[0] = new TimeSpec { Seconds = MemoryMarshal.Read<long>(data), Nanoseconds = (long)MemoryMarshal.Read<int>(data.Slice(8)) * nanoseconds };
    }

    // FreeBSD: the destination's struct in_addr, and in another message the interface's struct sockaddr_dl. Linux's struct
    // in_pktinfo has both: index, local address (not told here), destination.
    private static void WriteDestination(ReadOnlySpan<byte> destination, ReadOnlySpan<byte> all, PlatformNumbers numbers, ref ControlWriter writer)
    {
        var index = 0;
        foreach (var other in new NativeControlMessages(all, numbers))
            if (other.Level == SocketConstants.IPPROTO_IP && other.Type == numbers.IP_RECVIF && other.Data.Length >= 4)
                index = MemoryMarshal.Read<ushort>(other.Data.Slice(2));
        var to = writer.Add(SocketConstants.IPPROTO_IP, SocketConstants.IP_PKTINFO, 12);
        if (to.IsEmpty) return;
        MemoryMarshal.Cast<byte, int>(to)[0] = index;
        to.Slice(4, 4).Clear();
        destination.Slice(0, 4).CopyTo(to.Slice(8));
    }

    /// <summary>Control messages to be sent, from Linux's layout: their length, or <c>-EINVAL</c> if there is no room.</summary>
    internal static int ToNative(ReadOnlySpan<byte> control, Span<byte> native, PlatformNumbers numbers)
    {
        var length = 0;
        while (control.Length >= 16)
        {
            var header = MemoryMarshal.Read<ControlHeader>(control);
            var dataLength = (int)header.Length - 16;
            var size = numbers.ControlDataOffset + dataLength;
            var space = PlatformNumbers.Align(size, numbers.ControlAlignment);
            if (dataLength < 0 || dataLength > control.Length - 16 || length + space > native.Length) return -Errno.EINVAL;
            var at = native.Slice(length, space);
            at.Clear();
            MemoryMarshal.Cast<byte, int>(at)[0] = size; // little-endian: with zeros behind it is a length of 8 bytes, too
            var words = MemoryMarshal.Cast<byte, int>(at.Slice(numbers.ControlLengthSize));
            words[0] = header.Level == SocketConstants.SOL_SOCKET ? numbers.SOL_SOCKET : header.Level;
            words[1] = header.Type;
            control.Slice(16, dataLength).CopyTo(at.Slice(numbers.ControlDataOffset));
            length += space;
            control = control.Slice(Math.Min(PlatformNumbers.Align((int)header.Length, 8), control.Length));
        }
        return length;
    }
}
