namespace Amy.Async;

/// <summary>Runs tasks on a loop's thread, one at a time.</summary>
internal sealed class LoopTaskScheduler(EventLoop loop) : TaskScheduler
{
    private static readonly Action<object, object?> s_execute =
        static (scheduler, task) => ((LoopTaskScheduler)scheduler).TryExecuteTask((Task)task!);

    public override int MaximumConcurrencyLevel => 1;

    // After the stop this throws, and the task fails with a TaskSchedulerException.
    protected override void QueueTask(Task task) => loop.Enqueue(s_execute, this, task);

    protected override bool TryExecuteTaskInline(Task task, bool taskWasPreviouslyQueued) => loop.IsCurrent && TryExecuteTask(task);

    // Only for debuggers; the queue is not walked.
    protected override IEnumerable<Task>? GetScheduledTasks() => null;
}
