using System.Text.RegularExpressions;

namespace Amy.Async.Tests.Architecture;

/// <summary>The workflows: plain YAML, that run what the README says, and say whether they have been run.</summary>
[TestFixture]
internal sealed partial class WorkflowTests
{
    private static string[] All() => [.. Directory.GetFiles(Path.Combine(Repository.Root, ".github", "workflows")).Order()];

    // The simplest kind of YAML, which is all that they use: "key:", "key: value", "- key: value" or "- value", indented by twos.
    [GeneratedRegex(@"^(  )*(- )?[A-Za-z][\w-]*:( [^\s].*)?$|^(  )*- [^\s:]+$")]
    private static partial Regex Line();

    [Test]
    public void Workflow_IsPlainYaml([ValueSource(nameof(All))] string file)
    {
        var lines = File.ReadAllLines(file).Where(l => l.Length > 0 && l[0] != '#').ToList();
        Assert.That(lines.Where(l => !Line().IsMatch(l)), Is.Empty);
        Assert.That(lines.Where(l => l[0] != ' ').Select(l => l.Split(':')[0]), Is.EqualTo(new[] { "name", "on", "jobs" }));
        // Nothing is deeper than one level below what it belongs to.
        var depth = 0;
        foreach (var line in lines)
        {
            var indentation = line.TakeWhile(c => c == ' ').Count();
            Assert.That(indentation, Is.LessThanOrEqualTo(depth + 2), line);
            depth = line.TrimStart().StartsWith("- ", StringComparison.Ordinal) ? indentation + 2 : indentation;
        }
    }

    [Test]
    public void Workflow_RunsTheTestCommandOfTheReadme_AndSaysThatItHasNotBeenRun([ValueSource(nameof(All))] string file)
    {
        var command = File.ReadAllLines(Path.Combine(Repository.Root, "README.md")).First(l => l.StartsWith("dotnet test", StringComparison.Ordinal));
        var text = File.ReadAllText(file);
        Assert.That(text, Does.Contain("run: " + command + "\n"));
        Assert.That(text, Does.StartWith("# Not yet run: "));
        Assert.That(File.ReadAllText(Path.Combine(Repository.Root, "README.md")), Does.Contain($"`{Path.GetFileName(file)}`"), "in the README's table of platforms");
    }
}
