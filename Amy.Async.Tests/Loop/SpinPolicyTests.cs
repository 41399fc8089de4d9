using Amy.Async.Native;

namespace Amy.Async.Tests.Loop;

[TestFixture]
internal sealed class SpinPolicyTests
{
    private sealed class FakeClock : MonotonicClock
    {
        internal long Time;

        internal override long Now() => Time;
    }

    private readonly FakeClock _clock = new();

    [SetUp]
    public void ResetClock() => _clock.Time = 0;

    [Test]
    public void ShouldSpin_ZeroBound_Never() => Assert.That(new SpinPolicy(0).ShouldSpin(_clock), Is.False);

    [Test]
    public void ShouldSpin_NegativeBound_AlwaysWhateverHappens()
    {
        var spin = new SpinPolicy(-1);
        for (var i = 0; i < 1000; i++)
        {
            Assert.That(spin.ShouldSpin(_clock), Is.True);
            spin.Record(i * 1_000_000, (i + 1) * 1_000_000, paid: false);
        }
    }

    [Test]
    public void ShouldSpin_AlwaysPaid_Always()
    {
        var spin = new SpinPolicy(50_000);
        _clock.Time = 0;
        for (var i = 0; i < 10_000; i++, _clock.Time += 30_000)
        {
            Assert.That(spin.ShouldSpin(_clock), Is.True);
            spin.Record(_clock.Time, _clock.Time + 20_000, paid: true);
        }
    }

    [Test]
    public void ShouldSpin_AlwaysInVain_UsesAHundredthOfTheTime()
    {
        var spin = new SpinPolicy(50_000);
        _clock.Time = 0;
        long spun = 0;
        for (var i = 0; i < 100_000; i++)
        {
            if (spin.ShouldSpin(_clock))
            {
                spin.Record(_clock.Time, _clock.Time + 50_000, paid: false);
                _clock.Time += 50_000;
                spun += 50_000;
            }
            _clock.Time += 25_000; // a message, without sleeping
        }
        Assert.That((double)spun / _clock.Time, Is.InRange(0.0001, 0.012));
    }

    [Test]
    public void ShouldSpin_LargeBatches_NotUntilTheyAreSmallAgain()
    {
        var spin = new SpinPolicy(50_000);
        for (var i = 0; i < 20; i++) spin.Served(8);
        Assert.That(spin.ShouldSpin(_clock), Is.False);
        for (var i = 0; i < 40; i++) spin.Served(1);
        Assert.That(spin.ShouldSpin(_clock), Is.True);
    }

    [Test]
    public void ShouldSpin_HalfPaid_VainTimeStaysUnderTheCap()
    {
        var spin = new SpinPolicy(50_000);
        _clock.Time = 0;
        long vain = 0, last = 0;
        for (var i = 0; i < 100_000; i++)
        {
            if (spin.ShouldSpin(_clock))
            {
                var paid = i % 2 == 0;
                last = _clock.Time;
                spin.Record(_clock.Time, _clock.Time + 50_000, paid);
                if (!paid) vain += 50_000;
                _clock.Time += 50_000;
            }
            _clock.Time += 25_000;
        }
        Assert.That((double)vain / _clock.Time, Is.LessThan(0.06));
        Assert.That(last, Is.GreaterThan(_clock.Time * 99 / 100), "it never stops trying: credit comes back with time");
    }

    [Test]
    public void ShouldSpin_PaidAgainAfterALongDrought_SpinsAgain()
    {
        var spin = new SpinPolicy(50_000);
        _clock.Time = 0;
        for (var i = 0; i < 100; i++, _clock.Time += 1_000_000)
            if (spin.ShouldSpin(_clock)) spin.Record(_clock.Time, _clock.Time + 50_000, paid: false);
        var waited = 0;
        while (!spin.ShouldSpin(_clock)) waited++;
        Assert.That(waited, Is.LessThan(1100));
        spin.Record(_clock.Time += 1_000_000, _clock.Time + 10_000, paid: true);
        Assert.That(spin.ShouldSpin(_clock), Is.True);
    }
}

[TestFixture]
internal sealed class CpuQuotaTests
{
    private string _root = "";

    [SetUp]
    public void MakeRoot() => _root = Directory.CreateTempSubdirectory("amy-cgroup").FullName;

    [TearDown]
    public void RemoveRoot() => Directory.Delete(_root, recursive: true);

    private string File(string path, string text)
    {
        var file = Path.Combine(_root, path);
        Directory.CreateDirectory(Path.GetDirectoryName(file)!);
        System.IO.File.WriteAllText(file, text);
        return file;
    }

    [TestCase("50000 100000", 0.5)]
    [TestCase("200000 100000", 2.0)]
    [TestCase("max 100000", null)]
    [TestCase("nonsense", null)]
    public void Read_CgroupV2(string max, double? expected)
    {
        var membership = File("proc", "0::/pod/app\n");
        File("fs/pod/app/cpu.max", max + "\n");
        Assert.That(CpuQuota.Read(membership, Path.Combine(_root, "fs")), Is.EqualTo(expected));
    }

    [Test]
    public void Read_CgroupV2_SmallestOfTheAncestorsCounts()
    {
        var membership = File("proc", "0::/pod/app\n");
        File("fs/pod/app/cpu.max", "200000 100000\n");
        File("fs/pod/cpu.max", "30000 100000\n");
        Assert.That(CpuQuota.Read(membership, Path.Combine(_root, "fs")), Is.EqualTo(0.3));
    }

    [TestCase("cpu,cpuacct")]
    [TestCase("cpu")]
    public void Read_CgroupV1(string controllers)
    {
        var membership = File("proc", $"7:blkio:/\n3:{controllers}:/app\n");
        File($"fs/{controllers}/app/cpu.cfs_quota_us", "25000\n");
        File($"fs/{controllers}/app/cpu.cfs_period_us", "100000\n");
        Assert.That(CpuQuota.Read(membership, Path.Combine(_root, "fs")), Is.EqualTo(0.25));
    }

    [Test]
    public void Read_NothingThere_IsNull() => Assert.That(CpuQuota.Read(Path.Combine(_root, "none"), _root), Is.Null);
}
