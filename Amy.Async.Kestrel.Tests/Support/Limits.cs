namespace Amy.Async.Kestrel.Tests;

/// <summary>A test that hangs fails instead.</summary>
internal static class Limits
{
    internal static readonly TimeSpan Limit = TimeSpan.FromSeconds(20);

    internal static Task Within(this Task task) => task.WaitAsync(Limit);

    internal static Task<T> Within<T>(this Task<T> task) => task.WaitAsync(Limit);

    /// <summary>Waits for what another thread does without telling.</summary>
    internal static void Until(Func<bool> condition, string what) => Assert.That(SpinWait.SpinUntil(condition, Limit), Is.True, what);

    internal static async Task<T> Throws<T>(Func<Task> action) where T : Exception
    {
        try
        {
            await action().Within();
        }
        catch (T e)
        {
            return e;
        }
        throw new AssertionException($"Expected {typeof(T).Name}, but nothing was thrown.");
    }
}
