/// <summary>
/// The test assemblies are started at the same time, but all of them count descriptors and watch an idle loop: each waits for the
/// others to end. The lock ends with the process, however that ends.
/// </summary>
[SetUpFixture]
internal sealed class OneAtATime
{
    private FileStream? _lock;

    [OneTimeSetUp]
    public void Wait()
    {
        var path = Path.Combine(Path.GetTempPath(), $"amy-async-tests-{Environment.UserName}.lock");
        for (var i = 0; i < 9000 && _lock is null; i++)
        {
            try
            {
                _lock = new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
            }
            catch (IOException)
            {
                using var pause = new ManualResetEventSlim();
                pause.Wait(100);
            }
        }
    }

    [OneTimeTearDown]
    public void Release() => _lock?.Dispose();
}
