using System.Runtime.InteropServices;

namespace Amy.Async.Compat;

/// <summary>How errno is had after a P/Invoke.</summary>
/// <remarks>
/// On .NET, by asking right after the call, as source-generated P/Invokes do: the runtime keeps errno over the transition
/// back into managed code. Asking only after a failure saves the 30 ns that SetLastError costs each call (clearing, reading
/// and storing it), 1.5 % of a round trip over TCP. netstandard2.0 has only SetLastError.
/// </remarks>
internal static class LastError
{
#if NETSTANDARD2_0
    internal const bool IsSavedByTheStub = true;

    internal static int Get() => Marshal.GetLastWin32Error();
#else
    internal const bool IsSavedByTheStub = false;

    internal static int Get() => Marshal.GetLastSystemError();
#endif
}
