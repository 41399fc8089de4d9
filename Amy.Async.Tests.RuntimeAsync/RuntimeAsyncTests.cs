using System.Reflection;
using System.Runtime.CompilerServices;
using Amy.Async.Samples;

namespace Amy.Async.Tests;

/// <summary>That this assembly is what it is for, and a program's checks as such methods.</summary>
[TestFixture]
internal sealed class RuntimeAsyncTests
{
    private const MethodImplAttributes Async = (MethodImplAttributes)0x2000;

    [Test]
    public void AsyncMethods_AreTheRuntimes_WithoutAStateMachine()
    {
        var method = typeof(Checks).GetMethod(nameof(Checks.EchoAsync))!;
        Assert.That(method.MethodImplementationFlags.HasFlag(Async), Is.True);
        Assert.That(method.GetCustomAttribute<AsyncStateMachineAttribute>(), Is.Null);
    }

    private static IEnumerable<string> Names => Checks.All.Keys;

    [TestCaseSource(nameof(Names))]
    public void Check_Holds(string name) => Run.OnLoop(Checks.All[name]);
}
