using Spectre.Console;

namespace Amy.Async.Bench;

/// <summary>Progress: a bar per phase on a terminal, a line per phase elsewhere.</summary>
internal static class Steps
{
    internal static void Show(IAnsiConsole console, Action<Func<string, int, Action>> work)
    {
        if (Console.IsOutputRedirected || !console.Profile.Capabilities.Interactive)
        {
            work((name, _) => { console.MarkupLineInterpolated($"{name} …"); return () => { }; });
            return;
        }
        console.Progress().Start(context => work((name, steps) =>
        {
            var task = context.AddTask(Markup.Escape(name), maxValue: steps);
            return () => task.Increment(1);
        }));
    }
}
