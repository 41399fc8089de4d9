using Amy.Async;
using Amy.Async.Samples;

// dotnet run --project samples/TailFollow -- /var/log/syslog
if (args is not [var path] || !File.Exists(path))
{
    Console.Error.WriteLine("usage: TailFollow FILE");
    return 2;
}
EventLoop.Run(async () =>
{
    await foreach (var line in Tail.FollowAsync(path)) Console.WriteLine(line);
});
return 0;
