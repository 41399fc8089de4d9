using System.Reflection;

namespace Amy.Async.Tests;

internal static class Repository
{
    /// <summary>The folder of the sources that this assembly was built from.</summary>
    internal static readonly string Root = Path.GetFullPath(typeof(Repository).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(a => a.Key == "RepositoryRoot").Value!);

    internal static string Library => Path.Combine(Root, "Amy.Async");
}
