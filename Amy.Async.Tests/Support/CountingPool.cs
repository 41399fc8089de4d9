using System.Buffers;

namespace Amy.Async.Tests;

/// <summary>A pool that counts what is rented, and makes a buffer useless when it is given back.</summary>
internal sealed class CountingPool : MemoryPool<byte>
{
    internal int Rented;

    public override int MaxBufferSize => 1 << 20;

    public override IMemoryOwner<byte> Rent(int minBufferSize = -1)
    {
        Interlocked.Increment(ref Rented);
        return new Owner(this, Math.Max(minBufferSize, 1));
    }

    protected override void Dispose(bool disposing)
    {
    }

    private sealed class Owner(CountingPool pool, int size) : IMemoryOwner<byte>
    {
        private byte[]? _array = new byte[size];

        public Memory<byte> Memory => _array ?? throw new ObjectDisposedException(nameof(Owner));

        public void Dispose()
        {
            if (_array is null) Assert.Fail("given back twice");
            _array = null;
            Interlocked.Decrement(ref pool.Rented);
        }
    }
}
