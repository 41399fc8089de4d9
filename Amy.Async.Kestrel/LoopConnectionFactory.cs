using System.Net;
using Microsoft.AspNetCore.Connections;

namespace Amy.Async.Kestrel;

/// <summary>Connections that this side opens, on the same loops.</summary>
internal sealed class LoopConnectionFactory(TransportLoops loops) : IConnectionFactory
{
    public async ValueTask<ConnectionContext> ConnectAsync(EndPoint endpoint, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(endpoint);
        loops.Start();
        var memory = loops.Next();
        var socket = await AsyncSocket.ConnectAsync(endpoint, new AsyncSocketOptions { NoDelay = loops.Options.NoDelay }, memory.Loop, cancellationToken).ConfigureAwait(false);
        var connection = new LoopConnection(socket, memory, loops.Options, loops.Logger);
        connection.Start();
        return connection;
    }
}
