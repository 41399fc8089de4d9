using System.Buffers;
using System.Collections;
using System.IO.Pipelines;
using System.Net;
using System.Net.Sockets;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Connections.Features;
using Microsoft.AspNetCore.Http.Features;

namespace Amy.Async.Kestrel;

// The connection as its own collection of features: what Kestrel and middleware add lies in a table that is made when needed.
internal sealed partial class LoopConnection : IFeatureCollection, IConnectionIdFeature, IConnectionTransportFeature, IConnectionItemsFeature,
    IConnectionLifetimeFeature, IConnectionEndPointFeature, IConnectionSocketFeature, IMemoryPoolFeature
{
    private static readonly Type[] s_own =
    [
        typeof(IConnectionIdFeature), typeof(IConnectionTransportFeature), typeof(IConnectionItemsFeature), typeof(IConnectionLifetimeFeature),
        typeof(IConnectionEndPointFeature), typeof(IConnectionSocketFeature), typeof(IMemoryPoolFeature),
    ];

    private Dictionary<Type, object?>? _features; // those that were set; null: taken away
    private int _revision;
    private string? _connectionId;
    private IDictionary<object, object?>? _items;
    private EndPoint? _localEndPoint;
    private EndPoint? _remoteEndPoint;

    public override string ConnectionId
    {
        get => _connectionId ??= ConnectionIds.Next();
        set => _connectionId = value;
    }

    public override IDictionary<object, object?> Items
    {
        get => _items ??= new ConnectionItems();
        set => _items = value;
    }

    public override IFeatureCollection Features => this;

    public override IDuplexPipe Transport { get; set; }

    public override CancellationToken ConnectionClosed { get; set; }

    public override EndPoint? LocalEndPoint
    {
        get => _localEndPoint;
        set => _localEndPoint = value;
    }

    public override EndPoint? RemoteEndPoint
    {
        get => _remoteEndPoint;
        set => _remoteEndPoint = value;
    }

    public MemoryPool<byte> MemoryPool { get; }

    public Socket Socket => _socket.Socket;

    public override void Abort() => Abort(new ConnectionAbortedException("The connection was aborted by the application."));

    // Null: the connection was over before it was accepted.
    private static EndPoint? EndPointOf(AsyncSocket socket, bool remote)
    {
        try
        {
            return remote ? socket.RemoteEndPoint : socket.LocalEndPoint;
        }
        catch (ObjectDisposedException)
        {
            return null;
        }
    }

    // ---- IFeatureCollection

    public bool IsReadOnly => false;

    public int Revision => _revision;

    public object? this[Type key]
    {
        get
        {
            ArgumentNullException.ThrowIfNull(key);
            if (_features is not null && _features.TryGetValue(key, out var feature)) return feature;
            return Array.IndexOf(s_own, key) >= 0 ? this : null;
        }
        set
        {
            ArgumentNullException.ThrowIfNull(key);
            _revision++;
            _features ??= [];
            if (value is null && Array.IndexOf(s_own, key) < 0) _features.Remove(key);
            else _features[key] = value;
        }
    }

    public TFeature? Get<TFeature>() => (TFeature?)this[typeof(TFeature)];

    public void Set<TFeature>(TFeature? instance) => this[typeof(TFeature)] = instance;

    public IEnumerator<KeyValuePair<Type, object>> GetEnumerator()
    {
        foreach (var own in s_own)
            if (_features is null || !_features.ContainsKey(own)) yield return new KeyValuePair<Type, object>(own, this);
        if (_features is null) yield break;
        foreach (var (type, feature) in _features)
            if (feature is not null) yield return new KeyValuePair<Type, object>(type, feature);
    }

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();
}
