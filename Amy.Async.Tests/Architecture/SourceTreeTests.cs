using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CSharp;
using Microsoft.CodeAnalysis.CSharp.Syntax;

namespace Amy.Async.Tests.Architecture;

/// <summary>Keeps the house as ARCHITECTURE.md draws it: its size, its rooms, and which room may use which.</summary>
[TestFixture]
internal sealed class SourceTreeTests
{
    private static readonly Dictionary<string, string[]> s_mayUse = new()
    {
        ["Compat"] = [],
        ["Native"] = ["Compat"],
        ["Polling"] = ["Compat", "Native"],
        ["Loop"] = ["Compat", "Native", "Polling"],
        ["Sockets"] = ["Compat", "Native", "Polling", "Loop", "Codecs"],
        ["Codecs"] = ["Compat"],
    };

    private static readonly List<(string Room, string File, SyntaxTree Tree)> s_files = Parse();

    private static string Root() => Repository.Library;

    private static List<(string, string, SyntaxTree)> Parse()
    {
        var files = new List<(string, string, SyntaxTree)>();
        foreach (var room in s_mayUse.Keys.Where(r => Directory.Exists(Path.Combine(Root(), r))))
            foreach (var file in Directory.GetFiles(Path.Combine(Root(), room), "*.cs", SearchOption.AllDirectories))
                files.Add((room, Path.GetRelativePath(Root(), file), CSharpSyntaxTree.ParseText(File.ReadAllText(file))));
        return files;
    }

    // Lines that say something: neither blank nor a comment nor a lone brace, which is a matter of layout.
    private static int LinesOfCode(SyntaxTree tree) =>
        tree.GetRoot().DescendantTokens()
            .Where(t => !(t.IsKind(SyntaxKind.EndOfFileToken) || t.IsKind(SyntaxKind.OpenBraceToken) || t.IsKind(SyntaxKind.CloseBraceToken)))
            .SelectMany(t => new[] { t.GetLocation().GetLineSpan().StartLinePosition.Line, t.GetLocation().GetLineSpan().EndLinePosition.Line })
            .Distinct().Count();

    [Test]
    public void TheRooms_ExistAndNothingStandsOutside()
    {
        Assert.That(s_files.Select(f => f.Room).Distinct(), Is.SupersetOf(new[] { "Native", "Polling", "Loop", "Sockets", "Compat" }));
        Assert.That(Directory.GetFiles(Root(), "*.cs"), Is.Empty);
    }

    // What the first reading leaves out: nothing of the core knows how it works.
    private static readonly HashSet<string> s_extras =
    [
        "PollerTimers.cs", "PollerSignals.cs", "PollerChannel.cs",
        "ForeignTime.cs", "VirtualTimeProvider.cs", "TimerAction.cs", "LoopTimeProvider.cs", "LoopTimer.cs",
        "CodecExtensions.cs",
        "SystemCalls.Messages.cs", "PinnedVectors.cs", "BatchHeaders.cs", "SideSource.cs",
        "SocketAction.cs", "AsyncSocket.Datagrams.cs", "DatagramActions.cs", "DatagramBatch.cs", "AsyncSocket.Vectors.cs", "AsyncSocket.Writers.cs",
        "AsyncSocket.Messages.cs", "ReceivedMessage.cs", "AsyncSocket.SendFile.cs", "AsyncSocket.Closed.cs", "HappyEyeballs.cs",
        "AsyncFd.cs", "FdSource.cs", "DescriptorStream.cs", "AsyncSocket.Adapters.cs",
        "AsyncPipeOptions.cs", "SocketPipe.cs", "SocketPipeReader.cs", "SocketPipeWriter.cs", "SignalReceiver.cs",
        "PlainBinding.cs", "Watchdog.cs", "EventLoop.Blocking.cs", "LoopBlockedEventArgs.cs", "WorkName.cs", "LoopMeter.cs", "LoopDeadline.cs",
        "EventLoopGroup.cs", "AsyncSocket.Loops.cs", "SocketSource.Moving.cs", "EventLoop.Lingering.cs", "EventLoop.Pinning.cs", "EventLoop.Metering.cs", "LeftOver.cs", "PoolQueue.cs", "Abi.Extras.cs", "Libc.Extras.cs",
        "Operation.Blocking.cs", "DescriptorSource.Blocking.cs", "Affinity.cs", "SystemCalls.Threads.cs",
        "SelectorChoice.cs", "KqueueSelector.cs", "Kqueue.cs", "Libc.Kqueue.cs", "SystemCalls.Kqueue.cs", "SystemCalls.Files.cs",
        "PlatformDescription.cs", "PlatformNumbers.cs", "PlatformNumbers.Translation.cs", "ErrorNumbers.cs", "OnlyOnAttribute.cs",
        "PortableSystemCalls.cs", "PortableSystemCalls.Messages.cs", "ControlTranslation.cs", "Libc.Portable.cs",
    ];

