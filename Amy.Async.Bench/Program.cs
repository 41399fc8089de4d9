using System.CommandLine;
using System.Globalization;
using Amy.Async;
using Amy.Async.Bench;
using Amy.Async.Bench.Patterns;
using BenchmarkDotNet.Configs;
using BenchmarkDotNet.Jobs;
using BenchmarkDotNet.Running;
using Spectre.Console;

var root = new RootCommand("Measures Amy.Async: await latency and cost per round trip beside System.Net.Sockets and a C epoll loop.");
var quick = new Option<bool>("--short") { Description = "A run of about ten seconds." };
root.Options.Add(quick);
root.SetAction((result, token) => Cancellable(token, () => MainJob.Run(Output(), result.GetValue(quick), token)));

var spin = new Option<int?>("--spin-us") { Description = "EventLoopOptions.SpinDuration in microseconds; default: the library's." };
AtLeast(spin, 0);
var port = new Option<int>("--port") { Description = "The port; 0: the kernel chooses.", DefaultValueFactory = _ => 0 };
var address = new Option<string>("--address") { Description = "The address to listen on.", DefaultValueFactory = _ => "127.0.0.1" };
AtLeast(port, 0, 65535);
var unix = new Option<string?>("--unix") { Description = "A Unix-domain socket instead." };
var byHand = new Option<string?>("--by-hand") { Description = "Without the library, over TCP on loopback, as a yardstick: 'loop', or 'await' with the least that can be awaited, or 'valuetask' with the least receive that returns one." };
byHand.AcceptOnlyFromAmong("loop", "await", "valuetask");
var serve = new Command("serve", "The echo server alone, for outside load generators; ends on SIGINT and SIGTERM.") { port, address, unix, spin, byHand };
serve.SetAction(result => Guard(default, () => result.GetValue(byHand) is { } how
    ? ByHandEcho.Run(result.GetValue(port), how)
    : Serve.Run(result.GetValue(address)!, result.GetValue(port), result.GetValue(unix), result.GetValue(spin))));
root.Subcommands.Add(serve);

var rounds = new Option<int>("--rounds") { Description = "Paired rounds.", DefaultValueFactory = _ => 9 };
var trips = new Option<int>("--trips") { Description = "Round trips a round.", DefaultValueFactory = _ => 60_000 };
var size = new Option<int>("--size") { Description = "Bytes a message.", DefaultValueFactory = _ => 1 };
AtLeast(rounds, 1);
AtLeast(trips, 1);
AtLeast(size, 1, 65536);
var strict = new Command("pingpong", "Both ends on one thread against the C loop, strictly.") { rounds, trips, size, spin };
strict.SetAction((result, token) => Cancellable(token, () =>
    StrictComparison.Run(Output(), result.GetValue(rounds), result.GetValue(trips), result.GetValue(size), result.GetValue(spin) ?? 0, token)));
root.Subcommands.Add(strict);

var connections = new Option<int>("--connections") { Description = "Connections a round.", DefaultValueFactory = _ => 5_000 };
var milliseconds = new Option<int>("--milliseconds") { Description = "Length of a round.", DefaultValueFactory = _ => 1_000 };
AtLeast(connections, 1);
AtLeast(milliseconds, 1);
var accept = new Command("accept", "CPU per connection of accepting and closing, beside Socket.AcceptAsync.") { rounds, connections };
accept.SetAction((result, token) => Cancellable(token, () => SinkComparison.Accept(Output(), result.GetValue(rounds), result.GetValue(connections), token)));
root.Subcommands.Add(accept);
var datagrams = new Command("datagrams", "UDP packets per second, in batches and one by one, beside Socket.ReceiveFromAsync.") { rounds, milliseconds };
datagrams.SetAction((result, token) => Cancellable(token, () => SinkComparison.Datagrams(Output(), result.GetValue(rounds), result.GetValue(milliseconds), token)));
root.Subcommands.Add(datagrams);
var many = new Option<int>("--connections") { Description = "Idle connections.", DefaultValueFactory = _ => 10_000 };
AtLeast(many, 1);
var idle = new Command("idle", "Managed memory of idle connections, as sockets and as pipes, beside System.Net.Sockets.") { many };
idle.SetAction((result, token) => Cancellable(token, () => SinkComparison.Idle(Output(), result.GetValue(many), token)));
root.Subcommands.Add(idle);

