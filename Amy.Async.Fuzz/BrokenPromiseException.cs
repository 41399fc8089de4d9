namespace Amy.Async.Fuzz;

/// <summary>The library does not do what it says.</summary>
internal sealed class BrokenPromiseException(string message) : Exception(message);
