using System.Diagnostics;
using Amy.Async;
using Amy.Async.Samples;

// dotnet run --project samples/WaitForProcess -- sleep 2
if (args.Length == 0)
{
    Console.Error.WriteLine("usage: WaitForProcess PROGRAM [ARGUMENT...]");
    return 2;
}
return EventLoop.Run(async () =>
{
    using var process = Process.Start(args[0], args[1..]);
    await ProcessExit.WaitAsync(process.Id);
    process.WaitForExit(); // at once: its exit code is there
    Console.WriteLine($"{args[0]} ended with {process.ExitCode}");
    return process.ExitCode;
});
