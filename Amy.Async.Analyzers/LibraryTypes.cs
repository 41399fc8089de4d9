using System.Collections.Immutable;
using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.Operations;

namespace Amy.Async.Analyzers;

/// <summary>The library as the compilation sees it; a compilation that does not refer to it is not analyzed.</summary>
internal sealed class LibraryTypes
{
    private static readonly string[] s_owners = ["AsyncSocket", "AsyncFd", "LoopTimer", "Poller"];

    private readonly INamedTypeSymbol _eventLoop;
    private readonly ImmutableHashSet<ISymbol?> _owners;

    private LibraryTypes(Compilation compilation, INamedTypeSymbol eventLoop)
    {
        _eventLoop = eventLoop;
        _owners = s_owners.Select(name => compilation.GetTypeByMetadataName("Amy.Async." + name)).Where(type => type is not null)
            .ToImmutableHashSet<ISymbol?>(SymbolEqualityComparer.Default);
    }

    internal static LibraryTypes? In(Compilation compilation) =>
        compilation.GetTypeByMetadataName("Amy.Async.EventLoop") is { } eventLoop ? new LibraryTypes(compilation, eventLoop) : null;

    internal bool IsOfEventLoop(IMethodSymbol method) => SymbolEqualityComparer.Default.Equals(method.ContainingType, _eventLoop);

    internal bool IsOurs(ISymbol member) => SymbolEqualityComparer.Default.Equals(member.ContainingAssembly, _eventLoop.ContainingAssembly);

    /// <summary>Holds a descriptor (or, a timer, its place in the loop), and is to be disposed.</summary>
    internal bool IsOwner(ITypeSymbol? type) => _owners.Contains(type);

    /// <summary>A call that starts one of our operations: what it returns is to be awaited, once. Disposing is no operation.</summary>
    internal bool StartsOperation(IMethodSymbol method) =>
        IsOurs(method) && method.Name != "DisposeAsync" && (IsValueTask(method.ReturnType) || IsLoopAwaitable(method.ReturnType));

    internal bool IsLoopAwaitable(ITypeSymbol? type) => type is { Name: "LoopAwaitable" } && IsOurs(type);

    internal static bool IsValueTask(ITypeSymbol? type) => type is { Name: "ValueTask" } && IsOf(type, "Tasks");

    internal static bool IsTask(ITypeSymbol? type) => type is { Name: "Task" } && IsOf(type, "Tasks");

    internal static bool IsOf(ITypeSymbol type, string lastNamespace) =>
        type.ContainingNamespace.Name == lastNamespace && type.ContainingNamespace.ToDisplayString().StartsWith("System.", StringComparison.Ordinal);

    /// <summary>The call that made a value: through await, ConfigureAwait and conversions.</summary>
    internal static IOperation Source(IOperation value) => value switch
    {
        IConversionOperation conversion => Source(conversion.Operand),
        IAwaitOperation awaiting => Source(awaiting.Operation),
        IInvocationOperation { TargetMethod.Name: "ConfigureAwait", Instance: { } instance } => Source(instance),
        _ => value,
    };
}
