using System.Net.Sockets;

namespace Amy.Async;

/// <summary>What a foreign <see cref="Socket"/> must be before a loop waits on it.</summary>
internal static class SocketChecks
{
    internal static readonly Action<Socket> PrepareAction = Prepare;

    /// <summary>
    /// Makes it non-blocking: on a blocking socket the runtime's synchronous calls wait in its own poller and would stall the
    /// loop. An unconnected stream socket is refused: it reports a hang-up at once and for ever.
    /// </summary>
    internal static void Prepare(Socket socket)
    {
        if (socket.SocketType == SocketType.Stream && !socket.Connected && !IsListening(socket))
            throw new SocketException((int)SocketError.NotConnected);
        socket.Blocking = false;
    }

    // Throws ObjectDisposedException for a closed one. Not every protocol knows the option; those that do not do not listen.
    private static bool IsListening(Socket socket)
    {
        try
        {
            return socket.GetSocketOption(SocketOptionLevel.Socket, SocketOptionName.AcceptConnection) is int and not 0;
        }
        catch (SocketException)
        {
            return false;
        }
    }
}
