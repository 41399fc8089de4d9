using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;

namespace Amy.Async.Kestrel.Tests;

/// <summary>An application on Kestrel over this transport, on a port of the kernel's choice, with a log that tests read.</summary>
internal sealed class Server : IAsyncDisposable
{
    private readonly WebApplication _application;

    private Server(WebApplication application, TestLog log)
    {
        _application = application;
        Log = log;
    }

    internal TestLog Log { get; }

    internal IServiceProvider Services => _application.Services;

    internal int Port { get; private set; }

    internal IPEndPoint EndPoint => new(IPAddress.Loopback, Port);

    internal Uri Address(string path = "/", string scheme = "http") => new($"{scheme}://127.0.0.1:{Port}{path}");

    /// <summary>HTTP on one port, unless <paramref name="listen"/> says otherwise of it.</summary>
    internal static async Task<Server> Start(bool inline, Action<WebApplication> map, Action<ListenOptions>? listen = null,
        Action<AmyAsyncTransportOptions>? transport = null, Action<WebApplicationBuilder>? build = null, Action<KestrelServerOptions>? kestrel = null)
    {
        var builder = WebApplication.CreateSlimBuilder();
        var log = new TestLog();
        builder.Logging.ClearProviders().AddProvider(log).SetMinimumLevel(LogLevel.Debug);
        builder.WebHost.UseAmyAsync(options =>
        {
            options.UnsafePreferInlineScheduling = inline;
            options.LoopCount = 2;
            options.Loop = new EventLoopOptions { SpinDuration = TimeSpan.Zero };
            transport?.Invoke(options);
        });
        builder.WebHost.ConfigureKestrel(options =>
        {
            options.Listen(IPAddress.Loopback, 0, listen ?? (_ => { }));
            kestrel?.Invoke(options);
        });
        builder.Services.Configure<HostOptions>(options => options.ShutdownTimeout = TimeSpan.FromSeconds(20));
        build?.Invoke(builder);
        var application = builder.Build();
        map(application);
        var server = new Server(application, log);
        try
        {
            await application.StartAsync();
        }
        catch
        {
            await application.DisposeAsync();
            throw;
        }
        server.Port = new Uri(application.Urls.First(url => !url.Contains("unix:", StringComparison.Ordinal))).Port;
        return server;
    }

    /// <summary>A raw connection handler on one port.</summary>
    internal static Task<Server> Raw(bool inline, Func<ConnectionContext, Task> handler, Action<AmyAsyncTransportOptions>? transport = null) =>
        Start(inline, _ => { }, listen => ConnectionBuilderExtensions.Run(listen, handler), transport);

    internal Task StopAsync(CancellationToken token = default) => _application.StopAsync(token);

    internal async Task<Socket> Connect()
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        await socket.ConnectAsync(EndPoint);
        return socket;
    }

    public ValueTask DisposeAsync() => _application.DisposeAsync();
}
