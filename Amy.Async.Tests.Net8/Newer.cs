using System.Diagnostics.CodeAnalysis;

namespace System.Security.Cryptography.X509Certificates;

/// <summary>What the tests use of .NET 9, for .NET 8.</summary>
internal static class X509CertificateLoader
{
    [SuppressMessage("Reliability", "CA2000", Justification = "The caller's.")]
    internal static X509Certificate2 LoadPkcs12(byte[] data, string? password) => new(data, password);
}
