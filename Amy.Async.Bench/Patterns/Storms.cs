using System.Globalization;
using System.Net;
using System.Net.Sockets;

namespace Amy.Async.Bench.Patterns;

/// <summary>
/// Threads that send, or connect and close, as fast as they can: blocking sockets, because they have nothing else to do.
/// </summary>
internal sealed class Storms
{
    private const int Chunk = 1 << 16;
    private const int Limit = 10_000; // ms
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(20);

    private readonly List<Thread> _threads = [];
    private int[] _processors = [];
    private bool _givesWay;
    private volatile bool _ends;
    private string? _failure;

    /// <summary>"place CPUS GIVES_WAY"; "start FIREHOSE_PORT ACCEPT_PORT", 0: none; "stop".</summary>
    internal string Answer(string[] parts)
    {
        switch (parts[0])
        {
            case "place":
                (_processors, _givesWay) = (Affinity.Parse(parts[1]), bool.Parse(parts[2]));
                break;
            case "start":
                _ends = false;
                Start(Firehose, int.Parse(parts[1], CultureInfo.InvariantCulture));
                Start(Accepts, int.Parse(parts[2], CultureInfo.InvariantCulture));
                break;
            case "stop":
                _ends = true;
                if (!_threads.TrueForAll(t => t.Join(s_limit))) throw new TimeoutException("A storm does not end.");
                _threads.Clear();
                if (_failure is { } failure) throw new InvalidOperationException(failure);
                break;
            default:
                throw new ArgumentException($"Unknown command '{parts[0]}'.");
        }
        return "ok";
    }

    private void Start(Action<int> storm, int port)
    {
        if (port == 0) return;
        var thread = new Thread(() =>
        {
            try
            {
                Affinity.Pin(_processors);
                if (_givesWay) Affinity.GiveWay();
                storm(port);
            }
            catch (Exception e)
            {
                _failure = e.Message; // told at "stop"
            }
        })
        { IsBackground = true, Name = storm.Method.Name };
        _threads.Add(thread);
        thread.Start();
    }

    private void Firehose(int port)
    {
        using var socket = Connect(port);
        var chunk = new byte[Chunk];
        while (!_ends) socket.Send(chunk);
    }

    private void Accepts(int port)
    {
        while (!_ends) Connect(port).Dispose();
    }

    // It ends with a reset: no TIME_WAIT, so that ports do not run out.
    private static Socket Connect(int port)
    {
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp)
        {
            SendTimeout = Limit,
            LingerState = new LingerOption(true, 0),
        };
        socket.Connect(IPAddress.Loopback, port);
        return socket;
    }
}
