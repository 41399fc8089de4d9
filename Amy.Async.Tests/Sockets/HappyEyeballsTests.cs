using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Tests.Sockets;

/// <summary>Connecting by name, RFC 8305, with a resolver of the test's and on virtual time where the delays matter.</summary>
[TestFixture]
internal class HappyEyeballsTests
{
    private static readonly AsyncSocketOptions s_options = new();

    private static HappyEyeballs.Resolver Answer(string[] six, string[] four, Func<AddressFamily, Task>? delay = null) => async (_, family, token) =>
    {
        if (delay is not null) await delay(family).WaitAsync(token);
        var all = family == AddressFamily.InterNetworkV6 ? six : four;
        return all.Length == 0 ? throw new SocketException((int)SocketError.NoData) : [.. all.Select(IPAddress.Parse)];
    };

    private static DnsEndPoint Name(EndPoint listener) => new("name.test", ((IPEndPoint)listener).Port);

    /// <summary>A listener whose backlog is full: connecting to it takes for ever.</summary>
    private static List<IDisposable> BlackHole(IPEndPoint endPoint)
    {
        var held = new List<IDisposable>();
        var listener = new Socket(endPoint.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(endPoint);
        listener.Listen(0);
        held.Add(listener);
        for (var i = 0; i < 4; i++)
        {
            var filler = new Socket(endPoint.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { Blocking = false };
            try
            {
                filler.Connect(listener.LocalEndPoint!);
            }
            catch (SocketException e) when (e.SocketErrorCode is SocketError.WouldBlock or SocketError.InProgress)
            {
            }
            held.Add(filler);
        }
        return held;
    }

    [Test]
    public void Localhost_Connects() => Run.OnLoop(async () =>
    {
        using var listener = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0));
        using var connected = await AsyncSocket.ConnectAsync(new DnsEndPoint("localhost", ((IPEndPoint)listener.LocalEndPoint!).Port));
        using var accepted = await listener.AcceptAsync();
        Assert.That(connected.RemoteEndPoint, Is.EqualTo(listener.LocalEndPoint));
    });

