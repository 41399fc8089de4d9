using Amy.Async.Compat;

namespace Amy.Async.Native;

/// <summary>
/// The memory of a batch of datagrams in the layout that <c>recvmmsg(2)</c> and <c>sendmmsg(2)</c> want: for each one a header, a
/// vector, room for an address and for the data, all pinned once and for all.
/// </summary>
internal sealed unsafe class BatchHeaders
{
    private readonly PinnedArray<BatchHeader> _headers;
    private readonly PinnedArray<IoVector> _vectors;
    private readonly PinnedArray<byte> _addresses;
    private readonly PinnedArray<byte> _data;

    internal BatchHeaders(int capacity, int size)
    {
        _headers = new(capacity);
        _vectors = new(capacity);
        _addresses = new(checked(capacity * SocketConstants.AddressCapacity));
        _data = new(checked(capacity * Math.Max(size, 1)));
        for (var i = 0; i < capacity; i++)
        {
            _vectors.Array[i] = new IoVector { Base = (byte*)_data.Address + (nint)i * size, Length = (nuint)size };
            _headers.Array[i].Message = new MessageHeader
            {
                Name = (byte*)_addresses.Address + (nint)i * SocketConstants.AddressCapacity,
                Vectors = (IoVector*)_vectors.Address + i,
                VectorCount = 1,
            };
        }
    }

    internal byte[] Data => _data.Array;

    internal Span<BatchHeader> Headers => _headers.Array;

    internal int GetFlags(int index) => _headers.Array[index].Message.Flags;

    /// <summary>The length of a datagram.</summary>
    internal int GetLength(int index) => (int)_headers.Array[index].Length;

    internal ReadOnlySpan<byte> GetAddress(int index) =>
        _addresses.Array.AsSpan(index * SocketConstants.AddressCapacity, (int)Math.Min(_headers.Array[index].Message.NameLength, SocketConstants.AddressCapacity));

    internal void SetLength(int index, int length) => _headers.Array[index].Length = (uint)length;

    internal void SetAddress(int index, ReadOnlySpan<byte> address)
    {
        address.CopyTo(_addresses.Array.AsSpan(index * SocketConstants.AddressCapacity));
        _headers.Array[index].Message.NameLength = (uint)address.Length;
    }

    /// <summary>Makes each header say how much room there is.</summary>
    internal void PrepareToReceive(int size)
    {
        for (var i = 0; i < _headers.Array.Length; i++)
        {
            _headers.Array[i].Message.NameLength = SocketConstants.AddressCapacity;
            _vectors.Array[i].Length = (nuint)size;
        }
    }

    /// <summary>Makes each header say how much is to be sent, and to whom, if there is an address.</summary>
    internal void PrepareToSend(int count)
    {
        for (var i = 0; i < count; i++) _vectors.Array[i].Length = _headers.Array[i].Length;
    }
}
