using System.Globalization;

namespace Amy.Async;

/// <summary>
/// The CPU quota of this process's control group. Under a quota of less than one core, time spun is time not worked, so
/// the adaptive spin is off.
/// </summary>
internal static class CpuQuota
{
    /// <summary>Whether this process may use at least one whole core; true if nothing is known.</summary>
    internal static readonly bool AllowsSpinning = Read("/proc/self/cgroup", "/sys/fs/cgroup") is not < 1;

    /// <summary>
    /// The smallest quota of the process's group and its ancestors, in cores, or null: <c>cpu.max</c> of cgroup v2 (see
    /// cgroups(7)), <c>cpu.cfs_quota_us</c> and <c>cpu.cfs_period_us</c> of v1.
    /// </summary>
    internal static double? Read(string membership, string root)
    {
        double? smallest = null;
        try
        {
            foreach (var line in File.ReadAllLines(membership))
            {
                var parts = line.Split(':'); // hierarchy:controllers:path
                if (parts.Length < 3) continue;
                var unified = parts[0] == "0" && parts[1].Length == 0;
                if (!unified && Array.IndexOf(parts[1].Split(','), "cpu") < 0) continue;
                var mount = unified ? root : Path.Combine(root, parts[1]);
                if (!unified && !Directory.Exists(mount)) mount = Path.Combine(root, "cpu");
                for (var path = parts[2].Trim('/'); ; path = Path.GetDirectoryName(path) ?? "")
                {
                    var quota = ReadGroup(Path.Combine(mount, path), unified);
                    if (quota is not null && !(quota >= smallest)) smallest = quota;
                    if (path.Length == 0) break;
                }
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // no /proc or no cgroups: no quota is known
        }
        return smallest;
    }

    private static double? ReadGroup(string directory, bool unified)
    {
        if (unified)
        {
            var parts = ReadText(Path.Combine(directory, "cpu.max"))?.Split(' ');
            return parts is { Length: 2 } ? Divide(parts[0], parts[1]) : null;
        }
        var quota = ReadText(Path.Combine(directory, "cpu.cfs_quota_us"));
        var period = ReadText(Path.Combine(directory, "cpu.cfs_period_us"));
        return quota is null || period is null ? null : Divide(quota, period);
    }

    private static string? ReadText(string file) => File.Exists(file) ? File.ReadAllText(file).Trim() : null;

    // "max" and -1 mean no quota.
    private static double? Divide(string quota, string period) =>
        long.TryParse(quota, NumberStyles.Integer, CultureInfo.InvariantCulture, out var q) && q > 0
        && long.TryParse(period, NumberStyles.Integer, CultureInfo.InvariantCulture, out var p) && p > 0
            ? (double)q / p
            : null;
}
