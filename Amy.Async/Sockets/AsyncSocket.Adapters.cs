namespace Amy.Async;

// The socket as the platform's own abstractions, for programs that know nothing of this library.
public sealed partial class AsyncSocket
{
    /// <summary>
    /// A stream over the connection, with the behaviour of NetworkStream: reads and writes go to the socket at once, both may
    /// be in progress, failures are <see cref="IOException"/>s, a read into an empty buffer waits for data. Synchronous calls
    /// on it block; on a loop's thread they throw an <see cref="InvalidOperationException"/>.
    /// </summary>
    /// <param name="ownsSocket">Whether disposing the stream disposes this.</param>
    /// <exception cref="NotSupportedException">Datagrams are no stream.</exception>
    /// <exception cref="ObjectDisposedException">Disposed.</exception>
    public Stream AsStream(bool ownsSocket = true)
    {
        _source.CheckIsStream();
        return new DescriptorStream(_source, this, ownsSocket, canRead: true, canWrite: true);
    }
}
