using System.Runtime.InteropServices;
using System.Threading.Tasks.Sources;
using Amy.Async.Native;

namespace Amy.Async;

/// <summary>
/// The waiting operation of one direction of a descriptor: what it does when the edge comes depends on its kind. All of its
/// fields are set under Busy and let go of when it completes.
/// </summary>
internal class TransferOperation : Operation, IValueTaskSource<int>, IValueTaskSource<Readiness>, IValueTaskSource
{
    /// <summary>What it waits to do.</summary>
    protected enum Kind : byte
    {
        Receive,
        Send,
        Readiness,
        Accept,
        Connect,
        Action,
    }

    protected Kind What;
    private bool _asStream; // failures are those of a Stream
    protected Memory<byte> Buffer; // to receive into, or what is sent, which is not written to
    private object? _owner; // kept alive while the operation waits: the caller may have let go of it

    private int _count; // the result, or what has been sent so far
    private Readiness _readiness;

    /// <summary>Whether the direction may still be ready after the result.</summary>
    protected bool Ready;

    internal TransferOperation(DescriptorSource source, Direction direction) : base(source, direction)
    {
    }

    private DescriptorSource Descriptor => (DescriptorSource)Source;

    protected override bool RemainsReady => Ready;

    protected override long Timeout => Descriptor.TimeoutOf(Side);

    // ---- starting: the caller holds Busy, and has tried already if the direction was ready. The version comes back

    internal short Receive(object owner, Memory<byte> buffer, bool asStream, bool deferred, CancellationToken token)
    {
        Buffer = buffer;
        return Begin(owner, buffer.IsEmpty ? Kind.Readiness : Kind.Receive, deferred, token, asStream: asStream);
    }

    internal short Send(object owner, ReadOnlyMemory<byte> buffer, int sent, bool asStream, bool deferred, CancellationToken token)
    {
        Buffer = MemoryMarshal.AsMemory(buffer);
        return Begin(owner, Kind.Send, deferred, token, sent, asStream);
    }

    internal short Wait(object owner, bool deferred, CancellationToken token) => Begin(owner, Kind.Readiness, deferred, token);

    protected short Begin(object owner, Kind kind, bool deferred, CancellationToken token, int count = 0, bool asStream = false)
    {
        _owner = owner;
        _asStream = asStream;
        What = kind;
        _count = count;
        Ready = false;
        var version = Version;
        Start(deferred, token);
        return version;
    }

    // ---- trying: whoever holds Inside

    protected override bool Attempt()
    {
        try
        {
            return Try();
        }
        catch (Exception e) // a buffer whose owner has let go of it
        {
            Error = e;
            return Ready = true;
        }
    }

    protected virtual bool Try() => What switch
    {
        Kind.Receive => TryReceive(Buffer.Span),
        Kind.Send => TrySend(),
        _ => Ended(Descriptor.Poll(Side, out _readiness), ready: true),
    };

    protected bool TryReceive(Span<byte> buffer)
    {
        var n = Descriptor.Receive(buffer, out var ready);
        if (n >= 0) _count = n;
        return Ended(n, ready || n <= 0); // what follows an error or the end may be there at once
    }

    private bool TrySend()
    {
        var n = Descriptor.SendAll(Buffer.Span.Slice(_count));
        if (n < 0) return Ended(n, ready: true);
        _count += n;
        return _count == Buffer.Length ? Ended(0, ready: true) : false;
    }

    /// <summary>EAGAIN goes on waiting; everything else ends the operation.</summary>
    protected bool Ended(int n, bool ready)
    {
        if (n == -Errno.EAGAIN) return false;
        if (n < 0) Error = Descriptor.Failure(n);
        Ready = ready;
        return true;
    }

    protected override void OnCompleting()
    {
        Buffer = default;
        _owner = null;
    }

    // ---- fetching: the awaiting thread

    /// <summary>Ends the operation and throws its failure; the caller has copied the result before.</summary>
    internal void Finish(short token)
    {
        var asStream = _asStream;
        var error = Fetch(token);
        ThrowIf(asStream && error is not null ? DescriptorStream.Translate(error) : error);
    }

    int IValueTaskSource<int>.GetResult(short token)
    {
        var count = _count;
        Finish(token);
        return count;
    }

    Readiness IValueTaskSource<Readiness>.GetResult(short token)
    {
        var readiness = _readiness;
        Finish(token);
        return readiness;
    }

    void IValueTaskSource.GetResult(short token) => Finish(token);
}
