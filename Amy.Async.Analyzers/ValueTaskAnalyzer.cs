using System.Collections.Immutable;
using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.Diagnostics;
using Microsoft.CodeAnalysis.Operations;

namespace Amy.Async.Analyzers;

/// <summary>
/// AMY002: a ValueTask of ours that is dropped. AMY003: one that is awaited twice, if that is certain: the first await runs
/// whenever the second does, or the await stands in a loop and the operation was started before it.
/// </summary>
[DiagnosticAnalyzer(LanguageNames.CSharp)]
public sealed class ValueTaskAnalyzer : DiagnosticAnalyzer
{
    /// <inheritdoc/>
    public override ImmutableArray<DiagnosticDescriptor> SupportedDiagnostics => ImmutableArray.Create(Rules.DroppedValueTask, Rules.AwaitedTwice);

    /// <inheritdoc/>
    public override void Initialize(AnalysisContext context)
    {
        context.ConfigureGeneratedCodeAnalysis(GeneratedCodeAnalysisFlags.None);
        context.EnableConcurrentExecution();
        context.RegisterCompilationStartAction(start =>
        {
            if (LibraryTypes.In(start.Compilation) is not { } types) return;
            start.RegisterOperationAction(c => LookAtStatement(c, types), OperationKind.ExpressionStatement, OperationKind.SimpleAssignment);
            start.RegisterOperationAction(c => LookAtLocal(c, types), OperationKind.VariableDeclarator);
        });
    }

    private static void LookAtStatement(OperationAnalysisContext context, LibraryTypes types)
    {
        var value = context.Operation switch
        {
            IExpressionStatementOperation { Operation: IConditionalAccessOperation { WhenNotNull: var call } } => call,
            IExpressionStatementOperation statement => statement.Operation,
            ISimpleAssignmentOperation { Target: IDiscardOperation, Value: var assigned } => assigned,
            _ => null,
        };
        if (value is not IAwaitOperation && Operation(value, types) is { } method && !IsExpectedToThrow(context.Operation))
            context.ReportDiagnostic(Diagnostic.Create(Rules.DroppedValueTask, value!.Syntax.GetLocation(), Name(method)));
    }

    private static void LookAtLocal(OperationAnalysisContext context, LibraryTypes types)
    {
        var declarator = (IVariableDeclaratorOperation)context.Operation;
        if (declarator.GetVariableInitializer()?.Value is not { } value || !LibraryTypes.IsValueTask(value.Type) || Operation(value, types) is not { } method) return;
        var root = declarator.Root();
        var uses = root.Descendants().OfType<ILocalReferenceOperation>().Where(r => SymbolEqualityComparer.Default.Equals(r.Local, declarator.Symbol)).ToList();
        if (uses.Count == 0)
        {
            context.ReportDiagnostic(Diagnostic.Create(Rules.DroppedValueTask, value.Syntax.GetLocation(), Name(method)));
            return;
        }
        // What is given another value, used by another function or jumped over is not judged.
        var function = declarator.Function();
        if (uses.Any(u => IsWritten(u) || u.Function() != function) || root.Descendants().Any(o => o is IBranchOperation { BranchKind: BranchKind.GoTo })) return;
        var takes = uses.Where(Takes).OrderBy(u => u.Syntax.SpanStart).ToList();
        for (var i = 0; i < takes.Count; i++)
        {
            var taken = takes[i];
            if (IsRepeated(taken, declarator) || takes.Take(i).Any(earlier => earlier.StraightBlock() is { } block && taken.Ancestors().Contains(block)))
            {
                context.ReportDiagnostic(Diagnostic.Create(Rules.AwaitedTwice, taken.Syntax.GetLocation(), declarator.Symbol.Name, Name(method)));
                return;
            }
        }
    }

    // Assert.Throws<ObjectDisposedException>(() => conn.ReceiveAsync(buffer)): nothing is started.
    private static bool IsExpectedToThrow(IOperation statement) =>
        statement.Function() is IAnonymousFunctionOperation { Parent: IDelegateCreationOperation { Parent: IArgumentOperation { Parent: IInvocationOperation { TargetMethod: var method } } } }
        && (method.ContainingType.Name == "Assert" || method.Name.IndexOf("Throw", StringComparison.Ordinal) >= 0);

    private static IMethodSymbol? Operation(IOperation? value, LibraryTypes types) =>
        value is not null && LibraryTypes.Source(value) is IInvocationOperation { TargetMethod: var method } && types.StartsOperation(method) ? method : null;

    private static string Name(IMethodSymbol method) => $"{method.ContainingType.Name}.{method.Name}";

    private static bool IsWritten(ILocalReferenceOperation use) => use.Parent switch
    {
        IAssignmentOperation assignment => assignment.Target == use,
        IArgumentOperation argument => argument.Parameter is null or { RefKind: not RefKind.None },
        ITupleOperation or IAddressOfOperation => true,
        _ => false,
    };

    // Takes the result: await, ConfigureAwait, AsTask, Result, GetAwaiter().
    private static bool Takes(ILocalReferenceOperation use) => use.Parent switch
    {
        IAwaitOperation => true,
        IInvocationOperation call => call.Instance == use && call.TargetMethod.Name is "ConfigureAwait" or "AsTask" or "GetAwaiter" or "Preserve",
        IPropertyReferenceOperation property => property.Property.Name == "Result",
        _ => false,
    };

    // In a loop that the operation was started before, on every pass, and no pass is certainly the last.
    private static bool IsRepeated(IOperation use, IVariableDeclaratorOperation declarator)
    {
        var child = use;
        foreach (var parent in use.Ancestors())
        {
            if (parent is ILoopOperation loop && loop.Body == child) return true;
            if (parent is IBlockOperation block)
            {
                if (declarator.Ancestors().Contains(block) || block.Operations.Any(Leaves)) return false;
            }
            else if (parent is ITryOperation attempt)
            {
                if (attempt.Body != child) return false;
            }
            else if (parent is IReturnOperation || child.RunsConditionally(parent)) return false;
            child = parent;
        }
        return false;
    }

    // Ends the loop, or may well do so on every path; what is in doubt does.
    private static bool Leaves(IOperation? statement) => statement switch
    {
        IReturnOperation { Kind: OperationKind.Return } or IBranchOperation { BranchKind: BranchKind.Break } or IThrowOperation => true,
        IExpressionStatementOperation expression => expression.Operation is IThrowOperation,
        IBlockOperation block => block.Operations.Any(Leaves),
        IConditionalOperation conditional => Leaves(conditional.WhenTrue) && Leaves(conditional.WhenFalse),
        IUsingOperation @using => Leaves(@using.Body),
        ILockOperation @lock => Leaves(@lock.Body),
        ITryOperation attempt => Leaves(attempt.Body),
        ISwitchOperation @switch => @switch.Descendants().Any(o => o is IReturnOperation or IThrowOperation),
        _ => false,
    };
}
