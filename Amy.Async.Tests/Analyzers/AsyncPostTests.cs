using Amy.Async.Analyzers;

namespace Amy.Async.Tests.Analyzers;

[TestFixture]
internal sealed class AsyncPostTests
{
    private const string Void = "private static async void Void() => await Ask();\n";

    private static Task Alarms(string statements) => Verify.Alarms<AsyncPostAnalyzer>(Void + Verify.Method(statements));

    private static Task Fix(string before, string after, string modifiers) =>
        Verify.Fix<AsyncPostAnalyzer, InvokeAsyncFix>(Void + Verify.Method(before, modifiers), Void + Verify.Method(after, modifiers));

    [TestCase("loop.Post({|AMY005:async () => await Ask()|});")]
    [TestCase("loop.Post({|AMY005:async delegate { await Ask(); }|});")]
    [TestCase("loop.Post({|AMY005:async s => await Task.Delay(s.Length)|}, \"text\");")]
    [TestCase("loop.Post({|AMY005:Void|});")]
    [TestCase("EventLoop.Current!.Post({|AMY005:async () => await Ask()|});")]
    public Task Post_OfAnAsyncFunction_IsReported(string statement) => Alarms(statement);

    [TestCase("loop.Post(() => _ = Ask());")]
    [TestCase("await loop.InvokeAsync(async () => await Ask());")]
    [TestCase("loop.Post(() => { Func<Task> f = async () => await Ask(); _ = f(); });")]
    [TestCase("SynchronizationContext.Current!.Post(async _ => await Ask(), null);")]
    public Task Post_OfAnother_IsNotReported(string statement) => Alarms(statement);

    [TestCase("async Task", "loop.Post({|AMY005:async () => await Ask()|}); // then", "await loop.InvokeAsync(async () => await Ask()); // then")]
    [TestCase("void", "loop.Post({|AMY005:async () => await Ask()|});", "_ = loop.InvokeAsync(async () => await Ask());")]
    // What it would become is not the fix's to say.
    [TestCase("void", "loop.Post({|AMY005:Void|});", "loop.Post({|AMY005:Void|});")]
    [TestCase("void", "loop.Post({|AMY005:async s => await Task.Delay(s.Length)|}, \"text\");", "loop.Post({|AMY005:async s => await Task.Delay(s.Length)|}, \"text\");")]
    public Task Fix_UsesInvokeAsync(string modifiers, string before, string after) => Fix(before, after, modifiers);
}
