using System.Reflection;

namespace Amy.Async.Tests;

internal static class Repository
{
    /// <summary>The folder of the sources that this assembly was built from.</summary>
    internal static readonly string Root = Path.GetFullPath(typeof(Repository).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(a => a.Key == "RepositoryRoot").Value!);

    internal static string Library => Path.Combine(Root, "Amy.Async");

    /// <summary>A program of the repository, built as this assembly was, for <c>dotnet</c>.</summary>
    internal static string Program(string folder)
    {
        var configuration = Path.GetFileName(Path.GetDirectoryName(Path.GetDirectoryName(typeof(Repository).Assembly.Location)))!;
        return Path.Combine(Root, folder, "bin", configuration, "net10.0", Path.GetFileName(folder) + ".dll");
    }
}
