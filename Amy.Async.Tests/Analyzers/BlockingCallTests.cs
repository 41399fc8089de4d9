using Amy.Async.Analyzers;

namespace Amy.Async.Tests.Analyzers;

[TestFixture]
internal sealed class BlockingCallTests
{
    private static Task Alarms(string members) => Verify.Alarms<BlockingCallAnalyzer>(members);

    private static Task Fix(string before, string after) => Verify.Fix<BlockingCallAnalyzer, AwaitFix>(Verify.Method(before), Verify.Method(after));

    [TestCase("_ = {|AMY001:Ask().Result|};")]
    [TestCase("_ = {|AMY001:conn.ReceiveAsync(buffer).Result|};")]
    [TestCase("{|AMY001:Ask().Wait()|};")]
    [TestCase("{|AMY001:Ask().Wait(1000)|};")]
    [TestCase("{|AMY001:Ask().GetAwaiter().GetResult()|};")]
    [TestCase("_ = {|AMY001:conn.SendAsync(buffer).GetAwaiter().GetResult()|};")]
    [TestCase("{|AMY001:Thread.Sleep(1)|};")]
    [TestCase("{|AMY001:Thread.Sleep(TimeSpan.FromSeconds(1))|};")]
    [TestCase("{|AMY001:Task.WaitAll(Ask(), Ask())|};")]
    [TestCase("_ = {|AMY001:Task.WaitAny(Ask(), Ask())|};")]
    [TestCase("if (buffer.Length > 0) while (true) {|AMY001:Thread.Sleep(1)|};")]
    public Task Post_OfWhatBlocks_IsReported(string call) => Alarms(Verify.Method($"loop.Post(() => {{ {call} }});", "void"));

    [TestCase("EventLoop.Run(async () => { await Task.Yield(); {|AMY001:Thread.Sleep(1)|}; });")]
    [TestCase("EventLoop.Run(async () => { await conn.SendAsync(buffer); return {|AMY001:Ask().Result|}; });")]
    [TestCase("EventLoop.Run(() => {|AMY001:Ask().Result|} == 1 ? Ask() : Ask());")]
    [TestCase("loop.Post(static s => {|AMY001:Thread.Sleep(s.Length)|}, \"text\");")]
    [TestCase("loop.InvokeAsync(() => {|AMY001:Ask().Result|});")]
    [TestCase("loop.InvokeAsync(async () => { await Task.Run(() => Thread.Sleep(1)); {|AMY001:Thread.Sleep(1)|}; });")]
    [TestCase("loop.InvokeAsync(delegate { {|AMY001:Thread.Sleep(1)|}; });")]
    public Task Lambda_GivenToALoop_IsReported(string call) => Alarms(Verify.Method(call, "void"));

    [TestCase("EventLoop.Run(Main);")]
    [TestCase("EventLoop.Run(async () => { while (true) _ = Main(); });")]
    [TestCase("EventLoop.Run(async () => { await Through(); }); static async Task Through() => await Main();")]
    [TestCase("loop.Post(Local); void Local() => _ = Main();")]
    public Task Method_GivenToALoopOrCalledThere_IsReported(string call) =>
        Alarms("private static async Task Main() { await Ask(); {|AMY001:Thread.Sleep(1)|}; }\n" + Verify.Method(call, "void"));

    [TestCase("loop.Post(Local); void Local() { {|AMY001:Thread.Sleep(1)|}; }")]
    [TestCase("EventLoop.Run(async () => { await Ask(); Local(); void Local() => {|AMY001:Ask().Wait()|}; });")]
    public Task LocalFunction_GivenToALoopOrCalledThere_IsReported(string call) => Alarms(Verify.Method(call, "void"));

    [TestCase("await loop.SwitchTo(); {|AMY001:Thread.Sleep(1)|};")]
    [TestCase("await loop.Yield(); if (buffer.Length > 0) {|AMY001:Thread.Sleep(1)|};")]
    [TestCase("Thread.Sleep(1); await loop.SwitchTo(); await Ask(); {|AMY001:Thread.Sleep(1)|};")]
    [TestCase("try { await loop.SwitchTo(); {|AMY001:Thread.Sleep(1)|}; } finally { }")]
    public Task AfterSwitchTo_WhatBlocks_IsReported(string statements) => Alarms(Verify.Method(statements));

