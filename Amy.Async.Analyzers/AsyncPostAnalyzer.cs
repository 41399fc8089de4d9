using System.Collections.Immutable;
using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.Diagnostics;
using Microsoft.CodeAnalysis.Operations;

namespace Amy.Async.Analyzers;

/// <summary>AMY005: <c>Post(async () => …)</c>, or an async void method that is posted.</summary>
[DiagnosticAnalyzer(LanguageNames.CSharp)]
public sealed class AsyncPostAnalyzer : DiagnosticAnalyzer
{
    /// <inheritdoc/>
    public override ImmutableArray<DiagnosticDescriptor> SupportedDiagnostics => ImmutableArray.Create(Rules.AsyncPost);

    /// <inheritdoc/>
    public override void Initialize(AnalysisContext context)
    {
        context.ConfigureGeneratedCodeAnalysis(GeneratedCodeAnalysisFlags.None);
        context.EnableConcurrentExecution();
        context.RegisterCompilationStartAction(start =>
        {
            if (LibraryTypes.In(start.Compilation) is { } types) start.RegisterOperationAction(c => Look(c, types), OperationKind.Invocation);
        });
    }

    private static void Look(OperationAnalysisContext context, LibraryTypes types)
    {
        var call = (IInvocationOperation)context.Operation;
        if (call.TargetMethod.Name != "Post" || !types.IsOfEventLoop(call.TargetMethod)) return;
        foreach (var argument in call.Arguments)
            if (argument.Value is IDelegateCreationOperation { Target: IAnonymousFunctionOperation { Symbol.IsAsync: true } or IMethodReferenceOperation { Method.IsAsync: true } })
                context.ReportDiagnostic(Diagnostic.Create(Rules.AsyncPost, argument.Syntax.GetLocation()));
    }
}
