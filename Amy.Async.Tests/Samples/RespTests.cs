using System.Net;
using System.Net.Sockets;
using System.Text;
using Amy.Async.Samples;

namespace Amy.Async.Tests.Samples;

/// <summary>The RESP sample: with redis-cli and redis-benchmark themselves, and byte for byte.</summary>
[TestFixture]
internal sealed class RespTests
{
    private static void WithServer(Func<RespServer, Task> test) => Run.OnLoop(async () =>
    {
        using var server = new RespServer(new IPEndPoint(IPAddress.Loopback, 0));
        var running = server.RunAsync();
        await test(server);
        server.Dispose();
        await running;
    });

    private static string Port(RespServer server) => ((IPEndPoint)server.EndPoint).Port.ToString(System.Globalization.CultureInfo.InvariantCulture);

    [Test]
    public void RedisCli_TalksToIt() => WithServer(async server =>
    {
        async Task<string> Ask(params string[] command) => (await RealProgram.RunAsync("redis-cli", null, ["-p", Port(server), .. command])).Output.TrimEnd();
        Assert.That(await Ask("PING"), Is.EqualTo("PONG"));
        Assert.That(await Ask("ECHO", "hello world"), Is.EqualTo("hello world"));
        Assert.That(await Ask("SET", "key", "a value"), Is.EqualTo("OK"));
        Assert.That(await Ask("get", "key"), Is.EqualTo("a value"));
        Assert.That(await Ask("GET", "other"), Is.Empty);
        Assert.That(await Ask("INCR", "n"), Is.EqualTo("1"));
        Assert.That(await Ask("INCR", "n"), Is.EqualTo("2"));
        Assert.That(await Ask("INCR", "key"), Does.Contain("not an integer"));
        Assert.That(await Ask("DEL", "n", "key", "none"), Is.EqualTo("2"));
        Assert.That(await Ask("DBSIZE"), Is.EqualTo("0"));
        Assert.That(await Ask("FROBNICATE", "x"), Does.Contain("unknown command 'FROBNICATE'"));
        Assert.That(await Ask("GET"), Does.Contain("wrong number of arguments for 'get'"));
    });

    [TestCase("1")]
    [TestCase("16")]
    public void RedisBenchmark_DrivesIt(string pipeline) => WithServer(async server =>
    {
        var (code, output) = await RealProgram.RunAsync("redis-benchmark", null, "-p", Port(server), "-t", "ping,set,get,incr", "-c", "50", "-n", "20000", "-P", pipeline, "-r", "1000", "--csv");
        Assert.That(code, Is.Zero, output);
        foreach (var test in new[] { "PING_INLINE", "PING_MBULK", "SET", "GET", "INCR" }) Assert.That(output, Does.Contain($"\"{test}\""));
        Assert.That(output, Does.Not.Contain("Error"));
        Assert.That((await RealProgram.RunAsync("redis-cli", null, "-p", Port(server), "DBSIZE")).Output, Is.Not.EqualTo("0\n"));
    });

    private static async Task<string> Talk(RespServer server, byte[] request, int chunk)
    {
        using var client = await AsyncSocket.ConnectAsync(server.EndPoint);
        var reading = new StreamReader(client.AsStream(false), Encoding.Latin1).ReadToEndAsync();
        for (var i = 0; i < request.Length; i += chunk) await client.SendAsync(request.AsMemory(i, Math.Min(chunk, request.Length - i)));
        client.Shutdown(SocketShutdown.Send);
        return await reading;
    }

    [TestCase(1)]
    [TestCase(3)]
    [TestCase(1000)]
    public void Wire_HoweverItIsCut(int chunk) => WithServer(async server =>
    {
        var request = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\na\r\n\0b\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*0\r\n\r\nPING\r\n  SET   x  12 \nINCR x\r\nget x\r\n*2\r\n$4\r\nECHO\r\n$0\r\n\r\nQUIT\r\nPING\r\n";
        Assert.That(await Talk(server, Encoding.Latin1.GetBytes(request), chunk), Is.EqualTo("+OK\r\n$5\r\na\r\n\0b\r\n+PONG\r\n+OK\r\n:13\r\n$2\r\n13\r\n$0\r\n\r\n+OK\r\n"));
    });

