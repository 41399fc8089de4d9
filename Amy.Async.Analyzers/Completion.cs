using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.Operations;

namespace Amy.Async.Analyzers;

/// <summary>
/// Whether a task has completed when its result is taken: it was awaited before, alone or with others, or somebody asked. Guessed
/// from the text, generously: what is believed to have completed is not reported.
/// </summary>
internal static class Completion
{
    internal static bool IsKnown(IOperation call)
    {
        var task = call switch
        {
            IPropertyReferenceOperation property => property.Instance,
            IInvocationOperation { Instance: IInvocationOperation { TargetMethod.Name: "GetAwaiter" } awaiter } => awaiter.Instance,
            IInvocationOperation invocation => invocation.Instance,
            _ => null,
        };
        if (task is null) return false;
        while (task is IConversionOperation conversion) task = conversion.Operand;
        if (task is IAwaitOperation) return true; // (await Task.WhenAny(...)).Result
        var earlier = call.Root().Descendants().Where(o => o.IsBefore(call) || SharesALoop(o, call)).ToList();
        if (earlier.Any(o => o is IPropertyReferenceOperation { Property.Name: "IsCompleted" or "IsCompletedSuccessfully" or "Status" })) return true;
        return Variables(task, call).Any(variable => earlier.Any(o => o switch
        {
            IAwaitOperation awaiting => awaiting.Operation.DescendantsAndSelf().Any(d => Is(d, variable)),
            // var first = await Task.WhenAny(...);
            IVariableDeclaratorOperation declarator => SymbolEqualityComparer.Default.Equals(declarator.Symbol, variable) && declarator.GetVariableInitializer()?.Value is IAwaitOperation,
            ISimpleAssignmentOperation { Value: IAwaitOperation } assignment => Is(assignment.Target, variable),
            _ => false,
        }));
    }

    private static bool SharesALoop(IOperation operation, IOperation call) =>
        operation is IAwaitOperation && operation.Ancestors().Any(o => o is ILoopOperation && call.Ancestors().Contains(o));

    private static bool Is(IOperation operation, ISymbol variable) => SymbolEqualityComparer.Default.Equals(Variable(operation), variable);

    private static ISymbol? Variable(IOperation operation) => operation switch
    {
        ILocalReferenceOperation local => local.Local,
        IParameterReferenceOperation parameter => parameter.Parameter,
        IFieldReferenceOperation field => field.Field,
        IPropertyReferenceOperation property => property.Property,
        _ => null,
    };

    // The task's own, those that it is an element or a member of, and what a foreach that it comes from goes through.
    private static IEnumerable<ISymbol> Variables(IOperation? task, IOperation call)
    {
        while (task is not null)
        {
            if (Variable(task) is { } variable)
            {
                yield return variable;
                if (call.Ancestors().OfType<IForEachLoopOperation>().FirstOrDefault(l => l.Locals.Contains(variable, SymbolEqualityComparer.Default)) is { } loop)
                    foreach (var other in Variables(loop.Collection, call)) yield return other;
            }
            task = task switch
            {
                IConversionOperation conversion => conversion.Operand,
                IMemberReferenceOperation member => member.Instance,
                IArrayElementReferenceOperation element => element.ArrayReference,
                IInvocationOperation { TargetMethod.ContainingType.Name: "Enumerable" } query => query.Arguments.FirstOrDefault()?.Value,
                _ => null,
            };
        }
    }
}
