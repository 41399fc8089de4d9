using System.Globalization;
using FsCheck;
using FsCheck.Fluent;
using Microsoft.FSharp.Core;

namespace Amy.Async.Tests.Properties;

/// <summary>
/// Checks a property with many cases, the same ones each time. AMY_ASYNC_SEED has it take others; a failure tells the seed, and
/// the smallest case that it found.
/// </summary>
internal static class Property
{
    private const ulong UsualSeed = 0x5EED;

    private static readonly ulong s_seed = Environment.GetEnvironmentVariable("AMY_ASYNC_SEED") is { Length: > 0 } text ? ulong.Parse(text, CultureInfo.InvariantCulture) : UsualSeed;

    private static readonly FSharpOption<Replay> s_replay = FSharpOption<Replay>.Some(new Replay(new Rnd(s_seed), FSharpOption<int>.None));

    /// <summary>Runs the body for so many cases; it fails by throwing.</summary>
    internal static void Holds<T>(int cases, Gen<T> generator, Action<T> body, Func<T, IEnumerable<T>>? smaller = null)
    {
        var ran = 0;
        var property = Prop.ForAll(Arb.From(generator, smaller ?? (static _ => [])), (T value) =>
        {
            ran++;
            body(value);
        });
        try
        {
            Check.One(Config.QuickThrowOnFailure.WithMaxTest(cases).WithReplay(s_replay).WithQuietOnSuccess(true), property);
        }
        catch (Exception)
        {
            TestContext.Out.WriteLine($"AMY_ASYNC_SEED={s_seed}, case {ran}");
            throw;
        }
        Assert.That(ran, Is.EqualTo(cases));
    }

    /// <summary>Bytes of a length: any at all, or few different ones, so that ends of lines meet.</summary>
    internal static Gen<byte[]> Bytes(Gen<int> length) =>
        from count in length
        from alphabet in Gen.Elements("", "", "\r\nab", "\0\n\r", "\0\u0001\u0002\u0003")
        from seed in Gen.Choose(0, int.MaxValue)
        select Fill(count, alphabet, seed);

    /// <summary>Lengths that matter: small ones, those about the first buffer's, several buffers.</summary>
    internal static Gen<int> Lengths(int most) =>
        Gen.Frequency((3, Gen.Choose(0, 20)), (2, Gen.Choose(0, 300)), (1, Gen.Choose(4085, 4105)), (1, Gen.Choose(0, 20_000))).Select(n => Math.Min(n, most));

    /// <summary>How a stream is cut: all at once, byte by byte, into pieces of any lengths that come again and again.</summary>
    internal static Gen<int[]> Pieces() =>
        from kind in Gen.Choose(0, 5)
        from lengths in Gen.ArrayOf(Gen.Frequency((3, Gen.Choose(0, 9)), (1, Gen.Choose(0, 5000))), 5)
        select kind switch { 0 => [], 1 => [1], _ => lengths[..(kind % 5 + 1)] };

    private static byte[] Fill(int count, string alphabet, int seed)
    {
        var bytes = new byte[count];
        var random = new Random(seed);
        random.NextBytes(bytes);
        if (alphabet.Length > 0)
            for (var i = 0; i < count; i++) bytes[i] = (byte)alphabet[bytes[i] % alphabet.Length];
        return bytes;
    }
}
