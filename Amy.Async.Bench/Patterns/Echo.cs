using System.Net.Sockets;

namespace Amy.Async.Bench.Patterns;

/// <summary>One connection's echo, in each way of awaiting that is compared.</summary>
internal static class Echo
{
    /// <summary>AsyncSocket: ReceiveAsync and SendAsync.</summary>
    internal static async Task Run(AsyncSocket socket, int bufferSize)
    {
        using (socket)
        {
            var buffer = new byte[bufferSize];
            try
            {
                int n;
                while ((n = await socket.ReceiveAsync(buffer)) > 0) await socket.SendAsync(buffer.AsMemory(0, n));
            }
            catch (SocketException)
            {
                // this peer is gone; the others are not concerned
            }
        }
    }

    /// <summary>A plain Socket, read when ReadableAsync says so.</summary>
    internal static async Task RunReadable(Socket socket, int bufferSize)
    {
        using (socket)
        {
            var buffer = new byte[bufferSize];
            while (true)
            {
                await socket.ReadableAsync();
                var n = socket.Receive(buffer, 0, buffer.Length, SocketFlags.None, out var error);
                if (error == SocketError.WouldBlock) continue; // the answer may be spurious
                if (error != SocketError.Success || n == 0) return;
                await SendAll(socket, buffer, 0, n);
            }
        }
    }

    internal static async ValueTask SendAll(Socket socket, byte[] buffer, int offset, int count)
    {
        while (true)
        {
            var n = socket.Send(buffer, offset, count, SocketFlags.None, out var error);
            if (error == SocketError.WouldBlock) await socket.WritableAsync();
            else if (error != SocketError.Success) throw new SocketException((int)error);
            else if ((count -= n) == 0) return;
            else offset += n;
        }
    }

    /// <summary>Socket.ReceiveAsync and SendAsync of System.Net.Sockets.</summary>
    internal static async Task Run(Socket socket, int bufferSize)
    {
        using (socket)
        {
            var buffer = new byte[bufferSize];
            try
            {
                int n;
                while ((n = await socket.ReceiveAsync(buffer.AsMemory(), SocketFlags.None).ConfigureAwait(false)) > 0)
                    for (var sent = 0; sent < n;)
                        sent += await socket.SendAsync(buffer.AsMemory(sent, n - sent), SocketFlags.None).ConfigureAwait(false);
            }
            catch (SocketException)
            {
                // this peer is gone
            }
        }
    }
}

/// <summary>The same with SocketAsyncEventArgs: callbacks, and a loop for what completes synchronously.</summary>
internal sealed class ArgsEcho
{
    private readonly Socket _socket;
    private readonly byte[] _buffer;
    private readonly SocketAsyncEventArgs _receive = new();
    private readonly SocketAsyncEventArgs _send = new();

    internal ArgsEcho(Socket socket, int bufferSize)
    {
        _socket = socket;
        _buffer = new byte[bufferSize];
        _receive.SetBuffer(_buffer, 0, bufferSize);
        _receive.Completed += (_, _) => { if (Received()) Loop(); };
        _send.Completed += (_, _) => { if (Sent()) Loop(); };
    }

    internal void Start() => Loop();

    // receive, send, receive … as long as they complete synchronously
    private void Loop()
    {
        while (!_socket.ReceiveAsync(_receive))
            if (!Received()) return;
    }

    // True: go on receiving. False: the send is pending, or the connection has ended.
    private bool Received()
    {
        if (_receive.SocketError != SocketError.Success || _receive.BytesTransferred == 0)
        {
            _socket.Dispose();
            return false;
        }
        _send.SetBuffer(_buffer, 0, _receive.BytesTransferred);
        return !_socket.SendAsync(_send) && Sent();
    }

    private bool Sent()
    {
        while (_send.SocketError == SocketError.Success)
        {
            if (_send.BytesTransferred == _send.Count) return true;
            _send.SetBuffer(_send.Offset + _send.BytesTransferred, _send.Count - _send.BytesTransferred);
            if (_socket.SendAsync(_send)) return false;
        }
        _socket.Dispose();
        return false;
    }
}
