using Amy.Async.Kestrel;
using Microsoft.AspNetCore.Connections;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;

namespace Microsoft.AspNetCore.Hosting;

/// <summary>Serving Kestrel's connections by event loops of Amy.Async.</summary>
public static class AmyAsyncTransportExtensions
{
    /// <summary>
    /// Has Kestrel's connections (TCP, Unix-domain sockets, inherited descriptors) served by event loops of Amy.Async instead of
    /// by its own sockets.
    /// </summary>
    /// <param name="builder">The host's builder.</param>
    /// <param name="configure">Sets the options; null for the defaults.</param>
    public static IWebHostBuilder UseAmyAsync(this IWebHostBuilder builder, Action<AmyAsyncTransportOptions>? configure = null)
    {
        ArgumentNullException.ThrowIfNull(builder);
        return builder.ConfigureServices(services => services.AddAmyAsyncTransport(configure));
    }

    /// <summary>
    /// Adds what Kestrel listens with (<see cref="IConnectionListenerFactory"/>), and an <see cref="IConnectionFactory"/> for
    /// connections that the application opens.
    /// </summary>
    /// <param name="services">Where to.</param>
    /// <param name="configure">Sets the options; null for the defaults.</param>
    /// <remarks>Of several transports Kestrel takes the one that was added last.</remarks>
    public static IServiceCollection AddAmyAsyncTransport(this IServiceCollection services, Action<AmyAsyncTransportOptions>? configure = null)
    {
        ArgumentNullException.ThrowIfNull(services);
        services.AddOptions();
        services.AddLogging();
        if (configure is not null) services.Configure(configure);
        services.TryAddSingleton<TransportLoops>();
        services.TryAddEnumerable(ServiceDescriptor.Singleton<IConnectionListenerFactory, LoopTransportFactory>());
        services.TryAddSingleton<IConnectionFactory, LoopConnectionFactory>();
        return services;
    }
}
