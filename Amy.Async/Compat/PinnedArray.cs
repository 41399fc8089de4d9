using System.Runtime.InteropServices;

namespace Amy.Async.Compat;

/// <summary>An array that stays where it is, for structures that point into it.</summary>
internal sealed class PinnedArray<T> where T : unmanaged
{
#if NETSTANDARD2_0
    private readonly GCHandle _pin;

    internal PinnedArray(int length)
    {
        Array = new T[length];
        _pin = GCHandle.Alloc(Array, GCHandleType.Pinned);
    }

    ~PinnedArray()
    {
        if (_pin.IsAllocated) _pin.Free();
    }

    internal nint Address => _pin.AddrOfPinnedObject();
#else
    internal PinnedArray(int length) => Array = GC.AllocateArray<T>(length, pinned: true);

    internal nint Address => Marshal.UnsafeAddrOfPinnedArrayElement(Array, 0);
#endif

    internal T[] Array { get; }
}
