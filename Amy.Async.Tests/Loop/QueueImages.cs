using System.Runtime.CompilerServices;

namespace Amy.Async.Tests.Loop;

/// <summary>
/// Work queues as values, for explorations: the number of an image stands for a real <see cref="WorkQueue"/> with its
/// contents. Each step runs the real code on a copy, whose image it keeps. The items are numbers.
/// </summary>
internal sealed class QueueImages
{
    private readonly List<WorkQueue> _images = [];
    private readonly Dictionary<string, int> _numbers = [];
    private readonly Dictionary<(char Step, int Image, int Item), (int Image, bool Result, int Number)> _steps = [];

    internal int Empty()
    {
        var queue = new WorkQueue();
        Incoming(queue) = new WorkItem[1]; // so that growing is explored too
        Taken(queue) = new WorkItem[1];
        return Keep(queue);
    }

    internal bool HasWork(int image) => _images[image].HasWork;

    /// <summary>Whether something waits to be taken over: the look without the lock.</summary>
    internal bool HasIncoming(int image) => IncomingCount(_images[image]) > 0;

    internal int TakenOver(int image) => _images[image].Taken;

    internal bool TryAdd(ref int image, int item, out bool first)
    {
        var (added, wasEmpty) = Step('a', ref image, item, static (queue, i) => (queue.TryAdd(new WorkItem(static (_, _) => { }, i, null, null), byLoop: true, out var f), f ? 1 : 0));
        first = wasEmpty == 1;
        return added;
    }

    internal void Refill(ref int image) => Step('r', ref image, 0, static (queue, _) =>
    {
        queue.Refill();
        return (true, 0);
    });

    internal bool TryTake(ref int image, out int item)
    {
        (var taken, item) = Step('t', ref image, 0, static (queue, _) => (queue.TryTake(out var work), work.Target is int i ? i : 0));
        return taken;
    }

    internal bool TryClose(ref int image) => Step('c', ref image, 0, static (queue, _) => (queue.TryClose(), 0)).Result;

    internal void Close(ref int image) => Step('C', ref image, 0, static (queue, _) =>
    {
        queue.Close();
        return (true, 0);
    });

    // What the real code makes of an image is always the same, so it runs once for each.
    private (bool Result, int Number) Step(char name, ref int image, int item, Func<WorkQueue, int, (bool, int)> step)
    {
        var key = (name, image, item);
        if (!_steps.TryGetValue(key, out var done))
        {
            var queue = Copy(image);
            var (result, number) = step(queue, item);
            _steps[key] = done = (Keep(queue), result, number);
        }
        image = done.Image;
        return (done.Result, done.Number);
    }

    private int Keep(WorkQueue queue)
    {
        var key = Describe(queue);
        if (_numbers.TryGetValue(key, out var number)) return number;
        _images.Add(queue);
        return _numbers[key] = _images.Count - 1;
    }

    // Everything that the queue's behaviour depends on, the rooms of the arrays included.
    private static string Describe(WorkQueue queue) =>
        $"{Closed(queue)} {Items(Incoming(queue), 0, IncomingCount(queue))} | {Items(Taken(queue), Next(queue), End(queue))}";

    private static string Items(WorkItem[] items, int from, int to) =>
        $"{items.Length}:{from}-{to}:{string.Join(',', items.Select(i => i.Target ?? "-"))}";

    private WorkQueue Copy(int image)
    {
        var from = _images[image];
        var queue = new WorkQueue();
        Incoming(queue) = [.. Incoming(from)];
        IncomingCount(queue) = IncomingCount(from);
        Closed(queue) = Closed(from);
        Taken(queue) = [.. Taken(from)];
        Next(queue) = Next(from);
        End(queue) = End(from);
        return queue;
    }

    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "_incoming")]
    private static extern ref WorkItem[] Incoming(WorkQueue queue);

    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "_incomingCount")]
    private static extern ref int IncomingCount(WorkQueue queue);

    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "_closed")]
    private static extern ref bool Closed(WorkQueue queue);

    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "_taken")]
    private static extern ref WorkItem[] Taken(WorkQueue queue);

    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "_next")]
    private static extern ref int Next(WorkQueue queue);

    [UnsafeAccessor(UnsafeAccessorKind.Field, Name = "_end")]
    private static extern ref int End(WorkQueue queue);
}
