using System.Diagnostics;
using System.Reflection;
using System.Runtime.InteropServices;
using Amy.Async.Native;
using Microsoft.CodeAnalysis.CSharp;
using Microsoft.CodeAnalysis.CSharp.Syntax;
using CpuArchitecture = System.Runtime.InteropServices.Architecture;

namespace Amy.Async.Tests.Native;

/// <summary>
/// The table of what crosses the P/Invoke boundary, by platform, against what the library uses on each, and against the headers
/// of Linux where there is a compiler.
/// </summary>
[TestFixture]
internal sealed class AbiTableTests
{
    private static readonly string[] s_platforms = ["linux-x64", "linux-arm64", "osx-x64", "osx-arm64", "freebsd-x64"];

    /// <summary>What the library passes through without looking: the same on all platforms.</summary>
    private static readonly string[] s_shared =
    [
        "AF_UNIX", "AF_INET", "SOCK_STREAM", "SOCK_DGRAM", "IPPROTO_IP", "IPPROTO_TCP", "IPPROTO_IPV6", "TCP_NODELAY", "MSG_OOB",
        "MSG_PEEK", "SCM_RIGHTS", "SHUT_RD", "SHUT_WR", "SHUT_RDWR", "F_GETFL", "F_SETFL", "O_ACCMODE", "S_IFMT", "S_IFDIR", "S_IFREG",
        "POLLIN", "POLLPRI", "POLLOUT", "POLLERR", "POLLHUP", "POLLNVAL",
        "sizeof(struct timespec)", "sizeof(struct pollfd)", "offsetof(struct pollfd, events)", "offsetof(struct pollfd, revents)",
        "sizeof(struct linger)", "sizeof(struct iovec)", "offsetof(struct iovec, iov_len)",
    ];

    private sealed record Row(string Name, long?[] Values, string Header);

    private static readonly List<Row> s_rows = [.. Read()];

    private static IEnumerable<Row> Read()
    {
        foreach (var line in File.ReadLines(Path.Combine(Repository.Root, "Amy.Async.Tests", "Native", "abi-table.txt")))
        {
            if (line.Length == 0 || line[0] == '#') continue;
            var cells = line.Split(" | ");
            yield return new Row(cells[0], [.. cells[1..6].Select(Value)], cells[6]);
        }
    }

    private static long? Value(string cell) => cell == "-" ? null
        : cell.StartsWith("0x", StringComparison.Ordinal) ? Convert.ToInt64(cell, 16)
        : long.Parse(cell, System.Globalization.CultureInfo.InvariantCulture);

    private static Dictionary<string, long> Column(string platform)
    {
        var column = Array.IndexOf(s_platforms, platform);
        return s_rows.Where(r => r.Values[column] is not null).ToDictionary(r => r.Name, r => r.Values[column]!.Value);
    }

    private static Dictionary<string, long> Used(string platform) => platform switch
    {
        "linux-x64" => UsedOnLinux(x64: true),
        "linux-arm64" => UsedOnLinux(x64: false),
        "freebsd-x64" => UsedOn(PlatformNumbers.FreeBsd),
        _ => UsedOn(PlatformNumbers.MacOS),
    };

    private static Dictionary<string, long> UsedOnLinux(bool x64)
    {
        var used = AbiTests.Table().Where(t => !t.Name.StartsWith("__NR_", StringComparison.Ordinal)).ToDictionary(t => t.Name, t => t.Value);
        foreach (var (name, x, arm) in Choices())
        {
            var value = x64 ? x : arm;
            if (name == "EventSize")
            {
                used["sizeof(struct epoll_event)"] = value;
                used["offsetof(struct epoll_event, data)"] = value - 8; // DataOffset is written so
            }
            else used[name == "EpollWait" ? x64 ? "__NR_epoll_wait" : "__NR_epoll_pwait" : "__NR_" + name.ToLowerInvariant()] = value;
        }
        return used;
    }

    /// <summary>What Abi.cs chooses by architecture: both arms, read in the source, since only one exists at run time.</summary>
    private static IEnumerable<(string Name, long X64, long Arm64)> Choices()
    {
        var root = CSharpSyntaxTree.ParseText(File.ReadAllText(Path.Combine(Repository.Library, "Native", "Abi.cs"))).GetRoot();
        foreach (var field in root.DescendantNodes().OfType<VariableDeclaratorSyntax>())
            if (field.Initializer?.Value is ConditionalExpressionSyntax choice)
                yield return (field.Identifier.Text, Literal(choice.WhenTrue), Literal(choice.WhenFalse));

        static long Literal(ExpressionSyntax e) => Convert.ToInt64(((LiteralExpressionSyntax)e).Token.Value, System.Globalization.CultureInfo.InvariantCulture);
    }