var wakes = new Option<int>("--wakes") { Description = "Wakes there a round, and as many back.", DefaultValueFactory = _ => 8_000 };
AtLeast(wakes, 1, 200_000);
var wake = new Command("wake", "Waking a sleeping loop from another thread, beside C threads with eventfd and epoll_wait; bursts of posts.") { rounds, wakes };
wake.SetAction((result, token) => Cancellable(token, () => WakeComparison.Run(Output(), result.GetValue(rounds), result.GetValue(wakes), token)));
root.Subcommands.Add(wake);

var posts = new Option<int>("--posts") { Description = "Posts a round.", DefaultValueFactory = _ => 400_000 };
AtLeast(posts, 1_000, 10_000_000);
var post = new Command("post", "Posting to a loop from its own thread and from others, beside an unbounded Channel with one reader.") { rounds, posts };
post.SetAction((result, token) => Cancellable(token, () => PostComparison.Run(Output(), result.GetValue(rounds), result.GetValue(posts), token)));
root.Subcommands.Add(post);

var fairRounds = new Option<int>("--rounds") { Description = "Interleaved rounds.", DefaultValueFactory = _ => 5 };
var fairMilliseconds = new Option<int>("--milliseconds") { Description = "Length of a round.", DefaultValueFactory = _ => 1_000 };
var quiets = new Option<int>("--connections") { Description = "Quiet connections.", DefaultValueFactory = _ => 100 };
var rate = new Option<int>("--rate") { Description = "Requests per second of each quiet connection.", DefaultValueFactory = _ => 50 };
AtLeast(fairRounds, 1);
AtLeast(fairMilliseconds, 100, 10_000);
AtLeast(quiets, 1, 10_000);
AtLeast(rate, 1, 10_000);
var fairness = new Command("fairness", "Round trips of quiet connections alone and beside a firehose, a storm of accepts and one of posts.") { fairRounds, fairMilliseconds, quiets, rate };
fairness.SetAction((result, token) => Cancellable(token, () =>
    FairnessComparison.Run(Output(), result.GetValue(fairRounds), result.GetValue(fairMilliseconds), result.GetValue(quiets), result.GetValue(rate), token)));
root.Subcommands.Add(fairness);

var micro = new Command("micro", "The BenchmarkDotNet suite; its own arguments follow, for example --filter '*Post*'.") { TreatUnmatchedTokensAsErrors = false };
var fast = new Option<bool>("--quick") { Description = "A short job: less precise." };
micro.Options.Add(fast);
micro.SetAction(result =>
{
    var config = DefaultConfig.Instance.AddJob((result.GetValue(fast) ? Job.ShortRun : Job.Default).AsDefault());
    string[] arguments = [.. result.UnmatchedTokens];
    var summaries = BenchmarkSwitcher.FromAssembly(typeof(Serve).Assembly).Run(arguments.Length == 0 ? ["--filter", "*"] : arguments, config);
    return summaries.Any(s => s.HasCriticalValidationErrors || s.Reports.Any(r => !r.Success)) ? 1 : 0;
});
root.Subcommands.Add(micro);

