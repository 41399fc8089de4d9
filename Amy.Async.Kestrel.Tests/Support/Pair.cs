using System.Buffers;
using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;

namespace Amy.Async.Kestrel.Tests;

/// <summary>Connections without a server: on this transport's side a <see cref="ConnectionContext"/>, on the other a plain socket.</summary>
internal sealed class Pair : IAsyncDisposable
{
    private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
    private readonly ServiceProvider _services;
    private readonly List<Socket> _peers = []; // so that none is finalized, which would reset its connection

    internal Pair(bool inline, Action<AmyAsyncTransportOptions>? configure = null, ILoggerProvider? log = null)
    {
        var services = new ServiceCollection();
        if (log is not null) services.AddLogging(logging => logging.AddProvider(log).SetMinimumLevel(LogLevel.Debug));
        services.AddAmyAsyncTransport(options =>
        {
            options.UnsafePreferInlineScheduling = inline;
            options.LoopCount = 1;
            options.Loop = new EventLoopOptions { SpinDuration = TimeSpan.Zero };
            options.MemoryPoolFactory = Pools;
            configure?.Invoke(options);
        });
        _services = services.BuildServiceProvider();
        _listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        _listener.Listen();
    }

    internal CountingPools Pools { get; } = new();

    internal async Task<(ConnectionContext Connection, Socket Peer)> Connect()
    {
        var accepting = _listener.AcceptAsync();
        var connection = await _services.GetRequiredService<IConnectionFactory>().ConnectAsync(_listener.LocalEndPoint!).AsTask().Within();
        var peer = await accepting.Within();
        _peers.Add(peer);
        return (connection, peer);
    }

    /// <summary>Stops the loops, whatever lives on them.</summary>
    internal Task StopAsync() => _services.DisposeAsync().AsTask();

    public async ValueTask DisposeAsync()
    {
        await _services.DisposeAsync().AsTask().Within();
        _listener.Dispose();
        foreach (var peer in _peers) peer.Dispose();
    }

    /// <summary>Counts the buffers that are out.</summary>
    internal sealed class CountingPools : IMemoryPoolFactory<byte>
    {
        private int _out;
        private int _returnedTwice;

        internal int Out => Volatile.Read(ref _out);

        internal int ReturnedTwice => Volatile.Read(ref _returnedTwice);

        public MemoryPool<byte> Create(MemoryPoolOptions? options = null) => new Pool(this);

        private sealed class Pool(CountingPools counts) : MemoryPool<byte>
        {
            public override int MaxBufferSize => 4096;

            public override IMemoryOwner<byte> Rent(int minBufferSize = -1) => new Owner(counts);

            protected override void Dispose(bool disposing)
            {
            }
        }

        private sealed class Owner : IMemoryOwner<byte>
        {
            private readonly CountingPools _counts;
            private readonly byte[] _buffer = new byte[4096];
            private int _returned;

            internal Owner(CountingPools counts)
            {
                _counts = counts;
                Interlocked.Increment(ref counts._out);
            }

            public Memory<byte> Memory => _returned == 0 ? _buffer : throw new ObjectDisposedException(nameof(Owner));

            public void Dispose()
            {
                if (Interlocked.Exchange(ref _returned, 1) == 0) Interlocked.Decrement(ref _counts._out);
                else Interlocked.Increment(ref _counts._returnedTwice);
            }
        }
    }
}
