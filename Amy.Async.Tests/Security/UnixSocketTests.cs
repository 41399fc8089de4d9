using System.Diagnostics;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Runtime.Versioning;
using Amy.Async.Tests.Samples;

namespace Amy.Async.Tests.Security;

/// <summary>Who may connect to a Unix-domain socket, as docs/security.md says.</summary>
[TestFixture]
[UnsupportedOSPlatform("windows")] // where files have no modes, and the library no loop
internal sealed class UnixSocketTests
{
    private const UnixFileMode All = UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute
        | UnixFileMode.GroupRead | UnixFileMode.GroupWrite | UnixFileMode.GroupExecute
        | UnixFileMode.OtherRead | UnixFileMode.OtherWrite | UnixFileMode.OtherExecute;

    private const UnixFileMode Owner = UnixFileMode.UserRead | UnixFileMode.UserWrite;

    /// <summary>unix(7): everything that the umask leaves.</summary>
    [Test]
    public void Listen_File_GetsWhatTheUmaskLeaves() => Run.OnLoop(() =>
    {
        var umask = Convert.ToInt32(File.ReadLines("/proc/self/status").First(l => l.StartsWith("Umask:", StringComparison.Ordinal))["Umask:".Length..].Trim(), 8);
        var path = Pair.TemporaryPath();
        using var listener = AsyncSocket.Listen(new UnixDomainSocketEndPoint(path));
        Assert.That(File.GetUnixFileMode(path), Is.EqualTo(All & (UnixFileMode)~umask));
        return Task.CompletedTask;
    });

#if !AMY_NETSTANDARD // the samples are built for the other
    [Test]
    public void Listen_UnderAUmask_IsTheOwnersAlone() => Run.Wait(Task.Run(async () =>
    {
        var path = Pair.TemporaryPath();
        using var process = Process.Start(new ProcessStartInfo(RealProgram.Find("sh"), ["-c", "umask 177 && exec dotnet \"$0\" --unix \"$1\"", SampleProgramTests.Program("Echo"), path]) { RedirectStandardOutput = true })!;
        try
        {
            Assert.That(await process.StandardOutput.ReadLineAsync().WaitAsync(Run.Limit), Does.Contain(path));
            Assert.That(File.GetUnixFileMode(path), Is.EqualTo(Owner));
        }
        finally
        {
            process.Kill();
            await process.WaitForExitAsync();
            File.Delete(path);
        }
    }));
#endif

    /// <summary>Bound, given its mode, and only then listening: until then nobody can connect.</summary>
    [Test]
    public void Bind_Mode_Listen_NobodyConnectsBefore_AndTheFileGoes() => Run.OnLoop(async () =>
    {
        var path = Pair.TemporaryPath();
        var endPoint = new UnixDomainSocketEndPoint(path);
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.Bind(endPoint);
        File.SetUnixFileMode(path, Owner);
        var refused = await Expect.Throws<SocketException>(async () => await AsyncSocket.ConnectAsync(endPoint));
        Assert.That(refused.SocketErrorCode, Is.EqualTo(SocketError.ConnectionRefused));
        socket.Listen(10);
        using (var listener = new AsyncSocket(socket))
        {
            var accepting = listener.AcceptAsync();
            using var client = await AsyncSocket.ConnectAsync(endPoint);
            using var server = await accepting;
            Assert.That(File.GetUnixFileMode(path), Is.EqualTo(Owner));
        }
        Assert.That(File.Exists(path), Is.False);
    });

    /// <summary>An abstract name has no file and no permissions, and is free again when the listener is gone.</summary>
    [Test]
    public void Abstract_HasNoFile_AndIsFreeAfterDispose() => Run.OnLoop(async () =>
    {
        var name = "amy-" + Guid.NewGuid();
        var endPoint = new UnixDomainSocketEndPoint("\0" + name);
        for (var i = 0; i < 2; i++)
        {
            using var listener = AsyncSocket.Listen(endPoint);
            var accepting = listener.AcceptAsync();
            using var client = await AsyncSocket.ConnectAsync(endPoint);
            using var server = await accepting;
            Assert.That(File.Exists("@" + name), Is.False);
        }
        await Expect.Throws<SocketException>(async () => await AsyncSocket.ConnectAsync(endPoint));
    });

    /// <summary>unix(7), SO_PEERCRED: who has connected, whatever the address is called.</summary>
    [Test]
    public void PeerCredentials_TellTheProcessAndItsUser() => Run.OnLoop(async () =>
    {
        var endPoint = new UnixDomainSocketEndPoint("\0" + Guid.NewGuid());
        using var listener = AsyncSocket.Listen(endPoint);
        var accepting = listener.AcceptAsync();
        using var client = await AsyncSocket.ConnectAsync(endPoint);
        using var server = await accepting;
        Span<byte> bytes = stackalloc byte[12];
        server.Socket.GetRawSocketOption(1, 17, bytes); // SOL_SOCKET, SO_PEERCRED of Linux: struct ucred
        var credentials = MemoryMarshal.Cast<byte, int>(bytes).ToArray();
        var user = File.ReadLines("/proc/self/status").First(l => l.StartsWith("Uid:", StringComparison.Ordinal)).Split('\t')[2]; // the effective one
        Assert.That((credentials[0], credentials[1].ToString(System.Globalization.CultureInfo.InvariantCulture)), Is.EqualTo((Environment.ProcessId, user)));
    });
}
