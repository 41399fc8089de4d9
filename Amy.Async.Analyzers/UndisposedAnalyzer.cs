using System.Collections.Immutable;
using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.Diagnostics;
using Microsoft.CodeAnalysis.Operations;

namespace Amy.Async.Analyzers;

/// <summary>
/// AMY004: a socket (or AsyncFd, LoopTimer, Poller) made into a local that neither disposes it nor gives it to anybody. What is
/// done with it must all be of the kind that leaves the owner its duty; anything else may end it, and is believed to.
/// </summary>
[DiagnosticAnalyzer(LanguageNames.CSharp)]
public sealed class UndisposedAnalyzer : DiagnosticAnalyzer
{
    // What begins like this is input, output and waiting. Dispose, Abort, Detach, AsStream, AsPipe and what is yet to come are not.
    private static readonly string[] s_uses =
        ["Accept", "Closed", "Join", "Leave", "Peek", "Priority", "Read", "Receive", "Send", "Shutdown", "Try", "Wait", "Writ"];

    /// <inheritdoc/>
    public override ImmutableArray<DiagnosticDescriptor> SupportedDiagnostics => ImmutableArray.Create(Rules.Undisposed);

    /// <inheritdoc/>
    public override void Initialize(AnalysisContext context)
    {
        context.ConfigureGeneratedCodeAnalysis(GeneratedCodeAnalysisFlags.None);
        context.EnableConcurrentExecution();
        context.RegisterCompilationStartAction(start =>
        {
            if (LibraryTypes.In(start.Compilation) is { } types) start.RegisterOperationAction(c => Look(c, types), OperationKind.VariableDeclarator);
        });
    }

    private static void Look(OperationAnalysisContext context, LibraryTypes types)
    {
        var declarator = (IVariableDeclaratorOperation)context.Operation;
        if (!types.IsOwner(declarator.Symbol.Type) || declarator.GetVariableInitializer() is not { } initializer || !Makes(initializer.Value, types)) return;
        if (declarator.Ancestors().Take(3).Any(o => o is IUsingOperation or IUsingDeclarationOperation)) return;
        var function = declarator.Function();
        var uses = declarator.Root().Descendants().OfType<ILocalReferenceOperation>().Where(r => SymbolEqualityComparer.Default.Equals(r.Local, declarator.Symbol));
        if (uses.All(use => use.Function() == function && LeavesItOpen(use, types)))
            context.ReportDiagnostic(Diagnostic.Create(Rules.Undisposed, declarator.Syntax.GetLocation(), declarator.Symbol.Name, Thing(declarator.Symbol.Type)));
    }

    private static string Thing(ITypeSymbol type) => type.Name switch
    {
        "AsyncSocket" => "socket",
        "LoopTimer" => "timer",
        "Poller" => "poller",
        _ => "descriptor",
    };

    // A new one: not one that stands on a handle of somebody else, who may close it.
    private static bool Makes(IOperation value, LibraryTypes types)
    {
        var (arguments, ours) = LibraryTypes.Source(value) switch
        {
            IObjectCreationOperation creation => (creation.Arguments, creation.Initializer is null),
            IInvocationOperation call => (call.Arguments, types.IsOurs(call.TargetMethod)),
            _ => (ImmutableArray<IArgumentOperation>.Empty, false),
        };
        return ours && !arguments.Any(IsForeign);
    }

    private static bool IsForeign(IArgumentOperation argument)
    {
        if (argument.Parameter is { Name: "ownsSocket" or "ownsHandle" } && argument.Value.ConstantValue is not { HasValue: true, Value: true }) return true;
        return IsHandle(argument.Value.Type) && argument.Value is not IObjectCreationOperation;
    }

    private static bool IsHandle(ITypeSymbol? type)
    {
        for (; type is not null; type = type.BaseType)
            if (type.Name is "Socket" or "SafeHandle") return true;
        return false;
    }

    private static bool LeavesItOpen(ILocalReferenceOperation use, LibraryTypes types) => use.Parent switch
    {
        IInvocationOperation call => call.Instance == use && IsUse(call.TargetMethod),
        IPropertyReferenceOperation property => property.Instance == use && !IsHandle(property.Property.Type),
        // The extensions of the library.
        IArgumentOperation { Parent: IInvocationOperation { TargetMethod: { IsExtensionMethod: true } method } call } argument =>
            call.Arguments.Length > 0 && call.Arguments[0] == argument && types.IsOurs(method) && IsUse(method),
        _ => false,
    };

    private static bool IsUse(IMethodSymbol method) => s_uses.Any(prefix => method.Name.StartsWith(prefix, StringComparison.Ordinal));
}
