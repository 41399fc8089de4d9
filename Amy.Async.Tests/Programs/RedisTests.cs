using System.Globalization;
using System.Net;
using StackExchange.Redis;
using StackExchange.Redis.Configuration;

namespace Amy.Async.Tests.Programs;

/// <summary>StackExchange.Redis through its tunnel, against a real redis-server.</summary>
[TestFixture]
internal sealed class RedisTests
{
    /// <summary>Gives the client our stream instead of a socket of its own.</summary>
    private sealed class LoopTunnel(EventLoop loop) : Tunnel
    {
        internal int Connections;

        // No end point: the client makes no socket itself.
        public override ValueTask<EndPoint?> GetSocketConnectEndpointAsync(EndPoint endpoint, CancellationToken cancellationToken) => default;

        public override async ValueTask<Stream?> BeforeAuthenticateAsync(EndPoint endpoint, ConnectionType connectionType, System.Net.Sockets.Socket? socket, CancellationToken cancellationToken)
        {
            Interlocked.Increment(ref Connections);
            return (await AsyncSocket.ConnectAsync(endpoint, loop, cancellationToken)).AsStream();
        }
    }

    [Test]
    public void PipelinedLoad_AndPublishSubscribe() => Run.Wait(Task.Run(async () =>
    {
        var port = RealProgram.FreePort();
        using var server = await RealProgram.ServeAsync("redis-server", port, "--port", port.ToString(CultureInfo.InvariantCulture), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no");
        await using var loop = EventLoop.Start();
        var tunnel = new LoopTunnel(loop);
        var options = new ConfigurationOptions { EndPoints = { new IPEndPoint(IPAddress.Loopback, port) }, Tunnel = tunnel, AbortOnConnectFail = true };
        await using var redis = await ConnectionMultiplexer.ConnectAsync(options);
        Assert.That(tunnel.Connections, Is.EqualTo(2), "commands and subscriptions");
        var database = redis.GetDatabase();
        const int Tasks = 10, Commands = 2500;
        await Task.WhenAll(Enumerable.Range(0, Tasks).Select(async t =>
        {
            var sets = Enumerable.Range(0, Commands).Select(i => database.StringSetAsync($"key:{t}:{i}", $"value {t} {i}")).ToList();
            Assert.That(await Task.WhenAll(sets), Is.All.True);
            var values = await Task.WhenAll(Enumerable.Range(0, Commands).Select(i => database.StringGetAsync($"key:{t}:{i}")));
            for (var i = 0; i < Commands; i++) Assert.That((string?)values[i], Is.EqualTo($"value {t} {i}"));
        }));
        var large = new byte[2_000_000];
        new Random(3).NextBytes(large);
        await database.StringSetAsync("large", large);
        Assert.That(((byte[]?)await database.StringGetAsync("large")).AsSpan().SequenceEqual(large), Is.True);

        var queue = await redis.GetSubscriber().SubscribeAsync(RedisChannel.Literal("news"));
        for (var i = 0; i < 500; i++) await database.PublishAsync(RedisChannel.Literal("news"), i);
        for (var i = 0; i < 500; i++) Assert.That((int)(await queue.ReadAsync(new CancellationTokenSource(Run.Limit).Token)).Message, Is.EqualTo(i));
    }));
}
