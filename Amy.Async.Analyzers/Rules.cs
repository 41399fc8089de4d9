using Microsoft.CodeAnalysis;

namespace Amy.Async.Analyzers;

/// <summary>What is reported. Each rule has a section in docs/analyzers.md: why, what is wrong, what is right.</summary>
internal static class Rules
{
    private const string Category = "Amy.Async";

    /// <summary>A call blocks the loop's thread, and with it everything else that runs there.</summary>
    internal static readonly DiagnosticDescriptor BlockingCall = new(
        "AMY001", "A call blocks the event loop",
        "'{0}' blocks the event loop: nothing else on it runs meanwhile, and if what it waits for needs the loop, it never ends",
        Category, DiagnosticSeverity.Warning, isEnabledByDefault: true, helpLinkUri: "docs/analyzers.md#amy001");

    /// <summary>An operation's result, and its error with it, reaches nobody.</summary>
    internal static readonly DiagnosticDescriptor DroppedValueTask = new(
        "AMY002", "An operation is started and not awaited",
        "The result of '{0}' is dropped: nobody learns when it ends, or that it failed",
        Category, DiagnosticSeverity.Warning, isEnabledByDefault: true, helpLinkUri: "docs/analyzers.md#amy002");

    /// <summary>The operation object behind a ValueTask serves the next operation as soon as the result has been taken.</summary>
    internal static readonly DiagnosticDescriptor AwaitedTwice = new(
        "AMY003", "A ValueTask is awaited twice",
        "'{0}' has been awaited already: a ValueTask of '{1}' is awaited once",
        Category, DiagnosticSeverity.Warning, isEnabledByDefault: true, helpLinkUri: "docs/analyzers.md#amy003");

    /// <summary>A descriptor stays open until a finalizer comes by.</summary>
    internal static readonly DiagnosticDescriptor Undisposed = new(
        "AMY004", "Never disposed",
        "'{0}' is never disposed: the {1} stays open until the garbage collector finds it",
        Category, DiagnosticSeverity.Warning, isEnabledByDefault: true, helpLinkUri: "docs/analyzers.md#amy004");

    /// <summary>Post takes an Action, which makes an asynchronous function async void.</summary>
    internal static readonly DiagnosticDescriptor AsyncPost = new(
        "AMY005", "An asynchronous function is posted",
        "Posted as an Action, this is async void: nobody can await it or catch its exception; InvokeAsync returns a Task",
        Category, DiagnosticSeverity.Warning, isEnabledByDefault: true, helpLinkUri: "docs/analyzers.md#amy005");
}
