using System.Net.Sockets;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;

namespace Amy.Async.Kestrel.Tests;

/// <summary>Nothing that a peer has sent is in the transport's log. (What Kestrel itself logs of a bad request is Kestrel's.)</summary>
[TestFixture(false)]
[TestFixture(true)]
internal sealed class NothingOfPeersTests(bool inline)
{
    private const string Marker = "Sesame-4711-open";

    private static X509Certificate2 MakeCertificate()
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        using var certificate = new CertificateRequest("CN=localhost", key, HashAlgorithmName.SHA256).CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-1), DateTimeOffset.UtcNow.AddDays(1));
        return X509CertificateLoader.LoadPkcs12(certificate.Export(X509ContentType.Pkcs12), null);
    }

    [Test]
    public async Task Peer_SendsAnything_NothingOfItIsLogged([Values("request", "nonsense", "TLS")] string what, [Values] bool reset)
    {
        using var certificate = MakeCertificate();
        var text = what == "request" ? $"POST /{Marker} HTTP/1.1\r\nHost: {Marker}\r\nX-{Marker}: {Marker}\r\nContent-Length: 1000\r\n\r\n{Marker}" : $"{Marker} {Marker}\r\n\r\n{Marker}";
        await using var server = await Server.Start(inline, application => application.Map("/{*path}", async (HttpContext context) =>
        {
            await context.Request.Body.CopyToAsync(Stream.Null);
            throw new InvalidOperationException("never whole");
        }), what == "TLS" ? listen => listen.UseHttps(certificate) : null);
        using (var socket = await server.Connect())
        {
            await socket.SendAsync(Encoding.ASCII.GetBytes(text));
            if (!reset) socket.Shutdown(SocketShutdown.Send);
            else
            {
                Limits.Until(() => server.Log.Entries.Any(e => e.Category == "Amy.Async.Kestrel" && e.Id.Id == 1), "it is accepted");
                socket.LingerState = new LingerOption(true, 0);
            }
            var buffer = new byte[4096];
            try
            {
                while (!reset && await socket.ReceiveAsync(buffer).Within() > 0) { }
            }
            catch (SocketException)
            {
                // closed before it had read everything
            }
        }
        Limits.Until(() => server.Log.Entries.Any(e => e.Category == "Amy.Async.Kestrel" && e.Id.Id is > 1 and < 6), "its end is logged");
        await server.StopAsync().Within();
        foreach (var entry in server.Log.Entries.Where(e => e.Category == "Amy.Async.Kestrel"))
            Assert.That($"{entry.Text} {entry.Exception}", Does.Not.Contain("Sesame"));
        Assert.That(server.Log.Faults.Where(e => e.Category.StartsWith("Amy.", StringComparison.Ordinal)), Is.Empty);
    }
}
