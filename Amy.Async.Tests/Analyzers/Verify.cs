using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CodeFixes;
using Microsoft.CodeAnalysis.CSharp;
using Microsoft.CodeAnalysis.CSharp.Testing;
using Microsoft.CodeAnalysis.Diagnostics;
using Microsoft.CodeAnalysis.Testing;

namespace Amy.Async.Tests.Analyzers;

/// <summary>
/// The analyzer testing package, against the assemblies that this process runs on (by itself it would download them). In the
/// code, <c>{|AMY001:…|}</c> is where an alarm is expected; there must be no other.
/// </summary>
internal static class Verify
{
    internal static readonly MetadataReference[] References =
    [
        .. ((string)AppContext.GetData("TRUSTED_PLATFORM_ASSEMBLIES")!).Split(Path.PathSeparator)
            .Where(p => Path.GetFileName(p) is var name && (name.StartsWith("System.", StringComparison.Ordinal) || name.StartsWith("Microsoft.Win32", StringComparison.Ordinal)
                || name.StartsWith("Microsoft.Extensions", StringComparison.Ordinal) || name is "netstandard.dll" or "mscorlib.dll"))
            .Append(typeof(EventLoop).Assembly.Location).Select(p => MetadataReference.CreateFromFile(p)),
    ];

    internal const string Usings = """
        using System; using System.Collections.Generic; using System.Diagnostics; using System.IO; using System.IO.Pipes; using System.Linq;
        using System.Net; using System.Net.Sockets; using System.Text; using System.Threading; using System.Threading.Channels; using System.Threading.Tasks; using Amy.Async;

        """;

    /// <summary>Members of a class, beside some that all use.</summary>
    private static string Program(string members) => Usings + $$"""
        #nullable enable
        internal class Program
        {
            private static Task<int> Ask() => Task.FromResult(1);

            {{members}}
        }
        """;

    /// <summary>A method that returns a Task, with a loop, a connected socket and a buffer.</summary>
    internal static string Method(string statements, string modifiers = "async Task") =>
        $"internal static {modifiers} Method(EventLoop loop, AsyncSocket conn, byte[] buffer)\n    {{\n        {statements}\n    }}";

    internal static Task Alarms<TAnalyzer>(string members) where TAnalyzer : DiagnosticAnalyzer, new() => new Test<TAnalyzer, EmptyCodeFixProvider>(Program(members), null).RunAsync();

    /// <summary>The same code twice if there is no fix.</summary>
    internal static Task Fix<TAnalyzer, TFix>(string members, string fixedMembers) where TAnalyzer : DiagnosticAnalyzer, new() where TFix : CodeFixProvider, new() =>
        new Test<TAnalyzer, TFix>(Program(members), Program(fixedMembers)).RunAsync();

    private sealed class Test<TAnalyzer, TFix> : CSharpCodeFixTest<TAnalyzer, TFix, DefaultVerifier> where TAnalyzer : DiagnosticAnalyzer, new() where TFix : CodeFixProvider, new()
    {
        internal Test(string code, string? fixedCode)
        {
            ReferenceAssemblies = new ReferenceAssemblies("net10.0");
            TestState.AdditionalReferences.AddRange(References);
            TestCode = code;
            if (fixedCode is not null) FixedCode = fixedCode;
        }

        protected override ParseOptions CreateParseOptions() => new CSharpParseOptions(LanguageVersion.Latest, DocumentationMode.Diagnose);
    }
}
