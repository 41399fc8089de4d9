namespace Amy.Async.Tests.Loop;

/// <summary>The state word against its table, written down once more with a flag for each bit: random steps, everything compared.</summary>
[TestFixture]
internal sealed class StateWordModelTests
{
    private sealed class Side
    {
        internal bool Ready, Busy, Armed, Inside, Awaited, Done;
        internal short Version;
    }

    private sealed class Model
    {
        internal readonly Side[] Sides = [new(), new()];
        internal bool Closed, Stopped;
        internal long Seen;

        internal bool Ended => Closed || Stopped;

        internal bool AnyInside => Sides[0].Inside || Sides[1].Inside;

        internal StateWord.BeginResult Begin(Side side, bool force, bool defer, bool keep)
        {
            if (Ended) return StateWord.BeginResult.Ended;
            if (side.Busy)
            {
                if (keep || !side.Done || side.Awaited) return StateWord.BeginResult.Busy;
                side.Done = false;
                side.Version++;
            }
            side.Busy = true;
            if (defer || !force && !side.Ready) return StateWord.BeginResult.Wait;
            (side.Ready, side.Inside) = (false, true);
            return StateWord.BeginResult.Attempt;
        }

        internal bool End(Side side, bool ready)
        {
            var wasInside = AnyInside;
            (side.Busy, side.Inside) = (false, false);
            side.Ready |= ready;
            return Closed && wasInside && !AnyInside;
        }

        internal StateWord.ArmResult Arm(Side side, bool evenIfReady)
        {
            if (Ended) return StateWord.ArmResult.Ended;
            if (side.Ready && !evenIfReady)
            {
                (side.Ready, side.Inside) = (false, true);
                return StateWord.ArmResult.Attempt;
            }
            (side.Armed, side.Inside) = (true, false);
            return StateWord.ArmResult.Armed;
        }

        internal bool Edge(bool read, bool write, long seen, out Direction taken)
        {
            Seen |= seen;
            taken = read && Sides[0].Armed ? Direction.Read : Direction.Write;
            Sides[0].Ready |= read;
            Sides[1].Ready |= write;
            return (taken == Direction.Read || write) && Take(Sides[(int)taken]);
        }

        internal bool Take(Side side)
        {
            if (Ended || !side.Armed || !side.Ready) return false;
            (side.Armed, side.Ready, side.Inside) = (false, false, true);
            return true;
        }

        internal static bool Withdraw(Side side)
        {
            var armed = side.Armed;
            side.Armed = false;
            return armed;
        }

        internal StateWord.Completion Complete(Side side, bool ready)
        {
            var wasInside = AnyInside;
            (side.Inside, side.Done) = (false, true);
            side.Ready |= ready;
            return new(side.Awaited, Closed && wasInside && !AnyInside);
        }

        internal static StateWord.AwaitResult Await(Side side, short version)
        {
            if (!side.Busy || side.Awaited || side.Version != version) return StateWord.AwaitResult.Invalid;
            side.Awaited = true;
            return side.Done ? StateWord.AwaitResult.AlreadyDone : StateWord.AwaitResult.Stored;
        }

        internal static bool Fetch(Side side, short version)
        {
            if (!side.Busy || !side.Done || side.Version != version) return false;
            (side.Busy, side.Done, side.Awaited) = (false, false, false);
            side.Version++;
            return true;
        }

        internal bool Close(out bool mustClose)
        {
            mustClose = !Closed && !AnyInside;
            if (Closed) return false;
            return Closed = true;
        }
    }

    private static readonly long[] s_seen = [0, StateWord.SeenReadClosed, StateWord.SeenWriteClosed, StateWord.SeenError, StateWord.SeenUrgent, StateWord.SeenError | StateWord.SeenUrgent];

    [Test]
    public void RandomSteps_AgreeWithTheTable([Values(1, 2, 3)] int seed)
    {
        var random = new Random(seed);
        bool Dice() => random.Next(2) == 0;
        for (var life = 0; life < 1000; life++)
        {
            var word = Dice() ? StateWord.MaybeReady : default;
            var model = new Model();
            model.Sides[0].Ready = model.Sides[1].Ready = word.IsReady(Direction.Read);
            var told = new List<string>();
            for (var step = 0; step < 40; step++)
            {
                var d = Dice() ? Direction.Read : Direction.Write;
                var side = model.Sides[(int)d];
                var version = (short)(side.Version - (random.Next(4) == 0 ? 1 : 0));
                var holds = side.Busy && !side.Armed && !side.Done; // who may give back, arm or complete
                var (a, b, c) = (Dice(), Dice(), Dice());
                var seen = s_seen[random.Next(s_seen.Length)];
                (string Step, object Was, object Expected) result = random.Next(12) switch
                {
                    0 or 1 => ($"Begin({d},{a},{b},{c})", word.Begin(d, a, b, c), model.Begin(side, a, b, c)),
                    2 when holds && !side.Awaited => ($"End({d},{a})", word.End(d, a), model.End(side, a)),
                    3 or 4 when holds => ($"Arm({d},{a})", word.Arm(d, a), model.Arm(side, a)),
                    5 or 6 => ($"Edge({a},{b},{seen:X})", (word.Edge(a, b, seen, out var taken), taken), (model.Edge(a, b, seen, out var expected), expected)),
                    7 => ($"Take({d})", word.Take(d), model.Take(side)),
                    8 when random.Next(3) == 0 => ($"Withdraw({d})", word.Withdraw(d), Model.Withdraw(side)),
                    8 or 9 when holds => ($"Complete({d},{a})", word.Complete(d, a), model.Complete(side, a)),
                    10 => ($"Await({d},{version})", word.Await(d, version), Model.Await(side, version)),
                    11 when random.Next(20) == 0 => ("Close", (word.Close(out var must), must), (model.Close(out var mustToo), mustToo)),
                    11 when random.Next(30) == 0 => ("Stop", Stop(ref word), model.Stopped = true),
                    _ => ($"Fetch({d},{version})", word.Fetch(d, version), Model.Fetch(side, version)),
                };
                told.Add(result.Step);
                var (isNow, shouldBe) = ($"{result.Was}: {Look(word)}", $"{result.Expected}: {Look(model)}");
                if (isNow != shouldBe) Assert.Fail($"{string.Join(", ", told)}\n{isNow}\n{shouldBe}");
            }
        }
    }

    private static bool Stop(ref StateWord word)
    {
        word.Stop();
        return true;
    }

    private static string Look(StateWord word)
    {
        var text = $"{word.IsClosed} {word.IsEnded} {word.IsAnyInside}";
        foreach (var seen in s_seen) text += $" {word.HasSeen(seen)}";
        foreach (var d in new[] { Direction.Read, Direction.Write })
        {
            var version = word.Version(d);
            text += $" | {word.IsReady(d)} {word.IsBusy(d)} {word.IsArmed(d)} {version} {word.IsDone(d, version)} {word.IsDone(d, (short)(version + 1))} {word.CanAwait(d, version)} {word.CanAwait(d, (short)(version + 1))}";
        }
        return text;
    }

    private static string Look(Model model)
    {
        var text = $"{model.Closed} {model.Ended} {model.AnyInside}";
        foreach (var seen in s_seen) text += $" {(model.Seen & seen) != 0}";
        foreach (var side in model.Sides)
        {
            bool? done = side.Busy ? side.Done : null;
            text += $" | {side.Ready} {side.Busy} {side.Armed} {side.Version} {done} {(bool?)null} {side.Busy && !side.Awaited} {false}";
        }
        return text;
    }
}
