using Amy.Async.Fuzz;
using SharpFuzz;

// dotnet Amy.Async.Fuzz.dll TARGET             under afl-fuzz: the input comes on the standard input
// dotnet Amy.Async.Fuzz.dll libfuzzer TARGET   under libfuzzer-dotnet
// dotnet Amy.Async.Fuzz.dll TARGET FILE...     runs files, of the corpus or of what was found, without a fuzzer
switch (args)
{
    case ["libfuzzer", var name] when Targets.All.TryGetValue(name, out var target):
        Fuzzer.LibFuzzer.Run(bytes => target(bytes.ToArray()));
        return 0;
    case [var name] when Targets.All.TryGetValue(name, out var target):
        Fuzzer.OutOfProcess.Run(stream =>
        {
            using var input = new MemoryStream();
            stream.CopyTo(input);
            target(input.ToArray());
        });
        return 0;
    case [var name, .. var files] when Targets.All.TryGetValue(name, out var target):
        foreach (var file in files)
        {
            if (!File.Exists(file))
            {
                Console.Error.WriteLine($"no such file: {file}"); // not a crash that was found
                return 2;
            }
            target(File.ReadAllBytes(file));
        }
        Console.WriteLine($"{files.Length} ran");
        return 0;
    default:
        Console.Error.WriteLine($"usage: Amy.Async.Fuzz [libfuzzer] TARGET [FILE...]\ntargets: {string.Join(", ", Targets.All.Keys.Order())}");
        return 2;
}
