namespace Amy.Async.Native;

[Flags]
internal enum Systems
{
    Linux = 1,
    MacOS = 2,
    FreeBsd = 4,
    All = Linux | MacOS | FreeBsd,
}

/// <summary>
/// The systems whose libc has a function, where it is not all of them. A test compares this with the documented exports of
/// each, and looks that what is called on a system exists there.
/// </summary>
[AttributeUsage(AttributeTargets.Method)]
internal sealed class OnlyOnAttribute(Systems systems) : Attribute
{
    internal Systems Systems { get; } = systems;
}
