using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using Amy.Async.Compat;
using Amy.Async.Native;

namespace Amy.Async;

/// <summary>
/// Datagrams that are received or sent with one system call, and their addresses, in memory that is made once. What has been
/// received can be sent back as it stands, or be changed first.
/// </summary>
/// <remarks>Belongs to one thread, and to an operation while that is in progress.</remarks>
[DebuggerDisplay("{Count} of {Capacity} datagrams")]
public sealed class DatagramBatch
{
    private readonly BatchHeaders _headers;

    /// <summary>Makes room for a number of datagrams.</summary>
    /// <param name="capacity">How many at once, 1 to 1,024 (UIO_MAXIOV).</param>
    /// <param name="datagramSize">The largest one, in bytes; of a larger one the rest is lost, and
    /// <see cref="IsTruncated"/> tells.</param>
    /// <exception cref="ArgumentOutOfRangeException">Out of that range, or more than 65,536 bytes.</exception>
    public DatagramBatch(int capacity, int datagramSize)
    {
        if (capacity is < 1 or > 1024) throw new ArgumentOutOfRangeException(nameof(capacity), capacity, "A batch holds 1 to 1,024 datagrams.");
        if (datagramSize is < 1 or > 65536) throw new ArgumentOutOfRangeException(nameof(datagramSize), datagramSize, "A datagram has 1 to 65,536 bytes.");
        Capacity = capacity;
        DatagramSize = datagramSize;
        _headers = new BatchHeaders(capacity, datagramSize);
    }

    /// <summary>How many datagrams it holds.</summary>
    public int Capacity { get; }

    /// <summary>How large each may be, in bytes.</summary>
    public int DatagramSize { get; }

    /// <summary>How many are in it: received, or added.</summary>
    public int Count { get; private set; }

    /// <summary>How many of them the last send has sent.</summary>
    public int Sent { get; private set; }

    internal long TotalLength { get; private set; }

    /// <summary>A datagram; its bytes may be changed.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There is no such datagram.</exception>
    public Memory<byte> this[int index] => _headers.Data.AsMemory(Check(index) * DatagramSize, _headers.GetLength(index));

    /// <summary>Whether a received datagram was larger than <see cref="DatagramSize"/>.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There is no such datagram.</exception>
    public bool IsTruncated(int index) => (_headers.GetFlags(Check(index)) & SocketConstants.MSG_TRUNC) != 0;

    /// <summary>Copies the address of a datagram: where it came from or goes to.</summary>
    /// <param name="index">The datagram.</param>
    /// <param name="address">Made with room for the largest address of the family (<c>new SocketAddress(family)</c>).</param>
    /// <exception cref="ArgumentOutOfRangeException">There is no such datagram.</exception>
    public void CopyAddress(int index, SocketAddress address)
    {
        if (address is null) throw new ArgumentNullException(nameof(address));
        SocketInterop.Assign(address, _headers.GetAddress(Check(index)));
    }

    /// <summary>Empties the batch.</summary>
    public void Clear()
    {
        Count = 0;
        Sent = 0;
    }

    /// <summary>Adds a datagram to be sent.</summary>
    /// <param name="data">Its bytes, which are copied.</param>
    /// <param name="remote">Where to; null for a connected socket.</param>
    /// <exception cref="ArgumentException">It is larger than <see cref="DatagramSize"/>, or the address than any is.</exception>
    /// <exception cref="InvalidOperationException">The batch is full.</exception>
    public void Add(ReadOnlySpan<byte> data, SocketAddress? remote = null)
    {
        if (Count == Capacity) throw new InvalidOperationException($"The batch is full with {Capacity} datagrams.");
        if (data.Length > DatagramSize) throw new ArgumentException($"A datagram of this batch has at most {DatagramSize} bytes, not {data.Length}.", nameof(data));
        data.CopyTo(_headers.Data.AsSpan(Count * DatagramSize));
        _headers.SetLength(Count, data.Length);
        Span<byte> address = stackalloc byte[SocketConstants.AddressCapacity];
        if (remote is not null) SocketInterop.CopyTo(remote, address);
        _headers.SetAddress(Count, address.Slice(0, remote?.Size ?? 0));
        Count++;
    }

    internal int Receive(SystemCalls calls, int socket)
    {
        _headers.PrepareToReceive(DatagramSize);
        var n = calls.ReceiveMessages(socket, _headers.Headers);
        Count = Math.Max(n, 0);
        Sent = 0;
        TotalLength = 0;
        for (var i = 0; i < Count; i++) TotalLength += _headers.GetLength(i);
        return n;
    }

    internal void BeginSending()
    {
        Sent = 0;
        _headers.PrepareToSend(Count);
    }

    internal int Send(SystemCalls calls, int socket, out long bytes)
    {
        var n = calls.SendMessages(socket, _headers.Headers.Slice(Sent, Count - Sent));
        bytes = 0;
        for (var i = 0; i < n; i++) bytes += _headers.GetLength(Sent + i);
        if (n > 0) Sent += n;
        return n;
    }

    private int Check(int index) =>
        (uint)index < (uint)Count ? index : throw new ArgumentOutOfRangeException(nameof(index), index, $"The batch has {Count} datagrams.");
}
