global using NUnit.Framework;
// What the faults of the benchmarks happen to.
global using CallsBelow = Amy.Async.Tests.KqueueDouble;
