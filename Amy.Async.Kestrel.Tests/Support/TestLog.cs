using System.Collections.Concurrent;
using Microsoft.Extensions.Logging;

namespace Amy.Async.Kestrel.Tests;

/// <summary>Keeps what is logged.</summary>
internal sealed class TestLog : ILoggerProvider
{
    internal sealed record Entry(string Category, LogLevel Level, EventId Id, string Text, Exception? Exception);

    private readonly ConcurrentQueue<Entry> _entries = new();

    internal IEnumerable<Entry> Entries => _entries;

    /// <summary>What tells of a fault: of ours or in ours. (Kestrel warns of slow requests and the like.)</summary>
    internal IEnumerable<Entry> Faults => _entries.Where(e => e.Level >= LogLevel.Error || e.Level >= LogLevel.Warning && e.Category.StartsWith("Amy.", StringComparison.Ordinal));

    public ILogger CreateLogger(string categoryName) => new Logger(this, categoryName);

    public void Dispose()
    {
    }

    private sealed class Logger(TestLog log, string category) : ILogger
    {
        public IDisposable? BeginScope<TState>(TState state) where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter) =>
            log._entries.Enqueue(new Entry(category, logLevel, eventId, formatter(state, exception), exception));
    }
}
