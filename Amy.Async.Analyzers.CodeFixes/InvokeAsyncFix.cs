using System.Collections.Immutable;
using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CodeActions;
using Microsoft.CodeAnalysis.CodeFixes;
using Microsoft.CodeAnalysis.CSharp;
using Microsoft.CodeAnalysis.CSharp.Syntax;

namespace Amy.Async.Analyzers;

/// <summary>AMY005: <c>InvokeAsync</c>, whose Task is awaited, or else dropped for all to see.</summary>
[ExportCodeFixProvider(LanguageNames.CSharp, Name = nameof(InvokeAsyncFix))]
public sealed class InvokeAsyncFix : CodeFixProvider
{
    /// <inheritdoc/>
    public override ImmutableArray<string> FixableDiagnosticIds => ImmutableArray.Create(Rules.AsyncPost.Id);

    /// <inheritdoc/>
    public override FixAllProvider GetFixAllProvider() => WellKnownFixAllProviders.BatchFixer;

    /// <inheritdoc/>
    public override async Task RegisterCodeFixesAsync(CodeFixContext context)
    {
        var root = await context.Document.GetSyntaxRootAsync(context.CancellationToken).ConfigureAwait(false);
        foreach (var diagnostic in context.Diagnostics)
        {
            // A method is to be changed where it stands, and a state has no place in InvokeAsync.
            if (root?.FindNode(diagnostic.Location.SourceSpan) is not ArgumentSyntax { Expression: AnonymousFunctionExpressionSyntax, Parent: ArgumentListSyntax { Arguments.Count: 1 } list }
                || list.Parent is not InvocationExpressionSyntax { Expression: MemberAccessExpressionSyntax member, Parent: ExpressionStatementSyntax } call) continue;
            var invoke = call.WithExpression(member.WithName(SyntaxFactory.IdentifierName("InvokeAsync"))).WithoutTrivia();
            var replacement = call.MayAwait()
                ? invoke.AwaitInPlaceOf(call)
                : SyntaxFactory.AssignmentExpression(SyntaxKind.SimpleAssignmentExpression, SyntaxFactory.IdentifierName("_").WithTrailingTrivia(SyntaxFactory.Space),
                    SyntaxFactory.Token(SyntaxKind.EqualsToken).WithTrailingTrivia(SyntaxFactory.Space), invoke);
            context.RegisterCodeFix(
                CodeAction.Create("Use InvokeAsync", _ => Task.FromResult(context.Document.WithSyntaxRoot(root.ReplaceNode(call, replacement.WithTriviaFrom(call)))), nameof(InvokeAsyncFix)),
                diagnostic);
        }
    }
}
