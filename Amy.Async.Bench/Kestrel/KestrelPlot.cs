using System.Globalization;
using System.Text;

namespace Amy.Async.Bench.Kestrel;

/// <summary>Requests per second as bars, in an SVG.</summary>
internal static class KestrelPlot
{
    private const int Left = 190;
    private const int Bar = 18;
    private const int Widest = 520;
    private static readonly string[] s_colours = ["#9aa5b1", "#5f6c7b", "#7fb3ff", "#1f6feb", "#444444"];

    internal static void Write(string file, (string Load, (string Row, double Rate)[] Rows)[] loads)
    {
        var svg = new StringBuilder();
        var y = 10;
        foreach (var (load, rows) in loads)
        {
            y += 24;
            Text(10, y, load, "bold");
            var most = rows.Max(r => r.Rate);
            for (var i = 0; i < rows.Length; i++)
            {
                y += Bar + 4;
                var width = (int)(rows[i].Rate / most * Widest);
                Text(20, y, rows[i].Row);
                svg.Append(CultureInfo.InvariantCulture, $"<rect x=\"{Left}\" y=\"{y - 13}\" width=\"{width}\" height=\"{Bar}\" fill=\"{s_colours[i % s_colours.Length]}\"/>\n");
                Text(Left + width + 6, y, rows[i].Rate.ToString("N0", CultureInfo.InvariantCulture));
            }
        }
        File.WriteAllText(file, string.Create(CultureInfo.InvariantCulture,
            $"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{Left + Widest + 110}\" height=\"{y + 20}\" font-family=\"sans-serif\" font-size=\"13\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{svg}</svg>\n"));

        void Text(int x, int at, string text, string weight = "normal") =>
            svg.Append(CultureInfo.InvariantCulture, $"<text x=\"{x}\" y=\"{at}\" font-weight=\"{weight}\">{text}</text>\n");
    }
}
