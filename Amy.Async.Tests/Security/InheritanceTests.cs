using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Amy.Async.Native;

namespace Amy.Async.Tests.Security;

/// <summary>No descriptor that the library makes goes to a program that this one starts (close-on-exec, fcntl(2)).</summary>
[TestFixture]
[NonParallelizable]
internal sealed class InheritanceTests
{
    private const int CloseOnExec = 0x80000; // O_CLOEXEC, 02000000

    [DllImport("libc")]
    private static extern int openpty(out int master, out int slave, nint name, nint termios, nint size);

    [DllImport("libc")]
    private static extern int close(int descriptor);

    private static Dictionary<int, string> Open() => Directory.GetFileSystemEntries("/proc/self/fd")
        .Select(f => (Number: int.Parse(Path.GetFileName(f), CultureInfo.InvariantCulture), Target: new FileInfo(f).LinkTarget))
        .Where(d => d.Target is not null).ToDictionary(d => d.Number, d => d.Target!);

    // proc(5): the flags of open(2), in octal, with O_CLOEXEC for the descriptor's own flag.
    private static bool ClosesOnExec(int descriptor) =>
        (Convert.ToInt32(File.ReadLines($"/proc/self/fdinfo/{descriptor}").First(l => l.StartsWith("flags:", StringComparison.Ordinal))["flags:".Length..].Trim(), 8) & CloseOnExec) != 0;

    /// <summary>Everything that the library has a descriptor for; each is kept until all are there.</summary>
    private static async Task<List<IDisposable>> MakeAllAsync(EventLoop loop, List<string> made)
    {
        var all = new List<IDisposable>();
        var before = Open();

        // A socket of what has just been made, or an epoll instance, or a pipe; `least`: how many are new.
        T Made<T>(string what, T value, int least = 1) where T : IDisposable
        {
            all.Add(value);
            var now = Open();
            var added = now.Keys.Except(before.Keys).ToList();
            Assert.That(added, Has.Count.GreaterThanOrEqualTo(least), what);
            foreach (var descriptor in added) Assert.That(ClosesOnExec(descriptor), Is.True, $"{what}: {descriptor} {now[descriptor]}");
            made.AddRange(added.Select(d => now[d]));
            before = now;
            return value;
        }

        Made("a poller and what wakes it", new Poller(), 2);
        Made("a loop", EventLoop.Start());
        var tcp = Made("a listener", AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0), loop: loop));
        var client = AsyncSocket.ConnectAsync(tcp.LocalEndPoint!, loop);
        Made("connected", await client);
        Made("accepted", await tcp.AcceptAsync());
        var port = ((IPEndPoint)tcp.LocalEndPoint!).Port;
        Made("connected by name", await AsyncSocket.ConnectAsync(new DnsEndPoint("localhost", port), loop));
        Made("accepted on another loop", await tcp.AcceptAsync((EventLoop)all[1]));
        var path = Pair.TemporaryPath();
        var unix = Made("a Unix-domain listener", AsyncSocket.Listen(new UnixDomainSocketEndPoint(path), loop: loop));
        var left = Made("connected to it", await AsyncSocket.ConnectAsync(new UnixDomainSocketEndPoint(path), loop));
        var right = Made("accepted by it", await unix.AcceptAsync());
        Made("an abstract one", AsyncSocket.Listen(new UnixDomainSocketEndPoint("\0" + Guid.NewGuid()), loop: loop));
        var udp = Made("bound for datagrams", AsyncSocket.BindDatagram(new IPEndPoint(IPAddress.Loopback, 0), loop: loop));
        Made("connected for datagrams", AsyncSocket.ConnectDatagram(udp.LocalEndPoint!, loop: loop));
        Made("bound for Unix-domain datagrams", AsyncSocket.BindDatagram(new UnixDomainSocketEndPoint("\0" + Guid.NewGuid()), loop: loop));

        using (var file = File.OpenHandle("/dev/null", FileMode.Open, FileAccess.ReadWrite))
        {
            before = Open();
            await left.SendDescriptorsAsync(new byte[1], [file]);
            var message = await right.ReceiveMessageAsync(new byte[1], new byte[ControlMessage.GetSpace(sizeof(int))]);
            Made("passed", message.Descriptors[0]);
        }
        before = Open();

        Assert.That(openpty(out var master, out var slave, 0, 0, 0), Is.Zero);
        before = Open(); // these two are the test's own, and are inherited
        Made("a terminal opened anew", AsyncFd.FromDescriptor(slave, loop));
        all.Add(new Closing(master, slave));
        before = Open();

        var end = SystemCalls.Instance.PipeCreate(out var writer);
        Made("a pipe", new Closing(end, writer), 2);
        return all;
    }

    private sealed class Closing(params int[] descriptors) : IDisposable
    {
        public void Dispose()
        {
            foreach (var descriptor in descriptors) _ = close(descriptor);
        }
    }

    [Test]
    public void Descriptors_OfEachKind_CloseOnExec() => Run.OnLoop(async () =>
    {
        foreach (var each in Enumerable.Reverse(await MakeAllAsync(EventLoop.Current!, []))) each.Dispose();
    });

    /// <summary>And so none of them is open in a child.</summary>
    [Test]
    public void Child_StartedWhileAllAreOpen_HasNoneOfThem()
    {
        var list = RealProgram.Find("ls");
        Run.OnLoop(async () =>
        {
            var made = new List<string>();
            var all = await MakeAllAsync(EventLoop.Current!, made);
            try
            {
                var (code, output) = await RealProgram.RunAsync(Path.GetFileName(list), null, "-l", "/proc/self/fd");
                Assert.That(code, Is.Zero, output);
                Assert.That(output, Does.Contain("0 -> "));
                // Those with a number of their own; an eventfd is one of many of that name, and so is a poller.
                foreach (var target in made.Where(t => t.Contains(":[", StringComparison.Ordinal) && !t.StartsWith("anon_inode:", StringComparison.Ordinal))) Assert.That(output, Does.Not.Contain(target));
                Assert.That(output, Does.Not.Contain("anon_inode:"), "no poller");
                Assert.That(made.Count(t => t.StartsWith("socket:[", StringComparison.Ordinal)), Is.GreaterThanOrEqualTo(10));
            }
            finally
            {
                foreach (var each in Enumerable.Reverse(all)) each.Dispose();
            }
        });
    }
}
