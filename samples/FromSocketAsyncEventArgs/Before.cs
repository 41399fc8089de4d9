using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Samples;

/// <summary>
/// An echo server as one writes it with SocketAsyncEventArgs: pooled arguments and buffers, callbacks, and the loop for what
/// has completed synchronously.
/// </summary>
public sealed class Before : IDisposable
{
    private const int BufferSize = 4096;

    private readonly Socket _listener;
    private readonly SocketAsyncEventArgs _accept = new();
    private readonly ConcurrentBag<SocketAsyncEventArgs> _pool = [];
    private readonly ConcurrentDictionary<Socket, bool> _open = []; // callbacks run on any thread of the pool
    private volatile bool _disposed;

    public Before(EndPoint endPoint)
    {
        _listener = new Socket(endPoint.AddressFamily, SocketType.Stream, ProtocolType.Tcp);
        _listener.Bind(endPoint);
        _listener.Listen(512);
        _accept.Completed += (_, args) =>
        {
            OnAccepted(args);
            AcceptNext();
        };
        AcceptNext();
    }

    public EndPoint EndPoint => _listener.LocalEndPoint!;

    private void AcceptNext()
    {
        // False means: it has completed already, and there is no callback.
        while (!_disposed)
        {
            _accept.AcceptSocket = null;
            try
            {
                if (_listener.AcceptAsync(_accept)) return;
            }
            catch (ObjectDisposedException)
            {
                return;
            }
            OnAccepted(_accept);
        }
    }

    private void OnAccepted(SocketAsyncEventArgs accept)
    {
        if (accept.SocketError != SocketError.Success) return;
        var socket = accept.AcceptSocket!;
        if (!_pool.TryTake(out var args))
        {
            args = new SocketAsyncEventArgs();
            args.SetBuffer(new byte[BufferSize], 0, BufferSize);
            args.Completed += (_, completed) => Continue(completed);
        }
        args.UserToken = socket;
        args.SetBuffer(0, BufferSize);
        _open[socket] = true;
        try
        {
            if (_disposed) Close(socket, args); // it may have been too late for Dispose to see it
            else
            {
                socket.NoDelay = true;
                if (!socket.ReceiveAsync(args)) Continue(args);
            }
        }
        catch (ObjectDisposedException)
        {
            Close(socket, args);
        }
    }

    // Goes on from whatever has completed, as long as things complete synchronously; recursion would overflow the stack.
    private void Continue(SocketAsyncEventArgs args)
    {
        var socket = (Socket)args.UserToken!;
        try
        {
            while (true)
            {
                if (args.SocketError != SocketError.Success || args.BytesTransferred == 0)
                {
                    Close(socket, args);
                    return;
                }
                bool pending;
                if (args.LastOperation == SocketAsyncOperation.Receive)
                {
                    args.SetBuffer(0, args.BytesTransferred);
                    pending = socket.SendAsync(args);
                }
                else if (args.BytesTransferred < args.Count)
                {
                    args.SetBuffer(args.Offset + args.BytesTransferred, args.Count - args.BytesTransferred);
                    pending = socket.SendAsync(args);
                }
                else
                {
                    args.SetBuffer(0, BufferSize);
                    pending = socket.ReceiveAsync(args);
                }
                if (pending) return;
            }
        }
        catch (ObjectDisposedException)
        {
            Close(socket, args); // disposed between the callback and here
        }
    }

    private void Close(Socket socket, SocketAsyncEventArgs args)
    {
        _open.TryRemove(socket, out _);
        socket.Dispose();
        args.UserToken = null;
        _pool.Add(args);
    }

    public void Dispose()
    {
        _disposed = true;
        _listener.Dispose();
        foreach (var socket in _open.Keys) socket.Dispose(); // their callbacks come, and give the arguments back
        _accept.Dispose();
    }
}
