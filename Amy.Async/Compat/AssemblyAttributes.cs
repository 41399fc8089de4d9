#if !NETSTANDARD2_0
// All P/Invoke arguments are blittable as they are: without marshalling stubs the JIT inlines the calls.
[assembly: System.Runtime.CompilerServices.DisableRuntimeMarshalling]
#endif
