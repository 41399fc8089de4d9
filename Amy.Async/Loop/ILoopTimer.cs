namespace Amy.Async;

/// <summary>What a loop's timer queue holds.</summary>
internal interface ILoopTimer : ITimerEntry
{
    /// <summary>The time has come. On the loop's thread, after the entry has left the queue.</summary>
    void Fire();

    /// <summary>The loop ends before the time has come. Likewise.</summary>
    void Stop();
}
