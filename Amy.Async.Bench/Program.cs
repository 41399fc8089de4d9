using System.CommandLine;
using Amy.Async.Bench;
using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Jobs;
using BenchmarkDotNet.Running;
using Spectre.Console;

var root = new RootCommand("Measures Amy.Async: await latency and cost per round trip beside System.Net.Sockets and a C epoll loop.");
var quick = new Option<bool>("--short") { Description = "A run of about ten seconds." };
root.Options.Add(quick);
root.SetAction((result, token) => Task.Run(() => Guard(() => { MainJob.Run(Output(), result.GetValue(quick), token); return 0; }), CancellationToken.None));

var spin = new Option<int?>("--spin-us") { Description = "EventLoopOptions.SpinDuration in microseconds; default: the library's." };
var port = new Option<int>("--port") { Description = "The port; 0: the kernel chooses.", DefaultValueFactory = _ => 0 };
var address = new Option<string>("--address") { Description = "The address to listen on.", DefaultValueFactory = _ => "127.0.0.1" };
var unix = new Option<string?>("--unix") { Description = "A Unix-domain socket instead." };
var serve = new Command("serve", "The echo server alone, for outside load generators; ends on SIGINT and SIGTERM.") { port, address, unix, spin };
serve.SetAction(result => Guard(() => Serve.Run(result.GetValue(address)!, result.GetValue(port), result.GetValue(unix), result.GetValue(spin))));
root.Subcommands.Add(serve);

var rounds = new Option<int>("--rounds") { Description = "Paired rounds.", DefaultValueFactory = _ => 9 };
var trips = new Option<int>("--trips") { Description = "Round trips a round.", DefaultValueFactory = _ => 60_000 };
var size = new Option<int>("--size") { Description = "Bytes a message.", DefaultValueFactory = _ => 1 };
var strict = new Command("pingpong", "Both ends on one thread against the C loop, strictly.") { rounds, trips, size, spin };
strict.SetAction(result => Guard(() => StrictComparison.Run(Output(), result.GetValue(rounds), result.GetValue(trips), result.GetValue(size), result.GetValue(spin) ?? 0)));
root.Subcommands.Add(strict);

var micro = new Command("micro", "The BenchmarkDotNet suite; its own arguments follow, for example --filter '*Post*'.") { TreatUnmatchedTokensAsErrors = false };
var fast = new Option<bool>("--quick") { Description = "A short job: less precise." };
micro.Options.Add(fast);
micro.SetAction(result =>
{
    var config = DefaultConfig.Instance.AddJob((result.GetValue(fast) ? Job.ShortRun : Job.Default).AsDefault());
    string[] arguments = [.. result.UnmatchedTokens];
    BenchmarkSwitcher.FromAssembly(typeof(Serve).Assembly).Run(arguments.Length == 0 ? ["--filter", "*"] : arguments, config);
    return 0;
});
root.Subcommands.Add(micro);

var pattern = new Option<string>("--pattern") { Required = true };
var transport = new Option<string>("--transport") { DefaultValueFactory = _ => "tcp" };
var worker = new Command("worker", "One row of a table, driven over standard input.") { pattern, transport, spin };
worker.Hidden = true;
worker.SetAction(result => Worker.PingPong(result.GetValue(pattern)!, result.GetValue(transport) == "unix",
    result.GetValue(spin) is { } s ? TimeSpan.FromMicroseconds(s) : null));
root.Subcommands.Add(worker);
var server = new Command("server", "One row's server, driven over standard input.") { pattern };
server.Hidden = true;
server.SetAction(result => Worker.Serve(result.GetValue(pattern)!));
root.Subcommands.Add(server);

return root.Parse(args).Invoke();

static IAnsiConsole Output()
{
    var console = AnsiConsole.Console;
    if (Console.IsOutputRedirected) console.Profile.Width = 150; // no terminal: nothing may be cut off
    return console;
}

static int Guard(Func<int> action)
{
    try
    {
        return action();
    }
    catch (OperationCanceledException)
    {
        return 130;
    }
    catch (Exception e)
    {
        Console.Error.WriteLine($"error: {e.Message}");
        return 1;
    }
}
