using System.Diagnostics;
using System.Reflection;
using System.Runtime.InteropServices;
using Amy.Async.Native;
using Microsoft.CodeAnalysis;
using Microsoft.CodeAnalysis.CSharp;
using Microsoft.CodeAnalysis.CSharp.Syntax;

namespace Amy.Async.Tests.Native;

/// <summary>Every P/Invoke entry point, against what the libc of each platform exports.</summary>
[TestFixture]
internal sealed class ImportTests
{
    private static readonly Systems[] s_systems = [Systems.Linux, Systems.MacOS, Systems.FreeBsd];

    /// <summary>By function: where each system documents it, null for not at all.</summary>
    private static readonly Dictionary<string, string?[]> s_exports = File.ReadLines(Path.Combine(Repository.Root, "Amy.Async.Tests", "Native", "libc-exports.txt"))
        .Where(line => line.Length > 0 && line[0] != '#').Select(line => line.Split(" | "))
        .ToDictionary(cells => cells[0], cells => cells[1..].Select(cell => cell == "-" ? null : cell).ToArray());

    private static readonly List<(string Function, string Method, string Library, Systems Systems)> s_imports = [.. Imports()];

    private static IEnumerable<(string, string, string, Systems)> Imports()
    {
        foreach (var type in typeof(SystemCalls).Assembly.GetTypes())
            foreach (var method in type.GetMethods(BindingFlags.Static | BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.DeclaredOnly))
                if (method.GetCustomAttribute<DllImportAttribute>() is { } import)
                    yield return (import.EntryPoint ?? method.Name, method.Name, import.Value, method.GetCustomAttribute<OnlyOnAttribute>()?.Systems ?? Systems.All);
    }

    [Test]
    public void EachImport_IsAnExportWhereItIsCalled()
    {
        var wrong = new List<string>();
        foreach (var (function, method, library, systems) in s_imports.Where(i => i.Library == "libc"))
        {
            if (!s_exports.TryGetValue(function, out var exports))
            {
                wrong.Add($"{function} ({method}) is not in libc-exports.txt");
                continue;
            }
            foreach (var system in s_systems.Where(s => (systems & s) != 0 && exports[Array.IndexOf(s_systems, s)] is null))
                wrong.Add($"{function} ({method}) is called on {system}, whose libc does not have it");
        }
        Assert.That(wrong, Is.Empty);
        Assert.That(s_exports.Keys.Except(s_imports.Select(i => i.Function)), Is.Empty, "in the list, but not imported");
        Assert.That(s_imports, Has.Count.GreaterThan(30));
    }

    [Test]
    public void EachImportOnLinux_IsInTheLibcAtHand()
    {
        var libc = NativeLibrary.Load("libc", typeof(SystemCalls).Assembly, null);
        var missing = s_imports.Where(i => i.Library == "libc" && (i.Systems & Systems.Linux) != 0 && s_exports[i.Function][0] is { } where && !where.StartsWith("libkqueue", StringComparison.Ordinal))
            .Select(i => i.Function).Where(f => f != "epoll_pwait2" && !NativeLibrary.TryGetExport(libc, f, out _));
        Assert.That(missing, Is.Empty);
    }

    /// <summary>
    /// What musl has, by a program of its own: the runtime opens "libc.so" there, which musl resolves to itself, and finds each
    /// function but epoll_pwait2, for which there is a fallback.
    /// </summary>
    [Test]
    public void EachImportOnLinux_IsInMusl()
    {
        const string compiler = "/usr/bin/musl-gcc";
        if (!File.Exists(compiler)) Assert.Ignore("The compiler of musl-tools is missing.");
        var folder = Directory.CreateTempSubdirectory("amy-musl");
        try
        {
            var source = Path.Combine(folder.FullName, "exports.c");
            var program = Path.Combine(folder.FullName, "exports");
            var functions = s_imports.Where(i => i.Library == "libc" && (i.Systems & Systems.Linux) != 0 && s_exports[i.Function][0]?.StartsWith("libkqueue", StringComparison.Ordinal) == false).Select(i => i.Function).Distinct();
            File.WriteAllText(source, $$"""
                #include <dlfcn.h>
                #include <stdio.h>
                int main(void) {
                    static const char *names[] = { {{string.Join(", ", functions.Select(f => $"\"{f}\""))}} };
                    void *libc = dlopen("libc.so", RTLD_LAZY);
                    if (!libc) { puts(dlerror()); return 1; }
                    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
                        if (!dlsym(libc, names[i])) puts(names[i]);
                    return 0;
                }
                """);
            Assert.That(Output(compiler, "-o", program, source), Is.Empty);
            Assert.That(Output(program).Split('\n', StringSplitOptions.RemoveEmptyEntries), Is.SubsetOf(new[] { "epoll_pwait2" }));
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    private static string Output(string program, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true })!;
        var text = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.That(process.ExitCode, Is.Zero, text);
        return text;
    }

    /// <summary>
    /// A call that SystemCalls makes by a function of Linux is made otherwise by PortableSystemCalls, but for epoll and eventfd,
    /// which only the epoll selector asks for.
    /// </summary>
    [Test]
    public void EachCallByLinuxAlone_IsPortable()
    {
        var linuxOnly = s_imports.Where(i => (i.Systems & (Systems.MacOS | Systems.FreeBsd)) != (Systems.MacOS | Systems.FreeBsd)).Select(i => i.Method).ToHashSet();
        var methods = Members("SystemCalls");
        var byLinux = methods.Where(m => m.DescendantNodes().OfType<MemberAccessExpressionSyntax>().Any(a => a.Expression.ToString() == "Libc" && linuxOnly.Contains(a.Name.Identifier.Text))).ToList();
        var portable = Members("PortableSystemCalls").Select(Signature).ToHashSet();
        Assert.That(byLinux.Select(Signature).Where(s => !portable.Contains(s) && !s.StartsWith("Epoll", StringComparison.Ordinal) && !s.StartsWith("EventFd", StringComparison.Ordinal)), Is.Empty);
        Assert.That(byLinux, Has.Count.GreaterThan(10));
    }

    /// <summary>What no other system has is not called by PortableSystemCalls where that would matter.</summary>
    [Test]
    public void PortableCalls_CallNothingOfLinuxAlone()
    {
        var linuxOnly = s_imports.Where(i => i.Systems == Systems.Linux).Select(i => i.Method).ToHashSet();
        var used = Members("PortableSystemCalls").SelectMany(m => m.DescendantNodes().OfType<MemberAccessExpressionSyntax>()).Where(a => a.Expression.ToString() == "Libc").Select(a => a.Name.Identifier.Text);
        Assert.That(used.Where(linuxOnly.Contains), Is.Empty);
    }

    private static List<MethodDeclarationSyntax> Members(string type) =>
        [.. Directory.GetFiles(Path.Combine(Repository.Library, "Native"), "*.cs")
            .SelectMany(file => CSharpSyntaxTree.ParseText(File.ReadAllText(file)).GetRoot().DescendantNodes().OfType<ClassDeclarationSyntax>())
            .Where(c => c.Identifier.Text == type).SelectMany(c => c.Members.OfType<MethodDeclarationSyntax>())];

    private static string Signature(MethodDeclarationSyntax method) =>
        $"{method.Identifier.Text}({string.Join(", ", method.ParameterList.Parameters.Select(p => p.Type))})";
}