    [Test]
    public void BothFamilies_SixComesFirst() => Run.OnLoop(async () =>
    {
        using var six = AsyncSocket.Listen(new IPEndPoint(IPAddress.IPv6Loopback, 0));
        using var four = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, ((IPEndPoint)six.LocalEndPoint!).Port));
        using var connected = await new HappyEyeballs(Name(six.LocalEndPoint!), s_options, EventLoop.Current!) { Resolve = Answer(["::1"], ["127.0.0.1"]) }.ConnectAsync(default);
        Assert.That(((IPEndPoint)connected.RemoteEndPoint!).AddressFamily, Is.EqualTo(AddressFamily.InterNetworkV6));
    });

    [Test]
    public void Refused_TheNextIsTriedAtOnce_WithoutTheDelay() => Run.OnLoop(async () =>
    {
        using var four = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0));
        var time = EventLoop.Current!.TimeProvider;
        var start = time.GetTimestamp();
        // Nobody listens on ::1 at this port, nor on 127.0.0.2.
        using var connected = await new HappyEyeballs(Name(four.LocalEndPoint!), s_options, EventLoop.Current!) { Resolve = Answer(["::1", "::1"], ["127.0.0.2", "127.0.0.1"]) }.ConnectAsync(default);
        Assert.That(connected.RemoteEndPoint, Is.EqualTo(four.LocalEndPoint));
        Assert.That(time.GetElapsedTime(start), Is.LessThan(HappyEyeballs.AttemptDelay), "on virtual time, which jumps if anybody waits");
    }, new EventLoopOptions { TimeProvider = new VirtualTimeProvider() });

    [Test]
    public void Silent_TheNextIsTriedAfterTheDelay_AndTheFirstIsGivenUp() => Run.OnLoop(async () =>
    {
        using var good = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0));
        var port = ((IPEndPoint)good.LocalEndPoint!).Port;
        var hole = BlackHole(new IPEndPoint(IPAddress.Parse("127.0.0.3"), port));
        var before = Descriptors.Settle();
        var time = EventLoop.Current!.TimeProvider;
        var start = time.GetTimestamp();
        using (var connected = await new HappyEyeballs(Name(good.LocalEndPoint!), s_options, EventLoop.Current!) { Resolve = Answer([], ["127.0.0.3", "127.0.0.1"]) }.ConnectAsync(default))
        {
            Assert.That(connected.RemoteEndPoint, Is.EqualTo(good.LocalEndPoint));
            Assert.That(time.GetElapsedTime(start), Is.EqualTo(HappyEyeballs.AttemptDelay));
        }
        for (var i = 0; i < 5; i++) await EventLoop.Current!.Yield();
        Assert.That(Descriptors.Count(), Is.EqualTo(before), "the other attempt is closed. " + Descriptors.List());
        hole.ForEach(h => h.Dispose());
    }, new EventLoopOptions { TimeProvider = new VirtualTimeProvider { AutoJump = true } });

    [Test]
    public void FoursAnswerFirst_WaitsForSixs_FiftyMilliseconds() => Run.OnLoop(async () =>
    {
        using var four = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0));
        var loop = EventLoop.Current!;
        var start = loop.TimeProvider.GetTimestamp();
        var resolver = Answer(["::1"], ["127.0.0.1"], family => family == AddressFamily.InterNetworkV6 ? Task.Delay(Timeout.Infinite) : Task.CompletedTask);
        using var connected = await new HappyEyeballs(Name(four.LocalEndPoint!), s_options, loop) { Resolve = resolver }.ConnectAsync(default);
        Assert.That(connected.RemoteEndPoint, Is.EqualTo(four.LocalEndPoint));
        Assert.That(loop.TimeProvider.GetElapsedTime(start), Is.EqualTo(HappyEyeballs.ResolutionDelay));
    }, new EventLoopOptions { TimeProvider = new VirtualTimeProvider { AutoJump = true } });

    [Test]
    public void FoursAnswerLate_IsUsed_WhenSixFails() => Run.OnLoop(async () =>
    {
        using var four = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0));
        var release = new TaskCompletionSource();
        var resolver = Answer(["::1"], ["127.0.0.1"], family => family == AddressFamily.InterNetwork ? release.Task : Task.CompletedTask);
        var connecting = new HappyEyeballs(Name(four.LocalEndPoint!), s_options, EventLoop.Current!) { Resolve = resolver }.ConnectAsync(default).AsTask();
        for (var i = 0; i < 20; i++) await EventLoop.Current!.Yield(); // ::1 refuses meanwhile
        Assert.That(connecting.IsCompleted, Is.False);
        release.SetResult();
        using var connected = await connecting;
        Assert.That(connected.RemoteEndPoint, Is.EqualTo(four.LocalEndPoint));
    });

    [TestCase(AddressFamily.InterNetwork)]
    [TestCase(AddressFamily.InterNetworkV6)]
    public void OneFamilysLookUpFails_TheOtherIsWaitedFor(AddressFamily failing) => Run.OnLoop(async () =>
    {
        using var six = AsyncSocket.Listen(new IPEndPoint(IPAddress.IPv6Loopback, 0));
        using var four = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, ((IPEndPoint)six.LocalEndPoint!).Port));
        var release = new TaskCompletionSource();
        string[] none = [];
        var resolver = Answer(failing == AddressFamily.InterNetworkV6 ? none : ["::1"], failing == AddressFamily.InterNetwork ? none : ["127.0.0.1"], family => family == failing ? Task.CompletedTask : release.Task);
        var connecting = new HappyEyeballs(Name(four.LocalEndPoint!), s_options, EventLoop.Current!) { Resolve = resolver }.ConnectAsync(default).AsTask();
        for (var i = 0; i < 20; i++) await EventLoop.Current!.Yield();
        Assert.That(connecting.IsCompleted, Is.False);
        release.SetResult();
        using var connected = await connecting;
        Assert.That(((IPEndPoint)connected.RemoteEndPoint!).AddressFamily, Is.Not.EqualTo(failing));
    });

    [Test]
    public void LiteralAddress_Connects() => Run.OnLoop(async () =>
    {
        using var listener = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0));
        using var connected = await AsyncSocket.ConnectAsync(new DnsEndPoint("127.0.0.1", ((IPEndPoint)listener.LocalEndPoint!).Port));
        Assert.That(connected.RemoteEndPoint, Is.EqualTo(listener.LocalEndPoint));
    });

    [Test]
    public void AllFail_TheLastFailureIsThrown_AndNothingIsLeft() => Run.OnLoop(async () =>
    {
        var gone = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0));
        var name = Name(gone.LocalEndPoint!);
        gone.Dispose();
        var before = Descriptors.Settle();
        var error = await Expect.Throws<SocketException>(async () => await new HappyEyeballs(name, s_options, EventLoop.Current!) { Resolve = Answer(["::1"], ["127.0.0.1", "127.0.0.2"]) }.ConnectAsync(default));
        Assert.That(error.SocketErrorCode, Is.EqualTo(SocketError.ConnectionRefused));
        Assert.That(Descriptors.Count(), Is.EqualTo(before), Descriptors.List());
        var unknown = await Expect.Throws<SocketException>(async () => await new HappyEyeballs(name, s_options, EventLoop.Current!) { Resolve = Answer([], []) }.ConnectAsync(default));
        Assert.That(unknown.SocketErrorCode, Is.EqualTo(SocketError.NoData));
    });

    [Test]
    public void NamedFamily_IsTheOnlyOneTried() => Run.OnLoop(async () =>
    {
        using var six = AsyncSocket.Listen(new IPEndPoint(IPAddress.IPv6Loopback, 0));
        using var four = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, ((IPEndPoint)six.LocalEndPoint!).Port));
        var name = new DnsEndPoint("name.test", ((IPEndPoint)six.LocalEndPoint!).Port, AddressFamily.InterNetwork);
        using var connected = await new HappyEyeballs(name, s_options, EventLoop.Current!) { Resolve = Answer(["::1"], ["127.0.0.1"]) }.ConnectAsync(default);
        Assert.That(connected.RemoteEndPoint, Is.EqualTo(four.LocalEndPoint));
    });

    [Test]
    public void Cancelled_EndsTheAttempts() => Run.OnLoop(async () =>
    {
        var hole = BlackHole(new IPEndPoint(IPAddress.Parse("127.0.0.4"), 0));
        var port = ((IPEndPoint)((Socket)hole[0]).LocalEndPoint!).Port;
        var before = Descriptors.Settle();
        using var source = new CancellationTokenSource();
        var connecting = new HappyEyeballs(new DnsEndPoint("name.test", port), s_options, EventLoop.Current!) { Resolve = Answer([], ["127.0.0.4"]) }.ConnectAsync(source.Token).AsTask();
        await EventLoop.Current!.Delay(TimeSpan.FromMilliseconds(30));
        Assert.That(connecting.IsCompleted, Is.False);
        source.Cancel();
        await Expect.Throws<OperationCanceledException>(() => connecting);
        for (var i = 0; i < 5; i++) await EventLoop.Current!.Yield();
        Assert.That(Descriptors.Count(), Is.EqualTo(before), Descriptors.List());
        hole.ForEach(h => h.Dispose());
    });

    [Test]
    public void FromAnotherThread_GoesOnThere() => Run.OnThread(() =>
    {
        using var loop = EventLoop.Start();
        using var listener = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0), loop: loop);
        using var connected = Run.Wait(AsyncSocket.ConnectAsync(new DnsEndPoint("localhost", ((IPEndPoint)listener.LocalEndPoint!).Port), loop).AsTask());
        Assert.That(connected.Loop, Is.SameAs(loop));
    });
}
