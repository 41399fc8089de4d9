using System.Diagnostics;

namespace Amy.Async.Compat;

#if NETSTANDARD2_0
/// <summary>The work item of the thread pool, which netstandard2.0 does not have.</summary>
internal interface IThreadPoolWorkItem
{
    void Execute();
}
#endif

/// <summary>Services of the runtime that netstandard2.0 lacks or has under a slower form.</summary>
internal static class Runtime
{
#if NETSTANDARD2_0
    private static readonly WaitCallback s_execute = static item => ((IThreadPoolWorkItem)item!).Execute();

    internal static void QueueToPool(IThreadPoolWorkItem item) => ThreadPool.UnsafeQueueUserWorkItem(s_execute, item);

    internal static CancellationTokenRegistration Register(Action<object?> callback, object state, CancellationToken token)
    {
        // Without UnsafeRegister the context is captured here, unless its flow is suppressed already.
        return token.Register(callback, state, useSynchronizationContext: false);
    }

    // Dispose waits for a callback that is running on another thread. Ours sets a bit and queues, and waits for nobody.
    internal static void Unregister(CancellationTokenRegistration registration) => registration.Dispose();

    internal static void StartWithoutContext(Thread thread, object state)
    {
        if (ExecutionContext.IsFlowSuppressed())
        {
            thread.Start(state);
            return;
        }
        using (ExecutionContext.SuppressFlow()) thread.Start(state);
    }

    /// <summary>Runs a work item so that the execution context it leaves behind is not seen by the next.</summary>
    internal static void Restore(ExecutionContext? context)
    {
        // There is no Restore here; WorkItem.Run isolates each item instead (see IsolateItems).
    }

    /// <summary>Whether each item must run inside <see cref="ExecutionContext.Run"/> because a context cannot be restored.</summary>
    internal const bool IsolateItems = true;

    private static readonly bool s_isFramework = typeof(object).Assembly.GetName().Name == "mscorlib";

    /// <summary>Runs in a context as often as one likes, and under the <see cref="SynchronizationContext"/> that is current.</summary>
    /// <remarks>
    /// On .NET Framework and Mono a captured context can be used once, so a copy of it is used; and it has the
    /// SynchronizationContext that was current when it was captured, which may be another thread's.
    /// </remarks>
    internal static void RunIn(ExecutionContext context, ContextCallback callback, object? state)
    {
        if (s_isFramework) new FrameworkRun(callback, state, SynchronizationContext.Current).In(context.CreateCopy());
        else ExecutionContext.Run(context, callback, state);
    }

    private sealed class FrameworkRun(ContextCallback callback, object? state, SynchronizationContext? current)
    {
        private static readonly ContextCallback s_run = static run => ((FrameworkRun)run!).Go();

        internal void In(ExecutionContext context) => ExecutionContext.Run(context, s_run, this);

        private void Go()
        {
            SynchronizationContext.SetSynchronizationContext(current);
            callback(state);
        }
    }

    /// <summary>The assembly, the type and the name of a frame's method; null where the runtime does not know.</summary>
    internal static (string? Assembly, string? Type, string? Method) MethodOf(StackFrame frame)
    {
        var method = frame.GetMethod();
        return (method?.DeclaringType?.Assembly.GetName().Name, method?.DeclaringType?.FullName, method?.Name);
    }
#else
    internal static (string? Assembly, string? Type, string? Method) MethodOf(StackFrame frame)
    {
        var method = DiagnosticMethodInfo.Create(frame);
        var assembly = method?.DeclaringAssemblyName; // with version and key
        return (assembly?.Substring(0, Math.Max(0, assembly.IndexOf(','))), method?.DeclaringTypeName, method?.Name);
    }

    internal static void QueueToPool(IThreadPoolWorkItem item) => ThreadPool.UnsafeQueueUserWorkItem(item, preferLocal: false);

    internal static CancellationTokenRegistration Register(Action<object?> callback, object state, CancellationToken token) =>
        token.UnsafeRegister(callback, state);

    // Never blocks: a callback in progress on another thread goes on.
    internal static void Unregister(CancellationTokenRegistration registration) => registration.Unregister();

    internal static void StartWithoutContext(Thread thread, object state) => thread.UnsafeStart(state);

    internal static void Restore(ExecutionContext? context)
    {
        if (context is not null) ExecutionContext.Restore(context);
    }

    internal const bool IsolateItems = false;

    internal static void RunIn(ExecutionContext context, ContextCallback callback, object? state) => ExecutionContext.Run(context, callback, state);
#endif
}
