//! Charts of lines, as SVG.

use std::fmt::Write as _;

use crate::report::short;

/// One below the other.
pub(crate) struct Chart {
    pub title: &'static str,
    pub series: [Series; 2],
}

/// A line.
pub(crate) struct Series {
    pub name: &'static str,
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 260.0;
/// Around what is plotted: left, right, above, below.
const MARGINS: [f64; 4] = [70.0, 20.0, 36.0, 34.0];
const LINES: usize = 4;
const COLOURS: [&str; 2] = ["#1f6feb", "#d1570a"];

/// From zero on both axes.
pub(crate) fn svg(charts: &[Chart]) -> String {
    let height = HEIGHT * charts.len() as f64;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for (at, chart) in charts.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "<g transform=\"translate(0 {})\">", HEIGHT * at as f64);
        chart.draw(&mut text);
        text.push_str("</g>\n");
    }
    text.push_str("</svg>\n");
    text
}

impl Chart {
    fn draw(&self, text: &mut String) {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x_most = points().map(|p| p.0).fold(1.0, f64::max);
        let y_most = round_up(points().map(|p| p.1).fold(1e-9, f64::max));
        let [left, right, above, below] = MARGINS;
        let x = |value: f64| left + value / x_most * (WIDTH - left - right);
        let y = |value: f64| HEIGHT - below - value / y_most * (HEIGHT - above - below);
        let _ = writeln!(text, "<text x=\"{left}\" y=\"20\" font-weight=\"bold\">{}</text>", self.title);
        for line in 0..=LINES {
            let share = line as f64 / LINES as f64;
            let (across, up) = (share * x_most, share * y_most);
            let _ = writeln!(
                text,
                "<line x1=\"{left}\" x2=\"{}\" y1=\"{1:.1}\" y2=\"{1:.1}\" stroke=\"#ddd\"/>\n\
                 <text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{4}</text>\n\
                 <text x=\"{5:.1}\" y=\"{6}\" text-anchor=\"middle\">{7}</text>",
                WIDTH - right,
                y(up),
                left - 8.0,
                y(up) + 4.0,
                short(up),
                x(across),
                HEIGHT - below + 18.0,
                short(across),
            );
        }
        for (at, (series, colour)) in self.series.iter().zip(COLOURS).enumerate() {
            let line: String =
                series.points.iter().map(|p| format!("{:.1},{:.1} ", x(p.0), y(p.1))).collect();
            let _ = writeln!(
                text,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n\
                 <text x=\"{}\" y=\"20\" fill=\"{colour}\" text-anchor=\"end\">{}</text>",
                line.trim_end(),
                WIDTH - right - 90.0 * (1 - at) as f64,
                series.name,
            );
        }
    }
}

/// The next number that is 1, 2, 2.5, 5 or 8 times a power of ten, so that quarters of it are short.
fn round_up(figure: f64) -> f64 {
    let power = 10f64.powf(figure.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 8.0, 10.0];
    steps.iter().map(|step| step * power).find(|rounded| *rounded >= figure).unwrap_or(figure)
}