    private static Dictionary<string, long> UsedOn(PlatformNumbers numbers)
    {
        var used = AbiTests.Table().Where(t => s_shared.Contains(t.Name)).ToDictionary(t => t.Name, t => t.Value);
        var layout = new HashSet<string>();
        foreach (var property in typeof(PlatformNumbers).GetProperties(BindingFlags.Instance | BindingFlags.NonPublic))
        {
            if (property.PropertyType != typeof(int) || property.Name == "EqualityContract") continue;
            if (!property.Name.Contains('_') && property.Name is not ("FIOCLEX" or "POLLRDHUP")) layout.Add(property.Name);
            else if ((int)property.GetValue(numbers)! is var value && value != PlatformNumbers.None) used[property.Name] = value;
        }
        Assert.That(layout, Is.EquivalentTo(new[] { "FamilyOffset", "StatModeOffset", "MessageSize", "MessageFlagsOffset", "ControlLengthSize", "ControlDataOffset", "ControlAlignment" }));
        used["offsetof(struct sockaddr, sa_family)"] = numbers.FamilyOffset;
        used["offsetof(struct stat, st_mode)"] = numbers.StatModeOffset;
        used["sizeof(struct msghdr)"] = numbers.MessageSize;
        // Where the fields of the header are, from where they are written.
        Span<byte> header = stackalloc byte[56];
        PlatformNumbers.WriteHeader(header, 0x01010101, 0x02020202, 0x03030303, 0x04040404, 0x05050505, 0x06060606);
        string[] fields = ["msg_name", "msg_namelen", "msg_iov", "msg_iovlen", "msg_control", "msg_controllen"];
        for (byte i = 0; i < fields.Length; i++) used[$"offsetof(struct msghdr, {fields[i]})"] = header.IndexOf((byte)(i + 1));
        MemoryMarshal.Cast<byte, int>(header)[numbers.MessageFlagsOffset / 4] = 7;
        Assert.That(numbers.ReadHeader(header), Is.EqualTo((0x02020202, 0x06060606, 7)));
        used["offsetof(struct msghdr, msg_flags)"] = numbers.MessageFlagsOffset;
        used["sizeof(struct cmsghdr)"] = numbers.ControlLengthSize + 8;
        used["offsetof(struct cmsghdr, cmsg_level)"] = numbers.ControlLengthSize;
        used["offsetof(struct cmsghdr, cmsg_type)"] = numbers.ControlLengthSize + 4;
        used["CMSG_LEN(0)"] = numbers.ControlDataOffset;
        foreach (var length in AbiTests.ControlLengths) used[$"CMSG_SPACE({length})"] = numbers.ControlDataOffset + PlatformNumbers.Align(length, numbers.ControlAlignment);
        AddKqueue(used, numbers == PlatformNumbers.FreeBsd ? KqueueAbi.FreeBsd : KqueueAbi.MacOS);
        return used;
    }

    private static void AddKqueue(Dictionary<string, long> used, KqueueAbi abi)
    {
        foreach (var constant in typeof(Kqueue).GetFields(BindingFlags.Static | BindingFlags.NonPublic))
            used[constant.Name] = Convert.ToInt64(constant.GetRawConstantValue(), System.Globalization.CultureInfo.InvariantCulture);
        used["EVFILT_USER"] = abi.EVFILT_USER;
        if (abi.EVFILT_EXCEPT != 0) used["EVFILT_EXCEPT"] = abi.EVFILT_EXCEPT;
        else used.Remove("NOTE_OOB");
        used["sizeof(struct kevent)"] = abi.EventSize;
        // Where the fields are, from where they are written.
        var e = new byte[abi.EventSize];
        abi.Set(e, 0, 0x01010101, 0x0202, 0x0303, 0x04040404, 0x0606060606060606);
        abi.SetData(e, 0, 0x0505050505050505);
        string[] fields = ["ident", "filter", "flags", "fflags", "data", "udata"];
        for (byte i = 0; i < fields.Length; i++) used[$"offsetof(struct kevent, {fields[i]})"] = Array.IndexOf(e, (byte)(i + 1));
    }