    [TestCase("*x\r\n", "invalid multibulk length")]
    [TestCase("*99999\r\n", "invalid multibulk length")]
    [TestCase("*1\r\nPING\r\n", "expected '$', got 'P'")]
    [TestCase("*1\r\n$-5\r\n", "invalid bulk length")]
    [TestCase("*1\r\n$99999999999\r\n", "invalid bulk length")]
    [TestCase("*1\r\n$3\r\nGETxx", "invalid bulk length")]
    [TestCase("*1111111111111111111111111111111111111111", "invalid multibulk length")]
    public void Malformed_IsAnswered_AndTheConnectionEnds(string request, string error) => WithServer(async server =>
    {
        Assert.That(await Talk(server, Encoding.ASCII.GetBytes("PING\r\n" + request), 1000), Is.EqualTo($"+PONG\r\n-ERR Protocol error: {error}\r\n"));
        while (server.Connections > 0) await EventLoop.Current!.Yield();
    });

    [TestCase("007")]
    [TestCase("+5")]
    [TestCase("-0")]
    [TestCase("1x")]
    [TestCase("9223372036854775808")]
    public void Incr_OfWhatIsNoNumber_IsRefused(string value) => WithServer(async server =>
        Assert.That(await Talk(server, Encoding.ASCII.GetBytes($"SET x {value}\r\nINCR x\r\nGET x\r\n"), 1000), Is.EqualTo($"+OK\r\n-ERR value is not an integer or out of range\r\n${value.Length}\r\n{value}\r\n")));

    [TestCase("-1", "0")]
    [TestCase("-9223372036854775808", "-9223372036854775807")]
    [TestCase("9223372036854775806", "9223372036854775807")]
    public void Incr_OfANumber(string value, string next) => WithServer(async server =>
        Assert.That(await Talk(server, Encoding.ASCII.GetBytes($"SET x {value}\r\nINCR x\r\n"), 1000), Is.EqualTo($"+OK\r\n:{next}\r\n")));

    [Test]
    public void LongLineWithoutEnd_IsRefused() => WithServer(async server =>
        Assert.That(await Talk(server, Encoding.ASCII.GetBytes(new string('x', 70_000)), 1000), Does.Contain("too big inline request")));

    [Test]
    public void LargeValues_AndManyPipelined() => WithServer(async server =>
    {
        using var client = await AsyncSocket.ConnectAsync(server.EndPoint);
        var value = Enumerable.Range(0, 3_000_000).Select(i => (byte)(i * 7)).ToArray();
        async Task Send()
        {
            await client.SendAsync(Encoding.ASCII.GetBytes($"*3\r\n$3\r\nSET\r\n$1\r\nv\r\n${value.Length}\r\n"));
            await client.SendAsync(value);
            await client.SendAsync("\r\n"u8.ToArray());
            for (var i = 0; i < 5; i++) await client.SendAsync("GET v\r\n"u8.ToArray());
        }
        var sending = Send();
        var stream = client.AsStream(false);
        var ok = new byte[5];
        await stream.ReadExactlyAsync(ok);
        Assert.That(ok, Is.EqualTo("+OK\r\n"u8.ToArray()));
        var head = Encoding.ASCII.GetBytes($"${value.Length}\r\n");
        var answer = new byte[head.Length + value.Length + 2];
        for (var i = 0; i < 5; i++)
        {
            await stream.ReadExactlyAsync(answer);
            Assert.That(answer.AsSpan(head.Length, value.Length).SequenceEqual(value), Is.True);
        }
        await sending;
    });
}
