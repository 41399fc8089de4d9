using System.Runtime.InteropServices;
using System.Text;
using Amy.Async.Native;

namespace Amy.Async;

/// <summary>
/// Any descriptor attached to a loop: the part of <see cref="AsyncFd"/> that the loop knows.
/// </summary>
/// <remarks>
/// <para>O_NONBLOCK belongs to the open file description, which a terminal or an inherited pipe shares with the shell and with
/// sibling processes: their reads would fail with EAGAIN. A terminal is therefore opened anew where that is possible, for a
/// description of our own. Elsewhere the flag is set, and taken back when the descriptor is let go of, by the last of those
/// here that share the description.</para>
/// <para>A raw descriptor that somebody else owns (a C library's) may be closed at any time, and its number be given to
/// another file. The kernel's poller knows files, not numbers: a registration that it does not find again is stale. So each
/// of our system calls on such a descriptor asks the poller first, and while one waits, the loop asks now and then.</para>
/// </remarks>
internal sealed class FdSource : DescriptorSource
{
    private const Interest All = Interest.Both | Interest.Priority;

    // Those on descriptors that others may share, by file, so that those of one description are found. Locked.
    private static readonly Dictionary<(long Device, long Inode), List<FdSource>> s_sharing = [];

    private readonly SafeHandle _handle;
    private readonly bool _ownsHandle;
    private readonly bool _isRaw; // somebody else's number
    private readonly int _descriptor; // the handle's, or that of the terminal opened anew
    private readonly bool _reopened;
    private readonly int _number; // what was given
    private readonly (long, long) _file; // the key in s_sharing
    private bool _restores; // whether O_NONBLOCK is ours to take back; under the lock of s_sharing
    private volatile bool _stale; // the number is closed, or stands for another file
    private PrioritySide? _priority;

    internal FdSource(EventLoop loop, SafeHandle handle, bool ownsHandle, bool isRaw) : base(loop)
    {
        _handle = handle;
        _ownsHandle = ownsHandle;
        _isRaw = isRaw && !ownsHandle;
        if (!TryHold(handle, out var held)) throw new ObjectDisposedException(handle.GetType().Name);
        try
        {
            var number = (int)handle.DangerousGetHandle();
            var flags = SystemCalls.GetFlags(number);
            if (flags == -Errno.EBADF) throw new ObjectDisposedException(handle.GetType().Name, $"Descriptor {number} is closed.");
            if (flags < 0) throw SystemError.Exception(-flags, "fcntl");
            Access = (flags & FileConstants.O_ACCMODE) switch { 0 => FileAccess.Read, 1 => FileAccess.Write, _ => FileAccess.ReadWrite };
            var blocks = (flags & FileConstants.O_NONBLOCK) == 0;
            _descriptor = blocks ? Reopen(number, flags) : number;
            _reopened = _descriptor != number;
            _number = number;
            _file = SystemCalls.GetFile(number);
            Attach(blocks && !_reopened, flags);
            if (_reopened) return;
            Share(blocks);
        }
        finally
        {
            held?.DangerousRelease();
        }
    }

    protected override string ObjectName => nameof(AsyncFd);

    internal override int FileDescriptor => _descriptor;

    internal SafeHandle Handle => _handle;

    /// <summary>How the descriptor was opened.</summary>
    internal FileAccess Access { get; }

    // The terminal opened anew is ours alone: the Inside bits keep it open.
    internal override bool TryHold(out SafeHandle? held)
    {
        held = null;
        return _reopened || TryHold(_handle, out held);
    }

    internal override bool TryEnter(out SafeHandle? held) => TryHold(out held) && !(_reopened && _handle.IsClosed) && (!_isRaw || IsStillOurs(held));

    private bool IsStillOurs(SafeHandle? held)
    {
        if (IsCurrent()) return true;
        held?.DangerousRelease();
        if (_stale) Close(); // as the loop's own look does: a terminal opened anew would keep its peer from seeing the hang-up
        return false;
    }

    private bool IsCurrent()
    {
        // The terminal opened anew is ours: look at the number that it was opened by.
        var current = _reopened ? SystemCalls.GetFile(_number) == _file : Loop.Registrar.IsStillThere(this, All);
        if (!current && !State.IsEnded && Id != 0) _stale = true; // else it was we who ended the registration
        return current;
    }

    // Reports again what is ready; false: the kernel knows no such file under our number.
    private bool Refresh()
    {
        if (Loop.Registrar.Refresh(this, All)) return true;
        if (!State.IsEnded && Id != 0) _stale = true; // likewise
        return false;
    }

    internal override void OnStale()
    {
        _stale = true;
        base.OnStale();
    }

    /// <summary>Closes, having looked whether the descriptor is still the one that it was.</summary>
    internal void Release()
    {
        if (_isRaw && !State.IsEnded) IsCurrent();
        Close();
    }

    internal override int Receive(Span<byte> buffer, out bool ready)
    {
        ready = true; // a short read proves nothing here
        if (!TryEnter(out var held)) return -Errno.EBADF;
        var n = SystemCalls.Read(_descriptor, buffer);
        held?.DangerousRelease();
        if (n > 0) BytesReceived += n;
        return n;
    }