    [Test]
    public void EachValue_IsThatOfTheTable([ValueSource(nameof(s_platforms))] string platform)
    {
        var (table, used) = (Column(platform), Used(platform));
        var wrong = used.Where(u => !table.TryGetValue(u.Key, out var value) || value != u.Value)
            .Select(u => $"{u.Key} is {u.Value} in the library, {(table.TryGetValue(u.Key, out var value) ? value : "missing")} in the table");
        Assert.That(wrong, Is.Empty);
        // errno.h has more rows than the library tells apart: they are what ErrorNumbers translates.
        Assert.That(table.Keys.Where(name => !used.ContainsKey(name) && !IsError(name)), Is.Empty, "in the table, but not used");
        Assert.That(used, Has.Count.GreaterThan(60));
    }

    private static bool IsError(string name) => s_rows.Single(r => r.Name == name).Header == "errno.h";

    [TestCase("osx-x64")]
    [TestCase("osx-arm64")]
    [TestCase("freebsd-x64")]
    public void EachError_IsTranslatedBothWays(string platform)
    {
        var errors = platform == "freebsd-x64" ? ErrorNumbers.FreeBsd : ErrorNumbers.MacOS;
        var (linux, native) = (Column("linux-x64"), Column(platform));
        var names = linux.Keys.Where(IsError).ToList();
        foreach (var name in names.Where(native.ContainsKey)) Assert.That(errors.ToLinux((int)native[name]), Is.EqualTo(linux[name]), name);
        foreach (var group in names.GroupBy(n => linux[n]))
        {
            var natives = group.Where(native.ContainsKey).Select(n => (int)native[n]).ToList();
            if (natives.Count == 0) natives.Add(0); // there is no such error
            Assert.That(errors.ToNative((int)group.Key), Is.AnyOf([.. natives.Cast<object>()]), string.Join(" ", group));
        }
        // What is not in the table has no counterpart, and comes back as it was.
        for (var number = 1; number < 300; number++)
        {
            var translated = errors.ToLinux(number);
            if (names.Exists(n => native.TryGetValue(n, out var v) && v == number)) continue;
            Assert.That(translated, Is.EqualTo(ErrorNumbers.Foreign + number));
            Assert.That(errors.ToNative(translated), Is.EqualTo(number));
        }
        Assert.That(errors.ToLinux(0), Is.Zero);
        Assert.That(errors.ToNative((int)linux["EOPNOTSUPP"]), Is.EqualTo(native["EOPNOTSUPP"]));
    }

    [Test]
    public void EachErrorOfTheLibrary_IsInTheTable() =>
        Assert.That(typeof(Errno).GetFields(BindingFlags.Static | BindingFlags.NonPublic).Select(f => f.Name).Where(n => !s_rows.Exists(r => r.Name == n)), Is.Empty);

    [TestCase("cc")]
    [TestCase("aarch64-linux-gnu-gcc")]
    public void EachValueOfLinux_IsThatOfTheHeaders(string compiler)
    {
        var cross = compiler != "cc";
        var platform = cross || RuntimeInformation.ProcessArchitecture == CpuArchitecture.Arm64 ? "linux-arm64" : "linux-x64";
        var path = "/usr/bin/" + compiler;
        if (!File.Exists(path)) Assert.Ignore(cross ? $"A cross compiler for {platform} is missing." : "gcc is missing: the constants were not compared with the headers.");
        var folder = Directory.CreateTempSubdirectory("amy-abi");
        try
        {
            var source = Path.Combine(folder.FullName, "abi.c");
            var table = Column(platform);
            File.WriteAllText(source, """
                #define _GNU_SOURCE
                #include <errno.h>
                #include <fcntl.h>
                #include <linux/kcmp.h>
                #include <netinet/in.h>
                #include <netinet/tcp.h>
                #include <poll.h>
                #include <stddef.h>
                #include <sys/epoll.h>
                #include <sys/eventfd.h>
                #include <sys/socket.h>
                #include <sys/stat.h>
                #include <sys/syscall.h>
                #include <sys/uio.h>
                #include <time.h>

                """ + string.Concat(table.Select(t => $"_Static_assert((long long)({t.Key}) == {t.Value}LL, \"{t.Key}\");\n")));
            using var process = Process.Start(new ProcessStartInfo(path, ["-fsyntax-only", source]) { RedirectStandardError = true })!;
            var errors = process.StandardError.ReadToEnd();
            process.WaitForExit();
            Assert.That(process.ExitCode, Is.Zero, errors);
            Assert.That(table, Has.Count.GreaterThan(150));
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }
}
