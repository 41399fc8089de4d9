namespace Amy.Async.Native;

/// <summary>
/// Between the error numbers of a BSD and those of Linux, which everything above the seam speaks. Up to 34 they are the
/// same, but for EAGAIN and EDEADLK, who have changed places with each other.
/// </summary>
internal sealed class ErrorNumbers
{
    /// <summary>A number without a counterpart keeps its identity above this one.</summary>
    internal const int Foreign = 0x1000;

    // [0] is 35, the first that differs; 0: Linux has no such error.
    private static readonly byte[] s_common =
    [
        11, 115, 114, 88, 89, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 100, 101, 102, 103, 104, // 35 EAGAIN .. 54 ECONNRESET
        105, 106, 107, 108, 109, 110, 111, 40, 36, 112, 113, 39, 0, 87, 122, 116, 66, // 55 ENOBUFS .. 71 EREMOTE
        0, 0, 0, 0, 0, 37, 38, 0, 0, 0, // 72 EBADRPC .. 81 ENEEDAUTH
    ];

    /// <summary>sys/errno.h of macOS.</summary>
    internal static readonly ErrorNumbers MacOS = new(
    [
        0, 0, 75, 0, 0, 0, 0, 125, 43, 42, 84, 0, 74, 72, 61, 67, 63, 60, 71, 62, // 82 EPWROFF .. 101 ETIME
        95, 0, 131, 130, // 102 EOPNOTSUPP .. 105 EOWNERDEAD
    ]);

    /// <summary>sys/errno.h of FreeBSD.</summary>
    internal static readonly ErrorNumbers FreeBsd = new([43, 42, 75, 125, 84, 0, 0, 74, 72, 67, 71, 0, 0, 131, 130]); // 82 EIDRM .. 96 EOWNERDEAD

    // Null: they are Linux's. Not asked of PlatformNumbers, whose own initialization needs this class.
    private static readonly ErrorNumbers? s_current = PlatformDescription.Current.System switch
    {
        PlatformDescription.MacOS => MacOS,
        PlatformDescription.FreeBsd => FreeBsd,
        _ => null,
    };

    private readonly int[] _toLinux;
    private readonly int[] _toNative = new int[134];

    private ErrorNumbers(byte[] rest)
    {
        _toLinux = [.. Enumerable.Range(0, 35).Select(n => n == 11 ? 35 : n), .. s_common, .. rest];
        for (var i = _toLinux.Length - 1; i > 0; i--) // downwards: of two for one, the first is meant
            if (_toLinux[i] != 0) _toNative[_toLinux[i]] = i;
        _toNative[Errno.EOPNOTSUPP] = Array.LastIndexOf(_toLinux, Errno.EOPNOTSUPP); // the sockets' own, where ENOTSUP is another
    }

    internal int ToLinux(int native) =>
        (uint)native < (uint)_toLinux.Length && (_toLinux[native] != 0 || native == 0) ? _toLinux[native] : Foreign + native;

    internal int ToNative(int linux) =>
        linux >= Foreign ? linux - Foreign : (uint)linux < (uint)_toNative.Length ? _toNative[linux] : 0;

    /// <summary>Linux's number for what a system call has left in errno.</summary>
    internal static int Translate(int native) => s_current is null ? native : s_current.ToLinux(native);

    /// <summary>This system's own number, which a user looks up, for one of Linux's.</summary>
    internal static int Native(int linux) => s_current is null ? linux : s_current.ToNative(linux);
}
