#if !AMY_NETSTANDARD
using System.IO.Compression;

namespace Amy.Async.Tests.Packaging;

/// <summary>Packs the library into a local feed, and builds and runs a program that uses it from there.</summary>
[TestFixture]
internal sealed class PackageConsumerTests
{
    private const string Program = """
        using System.Net;
        using Amy.Async;

        EventLoop.Run(async () =>
        {
            using var listener = AsyncSocket.Listen(new IPEndPoint(IPAddress.Loopback, 0));
            using var client = await AsyncSocket.ConnectAsync(listener.LocalEndPoint!);
            using var server = await listener.AcceptAsync();
            await client.SendAsync(new byte[] { 1, 2, 3 });
            var buffer = new byte[16];
            var n = await server.ReceiveAsync(buffer);
            await server.SendAsync(buffer.AsMemory(0, n));
            Console.WriteLine(await client.ReceiveAsync(buffer) == 3 ? "ok" : "wrong");
        });
        """;

    private const string Project = """
        <Project Sdk="Microsoft.NET.Sdk">
          <PropertyGroup>
            <OutputType>Exe</OutputType>
            <TargetFramework>net10.0</TargetFramework>
            <ImplicitUsings>enable</ImplicitUsings>
            <Nullable>enable</Nullable>
            <TreatWarningsAsErrors>true</TreatWarningsAsErrors>
          </PropertyGroup>
          <ItemGroup>
            <PackageReference Include="Amy.Async" Version="VERSION" />
          </ItemGroup>
        </Project>
        """;

    private string _folder = "";

    [SetUp]
    public void MakeFolder() => _folder = Directory.CreateTempSubdirectory("amy-package").FullName;

    [TearDown]
    public void RemoveFolder() => Directory.Delete(_folder, recursive: true);

    private static string Library() => Path.Combine(Repository.Library, "Amy.Async.csproj");

    [Test]
    public void Package_FromALocalFeed_BuildsAndRuns()
    {
        var version = $"0.0.0-test.{DateTime.UtcNow.Ticks}";
        var feed = Path.Combine(_folder, "feed");
        DotnetCommand.Run(_folder, "pack", Library(), "-c", "Release", "-o", feed, $"-p:Version={version}", $"-p:BaseOutputPath={_folder}/bin/");

        using (var package = ZipFile.OpenRead(Path.Combine(feed, $"Amy.Async.{version}.nupkg")))
        {
            var names = package.Entries.Select(e => e.FullName).ToList();
            foreach (var target in new[] { "net10.0", "netstandard2.0" })
                Assert.That(names, Is.SupersetOf(new[] { $"lib/{target}/Amy.Async.dll", $"lib/{target}/Amy.Async.xml" }));
            Assert.That(names, Does.Contain("README.md"));
            Assert.That(names.Where(n => n.StartsWith("analyzers/", StringComparison.Ordinal)),
                Is.EquivalentTo(new[] { "analyzers/dotnet/cs/Amy.Async.Analyzers.dll", "analyzers/dotnet/cs/Amy.Async.Analyzers.CodeFixes.dll" }));
            Assert.That(names, Does.Contain("docs/analyzers.md"), "what the rules' help links name");
            using var reader = new StreamReader(package.GetEntry("Amy.Async.nuspec")!.Open());
            var nuspec = reader.ReadToEnd();
            Assert.That(nuspec, Does.Contain("Apache-2.0"));
            Assert.That(nuspec, Does.Contain("<group targetFramework=\"net10.0\" />"), "no dependency on net10.0");
            Assert.That(nuspec, Does.Contain("Microsoft.Bcl.AsyncInterfaces"));
        }

        var consumer = Directory.CreateDirectory(Path.Combine(_folder, "consumer")).FullName;
        File.WriteAllText(Path.Combine(consumer, "Program.cs"), Program);
        File.WriteAllText(Path.Combine(consumer, "consumer.csproj"), Project.Replace("VERSION", version, StringComparison.Ordinal));
        // On its own: nothing of the repository's build reaches it.
        File.WriteAllText(Path.Combine(consumer, "Directory.Build.props"), "<Project />");
        File.WriteAllText(Path.Combine(consumer, "Directory.Packages.props"), "<Project />");
        DotnetCommand.Run(consumer, "restore", "--source", feed, "--packages", Path.Combine(_folder, "packages"));
        DotnetCommand.Run(consumer, "build", "-c", "Release", "--no-restore");
        Assert.That(DotnetCommand.Run(consumer, Path.Combine(consumer, "bin", "Release", "net10.0", "consumer.dll")).Trim(), Is.EqualTo("ok"));

        File.AppendAllText(Path.Combine(consumer, "Program.cs"), "\nEventLoop.Default.Post(async () => await Task.Yield());");
        var output = DotnetCommand.Run(consumer, "build", "-c", "Release", "--no-restore", "-p:TreatWarningsAsErrors=false");
        Assert.That(output, Does.Contain("warning AMY005"), "the package's analyzers run");
        Assert.That(output, Does.Not.Contain("warning CS8032"), "the compiler can load them");
    }
}
#endif