    internal override int Send(ReadOnlySpan<byte> buffer)
    {
        if (!TryEnter(out var held)) return -Errno.EBADF;
        var n = SystemCalls.Write(_descriptor, buffer);
        held?.DangerousRelease();
        if (n > 0) BytesSent += n;
        return n;
    }

    internal ValueTask<Readiness> PriorityAsync(AsyncFd owner, CancellationToken token)
    {
        if (Volatile.Read(ref _priority) is { } side) return side.WaitAsync(owner, token);
        lock (this)
        {
            side = _priority;
            if (side is null)
            {
                if (State.IsEnded) throw EndedError();
                side = new PrioritySide(this);
                Add(side); // before anybody waits on it
                Volatile.Write(ref _priority, side);
            }
        }
        return side.WaitAsync(owner, token);
    }

    internal override Exception Failure(int result) => result == -Errno.EBADF
        ? new ObjectDisposedException(ObjectName)
        : SystemError.Exception(-result, "The operation on this descriptor");

    protected override TransferOperation NewOperation(Direction direction) => new FdOperation(this, direction);

    /// <summary>
    /// Loop only. The owner of the handle may have closed it, or of a raw descriptor: nobody tells.
    /// </summary>
    internal override bool CheckHandle()
    {
        if (_ownsHandle) return false;
        var waits = State.IsArmed(Direction.Read) || State.IsArmed(Direction.Write) || Volatile.Read(ref _priority) is { } side && side.State.IsArmed(Direction.Read);
        if (waits && (_handle.IsClosed || _isRaw && !IsCurrent())) Close();
        return waits;
    }

    internal override void CloseDescriptor()
    {
        Restore();
        if (_reopened) SystemCalls.Close(_descriptor);
        if (_ownsHandle) _handle.Dispose();
    }

    // Called by whoever has armed a wait.
    private void Watch()
    {
        if (!_ownsHandle) Loop.Sweep.Ensure();
    }

    private int Reopen(int number, int flags)
    {
        if (!SystemCalls.IsTerminal(number)) return number;
        var opened = SystemCalls.Open(Encoding.ASCII.GetBytes($"/proc/self/fd/{number}\0"), flags & FileConstants.O_ACCMODE | FileConstants.O_NONBLOCK | FileConstants.O_NOCTTY);
        return opened < 0 ? number : opened; // not ours to open (after su, exclusive): the description is shared then
    }

    private void Attach(bool setNonBlocking, int flags)
    {
        try
        {
            Loop.Attach(this, _descriptor, All); // first: what cannot be polled stays as it was
            if (!setNonBlocking) return;
            var n = SystemCalls.SetFlags(_descriptor, flags | FileConstants.O_NONBLOCK);
            if (n < 0)
            {
                Loop.Registrar.Deregister(this);
                throw SystemError.Exception(-n, "fcntl");
            }
        }
        catch
        {
            if (_reopened) SystemCalls.Close(_descriptor);
            throw;
        }
    }

    private void Share(bool restores)
    {
        lock (s_sharing)
        {
            _restores = restores;
            if (!s_sharing.TryGetValue(_file, out var sharing)) s_sharing.Add(_file, sharing = []);
            sharing.Add(this);
        }
    }

    // Two of ours may share one description (a terminal's input and output, a dup): whoever lets go first leaves it to the other.
    private void Restore()
    {
        if (_reopened) return;
        lock (s_sharing)
        {
            if (!s_sharing.TryGetValue(_file, out var sharing) || !sharing.Remove(this)) return;
            if (sharing.Count == 0) s_sharing.Remove(_file);
            if (!_restores || _stale) return; // another file's flags are not ours
            _restores = false;
            if (_isRaw && SystemCalls.GetFile(_descriptor) != _file) return; // found out only now
            if (!TryHold(out var held)) return; // closed by its owner already
            var heir = sharing.Find(other => SystemCalls.IsSameDescription(_descriptor, other._descriptor));
            if (heir is not null) heir._restores = true;
            else
            {
                var flags = SystemCalls.GetFlags(_descriptor);
                if (flags >= 0) _ = SystemCalls.SetFlags(_descriptor, flags & ~FileConstants.O_NONBLOCK);
            }
            held?.DangerousRelease();
        }
    }

    /// <summary>A wait on what somebody else may close has the loop look now and then.</summary>
    private sealed class FdOperation(FdSource source, Direction direction) : TransferOperation(source, direction)
    {
        protected override void OnArmed() => ((FdSource)Source).Watch();
    }

    /// <summary>
    /// The exceptional condition. Armed, it has the kernel report again, so that a condition that lasts (out-of-band data, a sysfs
    /// attribute not read since) is answered although its edge has been.
    /// </summary>
    private sealed class PrioritySide(FdSource parent) : ReadinessSide(parent.Loop, Readiness.Priority)
    {
        protected override string ObjectName => nameof(AsyncFd);

        protected override bool IsMet => false;

        protected override void OnArmed()
        {
            parent.Watch();
            if (!parent.Refresh()) parent.Close(); // closed behind our back
        }

        protected override InvalidOperationException Busy(Direction direction) => new("Another wait for priority of this AsyncFd is in progress.");
    }
}