var operations = new Option<long>("--operations") { Description = "Registrations and removals in all.", DefaultValueFactory = _ => 10_000_000 };
var registrations = new Command("registrations", "Four threads register and remove descriptors while the poller waits: nothing lost, nothing foreign, nobody woken.") { operations };
registrations.SetAction((result, token) => Cancellable(token, () =>
{
    var count = result.GetValue(operations);
    using var poller = new Poller();
    var clock = System.Diagnostics.Stopwatch.StartNew();
    var failure = new RegistrarStress(poller, 4, count, TimeSpan.FromSeconds(30)).Run(out var notifications);
    Console.WriteLine($"{count} operations, {notifications} notifications, {poller.WakesWritten - 1} wakes by registering, {clock.Elapsed.TotalSeconds:F1} s");
    if (failure is not null || poller.WakesWritten != 1) throw new InvalidOperationException(failure ?? "registering woke the poller");
}));
root.Subcommands.Add(registrations);

var minutes = new Option<double>("--minutes") { Description = "How long.", DefaultValueFactory = _ => 1 };
var seed = new Option<ulong?>("--seed") { Description = "The seed of all dice; default: a new one, which is printed." };
var poller = new Option<PollerKind>("--poller") { Description = "The kernel's mechanism: epoll, kqueue or auto." };
var faults = new Option<bool>("--faults") { Description = "System calls go wrong at random." };
var loops = new Option<int>("--loops") { Description = "Loops.", DefaultValueFactory = _ => 4 };
AtLeast(loops, 1, 64);
const int MostMinutes = 30_000; // a timer's most
var torture = new Command("torture", "Random clients and servers do all that one can do to a connection; every byte and every operation is accounted for. Exit code 1: something was wrong.") { minutes, seed, poller, faults, loops };
poller.Validators.Add(result =>
{
    if (result.GetValueOrDefault<PollerKind>() is var kind && !(Enum.IsDefined(kind) && Poller.IsSupported(kind))) result.AddError($"There is no poller {kind} here.");
});
torture.SetAction((result, token) => Task.Run(() => Guard(default, () => new Torture(new TortureOptions // Ctrl-C: to its end, with its books
{
    Duration = TimeSpan.FromMinutes(result.GetValue(minutes) is > 0 and <= MostMinutes and var length ? length : throw new ArgumentException($"--minutes must be positive, and at most {MostMinutes}.")),
    Seed = result.GetValue(seed) ?? (ulong)Random.Shared.NextInt64(),
    Poller = result.GetValue(poller),
    Faults = result.GetValue(faults),
    Loops = result.GetValue(loops),
    Stop = token,
}).Run(Console.WriteLine) ? 0 : 1), CancellationToken.None));
root.Subcommands.Add(torture);

var opened = new Option<long>("--connections") { Description = "Connections.", DefaultValueFactory = _ => 1_000_000 };
var part = new Option<long>("--part") { Description = "Tells after each so many, and compares with the first.", DefaultValueFactory = _ => 100_000 };
var growth = new Option<long>("--most-growth") { Description = "Bytes.", DefaultValueFactory = _ => 1 << 20 };
var churn = new Command("churn", "Opens and closes connections in one process: what is left in memory and descriptors. Exit code 1: more than was allowed.") { opened, part, growth };
churn.SetAction(result => Guard(default, () => Churn.Run(
    result.GetValue(opened) is > 0 and var count ? count : throw new ArgumentException("--connections must be positive."),
    result.GetValue(part) is > 0 and var step && step < result.GetValue(opened) ? step : throw new ArgumentException("--part must be positive, and less than --connections: the first part is compared with the last."),
    result.GetValue(growth), Console.WriteLine) ? 0 : 1));
root.Subcommands.Add(churn);

var pattern = new Option<string>("--pattern") { Required = true };
var transport = new Option<string>("--transport") { DefaultValueFactory = _ => "tcp" };
var worker = new Command("worker", "One row of a table, driven over standard input.") { pattern, transport, spin };
worker.Hidden = true;
worker.SetAction(result => Guard(default, () => Worker.Obey(result.GetValue(pattern)!, result.GetValue(transport) == "unix",
    result.GetValue(spin) is { } s ? TimeSpan.FromMicroseconds(s) : null)));
