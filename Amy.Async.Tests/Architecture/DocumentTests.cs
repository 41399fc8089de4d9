using System.Reflection;
using System.Runtime.Loader;
using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CSharp;
using Microsoft.CodeAnalysis.CSharp.Syntax;

namespace Amy.Async.Tests.Architecture;

/// <summary>What the documents show is compiled, and run where it ends by itself.</summary>
[TestFixture]
internal sealed class DocumentTests
{
    private static List<string> Blocks(string document)
    {
        var blocks = new List<string>();
        var lines = File.ReadAllLines(Path.Combine(Repository.Root, document));
        for (var i = 0; i < lines.Length; i++)
        {
            if (lines[i] != "```csharp") continue;
            var end = Array.IndexOf(lines, "```", i);
            blocks.Add(string.Join('\n', lines[(i + 1)..end]));
            i = end;
        }
        return blocks;
    }

    private const string Usings = """
        using System; using System.Diagnostics; using System.IO; using System.IO.Pipes; using System.Net; using System.Net.Sockets;
        using System.Threading; using System.Threading.Tasks; using Amy.Async;

        """;

    private static Assembly Compile(string code)
    {
        var references = ((string)AppContext.GetData("TRUSTED_PLATFORM_ASSEMBLIES")!).Split(Path.PathSeparator)
            .Where(p => !p.EndsWith("Amy.Async.dll", StringComparison.Ordinal)).Append(typeof(EventLoop).Assembly.Location)
            .Select(p => MetadataReference.CreateFromFile(p));
        var compilation = CSharpCompilation.Create("Readme" + Guid.NewGuid().ToString("N"), [CSharpSyntaxTree.ParseText(Usings + code)], references,
            new CSharpCompilationOptions(OutputKind.DynamicallyLinkedLibrary, nullableContextOptions: NullableContextOptions.Enable));
        using var stream = new MemoryStream();
        var result = compilation.Emit(stream);
        Assert.That(result.Diagnostics.Where(d => d.Severity == DiagnosticSeverity.Error), Is.Empty, code);
        stream.Position = 0;
        return AssemblyLoadContext.Default.LoadFromStream(stream);
    }

    [Test]
    public void Readme_EchoServer_CompilesAndEchoes()
    {
        // As it stands there, in a method, on a port of its own choice instead of 7000, and ending with the test.
        const string First = "EventLoop.Run(async () =>\n{";
        var block = Blocks("README.md")[0];
        var split = block.IndexOf("static async Task Echo", StringComparison.Ordinal);
        using var probe = Pair.ListenPlain();
        var port = ((System.Net.IPEndPoint)probe.LocalEndPoint!).Port;
        probe.Dispose();
        var code = $$"""
            public static class Program
            {
                public static EventLoop? Loop;
                public static void Main() { {{block[..split].Replace("7000", port.ToString(System.Globalization.CultureInfo.InvariantCulture), StringComparison.Ordinal).Replace(First, First + " Loop = EventLoop.Current;", StringComparison.Ordinal)}} }
                {{block[split..]}}
            }
            """;
        var program = Compile(code).GetType("Program")!;
        var server = Run.Waiter(program.GetMethod("Main")!.CreateDelegate<Action>());
        using var client = new System.Net.Sockets.Socket(System.Net.Sockets.AddressFamily.InterNetwork, System.Net.Sockets.SocketType.Stream, System.Net.Sockets.ProtocolType.Tcp);
        Run.Until(() =>
        {
            try
            {
                client.Connect(System.Net.IPAddress.Loopback, port);
                return true;
            }
            catch (System.Net.Sockets.SocketException)
            {
                return false;
            }
        }, "it listens");
        client.Send([1, 2, 3]);
        var buffer = new byte[8];
        Assert.That(client.Receive(buffer), Is.EqualTo(3));
        Assert.That(buffer[..3], Is.EqualTo(new byte[] { 1, 2, 3 }));
        ((EventLoop)program.GetField("Loop")!.GetValue(null)!).Dispose();
        server.Join();
    }

    [Test]
    public void Readme_PlainSocket_Runs()
    {
        var code = $$"""
            public static class Program
            {
                public static int Total;
                static void Handle(ReadOnlySpan<byte> bytes) => Total += bytes.Length;
                public static async Task Main(Socket socket)
                {
                    var buffer = new byte[16];
                    {{Blocks("README.md")[1]}}
                }
            }
            """;
        var program = Compile(code).GetType("Program")!;
        var (x, y) = Pair.Tcp();
        Run.OnLoop(async () =>
        {
            var running = (Task)program.GetMethod("Main")!.Invoke(null, [x])!;
            y.Send(new byte[100]);
            await EventLoop.Current!.Delay(TimeSpan.FromMilliseconds(5));
            y.Send(new byte[11]);
            y.Shutdown(System.Net.Sockets.SocketShutdown.Send);
            await running;
        });
        Assert.That(program.GetField("Total")!.GetValue(null), Is.EqualTo(111));
        x.Dispose();
        y.Dispose();
    }

