using Amy.Async.Analyzers;

namespace Amy.Async.Tests.Analyzers;

[TestFixture]
internal sealed class UndisposedTests
{
    private const string Members = """
        private AsyncSocket? _kept;
        private readonly List<AsyncSocket> _all = new();
        private static void Take(IDisposable it) => it.Dispose();

        """;

    private static Task Alarms(string statements) => Verify.Alarms<UndisposedAnalyzer>(Members + Verify.Method(statements));

    [TestCase("var {|AMY004:s = await AsyncSocket.ConnectAsync(conn.RemoteEndPoint!)|};")]
    [TestCase("var {|AMY004:s = await AsyncSocket.ConnectAsync(conn.RemoteEndPoint!).ConfigureAwait(false)|}; await s.SendAsync(buffer);")]
    [TestCase("AsyncSocket {|AMY004:s = AsyncSocket.Listen(conn.LocalEndPoint!)|}; Console.WriteLine(s.LocalEndPoint);")]
    [TestCase("var {|AMY004:s = await conn.AcceptAsync()|}; while (await s.ReceiveAsync(buffer) > 0) { } s.Shutdown(SocketShutdown.Both);")]
    [TestCase("var {|AMY004:s = await conn.AcceptAsync()|}; await foreach (var line in s.ReadLinesAsync()) Console.WriteLine(line);")]
    [TestCase("var {|AMY004:s = new AsyncSocket(new Socket(SocketType.Stream, ProtocolType.Tcp))|}; s.TryReceive(buffer, out _);")]
    [TestCase("var {|AMY004:s = AsyncFd.FromDescriptor(3, ownsHandle: true)|}; await s.ReadAsync(buffer);")]
    [TestCase("var {|AMY004:t = loop.CreateTimer(TimeSpan.FromSeconds(1))|}; while (await t.WaitForNextTickAsync()) { }")]
    [TestCase("var {|AMY004:p = new Poller()|}; p.Registrar.Wake(); p.Wait(TimeSpan.Zero);")]
    [TestCase("EventLoop.Run(async () => { var {|AMY004:s = await conn.AcceptAsync()|}; await s.SendAsync(buffer); });")]
    public Task Local_NeverDisposed_IsReported(string statements) => Alarms(statements);

    [TestCase("using var s = await conn.AcceptAsync();")]
    [TestCase("await using var s = await conn.AcceptAsync();")]
    [TestCase("using (var s = await conn.AcceptAsync()) { }")]
    [TestCase("var s = await conn.AcceptAsync(); using (s) { }")]
    [TestCase("var s = await conn.AcceptAsync(); s.Dispose();")]
    [TestCase("var s = await conn.AcceptAsync(); if (buffer.Length > 0) await s.DisposeAsync();")]
    [TestCase("var s = await conn.AcceptAsync(); s?.Dispose();")]
    [TestCase("var s = await conn.AcceptAsync(); s.Abort();")]
    [TestCase("var s = await conn.AcceptAsync(); using var plain = s.Detach();")]
    [TestCase("var s = await conn.AcceptAsync(); await using var stream = s.AsStream();")]
    [TestCase("var s = await conn.AcceptAsync(); Take(s);")]
    [TestCase("var s = await conn.AcceptAsync(); s.Socket.Dispose();")]
    [TestCase("var s = await conn.AcceptAsync(); new Program()._kept = s;")]
    [TestCase("var s = await conn.AcceptAsync(); new Program()._all.Add(s);")]
    [TestCase("var s = await conn.AcceptAsync(); var all = new[] { s };")]
    [TestCase("var s = await conn.AcceptAsync(); var pair = (s, 1);")]
    [TestCase("var s = await conn.AcceptAsync(); var other = s; other.Dispose();")]
    [TestCase("var s = await conn.AcceptAsync(); loop.Post(() => s.TryReceive(buffer, out _));")]
    [TestCase("var s = new AsyncSocket(conn.Socket); await s.SendAsync(buffer);")]
    [TestCase("var s = new AsyncSocket(new Socket(SocketType.Stream, ProtocolType.Tcp), ownsSocket: false); await s.SendAsync(buffer);")]
    [TestCase("var s = AsyncFd.FromDescriptor(3); await s.ReadAsync(buffer);")]
    [TestCase("var s = conn; await s.SendAsync(buffer);")]
    [TestCase("var s = Own(); await s.SendAsync(buffer); AsyncSocket Own() => conn;")]
    [TestCase("AsyncSocket? s = null; try { s = await conn.AcceptAsync(); } finally { s?.Dispose(); }")]
    public Task Local_DisposedOrGivenAway_IsNotReported(string statements) => Alarms(statements);

    [Test]
    public Task Local_Returned_IsNotReported() => Verify.Alarms<UndisposedAnalyzer>(
        Verify.Method("var s = await conn.AcceptAsync(); await s.SendAsync(buffer); return s;", "async Task<AsyncSocket>"));

    [TestCase("// a client\n        var {|AMY004:s = await conn.AcceptAsync()|};", "// a client\n        using var s = await conn.AcceptAsync();")]
    [TestCase("switch (1) { case 1: var {|AMY004:s = await conn.AcceptAsync()|}; break; }", "switch (1) { case 1: var {|AMY004:s = await conn.AcceptAsync()|}; break; }")]
    public Task Fix_MakesItAUsingDeclaration(string before, string after) => Verify.Fix<UndisposedAnalyzer, UsingFix>(Verify.Method(before), Verify.Method(after));
}