root.Subcommands.Add(worker);
var server = new Command("server", "One row's server, driven over standard input.") { pattern };
server.Hidden = true;
server.SetAction(result => Guard(default, () => Worker.Serve(result.GetValue(pattern)!)));
root.Subcommands.Add(server);

var webRounds = new Option<int>("--rounds") { Description = "Interleaved rounds.", DefaultValueFactory = _ => 5 };
var webMilliseconds = new Option<int>("--milliseconds") { Description = "Length of a round.", DefaultValueFactory = _ => 2_000 };
var plot = new Option<string>("--plot") { Description = "The image file of requests per second, an SVG.", DefaultValueFactory = _ => "kestrel.svg" };
AtLeast(webRounds, 1);
AtLeast(webMilliseconds, 500, 20_000);
var webWarmUp = new Option<int>("--warm-up") { Description = "Milliseconds of each load on each server before the first round.", DefaultValueFactory = _ => 12_000 };
AtLeast(webWarmUp, 500, 20_000);
var webLoad = new Option<string?>("--load") { Description = "Only the loads that have this in their name." };
var kestrel = new Command("kestrel", "Plain text, JSON and raw echo over Kestrel's own sockets and over Amy.Async, driven by wrk, h2load and a client in C.") { webRounds, webMilliseconds, webWarmUp, webLoad, plot };
kestrel.SetAction((result, token) => Cancellable(token, () =>
    Amy.Async.Bench.Kestrel.KestrelComparison.Run(Output(), result.GetValue(webRounds), result.GetValue(webMilliseconds), result.GetValue(webWarmUp), result.GetValue(webLoad), result.GetValue(plot), token)));
root.Subcommands.Add(kestrel);

var holdPort = new Option<int>("--port") { Required = true };
var held = new Option<int>("--connections") { Required = true };
var hold = new Command("hold", "Silent peers for a test of a server, until the end of standard input.") { holdPort, held };
hold.Hidden = true;
hold.SetAction(result => Guard(default, () => SilentPeers.Hold(result.GetValue(holdPort), result.GetValue(held))));
root.Subcommands.Add(hold);

var webTransport = new Option<string>("--transport") { Required = true };
var inline = new Option<bool>("--inline");
var web = new Command("web", "One row's web server, driven over standard input.") { webTransport, inline };
web.Hidden = true;
web.SetAction(result => Amy.Async.Bench.Kestrel.WebServer.Run(result.GetValue(webTransport)!, result.GetValue(inline)));
root.Subcommands.Add(web);

return root.Parse(args).Invoke();

static IAnsiConsole Output()
{
    var console = AnsiConsole.Console;
    if (Console.IsOutputRedirected) console.Profile.Width = 150; // no terminal: nothing may be cut off
    return console;
}

// What is not a number at all is the parser's own error.
static void AtLeast(Option option, int minimum, int maximum = int.MaxValue) => option.Validators.Add(result =>
{
    if (result.Tokens is [var token] && int.TryParse(token.Value, CultureInfo.InvariantCulture, out var value) && (value < minimum || value > maximum))
        result.AddError(maximum == int.MaxValue ? $"{option.Name} must be at least {minimum}." : $"{option.Name} must be between {minimum} and {maximum}.");
});

// On a thread of its own, so that Ctrl-C cancels it and children and temporary files are cleared away.
static Task<int> Cancellable(CancellationToken token, Action action) => Task.Run(() => Guard(token, () => { action(); return 0; }), CancellationToken.None);

static int Guard(CancellationToken token, Func<int> action)
{
    try
    {
        return action();
    }
    catch (Exception e) when (e is OperationCanceledException || Interrupted(token))
    {
        Console.Error.WriteLine("interrupted");
        return 130;
    }
    catch (Exception e)
    {
        Console.Error.WriteLine($"error: {e.Message}");
        return 1;
    }
}

// Ctrl-C reaches the children too, and their end may be noticed a little before our own signal.
static bool Interrupted(CancellationToken token) => token.CanBeCanceled && token.WaitHandle.WaitOne(200);