    [Test]
    public void Readme_Pipe_Runs()
    {
        var code = "public static class Program { public static async Task Main() { "
            + Blocks("README.md")[2].Replace("Console.WriteLine(new StreamReader(pipe).ReadLine());", "if (new StreamReader(pipe).ReadLine() != \"hello\") throw new Exception();", StringComparison.Ordinal)
            + " } }";
        var main = Compile(code).GetType("Program")!.GetMethod("Main")!;
        Run.OnLoop(() => (Task)main.Invoke(null, null)!);
    }

    // ---- the guide

    private static readonly string s_guideUsings = "using System.Collections.Generic; using System.Linq; using System.Text; using System.Threading.Channels;\n";

    private static IEnumerable<TestCaseData> Guide()
    {
        var blocks = Blocks("docs/getting-started.md");
        for (var i = 1; i < blocks.Count; i++) yield return new TestCaseData(blocks[i], blocks[0]).SetName($"Guide_Example{i}_PrintsWhatItSays");
        var loops = Blocks("docs/loops.md");
        for (var i = 0; i < loops.Count; i++) yield return new TestCaseData(loops[i], blocks[0]).SetName($"Loops_Example{i + 1}_PrintsWhatItSays");
        var security = Blocks("docs/security.md");
        for (var i = 0; i < security.Count; i++) yield return new TestCaseData(security[i], blocks[0]).SetName($"Security_Example{i + 1}_PrintsWhatItSays");
    }

    /// <summary>Each block is a program: compiled, run, and its output compared with what the comments at its end say.</summary>
    [TestCaseSource(nameof(Guide))]
    public void GuideExample_PrintsWhatItSays(string block, string connect)
    {
        const string Prefix = "// prints: ";
        var expected = block.Split('\n').Where(l => l.StartsWith(Prefix, StringComparison.Ordinal)).Select(l => l[Prefix.Length..]).ToArray();
        if (expected.Any(l => l.Contains("ConnectionReset", StringComparison.Ordinal))) TestPoller.SkipOnLibkqueue("it takes the error of a connection away (SO_ERROR) before a call can tell it");
        var code = s_guideUsings + Usings + (block.Contains("Connect()", StringComparison.Ordinal) ? block + "\n" + connect : block);
        var references = ((string)AppContext.GetData("TRUSTED_PLATFORM_ASSEMBLIES")!).Split(Path.PathSeparator)
            .Where(p => !p.EndsWith("Amy.Async.dll", StringComparison.Ordinal)).Append(typeof(EventLoop).Assembly.Location)
            .Select(p => MetadataReference.CreateFromFile(p));
        var compilation = CSharpCompilation.Create("Guide" + Guid.NewGuid().ToString("N"), [CSharpSyntaxTree.ParseText(code)], references,
            new CSharpCompilationOptions(OutputKind.ConsoleApplication, nullableContextOptions: NullableContextOptions.Enable));
        using var stream = new MemoryStream();
        Assert.That(compilation.Emit(stream).Diagnostics.Where(d => d.Severity == DiagnosticSeverity.Error), Is.Empty, code);
        stream.Position = 0;
        var main = AssemblyLoadContext.Default.LoadFromStream(stream).EntryPoint!;
        var output = new StringWriter();
        var console = Console.Out;
        Console.SetOut(output);
        try
        {
            Run.OnThread(() => main.Invoke(null, main.GetParameters().Length == 0 ? null : [Array.Empty<string>()]));
        }
        finally
        {
            Console.SetOut(console);
        }
        Assert.That(output.ToString().Split('\n', StringSplitOptions.RemoveEmptyEntries), Is.EqualTo(expected));
        Assert.That(expected, Is.Not.Empty);
    }