    [Test]
    public void TheCore_StaysWithinThreeThousandLinesOfCode()
    {
        var lines = s_files.Where(f => f.Room is "Native" or "Polling" or "Loop" or "Sockets" && !s_extras.Contains(Path.GetFileName(f.File)))
            .Sum(f => LinesOfCode(f.Tree));
        TestContext.Out.WriteLine($"{lines} lines of code");
        Assert.That(lines, Is.InRange(1000, 3000));
    }

    [Test]
    public void NoFile_IsLongerThan450Lines() =>
        Assert.That(s_files.Where(f => f.Tree.GetText().Lines.Count > 450).Select(f => f.File), Is.Empty);

    [Test]
    public void TheArrows_PointOneWay()
    {
        var declaredIn = new Dictionary<string, string>();
        foreach (var (room, _, tree) in s_files)
            foreach (var type in tree.GetRoot().DescendantNodes().OfType<BaseTypeDeclarationSyntax>().Where(t => t.Parent is not BaseTypeDeclarationSyntax))
                declaredIn[type.Identifier.Text] = room;
        foreach (var (room, _, tree) in s_files)
            foreach (var type in tree.GetRoot().DescendantNodes().OfType<DelegateDeclarationSyntax>().Where(t => t.Parent is not BaseTypeDeclarationSyntax))
                declaredIn[type.Identifier.Text] = room;
        var wrong = new List<string>();
        foreach (var (room, file, tree) in s_files)
        {
            var own = tree.GetRoot().DescendantNodes().OfType<BaseTypeDeclarationSyntax>().Select(t => t.Identifier.Text).ToHashSet();
            foreach (var name in tree.GetRoot().DescendantNodes().OfType<SimpleNameSyntax>())
            {
                var text = name.Identifier.Text;
                if (own.Contains(text) || !declaredIn.TryGetValue(text, out var other) || other == room || s_mayUse[room].Contains(other)) continue;
                if (IsMember(name)) continue;
                wrong.Add($"{file} ({room}) uses {text} of {other}");
            }
        }
        Assert.That(wrong, Is.Empty);
    }

    // A member, an argument or a declaration that happens to have a type's name is no use of the type.
    private static bool IsMember(SimpleNameSyntax name) =>
        name.Parent is MemberAccessExpressionSyntax access && access.Name == name
        || name.Parent is MemberBindingExpressionSyntax or NameColonSyntax or NameEqualsSyntax
        || name.Parent is AssignmentExpressionSyntax { Parent: InitializerExpressionSyntax } assignment && assignment.Left == name
        || name.Ancestors().Any(a => a is UsingDirectiveSyntax);

    // However it is written: DllImport, DllImportAttribute, qualified or not.
    private static bool IsPInvoke(NameSyntax name) =>
        name.DescendantTokens().Last().Text is "DllImport" or "DllImportAttribute" or "LibraryImport" or "LibraryImportAttribute";

    [Test]
    public void UnsafeAndDllImport_OnlyInNative_AndConditionsOnlyInCompat()
    {
        var wrong = new List<string>();
        foreach (var (room, file, tree) in s_files)
        {
            var root = tree.GetRoot();
            if (room != "Native" && root.DescendantTokens().Any(t => t.IsKind(SyntaxKind.UnsafeKeyword))) wrong.Add($"{file}: unsafe");
            if (room != "Native" && root.DescendantNodes().OfType<AttributeSyntax>().Any(a => IsPInvoke(a.Name))) wrong.Add($"{file}: P/Invoke");
            if (room != "Compat" && root.DescendantTrivia().Any(t => t.IsKind(SyntaxKind.IfDirectiveTrivia))) wrong.Add($"{file}: #if");
        }
        Assert.That(wrong, Is.Empty);
    }

    [Test]
    public void SuppressGCTransition_IsNowhere() =>
        Assert.That(s_files.Where(f => f.Tree.GetRoot().DescendantNodes().OfType<AttributeSyntax>().Any(a => a.Name.ToString().Contains("SuppressGCTransition"))).Select(f => f.File), Is.Empty);
}
