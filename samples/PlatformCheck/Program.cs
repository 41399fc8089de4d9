using System.Runtime.InteropServices;
using Amy.Async;
using Amy.Async.Samples;

// dotnet run --project samples/PlatformCheck -- run      or: run --emulated
if (args is not ["run"] and not ["run", "--emulated"])
{
    Console.Error.WriteLine("usage: PlatformCheck run [--emulated]");
    return 2;
}
Console.WriteLine($"{RuntimeInformation.OSDescription}, {RuntimeInformation.ProcessArchitecture}, {RuntimeInformation.RuntimeIdentifier}, {RuntimeInformation.FrameworkDescription}");
try
{
    EventLoop.Run(() => new KernelChecks(Console.WriteLine, emulated: args.Length > 1).RunAsync());
    return 0;
}
catch (InvalidOperationException e)
{
    Console.Error.WriteLine(e.Message);
    return 1;
}
