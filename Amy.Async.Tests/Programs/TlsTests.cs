using System.Net.Security;
using System.Net.Sockets;
using System.Security.Authentication;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace Amy.Async.Tests.Programs;

/// <summary>SslStream, both ends, over the socket's stream on one loop.</summary>
[TestFixture]
internal sealed class TlsTests
{
    private static readonly X509Certificate2 s_certificate = MakeCertificate("localhost");

    [OneTimeTearDown]
    public void Dispose() => s_certificate.Dispose();

    internal static X509Certificate2 MakeCertificate(string name)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest($"CN={name}", key, HashAlgorithmName.SHA256);
        var names = new SubjectAlternativeNameBuilder();
        names.AddDnsName(name);
        request.CertificateExtensions.Add(names.Build());
        using var certificate = request.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-1), DateTimeOffset.UtcNow.AddDays(30));
        return X509CertificateLoader.LoadPkcs12(certificate.Export(X509ContentType.Pkcs12), null);
    }

    private static bool IsOurs(object sender, X509Certificate? certificate, X509Chain? chain, SslPolicyErrors errors) =>
        certificate?.GetCertHashString() == s_certificate.GetCertHashString();

    private static async Task<(SslStream Client, SslStream Server, AsyncSocket ClientSocket)> Handshake(SslProtocols protocol, bool clientCertificate = false)
    {
        var (a, b) = await Pair.Async();
        var client = new SslStream(a.AsStream(), false, IsOurs);
        var server = new SslStream(b.AsStream(), false, (_, certificate, _, _) => !clientCertificate || certificate is not null);
        await Task.WhenAll(
            client.AuthenticateAsClientAsync(new SslClientAuthenticationOptions
            {
                TargetHost = "localhost",
                EnabledSslProtocols = protocol,
                ClientCertificates = clientCertificate ? [s_certificate] : null,
            }),
            server.AuthenticateAsServerAsync(new SslServerAuthenticationOptions { ServerCertificate = s_certificate, EnabledSslProtocols = protocol, ClientCertificateRequired = clientCertificate }));
        return (client, server, a);
    }

    [TestCase(SslProtocols.Tls12)]
    [TestCase(SslProtocols.Tls13)]
    public void Megabytes_BothWaysAtOnce_ContinuationsStayOnTheLoop(SslProtocols protocol) => Run.OnLoop(async () =>
    {
        var thread = Environment.CurrentManagedThreadId;
        var (client, server, _) = await Handshake(protocol);
        await using (client)
        await using (server)
        {
            Assert.That((client.SslProtocol, server.SslProtocol), Is.EqualTo((protocol, protocol)));
            var data = new byte[4_000_000];
            new Random(1).NextBytes(data);
            async Task<byte[]> Read(SslStream stream)
            {
                var all = new byte[data.Length];
                for (var n = 0; n < all.Length;)
                {
                    n += await stream.ReadAsync(all.AsMemory(n));
                    Assert.That(Environment.CurrentManagedThreadId, Is.EqualTo(thread));
                }
                return all;
            }
            async Task Write(SslStream stream)
            {
                for (var n = 0; n < data.Length; n += 10_000)
                {
                    await stream.WriteAsync(data.AsMemory(n, 10_000));
                    Assert.That(Environment.CurrentManagedThreadId, Is.EqualTo(thread));
                }
            }
            var reads = new[] { Read(client), Read(server) };
            await Task.WhenAll(Write(client), Write(server));
            foreach (var read in await Task.WhenAll(reads)) Assert.That(read.AsSpan().SequenceEqual(data), Is.True);
            await client.ShutdownAsync();
            Assert.That(await server.ReadAsync(new byte[1]), Is.Zero);
        }
    });

    [Test]
    public void ClientCertificate_IsSeen() => Run.OnLoop(async () =>
    {
        var (client, server, _) = await Handshake(SslProtocols.Tls13, clientCertificate: true);
        await client.WriteAsync(new byte[1]);
        Assert.That(await server.ReadAsync(new byte[1]), Is.EqualTo(1));
        Assert.That(server.RemoteCertificate!.GetCertHashString(), Is.EqualTo(s_certificate.GetCertHashString()));
        client.Dispose();
        server.Dispose();
    });

    [Test]
    public void WrongCertificate_IsRefused() => Run.OnLoop(async () =>
    {
        var (a, b) = await Pair.Async();
        using var client = new SslStream(a.AsStream(), false, (_, _, _, _) => false);
        using var server = new SslStream(b.AsStream());
        var serving = server.AuthenticateAsServerAsync(s_certificate);
        await Expect.Throws<AuthenticationException>(() => client.AuthenticateAsClientAsync("localhost"));
        client.Dispose();
        try
        {
            await serving; // TLS 1.3: the server may be done before the client refuses
        }
        catch (Exception e) when (e is AuthenticationException or IOException)
        {
        }
    });

    [Test]
    public void Reset_IsAnIOException() => Run.OnLoop(async () =>
    {
        TestPoller.SkipOnLibkqueue("it takes the error of a connection away (SO_ERROR) before a call can tell it");
        var (good, other, socket) = await Handshake(SslProtocols.Tls13);
        var reading = other.ReadAsync(new byte[1]).AsTask();
        socket.Abort();
        await Expect.Throws<IOException>(() => reading);
        good.Dispose();
        other.Dispose();
    });
}
