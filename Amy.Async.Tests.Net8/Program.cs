using System.Diagnostics;
using System.Reflection;
using System.Runtime.InteropServices;
using System.Runtime.Versioning;
using NUnit.Framework.Api;
using NUnit.Framework.Interfaces;
using NUnit.Framework.Internal;

// Runs the tests whose full names contain one of the arguments; all of them without arguments.
var clock = Stopwatch.StartNew();
var runner = new NUnitTestAssemblyRunner(new DefaultTestAssemblyBuilder());
runner.Load(Assembly.GetExecutingAssembly(), new Dictionary<string, object> { ["NumberOfTestWorkers"] = 0 });
var results = new Amy.Async.Tests.RunResults();
runner.Run(results, new Amy.Async.Tests.NameFilter(args));
var build = typeof(Amy.Async.EventLoop).Assembly.GetCustomAttribute<TargetFrameworkAttribute>()!.FrameworkName;
Console.WriteLine($"{RuntimeInformation.FrameworkDescription}, the library for {build}, {clock.Elapsed.TotalSeconds:F0} s");
Console.WriteLine($"{results.Passed} passed, {results.Failed} failed, {results.Skipped} skipped");
return results is { Failed: 0, Passed: > 0 } ? 0 : 1;

namespace Amy.Async.Tests
{
    internal sealed class NameFilter(string[] parts) : TestFilter
    {
        public override bool Match(ITest test) => parts.Length == 0 || parts.Any(p => test.FullName.Contains(p, StringComparison.Ordinal));

        public override TNode AddToXml(TNode parentNode, bool recursive) => parentNode.AddElement("names", string.Join(' ', parts));
    }

    internal sealed class RunResults : ITestListener
    {
        // While the runner runs, what is written to the console is a test's.
        private readonly TextWriter _out = Console.Out;

        internal int Passed { get; private set; }

        internal int Failed { get; private set; }

        internal int Skipped { get; private set; }

        public void TestStarted(ITest test)
        {
        }

        public void TestFinished(ITestResult result)
        {
            if (result.HasChildren || result.Test.IsSuite)
            {
                // A fixture that could not be set up has no tests that say so.
                if (result.ResultState.Site is FailureSite.SetUp or FailureSite.TearDown && result.ResultState.Status == TestStatus.Failed) Fail(result);
                return;
            }
            switch (result.ResultState.Status)
            {
                case TestStatus.Passed or TestStatus.Warning: Passed++; break;
                case TestStatus.Failed: Fail(result); break;
                default:
                    Skipped++;
                    _out.WriteLine($"Skipped {result.FullName}: {result.Message}");
                    break;
            }
        }

        private void Fail(ITestResult result)
        {
            Failed++;
            _out.WriteLine($"Failed {result.FullName}\n{result.Message}\n{result.StackTrace}");
        }

        public void TestOutput(TestOutput output)
        {
        }

        public void SendMessage(TestMessage message)
        {
        }
    }
}
