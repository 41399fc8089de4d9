using System.Collections.Concurrent;
using System.Collections.Immutable;
using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.Diagnostics;
using Microsoft.CodeAnalysis.Operations;

namespace Amy.Async.Analyzers;

/// <summary>AMY001: a call that blocks, in code that is known to run on a loop.</summary>
/// <remarks>
/// Known to run there is a function that is given to <c>Run</c>, <c>Post</c> or <c>InvokeAsync</c>, what such a function calls
/// in its own type, and whatever follows <c>await loop.SwitchTo()</c> or <c>Yield()</c> in the same block. A lambda that is
/// given to anybody else runs who knows where. A function that awaits with <c>ConfigureAwait</c>, or something that is neither
/// a task nor ours, may leave the loop, and one that asks for the current loop may know what it does: nothing is said about them.
/// </remarks>
[DiagnosticAnalyzer(LanguageNames.CSharp)]
public sealed class BlockingCallAnalyzer : DiagnosticAnalyzer
{
    /// <inheritdoc/>
    public override ImmutableArray<DiagnosticDescriptor> SupportedDiagnostics => ImmutableArray.Create(Rules.BlockingCall);

    /// <inheritdoc/>
    public override void Initialize(AnalysisContext context)
    {
        context.ConfigureGeneratedCodeAnalysis(GeneratedCodeAnalysisFlags.None);
        context.EnableConcurrentExecution();
        context.RegisterCompilationStartAction(start =>
        {
            if (LibraryTypes.In(start.Compilation) is not { } types) return;
            start.RegisterSymbolStartAction(symbol =>
            {
                var scope = new Scope(types, (INamedTypeSymbol)symbol.Symbol);
                symbol.RegisterOperationAction(scope.Look, OperationKind.Invocation, OperationKind.PropertyReference);
                symbol.RegisterSymbolEndAction(scope.Report);
            }, SymbolKind.NamedType);
        });
    }

    /// <summary>One type: its functions, which of them a loop runs, who calls whom.</summary>
    private sealed class Scope(LibraryTypes types, INamedTypeSymbol type)
    {
        private readonly ConcurrentBag<ISymbol> _roots = [];
        private readonly ConcurrentBag<(ISymbol Caller, ISymbol Callee)> _calls = [];
        private readonly ConcurrentBag<(ISymbol Function, Location Location, string Name)> _blocking = [];
        private readonly ConcurrentDictionary<SyntaxNode, bool> _mayLeave = new();

        internal void Look(OperationAnalysisContext context)
        {
            // Types inside this one have scopes of their own.
            if (!SymbolEqualityComparer.Default.Equals(context.ContainingSymbol.ContainingType, type)) return;
            var call = context.Operation as IInvocationOperation;
            if (call is not null && types.IsOfEventLoop(call.TargetMethod) && call.TargetMethod.Name is "Run" or "Post" or "InvokeAsync") AddRoots(call);
            var body = context.Operation.Function();
            var function = body switch
            {
                IAnonymousFunctionOperation lambda => lambda.Symbol,
                ILocalFunctionOperation local => local.Symbol,
                _ => context.ContainingSymbol,
            };
            if (call is not null && IsOfThisType(call.TargetMethod) && !MayLeaveTheLoop(body)) _calls.Add((function, call.TargetMethod.OriginalDefinition));
            if (BlockingName(context.Operation) is not { } name || Completion.IsKnown(context.Operation) || MayLeaveTheLoop(body)) return;
            var location = context.Operation.Syntax.GetLocation();
            if (FollowsASwitch(context.Operation, body)) context.ReportDiagnostic(Diagnostic.Create(Rules.BlockingCall, location, name));
            else _blocking.Add((function, location, name));
        }

        internal void Report(SymbolAnalysisContext context)
        {
            if (_blocking.IsEmpty || _roots.IsEmpty) return;
            var onLoop = new HashSet<ISymbol>(_roots, SymbolEqualityComparer.Default);
            var callees = _calls.ToLookup(c => c.Caller, c => c.Callee, (IEqualityComparer<ISymbol>)SymbolEqualityComparer.Default);
            var queue = new Queue<ISymbol>(onLoop);
            while (queue.Count > 0)
                foreach (var callee in callees[queue.Dequeue()])
                    if (onLoop.Add(callee)) queue.Enqueue(callee);
            foreach (var (function, location, name) in _blocking)
                if (onLoop.Contains(function)) context.ReportDiagnostic(Diagnostic.Create(Rules.BlockingCall, location, name));
        }

