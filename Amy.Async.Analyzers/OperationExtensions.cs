using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.Operations;

namespace Amy.Async.Analyzers;

/// <summary>Where an operation stands: functions, blocks, order in the text.</summary>
internal static class OperationExtensions
{
    internal static IOperation Root(this IOperation operation)
    {
        while (operation.Parent is { } parent) operation = parent;
        return operation;
    }

    internal static IEnumerable<IOperation> Ancestors(this IOperation operation)
    {
        for (var parent = operation.Parent; parent is not null; parent = parent.Parent) yield return parent;
    }

    /// <summary>The lambda or local function around an operation, or what is outermost.</summary>
    internal static IOperation Function(this IOperation operation) =>
        operation.Ancestors().FirstOrDefault(IsFunction) ?? operation.Root();

    /// <summary>What runs when the function runs: not what stands in other functions inside it.</summary>
    internal static IEnumerable<IOperation> Inside(this IOperation function)
    {
        foreach (var child in function.ChildOperations)
        {
            if (IsFunction(child)) continue;
            yield return child;
            foreach (var grandchild in child.Inside()) yield return grandchild;
        }
    }

    internal static bool IsBefore(this IOperation operation, IOperation other) => operation.Syntax.SpanStart < other.Syntax.SpanStart;

    /// <summary>
    /// The block whose statements run one after the other, the one with the operation among them, if the operation runs whenever
    /// that statement does.
    /// </summary>
    internal static IBlockOperation? StraightBlock(this IOperation operation)
    {
        var child = operation;
        foreach (var parent in operation.Ancestors())
        {
            if (parent is IBlockOperation block) return block;
            if (child.RunsConditionally(parent)) return null;
            child = parent;
        }
        return null;
    }

    /// <summary>The child may run not at all, more than once or at another time when the parent runs.</summary>
    internal static bool RunsConditionally(this IOperation child, IOperation parent) => parent switch
    {
        IConditionalOperation conditional => conditional.Condition != child,
        IBinaryOperation { OperatorKind: BinaryOperatorKind.ConditionalAnd or BinaryOperatorKind.ConditionalOr } binary => binary.LeftOperand != child,
        ICoalesceOperation coalesce => coalesce.Value != child,
        IConditionalAccessOperation access => access.Operation != child,
        ISwitchOperation @switch => @switch.Value != child,
        ISwitchExpressionOperation @switch => @switch.Value != child,
        ICoalesceAssignmentOperation or ISwitchCaseOperation or ILoopOperation or ITryOperation or ICatchClauseOperation => true,
        _ => IsFunction(parent),
    };

    private static bool IsFunction(IOperation operation) => operation is IAnonymousFunctionOperation or ILocalFunctionOperation;
}
