using System.Net;
using Amy.Async.Samples;

// dotnet run --project samples/MultithreadedServer -- [port] [workers]
var port = args.Length > 0 ? int.Parse(args[0], System.Globalization.CultureInfo.InvariantCulture) : 7000;
var workers = args.Length > 1 ? int.Parse(args[1], System.Globalization.CultureInfo.InvariantCulture) : 2;

using var server = new FrameServer(new IPEndPoint(IPAddress.Loopback, port), workers);
Console.WriteLine($"Frames sent to {server.EndPoint} come back. Ctrl-C ends.");
var ended = new ManualResetEventSlim();
Console.CancelKeyPress += (_, e) => { e.Cancel = true; ended.Set(); };
ended.Wait();