    /// <summary>Whatever of ours a document names exists, and every public item of amy is named.</summary>
    [Test]
    public void FromAmy_NamesEveryItemOfAmy_AndOnlyWhatExistsHere()
    {
        var text = File.ReadAllText(Path.Combine(Repository.Root, "docs/from-amy.md"));
        foreach (var item in new[]
        {
            "Poller::new", "Poller::get_registrar", "Poller::wait", "Registrar::register", "Registrar::reregister", "Registrar::deregister",
            "Registrar::set_timeout", "Registrar::set_interval", "Registrar::cancel_timeout", "Registrar::channel", "Registrar::sync_channel",
            "Event::", "Notification {", "LineReader::new", "LineReader::read", "LineReader::iter_mut", "LineReader::is_empty", "FrameReader::new",
            "FrameReader::read", "FrameReader::iter_mut", "FrameWriter::new", "FrameWriter::write", "FrameWriter::writable", "FrameWriter::is_writable",
            "FrameWriter::is_empty", "Timer::arm", "`Sender`", "`SyncSender`", "`Receiver`", "`ChannelError`", "`no_timerfd`",
        }) Assert.That(text, Does.Contain(item));
        var names = 0;
        foreach (System.Text.RegularExpressions.Match match in System.Text.RegularExpressions.Regex.Matches(text, @"`([A-Z]\w+)\.([A-Z]\w+)`"))
        {
            var type = typeof(EventLoop).Assembly.GetTypes().Single(t => t.IsPublic && t.Name.Split('`')[0] == match.Groups[1].Value);
            Assert.That(type.GetMember(match.Groups[2].Value), Is.Not.Empty, match.Value);
            names++;
        }
        Assert.That(names, Is.GreaterThan(25));
    }

    /// <summary>Each test that the document names is in the sources of one of the test assemblies.</summary>
    [Test]
    public void Testing_NamesOnlyTestsThatExist()
    {
        var tests = new HashSet<string>();
        foreach (var project in Directory.GetDirectories(Repository.Root, "Amy.Async*Tests*"))
            foreach (var file in Directory.GetFiles(project, "*Tests*.cs", SearchOption.AllDirectories).Where(static f => !f.Contains("/obj/", StringComparison.Ordinal)))
                foreach (var method in CSharpSyntaxTree.ParseText(File.ReadAllText(file)).GetRoot().DescendantNodes().OfType<MethodDeclarationSyntax>())
                    if (method.Parent is ClassDeclarationSyntax fixture && method.AttributeLists.SelectMany(static l => l.Attributes).Any(static a => a.Name.ToString() is "Test" or "TestCase" or "TestCaseSource"))
                        tests.Add($"{fixture.Identifier.Text}.{method.Identifier.Text}");
        var text = File.ReadAllText(Path.Combine(Repository.Root, "docs/testing.md"));
        var named = System.Text.RegularExpressions.Regex.Matches(text, @"`(\w+Tests\.[A-Z]\w+)`").Select(m => m.Groups[1].Value).ToList();
        Assert.That(named.Where(name => !tests.Contains(name)), Is.Empty);
        Assert.That(named, Has.Count.GreaterThan(100));
    }

    /// <summary>Each type that the netstandard2.0 build lacks is in the table of docs/netstandard.md, and nothing else is.</summary>
    [Test]
    public void Netstandard_ListsWhatIsMissing_AndNothingElse()
    {
        const string Title = "## What is missing";
        var text = File.ReadAllText(Path.Combine(Repository.Root, "docs/netstandard.md"));
        var section = text[(text.IndexOf(Title, StringComparison.Ordinal) + Title.Length)..];
        section = section[..section.IndexOf("\n## ", StringComparison.Ordinal)];
        var listed = System.Text.RegularExpressions.Regex.Matches(section, @"^\| `(\w+)` \|", System.Text.RegularExpressions.RegexOptions.Multiline).Select(m => m.Groups[1].Value);
        var onlyThere = File.ReadLines(Path.Combine(Repository.Library, "net10.0", "PublicAPI.Unshipped.txt")).Where(l => l[0] != '#').ToList();
        var missing = onlyThere.Where(l => !l.Contains(' ', StringComparison.Ordinal)).Select(l => l["Amy.Async.".Length..]).ToList();
        Assert.That(listed, Is.EquivalentTo(missing));
        // Members of types that both have would need rows of their own.
        Assert.That(onlyThere.Where(l => !missing.Any(m => l.Contains("Amy.Async." + m, StringComparison.Ordinal))), Is.Empty);
        var types = typeof(EventLoop).Assembly.GetTypes().Where(t => t.IsPublic).Select(t => t.Name).ToList();
#if AMY_NETSTANDARD
        Assert.That(missing.Intersect(types), Is.Empty);
#else
        Assert.That(missing, Is.SubsetOf(types));
#endif
    }

    /// <summary>What the walk from SocketAsyncEventArgs quotes stands in the sample, line by line.</summary>
    [Test]
    public void FromSocketAsyncEventArgs_QuotesTheSample()
    {
        var folder = Path.Combine(Repository.Root, "samples", "FromSocketAsyncEventArgs");
        var sources = new[] { "Before.cs", "After.cs" }.Select(f => File.ReadAllText(Path.Combine(folder, f))).ToList();
        var blocks = Blocks("docs/from-socketasynceventargs.md");
        Assert.That(blocks, Has.Count.EqualTo(8));
        foreach (var block in blocks) Assert.That(sources.Any(source => source.Contains(block, StringComparison.Ordinal)), Is.True, block);
    }
}