    // Nobody knows that this runs on a loop, or that it blocks.
    [TestCase("Thread.Sleep(1); Ask().Wait();")]
    [TestCase("loop.InvokeAsync(() => Ask()).Wait();")]
    [TestCase("EventLoop.Run(() => Ask()); Thread.Sleep(1);")]
    [TestCase("if (buffer.Length > 0) await loop.SwitchTo(); Thread.Sleep(1);")]
    [TestCase("try { await loop.SwitchTo(); } catch (InvalidOperationException) { } Thread.Sleep(1);")]
    [TestCase("await loop.SwitchTo(); await Task.Run(() => Thread.Sleep(1));")]
    [TestCase("await loop.SwitchTo(); new Thread(() => Thread.Sleep(1)).Start();")]
    [TestCase("await loop.SwitchTo(); await Ask().ConfigureAwait(false); Thread.Sleep(1);")]
    [TestCase("await loop.InvokeAsync(async () => { await Task.Run(() => Ask().Wait()); });")]
    [TestCase("loop.Post(() => ThreadPool.QueueUserWorkItem(_ => Thread.Sleep(1)));")]
    [TestCase("loop.Post(() => { Action later = () => Thread.Sleep(1); Task.Run(later); });")]
    [TestCase("loop.Post(() => { Thread.Sleep(0); Ask().Wait(0); Ask().Wait(TimeSpan.Zero); });")]
    [TestCase("loop.Post(() => Console.WriteLine(nameof(Task<int>.Result)));")]
    public Task Elsewhere_IsNotReported(string statements) => Alarms(Verify.Method(statements));

    // It has ended.
    [TestCase("var t = Ask(); await t; return t.Result;")]
    [TestCase("var a = Ask(); var b = Ask(); await Task.WhenAll(a, b); return a.Result + b.GetAwaiter().GetResult();")]
    [TestCase("var all = new[] { Ask() }; await Task.WhenAll(all); return all[0].Result + all.First().Result;")]
    [TestCase("var all = new[] { Ask() }; await Task.WhenAll(all); foreach (var t in all) return t.Result; return 0;")]
    [TestCase("var first = await Task.WhenAny(Ask(), Ask()); return first.Result;")]
    [TestCase("return (await Task.WhenAny(Ask(), Ask())).Result;")]
    [TestCase("var t = conn.ReceiveAsync(buffer); return t.IsCompletedSuccessfully ? t.Result : await t;")]
    [TestCase("var t = Ask(); if (t is { IsCompleted: true }) return t.Result; return await t;")]
    [TestCase("var t = Ask(); for (var sum = 0; ; await t) if (sum++ > 0) return t.Result;")]
    [TestCase("return await Ask().ContinueWith(t => t.Result);")]
    public Task Result_OfWhatHasEnded_IsNotReported(string statements) => Alarms(Verify.Method($"await loop.InvokeAsync(async () => {{ {statements} }});"));

    [TestCase("if (EventLoop.Current is null) Ask().Wait();")]
    [TestCase("if (EventLoop.Current == null) { Ask().Wait(); }")]
    [TestCase("_ = EventLoop.Current is null ? Ask().Result : 0;")]
    public Task AFunctionThatAsksForTheLoop_IsNotReported(string statement) =>
        Alarms($"private static void Stop() {{ {statement} }}\n" + Verify.Method("loop.Post(Stop);", "void"));

    [Test]
    public Task Iterator_CalledOnALoop_IsNotReported() => Alarms(
        "private static IEnumerable<int> Numbers() { Thread.Sleep(1); yield return 1; }\n" + Verify.Method("var numbers = await loop.InvokeAsync(() => Numbers()); numbers.First();"));

    [Test]
    public Task NestedType_HasFunctionsOfItsOwn() => Alarms($$"""
        private static void Sleep() => Thread.Sleep(1);
        private sealed class Inner
        {
            private static void Sleep() => {|AMY001:Thread.Sleep(1)|};
            {{Verify.Method("loop.Post(Sleep);", "void")}}
        }
        """);

    [TestCase("var n = {|AMY001:Ask().Result|};", "var n = await Ask();")]
    [TestCase("var n = {|AMY001:conn.ReceiveAsync(buffer).Result|} + 1;", "var n = await conn.ReceiveAsync(buffer) + 1;")]
    [TestCase("var s = {|AMY001:Ask().Result|}.ToString();", "var s = (await Ask()).ToString();")]
    [TestCase("{|AMY001:Ask().Wait()|};", "await Ask();")]
    [TestCase("var n = {|AMY001:Ask().GetAwaiter().GetResult()|};", "var n = await Ask();")]
    [TestCase("// why\n        {|AMY001:Thread.Sleep(100)|}; // then", "// why\n        await Task.Delay(100); // then")]
    [TestCase("{|AMY001:Task.WaitAll(Ask())|};", "await Task.WhenAll(Ask());")]
    // There is no such thing: only reported.
    [TestCase("{|AMY001:Ask().Wait(1000)|};", "{|AMY001:Ask().Wait(1000)|};")]
    [TestCase("{|AMY001:Task.WaitAny(Ask())|};", "{|AMY001:Task.WaitAny(Ask())|};")]
    [TestCase("lock (buffer) {|AMY001:Thread.Sleep(1)|};", "lock (buffer) {|AMY001:Thread.Sleep(1)|};")]
    public Task Fix_InAnAsyncFunction_Awaits(string before, string after) => Fix("await loop.SwitchTo(); " + before, "await loop.SwitchTo(); " + after);

    [TestCase("loop.Post(() => {|AMY001:Thread.Sleep(1)|});")]
    public Task Fix_InAnotherFunction_IsNotOffered(string code) => Fix(code, code);
}
