using System.Collections.Immutable;
using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CodeActions;
using Microsoft.CodeAnalysis.CodeFixes;
using Microsoft.CodeAnalysis.CSharp;
using Microsoft.CodeAnalysis.CSharp.Syntax;
using Microsoft.CodeAnalysis.Simplification;

namespace Amy.Async.Analyzers;

/// <summary>AMY001 and AMY002: awaits what blocked or was dropped, where an await may stand.</summary>
// Not [Shared]: the attribute's assembly would tie this to one version of the host's.
[ExportCodeFixProvider(LanguageNames.CSharp, Name = nameof(AwaitFix))]
public sealed class AwaitFix : CodeFixProvider
{
    /// <inheritdoc/>
    public override ImmutableArray<string> FixableDiagnosticIds => ImmutableArray.Create(Rules.BlockingCall.Id, Rules.DroppedValueTask.Id);

    /// <inheritdoc/>
    public override FixAllProvider GetFixAllProvider() => WellKnownFixAllProviders.BatchFixer;

    /// <inheritdoc/>
    public override async Task RegisterCodeFixesAsync(CodeFixContext context)
    {
        var root = await context.Document.GetSyntaxRootAsync(context.CancellationToken).ConfigureAwait(false);
        foreach (var diagnostic in context.Diagnostics)
        {
            if (root?.FindNode(diagnostic.Location.SourceSpan, getInnermostNodeForTie: true) is not ExpressionSyntax node || !node.MayAwait()) continue;
            var (old, @new) = diagnostic.Id == Rules.BlockingCall.Id ? (node, Unblocked(node)) : Taken(node);
            if (old is null || @new is null) continue;
            context.RegisterCodeFix(
                CodeAction.Create("Await it", _ => Task.FromResult(context.Document.WithSyntaxRoot(root.ReplaceNode(old, @new.WithTriviaFrom(old)))), nameof(AwaitFix)),
                diagnostic);
        }
    }

    private static ExpressionSyntax? Unblocked(ExpressionSyntax node) => node switch
    {
        MemberAccessExpressionSyntax { Name.Identifier.Text: "Result" } result => result.Expression.AwaitInPlaceOf(node),
        InvocationExpressionSyntax { Expression: MemberAccessExpressionSyntax member, ArgumentList: var arguments } => member.Name.Identifier.Text switch
        {
            "Wait" when arguments.Arguments.Count == 0 => member.Expression.AwaitInPlaceOf(node),
            "GetResult" when member.Expression is InvocationExpressionSyntax { Expression: MemberAccessExpressionSyntax awaiter } => awaiter.Expression.AwaitInPlaceOf(node),
            "Sleep" => TaskMethod("Delay", arguments).AwaitInPlaceOf(node),
            // It returns nothing; with a time-out or a token it is not the same.
            "WaitAll" when node.Parent is ExpressionStatementSyntax && arguments.Arguments.Count == 1 => TaskMethod("WhenAll", arguments).AwaitInPlaceOf(node),
            _ => null,
        },
        _ => null,
    };

    private static InvocationExpressionSyntax TaskMethod(string name, ArgumentListSyntax arguments) =>
        SyntaxFactory.InvocationExpression(
            SyntaxFactory.ParseExpression("global::System.Threading.Tasks.Task." + name).WithAdditionalAnnotations(Simplifier.Annotation), arguments);

    // "x;" and "_ = x;": all of the statement's expression.
    private static (ExpressionSyntax?, ExpressionSyntax?) Taken(ExpressionSyntax node) => node.Parent switch
    {
        ExpressionStatementSyntax => (node, node.AwaitInPlaceOf(node)),
        AssignmentExpressionSyntax { Parent: ExpressionStatementSyntax } assignment => (assignment, node.AwaitInPlaceOf(assignment)),
        _ => (null, null),
    };
}
