using System.Diagnostics;
using Amy.Async.Compat;

namespace Amy.Async;

/// <summary>Names for what runs on a loop, from what the compiler and the runtime call it. For people, not for programs.</summary>
internal static class WorkName
{
    /// <summary>The name of a work item or a continuation; null if there is none.</summary>
    internal static string? Of(object? target, object? state) => target switch
    {
        null => null,
        INamedWork named => Of(named.Work),
        // What a continuation's own delegate says is the platform's; the user's method is in the type of the async method's box.
        _ => OfBox(state) ?? OfBox(target) ?? (state is Delegate inner ? Of(inner) : target is Delegate outer ? Of(outer) : (target as Task ?? state as Task) is { } task ? $"Task {task.Id}" : target.GetType().Name),
    };

    /// <summary>
    /// Whether the wait at the top of the stack is one for a Task, and which method waits; null: nobody's but the library's own
    /// (a lock that another thread holds for a moment).
    /// </summary>
    internal static bool IsTaskWait(StackTrace trace, out string? method)
    {
        method = null;
        var isTaskWait = false;
        var isOurs = false;
        for (var i = 1; i < trace.FrameCount; i++) // the first is the context's Wait
        {
            var (assembly, type, name) = Runtime.MethodOf(trace.GetFrame(i)!);
            if (assembly == "Amy.Async" && !isTaskWait) isOurs = true;
            if (isOurs) break;
            if (assembly is not null && !assembly.StartsWith("System.", StringComparison.Ordinal) && assembly is not ("Amy.Async" or "mscorlib"))
            {
                method = Of(type, name!);
                break;
            }
            isTaskWait |= type == "System.Threading.Tasks.Task" && name is "Wait" or "InternalWait" or "InternalWaitCore" or "WaitAllCore" or "WaitAllBlockingCore" or "WaitAnyCore";
        }
        return isTaskWait;
    }

    private static string Of(Delegate method) => OfBox(method.Target) ?? Of(method.Method.DeclaringType?.FullName, method.Method.Name);

    // An async method's box is generic over its state machine, whose type is nested in the user's: Server+<Echo>d__3.
    private static string? OfBox(object? box)
    {
        if (box is not Task || !box.GetType().IsGenericType) return null;
        foreach (var argument in box.GetType().GetGenericArguments())
            if (argument.FullName is { } name && argument.Name[0] == '<') return Of(name, "MoveNext");
        return null;
    }

    // Server+<Echo>d__3.MoveNext, Server+<>c__DisplayClass1_0.<Main>b__0, Server.<Main>g__Local|0_1: Server.Echo, Server.Main, Server.Local.
    private static string Of(string? type, string method)
    {
        type ??= "";
        var arguments = type.IndexOf('[');
        if (arguments >= 0) type = type.Substring(0, arguments);
        var nested = type.IndexOf("+<", StringComparison.Ordinal);
        var machine = nested >= 0 ? type.Substring(nested + 1) : "";
        if (nested >= 0) type = type.Substring(0, nested);
        var name = Inner(method) ?? Inner(machine) ?? method;
        type = type.Replace('+', '.');
        return type.Length == 0 ? name : $"{type}.{name}";
    }

    // <Main>b__0: Main; <Main>g__Local|0_1: Local; <<Main>b__0>d: Main; <>c: none.
    private static string? Inner(string name)
    {
        var local = name.IndexOf(">g__", StringComparison.Ordinal);
        if (local >= 0)
        {
            var bar = name.IndexOf('|', local);
            return bar < 0 ? null : name.Substring(local + 4, bar - local - 4);
        }
        var start = name.LastIndexOf('<') + 1;
        var end = start == 0 ? -1 : name.IndexOf('>', start);
        return end > start ? name.Substring(start, end - start) : null;
    }
}

/// <summary>A work item that stands for the user's delegate.</summary>
internal interface INamedWork
{
    /// <summary>That delegate.</summary>
    Delegate Work { get; }
}
