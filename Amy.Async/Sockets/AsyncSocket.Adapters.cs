using System.IO.Pipelines;
using System.Net.Sockets;

namespace Amy.Async;

// The socket as the platform's own abstractions, for programs that know nothing of this library.
public sealed partial class AsyncSocket
{
    /// <summary>
    /// A stream over the connection, with the behaviour of NetworkStream: reads and writes go to the socket at once, both may
    /// be in progress, failures are <see cref="IOException"/>s, a read into an empty buffer waits for data. Synchronous calls
    /// on it block; on a loop's thread they throw an <see cref="InvalidOperationException"/>.
    /// </summary>
    /// <remarks>Other than NetworkStream's: its time-outs hold for asynchronous calls too, a second concurrent read (or write)
    /// throws instead of being queued, and what is pending when it is disposed ends with an
    /// <see cref="ObjectDisposedException"/>. Disposing it ends the connection cleanly, also if data was not read.</remarks>
    /// <param name="ownsSocket">Whether disposing the stream disposes this.</param>
    /// <exception cref="NotSupportedException">Datagrams are no stream.</exception>
    /// <exception cref="ObjectDisposedException">Disposed.</exception>
    public Stream AsStream(bool ownsSocket = true)
    {
        _source.CheckIsStream();
        return new DescriptorStream(_source, this, ownsSocket, canRead: true, canWrite: true);
    }

    /// <summary>
    /// The connection as a duplex pipe: reading receives into rented buffers, which are given back as the data is consumed;
    /// flushing sends. An idle connection holds no buffer. While the pipe is in use, the socket's own operations are not.
    /// </summary>
    /// <remarks>
    /// <para>Failures are <see cref="SocketException"/>s, out of reads and flushes. Completing the output sends the end of the
    /// stream once all is sent (with an exception: a reset); when both sides are completed, the socket is disposed.</para>
    /// <para>Each side is used by one thread at a time, as with any pipe, and awaiters are resumed as those of the
    /// socket's operations are. <see cref="ReceiveTimeout"/> and <see cref="SendTimeout"/> hold for reads and sends.</para>
    /// </remarks>
    /// <param name="options">Null for the defaults.</param>
    /// <exception cref="ArgumentOutOfRangeException">A size or threshold of the options.</exception>
    /// <exception cref="NotSupportedException">Datagrams are no stream.</exception>
    /// <exception cref="ObjectDisposedException">Disposed.</exception>
    public IDuplexPipe AsPipe(AsyncPipeOptions? options = null)
    {
        _source.CheckIsStream();
        options ??= s_defaultPipeOptions;
        options.Check();
        return new SocketPipe(this, _source, options);
    }

    private static readonly AsyncPipeOptions s_defaultPipeOptions = new();
}
