using System.Runtime.CompilerServices;

namespace Amy.Async.Bench.Patterns;

/// <summary>The least that can be awaited: one field for a continuation, again and again.</summary>
internal sealed class LeastAwaitable : INotifyCompletion
{
    private Action? _continuation;

    public bool IsCompleted => false;

    public LeastAwaitable GetAwaiter() => this;

    public void GetResult()
    {
    }

    public void OnCompleted(Action continuation) => _continuation = continuation;

    internal void Resume() => _continuation!();
}
