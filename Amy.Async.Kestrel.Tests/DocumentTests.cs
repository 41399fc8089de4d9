using Amy.Async.Tests;
using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CSharp;

namespace Amy.Async.Kestrel.Tests;

/// <summary>What the guide shows is compiled.</summary>
[TestFixture]
internal sealed class DocumentTests
{
    private const string Usings = """
        using System; using System.Net; using System.Threading.Tasks; using Amy.Async; using Amy.Async.Kestrel; using Microsoft.AspNetCore.Builder;
        using Microsoft.AspNetCore.Connections; using Microsoft.AspNetCore.Hosting; using Microsoft.Extensions.DependencyInjection;

        """;

    private static IEnumerable<TestCaseData> Examples()
    {
        var text = File.ReadAllText(Path.Combine(Repository.Root, "docs/kestrel.md"));
        var count = 0;
        foreach (var block in text.Split("```csharp\n").Skip(1)) yield return new TestCaseData(block[..block.IndexOf("```", StringComparison.Ordinal)]).SetName($"Example{++count}_Compiles");
    }

    [TestCaseSource(nameof(Examples))]
    public void Example_Compiles(string block)
    {
        var own = new[] { typeof(EventLoop), typeof(AmyAsyncTransportOptions) }.Select(t => t.Assembly.Location).ToList();
        var references = ((string)AppContext.GetData("TRUSTED_PLATFORM_ASSEMBLIES")!).Split(Path.PathSeparator)
            .Where(p => !own.Select(Path.GetFileName).Contains(Path.GetFileName(p))).Concat(own).Select(p => MetadataReference.CreateFromFile(p));
        var compilation = CSharpCompilation.Create("Guide", [CSharpSyntaxTree.ParseText(Usings + block)], references,
            new CSharpCompilationOptions(OutputKind.ConsoleApplication, nullableContextOptions: NullableContextOptions.Enable));
        Assert.That(compilation.GetDiagnostics().Where(d => d.Severity == DiagnosticSeverity.Error), Is.Empty, block);
    }
}
