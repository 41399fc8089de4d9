using System.ComponentModel;
using Amy.Async;
using Amy.Async.Samples;

// dotnet run --project samples/TailFollow -- /var/log/syslog
if (args is not [var path])
{
    Console.Error.WriteLine("usage: TailFollow FILE");
    return 2;
}
try
{
    EventLoop.Run(async () =>
    {
        await foreach (var line in Tail.FollowAsync(path)) Console.WriteLine(line);
    });
    return 0;
}
catch (Exception e) when (e is IOException or InvalidDataException or Win32Exception)
{
    Console.Error.WriteLine(e.Message);
    return 1;
}
