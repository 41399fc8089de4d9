using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Amy.Async;

/// <summary>
/// Ends a binding whose handle is no more: lives as long as the handle does, by which its finalizer is called soon after. Without it
/// a socket that was waited on, then disposed by its owner, would leave its registration with the loop until its number is used again.
/// </summary>
internal sealed class PlainBinding
{
    private static readonly ConditionalWeakTable<SafeHandle, PlainBinding> s_bindings = new();

    private readonly PlainSource _source;

    private PlainBinding(PlainSource source) => _source = source;

    // Closing is for any thread, and nothing waits on a handle that nobody has: a wait keeps it.
    ~PlainBinding() => _source.Close();

    /// <summary>Called under the lock of the bindings; a binding before this one has ended.</summary>
    internal static void Tie(SafeHandle handle, PlainSource source)
    {
        s_bindings.Remove(handle);
        s_bindings.Add(handle, new PlainBinding(source));
    }
}
