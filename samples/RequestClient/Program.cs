using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Amy.Async;
using Amy.Async.Samples;

// dotnet run --project samples/RequestClient -- --port 7003      serves and asks, in one process
if (args is not ["--port", var text] || !ushort.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var port))
{
    Console.Error.WriteLine("usage: RequestClient --port N");
    return 2;
}
try
{
    EventLoop.Run(async () =>
    {
        using var server = new RequestServer(new IPEndPoint(IPAddress.Loopback, port));
        _ = server.RunAsync();
        using var client = new RequestPool(server.EndPoint, maxConnections: 4);
        var answers = await Task.WhenAll(Enumerable.Range(0, 20).Select(i => client.AskAsync(Encoding.UTF8.GetBytes($"question {i}"), TimeSpan.FromSeconds(1))));
        foreach (var answer in answers) Console.WriteLine(Encoding.UTF8.GetString(answer));
        try
        {
            await client.AskAsync("sleep 2000"u8.ToArray(), TimeSpan.FromMilliseconds(100));
        }
        catch (TimeoutException e)
        {
            Console.WriteLine(e.Message);
        }
    });
    return 0;
}
catch (SocketException e)
{
    Console.Error.WriteLine(e.Message); // the port is in use, say
    return 1;
}
