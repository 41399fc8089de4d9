using System.Runtime.InteropServices;

namespace Amy.Async.Tests;

/// <summary>What an exploration has found: a promise that some interleaving breaks.</summary>
internal sealed class BrokenPromiseException(string message) : Exception(message);

/// <summary>
/// Explores every interleaving of a few actors over a small world, depth first: each step of an actor is one atomic access to
/// what is shared, made by the library's own code; the world is a value that is copied for each branch, and one that was met
/// before is not followed again.
/// </summary>
/// <remarks>
/// Interleavings are sequentially consistent. Where plain or volatile writes may stay in a core's store buffer (all that the
/// library relies on not to matter), a test models the buffer: the write is a note in the world, another actor makes it visible
/// at any later time, and an interlocked access of the same thread does so before.
/// </remarks>
internal sealed class Explorer<TWorld>(params (string Name, Explorer<TWorld>.Step Step)[] actors) where TWorld : unmanaged
{
    /// <summary>Lets an actor take its next step. False: it cannot now.</summary>
    internal delegate bool Step(ref TWorld world);

    internal delegate void Check(in TWorld world);

    private const int Limit = 4_000_000; // states; an exploration that grows beyond belongs in pieces

    private sealed record Path(Path? Before, int Actor);

    // By its bytes: the fastest, and padding is copied along.
    private sealed class Bytes : IEqualityComparer<TWorld>
    {
        public bool Equals(TWorld x, TWorld y) => Of(ref x).SequenceEqual(Of(ref y));

        public int GetHashCode(TWorld world)
        {
            var hash = new HashCode();
            hash.AddBytes(Of(ref world));
            return hash.ToHashCode();
        }

        private static ReadOnlySpan<byte> Of(ref TWorld world) => MemoryMarshal.AsBytes(new ReadOnlySpan<TWorld>(ref world));
    }

    private readonly HashSet<TWorld> _seen = new(new Bytes());

    /// <summary>How many different worlds there were.</summary>
    internal int States => _seen.Count;

    /// <summary>In how many of them nobody could move any more.</summary>
    internal int Ends { get; private set; }

    /// <param name="start">The world at the beginning.</param>
    /// <param name="always">Throws if a world breaks a promise.</param>
    /// <param name="atEnd">Likewise, when nobody can move any more.</param>
    /// <exception cref="BrokenPromiseException">With the interleaving that leads there.</exception>
    internal void Explore(in TWorld start, Check always, Check atEnd)
    {
        var stack = new Stack<(TWorld World, Path? Path)>();
        stack.Push((start, null));
        while (stack.TryPop(out var place))
        {
            if (!_seen.Add(place.World)) continue;
            if (_seen.Count > Limit) throw new InvalidOperationException("Too many states.");
            var actor = 0;
            try
            {
                var moved = false;
                for (; actor < actors.Length; actor++)
                {
                    var next = place.World;
                    if (!actors[actor].Step(ref next)) continue;
                    moved = true;
                    always(next);
                    stack.Push((next, new Path(place.Path, actor)));
                }
                if (moved) continue;
                Ends++;
                atEnd(place.World);
            }
            catch (BrokenPromiseException e)
            {
                throw new BrokenPromiseException($"{e.Message} Steps: {Tell(actor < actors.Length ? new Path(place.Path, actor) : place.Path)}.");
            }
        }
    }

    private string Tell(Path? path)
    {
        var steps = new List<string>();
        for (; path is not null; path = path.Before) steps.Add(actors[path.Actor].Name);
        steps.Reverse();
        return string.Join(", ", steps);
    }

    /// <summary>Says how much was explored.</summary>
    internal void Report() => TestContext.Out.WriteLine($"{States:N0} states, {Ends:N0} ends");
}
