namespace Amy.Async.Kestrel;

/// <summary>Names of connections: short, unique in the process and unlikely to come again in the next.</summary>
internal static class ConnectionIds
{
    private const int Length = 13; // 5 bits each
    private const string Digits = "0123456789ABCDEFGHIJKLMNOPQRSTUV";

    private static long s_last = DateTime.UtcNow.Ticks; // any thread, Interlocked

    internal static string Next() => string.Create(Length, Interlocked.Increment(ref s_last), static (text, value) =>
    {
        for (var i = text.Length - 1; i >= 0; i--)
        {
            text[i] = Digits[(int)(value & 31)];
            value >>= 5;
        }
    });
}
