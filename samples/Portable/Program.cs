using System.Globalization;
using System.Runtime.InteropServices;
using Amy.Async;
using Amy.Async.Samples;

// dotnet run --project samples/Portable -- all      or as it is published: -p:For=aot, trimmed, net8, mono
var names = args.Length == 1 && args[0] == "all" ? Checks.All.Keys.ToArray() : args;
if (names.Length == 0 || !names.All(Checks.All.ContainsKey))
{
    Console.Error.WriteLine($"usage: Portable all | {string.Join(" | ", Checks.All.Keys)} ...");
    return 2;
}
Console.WriteLine(string.Format(CultureInfo.InvariantCulture, "{0}, {1}", RuntimeInformation.FrameworkDescription, RuntimeInformation.ProcessArchitecture));
var failed = 0;
foreach (var name in names)
{
    try
    {
        EventLoop.Run(Checks.All[name]);
        Console.WriteLine($"{name}: ok");
    }
    catch (Exception e)
    {
        failed++;
        Console.Error.WriteLine($"{name}: {e}");
    }
}
return failed == 0 ? 0 : 1;
