using System.Net.Sockets;

namespace Amy.Async.Samples;

/// <summary>Sends back what it gets, any number of connections on one thread.</summary>
public static class EchoServer
{
    /// <summary>Accepts until the listener is disposed.</summary>
    public static async Task RunAsync(AsyncSocket listener)
    {
        try
        {
            while (true) _ = ServeAsync(await listener.AcceptAsync());
        }
        catch (ObjectDisposedException)
        {
            // The listener was disposed: that is how it ends.
        }
    }

    private static async Task ServeAsync(AsyncSocket connection)
    {
        using (connection)
        {
            var buffer = new byte[4096];
            try
            {
                for (int n; (n = await connection.ReceiveAsync(buffer)) > 0;) await connection.SendAsync(buffer.AsMemory(0, n));
            }
            catch (SocketException)
            {
                // The client has gone without a word.
            }
        }
    }
}
