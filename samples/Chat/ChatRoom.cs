using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Threading.Channels;

namespace Amy.Async.Samples;

/// <summary>
/// A chat room: what one writes, all others get. Everybody is on one loop, so the list of members needs no lock. Each member
/// has a short queue of lines to be sent; who lets it overflow by not reading is dropped, and stalls nobody.
/// </summary>
public sealed class ChatRoom : IDisposable
{
    private const int MaxLine = 1000;
    private const int MaxQueued = 1000;

    private readonly AsyncSocket _listener;
    private readonly List<Member> _members = []; // those who have said their name
    private readonly HashSet<AsyncSocket> _open = []; // those who have not, and those who only listen, as well

    /// <summary>Listens, on the current loop.</summary>
    public ChatRoom(EndPoint endPoint) => _listener = AsyncSocket.Listen(endPoint);

    public EndPoint EndPoint => _listener.LocalEndPoint!;

    public int Members => _members.Count;

    /// <summary>Accepts until disposed.</summary>
    public async Task RunAsync()
    {
        try
        {
            while (true) _ = ServeAsync(await _listener.AcceptAsync());
        }
        catch (ObjectDisposedException)
        {
            // Disposed: that is how it ends.
        }
    }

    public void Dispose()
    {
        _listener.Dispose();
        foreach (var connection in _open) connection.Dispose(); // their methods go on later, through the loop's queue
    }

    private async Task ServeAsync(AsyncSocket connection)
    {
        _open.Add(connection);
        var member = new Member(connection, Channel.CreateBounded<byte[]>(MaxQueued));
        var sending = SendAsync(member);
        try
        {
            await foreach (var text in connection.ReadLinesAsync(MaxLine))
            {
                if (member.Name is null)
                {
                    member.Name = text;
                    _members.Add(member);
                    Say($"* {text} has come", except: null);
                }
                else Say($"{member.Name}: {text}", except: member);
                await connection.Loop.Yield(); // many lines may have come at once: the queues are sent from before the next one
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException or InvalidDataException)
        {
            // Gone, dropped, or sent a line without an end.
        }
        if (_members.Remove(member)) Say($"* {member.Name} has gone", except: null);
        member.Queue.Writer.TryComplete();
        await sending;
        _open.Remove(connection);
        connection.Dispose();
    }

    private void Say(string text, Member? except)
    {
        var line = Encoding.UTF8.GetBytes(text + "\n");
        foreach (var member in _members)
            if (member != except && !member.Queue.Writer.TryWrite(line)) member.Connection.Abort(); // does not read
    }

    private static async Task SendAsync(Member member)
    {
        try
        {
            // Not ReadAllAsync, which leaves for the thread pool between two lines.
            while (await member.Queue.Reader.WaitToReadAsync())
                while (member.Queue.Reader.TryRead(out var line)) await member.Connection.SendAsync(line);
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // The reading side ends as well, and clears away.
        }
    }

    private sealed class Member(AsyncSocket connection, Channel<byte[]> queue)
    {
        public AsyncSocket Connection { get; } = connection;

        public Channel<byte[]> Queue { get; } = queue;

        public string? Name { get; set; }
    }
}
