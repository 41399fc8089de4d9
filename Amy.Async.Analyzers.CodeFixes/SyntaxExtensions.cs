using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CSharp;
using Microsoft.CodeAnalysis.CSharp.Syntax;

namespace Amy.Async.Analyzers;

internal static class SyntaxExtensions
{
    /// <summary>An await may stand here: in an async function or among top-level statements, not in a lock.</summary>
    internal static bool MayAwait(this SyntaxNode node)
    {
        foreach (var parent in node.Ancestors())
            switch (parent)
            {
                case LockStatementSyntax or UnsafeStatementSyntax or QueryExpressionSyntax:
                    return false;
                case AnonymousFunctionExpressionSyntax lambda:
                    return lambda.AsyncKeyword.IsKind(SyntaxKind.AsyncKeyword);
                case LocalFunctionStatementSyntax local:
                    return local.Modifiers.Any(SyntaxKind.AsyncKeyword);
                case MemberDeclarationSyntax member:
                    return member is GlobalStatementSyntax || member.Modifiers.Any(SyntaxKind.AsyncKeyword);
            }
        return false;
    }

    /// <summary>To be put in place of another expression: in parentheses where it must be.</summary>
    internal static ExpressionSyntax AwaitInPlaceOf(this ExpressionSyntax expression, ExpressionSyntax old)
    {
        ExpressionSyntax awaiting = SyntaxFactory.AwaitExpression(
            SyntaxFactory.Token(SyntaxKind.AwaitKeyword).WithTrailingTrivia(SyntaxFactory.Space), expression.WithoutTrivia());
        return old.Parent is MemberAccessExpressionSyntax or ElementAccessExpressionSyntax or ConditionalAccessExpressionSyntax or InvocationExpressionSyntax
            or PostfixUnaryExpressionSyntax ? SyntaxFactory.ParenthesizedExpression(awaiting) : awaiting;
    }
}
