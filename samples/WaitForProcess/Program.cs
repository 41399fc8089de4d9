using System.ComponentModel;
using Amy.Async;
using Amy.Async.Samples;

// dotnet run --project samples/WaitForProcess -- sleep 2
if (args.Length == 0)
{
    Console.Error.WriteLine("usage: WaitForProcess PROGRAM [ARGUMENT...]");
    return 2;
}
try
{
    return EventLoop.Run(async () =>
    {
        var exitCode = await ProcessExit.RunAsync(args[0], args[1..]);
        Console.WriteLine($"{args[0]} ended with {exitCode}");
        return exitCode;
    });
}
catch (Win32Exception e)
{
    Console.Error.WriteLine(e.Message);
    return 1;
}
