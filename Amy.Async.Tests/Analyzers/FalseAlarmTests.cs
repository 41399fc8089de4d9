using System.Collections.Immutable;
using System.Text.RegularExpressions;
using Amy.Async.Analyzers;
using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CSharp;
using Microsoft.CodeAnalysis.CSharp.Syntax;
using Microsoft.CodeAnalysis.Diagnostics;

namespace Amy.Async.Tests.Analyzers;

/// <summary>All analyzers over the code that the repository shows: the samples, the documents.</summary>
[TestFixture]
internal sealed class FalseAlarmTests
{
    private const string ImplicitUsings = """
        global using System; global using System.Collections.Generic; global using System.IO; global using System.Linq;
        global using System.Net.Http; global using System.Threading; global using System.Threading.Tasks;
        """;

    private static readonly ImmutableArray<DiagnosticAnalyzer> s_analyzers =
        [new BlockingCallAnalyzer(), new ValueTaskAnalyzer(), new UndisposedAnalyzer(), new AsyncPostAnalyzer()];

    // "AMY001:12", by line.
    private static async Task<List<string>> Alarms(OutputKind kind, params IEnumerable<string> sources)
    {
        var compilation = CSharpCompilation.Create("Shown", sources.Select(s => CSharpSyntaxTree.ParseText(s)), Verify.References,
            new CSharpCompilationOptions(kind, nullableContextOptions: NullableContextOptions.Enable));
        // CS8795: what a source generator would add is not there.
        Assert.That(compilation.GetDiagnostics().Where(d => d.Severity == DiagnosticSeverity.Error && d.Id != "CS8795"), Is.Empty);
        // What goes wrong inside an analyzer is a diagnostic, too.
        return [.. (await compilation.WithAnalyzers(s_analyzers).GetAnalyzerDiagnosticsAsync()).Select(d => $"{d.Id}:{d.Location.GetLineSpan().StartLinePosition.Line}").Order()];
    }

    // Not Web, which needs the assemblies of ASP.NET Core: it is built with the analyzers, as all samples are.
    private static IEnumerable<string> Samples() => Directory.GetDirectories(Path.Combine(Repository.Root, "samples")).Select(f => Path.GetFileName(f)!).Where(n => n != "Web").Order();

    [TestCaseSource(nameof(Samples))]
    public async Task Sample_GivesNoAlarm(string name)
    {
        var sources = Directory.GetFiles(Path.Combine(Repository.Root, "samples", name), "*.cs").Select(File.ReadAllText);
        Assert.That(await Alarms(OutputKind.ConsoleApplication, sources.Append(ImplicitUsings)), Is.Empty);
    }

    private static List<string> Blocks(string document) =>
        [.. Regex.Matches(File.ReadAllText(Path.Combine(Repository.Root, document)), "^```csharp\n(.*?)^```$", RegexOptions.Multiline | RegexOptions.Singleline).Select(m => m.Groups[1].Value)];

    [Test]
    public async Task Readme_GivesNoAlarm() => Assert.That(await Alarms(OutputKind.ConsoleApplication, Verify.Usings + Blocks("README.md")[0]), Is.Empty);

    private static IEnumerable<TestCaseData> Guide()
    {
        var blocks = Blocks("docs/getting-started.md");
        for (var i = 1; i < blocks.Count; i++)
            yield return new TestCaseData(blocks[i].Contains("Connect()", StringComparison.Ordinal) ? blocks[i] + blocks[0] : blocks[i]).SetName($"Guide_Example{i}_GivesNoAlarm");
    }

    [TestCaseSource(nameof(Guide))]
    public async Task Guide_GivesNoAlarm(string block) => Assert.That(await Alarms(OutputKind.ConsoleApplication, Verify.Usings + block), Is.Empty);

    private static IEnumerable<TestCaseData> Descriptions() =>
        Blocks("docs/analyzers.md").Select((block, i) => new TestCaseData(block).SetName($"Description_Example{i}_GivesTheAlarmsItSays"));

    /// <summary>Where a comment names a rule, that is reported, and nowhere else.</summary>
    [TestCaseSource(nameof(Descriptions))]
    public async Task Description_GivesTheAlarmsItSays(string block)
    {
        var lines = block.Split('\n');
        var offset = Verify.Usings.Split('\n').Length - 1;
        var expected = lines.Select((line, i) => (Rule: Regex.Match(line, "// (AMY\\d+)$").Groups[1].Value, Line: i + offset)).Where(x => x.Rule.Length > 0).Select(x => $"{x.Rule}:{x.Line}");
        // Methods stand for themselves.
        var kind = CSharpSyntaxTree.ParseText(block).GetRoot().DescendantNodes().Any(n => n is GlobalStatementSyntax { Statement: not LocalFunctionStatementSyntax })
            ? OutputKind.ConsoleApplication : OutputKind.DynamicallyLinkedLibrary;
        Assert.That(await Alarms(kind, Verify.Usings + (kind == OutputKind.ConsoleApplication ? block : $"class Program {{{block}}}")), Is.EqualTo(expected.Order()));
    }

    [Test]
    public void EveryRule_IsDescribed_AndIsAWarning()
    {
        var rules = s_analyzers.SelectMany(a => a.SupportedDiagnostics).ToList();
        var text = File.ReadAllText(Path.Combine(Repository.Root, "docs/analyzers.md"));
        Assert.That(rules.Select(r => r.Id), Is.EquivalentTo(new[] { "AMY001", "AMY002", "AMY003", "AMY004", "AMY005" }));
        foreach (var rule in rules)
        {
            Assert.That(text, Does.Contain($"\n## {rule.Id}\n"));
            Assert.That(rule.HelpLinkUri, Is.EqualTo($"docs/analyzers.md#{rule.Id.ToLowerInvariant()}"));
            Assert.That(rule.DefaultSeverity, Is.EqualTo(DiagnosticSeverity.Warning));
        }
    }

    [Test]
    public async Task WithoutTheLibrary_NothingIsReported()
    {
        const string Code = "class EventLoop { public void Post(System.Action a) { } void M() => Post(async () => await System.Threading.Tasks.Task.Yield()); }";
        var compilation = CSharpCompilation.Create("Other", [CSharpSyntaxTree.ParseText(Code)], Verify.References.Where(r => !r.Display!.EndsWith("Amy.Async.dll", StringComparison.Ordinal)),
            new CSharpCompilationOptions(OutputKind.DynamicallyLinkedLibrary));
        Assert.That(await compilation.WithAnalyzers(s_analyzers).GetAnalyzerDiagnosticsAsync(), Is.Empty);
    }
}