        private void AddRoots(IInvocationOperation call)
        {
            foreach (var argument in call.Arguments)
                switch (argument.Value)
                {
                    case IDelegateCreationOperation { Target: IAnonymousFunctionOperation lambda }:
                        _roots.Add(lambda.Symbol);
                        break;
                    case IDelegateCreationOperation { Target: IMethodReferenceOperation method } when IsOfThisType(method.Method):
                        _roots.Add(method.Method.OriginalDefinition);
                        break;
                }
        }

        // Iterators run when somebody iterates; what can be overridden may be another method.
        private bool IsOfThisType(IMethodSymbol method) =>
            method is { IsVirtual: false, IsAbstract: false, IsOverride: false, ReturnType.Name: not ("IEnumerable" or "IEnumerator" or "IAsyncEnumerable" or "IAsyncEnumerator") }
            && SymbolEqualityComparer.Default.Equals(method.ContainingType?.OriginalDefinition, type.OriginalDefinition);

        private bool MayLeaveTheLoop(IOperation body) => _mayLeave.GetOrAdd(body.Syntax, _ => body.Inside().Any(o => o switch
        {
            IInvocationOperation { TargetMethod.Name: "ConfigureAwait" } => true,
            IConditionalOperation conditional => conditional.Condition.DescendantsAndSelf().Any(AsksForTheLoop),
            IAwaitOperation { Operation.Type: var awaited } =>
                !(LibraryTypes.IsTask(awaited) || LibraryTypes.IsValueTask(awaited) || types.IsLoopAwaitable(awaited) || awaited?.Name == "YieldAwaitable"),
            _ => false,
        }));

        private bool AsksForTheLoop(IOperation operation) =>
            operation is IPropertyReferenceOperation { Property: { Name: "Current" or "IsCurrent" } property } && types.IsOurs(property);

        private bool FollowsASwitch(IOperation call, IOperation body) => body.Inside().Any(o =>
            o is IAwaitOperation { Operation.Type: var awaited } && types.IsLoopAwaitable(awaited) && o.IsBefore(call)
            && o.StraightBlock() is { } block && call.Ancestors().Contains(block));
    }

    private static string? BlockingName(IOperation operation) => operation switch
    {
        IPropertyReferenceOperation { Property: { Name: "Result", ContainingType: var type }, Parent: not INameOfOperation } when IsTaskLike(type) => "Result",
        IInvocationOperation { TargetMethod: { Name: "Wait", ContainingType: var type } } call when LibraryTypes.IsTask(type) && !IsZero(call) => "Wait",
        IInvocationOperation { TargetMethod: { Name: "WaitAll" or "WaitAny", ContainingType: var type } method } when LibraryTypes.IsTask(type) => "Task." + method.Name,
        IInvocationOperation { TargetMethod: { Name: "Sleep", ContainingType: { Name: "Thread" } type } } call when LibraryTypes.IsOf(type, "Threading") && !IsZero(call) => "Thread.Sleep",
        IInvocationOperation { TargetMethod: { Name: "GetResult", ContainingType: var type }, Instance: IInvocationOperation { TargetMethod.Name: "GetAwaiter" } }
            when LibraryTypes.IsOf(type, "CompilerServices") || LibraryTypes.IsOf(type.ContainingType ?? type, "CompilerServices") => "GetResult",
        _ => null,
    };

    private static bool IsTaskLike(ITypeSymbol type) => LibraryTypes.IsTask(type) || LibraryTypes.IsValueTask(type);

    // Looks, and does not wait.
    private static bool IsZero(IInvocationOperation call) => call.Arguments.Length > 0
        && (call.Arguments[0].Value.ConstantValue is { HasValue: true, Value: 0 } || call.Arguments[0].Value is IFieldReferenceOperation { Field.Name: "Zero" });
}
