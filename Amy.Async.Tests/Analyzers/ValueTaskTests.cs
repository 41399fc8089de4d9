using Amy.Async.Analyzers;

namespace Amy.Async.Tests.Analyzers;

[TestFixture]
internal sealed class ValueTaskTests
{
    private static Task Alarms(string statements, string modifiers = "async Task") => Verify.Alarms<ValueTaskAnalyzer>(Verify.Method(statements, modifiers));

    [TestCase("{|AMY002:conn.SendAsync(buffer)|};")]
    [TestCase("{|AMY002:conn.SendAsync(buffer).ConfigureAwait(false)|};")]
    [TestCase("_ = {|AMY002:conn.SendAsync(buffer)|};")]
    [TestCase("conn?{|AMY002:.SendAsync(buffer)|};")]
    [TestCase("{|AMY002:loop.Delay(TimeSpan.Zero)|};")]
    [TestCase("{|AMY002:loop.SwitchTo()|};")]
    [TestCase("_ = {|AMY002:conn.Socket.ReadableAsync()|};")]
    [TestCase("_ = {|AMY002:conn.SendAsync(new FrameWriter(1))|};")]
    [TestCase("loop.Post(() => _ = {|AMY002:conn.SendAsync(buffer)|});")]
    [TestCase("loop.Post(() => {|AMY002:conn.SendAsync(buffer)|});")]
    [TestCase("var sending = {|AMY002:conn.SendAsync(buffer)|};")]
    [TestCase("using var timer = loop.CreateTimer(TimeSpan.FromSeconds(1)); {|AMY002:timer.WaitForNextTickAsync()|};")]
    public Task Operation_Dropped_IsReported(string statement) => Alarms(statement, "void");

    [TestCase("await conn.SendAsync(buffer);")]
    [TestCase("_ = await conn.SendAsync(buffer);")]
    [TestCase("await conn.SendAsync(buffer).ConfigureAwait(false);")]
    [TestCase("_ = conn.SendAsync(buffer).AsTask();")]
    [TestCase("_ = loop.InvokeAsync(() => { });")]
    [TestCase("_ = Own(); Own(); static ValueTask Own() => default;")]
    [TestCase("_ = conn.DisposeAsync();")]
    [TestCase("Func<ValueTask<int>> f = () => conn.SendAsync(buffer); await f();")]
    [TestCase("var sending = conn.SendAsync(buffer); await conn.ReceiveAsync(buffer); await sending;")]
    [TestCase("_ = Task.CompletedTask.IsCompleted ? await conn.SendAsync(buffer) : 0;")]
    [TestCase("conn.TrySend(buffer, out _);")]
    public Task Operation_NotDropped_IsNotReported(string statement) => Alarms(statement);

    [TestCase("Assert.Throws<SocketException>(() => _ = conn.SendAsync(buffer));")]
    [TestCase("Assert.Throws<SocketException>(() => conn.SendAsync(buffer));")]
    public Task Operation_ExpectedToThrow_IsNotReported(string statement) => Verify.Alarms<ValueTaskAnalyzer>(
        "private static class Assert { internal static void Throws<T>(Action action) => action(); }\n" + Verify.Method(statement, "void"));

    [TestCase("await t; await {|AMY003:t|};")]
    [TestCase("await t; if (buffer.Length > 0) await {|AMY003:t|};")]
    [TestCase("await t.ConfigureAwait(false); await {|AMY003:t|};")]
    [TestCase("var n = t.AsTask(); await {|AMY003:t|};")]
    [TestCase("await t; _ = {|AMY003:t|}.Result;")]
    [TestCase("try { await t; await {|AMY003:t|}; } catch (SocketException) { }")]
    [TestCase("if (await t > 0) { } await {|AMY003:t|};")]
    [TestCase("while (true) await {|AMY003:t|};")]
    [TestCase("while (buffer.Length > 0) { await Ask(); if (await {|AMY003:t|} == 0) break; }")]
    [TestCase("for (var i = 0; i < 3; i++) { try { await {|AMY003:t|}; } catch (SocketException) { } }")]
    [TestCase("foreach (var b in buffer) { { await {|AMY003:t|}; } }")]
    public Task Local_AwaitedTwice_IsReported(string statements) => Alarms("var t = conn.ReceiveAsync(buffer); " + statements);

    [Test]
    public Task LocalOfALambda_AwaitedTwice_IsReported() =>
        Alarms("EventLoop.Run(async () => { var t = conn.ReceiveAsync(buffer); await t; await {|AMY003:t|}; });", "void");

    [TestCase("await t;")]
    [TestCase("if (buffer.Length > 0) await t; else await t;")]
    [TestCase("if (buffer.Length > 0) { await t; return; } await t;")]
    [TestCase("var n = t.IsCompletedSuccessfully ? t.Result : await t;")]
    [TestCase("await t; t = conn.ReceiveAsync(buffer); await t;")]
    [TestCase("while (true) { await t; t = conn.ReceiveAsync(buffer); }")]
    [TestCase("while (true) { await t; break; }")]
    [TestCase("while (true) { if (await t > 0) return; throw new IOException(); }")]
    [TestCase("while (true) { if (await t > 0) return; else break; }")]
    [TestCase("while (true) { await t; lock (buffer) return; }")]
    [TestCase("while (true) { return; await t; }")]
    [TestCase("while (true) { switch (await t) { case 0: break; default: return; } }")]
    [TestCase("again: await t; if (buffer.Length > 0) goto again; await t;")]
    [TestCase("while (true) { try { await t; return; } catch (SocketException) { throw; } }")]
    [TestCase("foreach (var b in new byte[await t]) await Ask();")]
    [TestCase("for (var first = true; ; first = false) if (first) await t;")]
    [TestCase("switch (buffer.Length) { case 0: await t; break; default: await t; break; }")]
    [TestCase("Func<Task> f = async () => await t; Func<Task> g = async () => await t; await f();")]
    public Task Local_AwaitedOnce_IsNotReported(string statements) => Alarms("var t = conn.ReceiveAsync(buffer); " + statements);

    [TestCase("while (true) { var t = conn.ReceiveAsync(buffer); if (await t == 0) break; }")]
    [TestCase("var t = Ask(); await t; await t;")]
    [TestCase("var t = conn.ReceiveAsync(buffer).AsTask(); await t; await t;")]
    public Task Local_OfEachPassOrATask_IsNotReported(string statements) => Alarms(statements);

    [TestCase("{|AMY002:conn.SendAsync(buffer)|};", "await conn.SendAsync(buffer);")]
    [TestCase("_ = {|AMY002:conn.SendAsync(buffer)|}; // sent", "await conn.SendAsync(buffer); // sent")]
    [TestCase("{|AMY002:loop.SwitchTo()|};", "await loop.SwitchTo();")]
    // Where no await may stand.
    [TestCase("loop.Post(() => {|AMY002:conn.SendAsync(buffer)|});", "loop.Post(() => {|AMY002:conn.SendAsync(buffer)|});")]
    [TestCase("conn?{|AMY002:.SendAsync(buffer)|};", "conn?{|AMY002:.SendAsync(buffer)|};")]
    public Task Fix_Awaits(string before, string after) => Verify.Fix<ValueTaskAnalyzer, AwaitFix>(Verify.Method(before), Verify.Method(after));
}
