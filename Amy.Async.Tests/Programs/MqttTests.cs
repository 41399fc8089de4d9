using System.Buffers;
using System.Globalization;
using System.Net;
using System.Text;
using MQTTnet;
using MQTTnet.Channel;
using MQTTnet.Protocol;

namespace Amy.Async.Tests.Programs;

/// <summary>MQTTnet through its stream provider, against a real mosquitto.</summary>
[TestFixture]
internal sealed class MqttTests
{
    private sealed class LoopStreams(EventLoop loop) : IMqttClientStreamProvider
    {
        public async Task<Stream> ConnectAsync(EndPoint brokerEndPoint, CancellationToken cancellationToken) =>
            (await AsyncSocket.ConnectAsync(brokerEndPoint, loop, cancellationToken)).AsStream();
    }

    [Test]
    public void PublishAndSubscribe_InOrder_WithEveryQuality() => Run.Wait(Task.Run(async () =>
    {
        var port = RealProgram.FreePort();
        var configuration = Path.GetTempFileName();
        File.WriteAllText(configuration, $"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\n");
        using var server = await RealProgram.ServeAsync("mosquitto", port, "-c", configuration);
        await using var loop = EventLoop.Start();
        using var publisher = await Connect();
        using var subscriber = await Connect();
        var received = new List<(string Topic, string Text)>();
        var all = new TaskCompletionSource();
        const int Messages = 1000;
        subscriber.ApplicationMessageReceivedAsync += e =>
        {
            lock (received)
            {
                received.Add((e.ApplicationMessage.Topic, Encoding.UTF8.GetString(e.ApplicationMessage.Payload)));
                if (received.Count == 3 * Messages) all.TrySetResult();
            }
            return Task.CompletedTask;
        };
        foreach (var quality in new[] { MqttQualityOfServiceLevel.AtMostOnce, MqttQualityOfServiceLevel.AtLeastOnce, MqttQualityOfServiceLevel.ExactlyOnce })
            await subscriber.SubscribeAsync($"test/{(int)quality}", quality);
        for (var i = 0; i < Messages; i++)
            for (var quality = 0; quality < 3; quality++)
                await publisher.PublishStringAsync($"test/{quality}", i.ToString(CultureInfo.InvariantCulture), (MqttQualityOfServiceLevel)quality);
        await all.Task.WaitAsync(Run.Limit);
        for (var quality = 0; quality < 3; quality++)
            Assert.That(received.Where(r => r.Topic == $"test/{quality}").Select(r => r.Text), Is.EqualTo(Enumerable.Range(0, Messages).Select(i => i.ToString(CultureInfo.InvariantCulture))));
        await publisher.DisconnectAsync();
        await subscriber.DisconnectAsync();
        File.Delete(configuration);

        async Task<IMqttClient> Connect()
        {
            var client = new MqttClientFactory().CreateMqttClient();
            await client.ConnectAsync(new MqttClientOptionsBuilder().WithTcpServer("localhost", port).WithStreamProvider(new LoopStreams(loop)).Build());
            return client;
        }
    }));
}
