using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Samples;

/// <summary>
/// An echo server for frames without async/await, as amy's guide builds one: one thread waits on the poller and accepts;
/// worker threads own the connections, do all of their I/O, and register and re-register them with the poller, which
/// never wakes it.
/// </summary>
public sealed class FrameServer : IDisposable
{
    private const int MaxFrame = 1 << 20;

    private readonly Socket _listener;
    private readonly long _listenerId;
    private readonly Worker[] _workers;
    private readonly ConcurrentDictionary<long, Worker> _owners = new();
    private readonly Thread _thread;
    private volatile bool _ends;
    private int _next;

    /// <summary>Starts the threads; returns when connections are accepted.</summary>
    public FrameServer(EndPoint endPoint, int workers)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(workers);
        _listener = new Socket(endPoint.AddressFamily, SocketType.Stream, ProtocolType.Tcp) { Blocking = false };
        _listener.Bind(endPoint);
        _listener.Listen(512);
        _listenerId = Poller.Registrar.Register(_listener, Interest.Readable);
        _workers = [.. Enumerable.Range(0, workers).Select(_ => new Worker(Poller.Registrar, _owners))];
        _thread = new Thread(Poll) { Name = "poller" };
        _thread.Start();
    }

    /// <summary>The poller, which only the poller's thread waits on.</summary>
    public Poller Poller { get; } = new();

    /// <summary>Where it listens.</summary>
    public EndPoint EndPoint => _listener.LocalEndPoint!;

    /// <summary>Ends the threads and closes all connections.</summary>
    public void Dispose()
    {
        _ends = true;
        Poller.Registrar.Wake();
        _thread.Join();
        foreach (var worker in _workers) worker.Dispose();
        Poller.Dispose();
        _listener.Dispose();
    }

    private void Poll()
    {
        while (!_ends)
            foreach (var notification in Poller.Wait(Timeout.InfiniteTimeSpan))
            {
                if (notification.Id == _listenerId) Accept();
                else if (_owners.TryGetValue(notification.Id, out var owner)) owner.Send(new Message(null, notification));
                // Registered a moment ago, by a worker that has not said so yet: it finds this behind what it is doing.
                else foreach (var worker in _workers) worker.Send(new Message(null, notification));
            }
    }

    // Edge-triggered: until there is nothing more.
    private void Accept()
    {
        while (true)
        {
            try
            {
                var socket = _listener.Accept();
                _workers[_next++ % _workers.Length].Send(new Message(socket, default));
            }
            catch (SocketException e) when (e.SocketErrorCode == SocketError.WouldBlock)
            {
                return;
            }
        }
    }

    /// <summary>A new connection, or a notification of one.</summary>
    private readonly record struct Message(Socket? Accepted, Notification Notification);

    private sealed class Worker : IDisposable
    {
        private readonly Registrar _registrar;
        private readonly ConcurrentDictionary<long, Worker> _owners;
        private readonly Dictionary<long, Connection> _connections = [];
        private readonly BlockingCollection<Message> _messages = [];
        private readonly Thread _thread;

        internal Worker(Registrar registrar, ConcurrentDictionary<long, Worker> owners)
        {
            _registrar = registrar;
            _owners = owners;
            _thread = new Thread(Work) { Name = "worker" };
            _thread.Start();
        }

        internal void Send(Message message) => _messages.Add(message);

        public void Dispose()
        {
            _messages.CompleteAdding();
            _thread.Join();
            _messages.Dispose();
        }

        private void Work()
        {
            foreach (var message in _messages.GetConsumingEnumerable())
            {
                if (message.Accepted is { } socket) Add(socket);
                else if (_connections.TryGetValue(message.Notification.Id, out var connection)) Serve(message.Notification.Id, connection);
            }
            foreach (var id in _connections.Keys.ToArray()) Remove(id);
        }

        private void Add(Socket socket)
        {
            socket.Blocking = false;
            socket.NoDelay = true;
            var id = _registrar.Register(socket, Interest.Readable); // the poller sleeps on
            _connections.Add(id, new Connection(socket));
            _owners[id] = this;
        }

        private void Serve(long id, Connection connection)
        {
            try
            {
                var open = connection.Echo(out var mustWait);
                if (!open) Remove(id);
                // The peer does not read: be told when it does. It has, meanwhile: that is an event as well.
                else if (mustWait != connection.WaitsToWrite)
                    _registrar.Reregister(id, (connection.WaitsToWrite = mustWait) ? Interest.Both : Interest.Readable);
            }
            catch (Exception e) when (e is SocketException or InvalidDataException) // reset, or not our protocol
            {
                Remove(id);
            }
        }

        private void Remove(long id)
        {
            _registrar.Deregister(id); // before the close
            _owners.TryRemove(id, out _);
            _connections.Remove(id, out var connection);
            connection!.Socket.Dispose();
        }
    }

    private sealed class Connection(Socket socket)
    {
        private readonly FrameReader _reader = new(MaxFrame);
        private readonly FrameWriter _writer = new(MaxFrame);

        internal Socket Socket => socket;

        internal bool WaitsToWrite;

        /// <summary>Reads and answers until the socket would block. False: the peer has ended.</summary>
        internal bool Echo(out bool mustWait)
        {
            while (true)
            {
                mustWait = !socket.TrySend(_writer);
                if (mustWait) return true; // what is unread waits in the kernel, and its sender with it
                if (_reader.TryRead(out ReadOnlyMemory<byte> frame))
                {
                    _writer.TryWrite(frame.Span); // there is room: it is empty
                    continue;
                }
                var received = socket.Receive(_reader.GetSpan(), SocketFlags.None, out var error);
                if (error == SocketError.WouldBlock) return true;
                if (error != SocketError.Success) throw new SocketException((int)error);
                if (received == 0) return false;
                _reader.Advance(received);
            }
        }
    }
}
