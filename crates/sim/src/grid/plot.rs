//! Curves as SVG: both axes by powers of ten.

use std::fmt::Write as _;

/// Size of a figure.
const WIDE: f64 = 440.0;
const HIGH: f64 = 260.0;
/// What is left free for the axes.
const LEFT: f64 = 56.0;
const BELOW: f64 = 34.0;
const ABOVE: f64 = 12.0;
const RIGHT: f64 = 60.0;
/// One for each curve; they can be told apart without seeing colours well.
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

/// Points by x.
#[derive(Clone, Debug)]
pub(super) struct Curve {
    /// What it shows.
    pub(super) name: &'static str,
    /// The points.
    pub(super) points: Vec<(f64, f64)>,
}

/// A figure with curves.
pub(super) fn plot(title: &str, curves: &[Curve]) -> String {
    let all = || curves.iter().flat_map(|curve| &curve.points).copied();
    let across = decades(all().map(|(x, _)| x));
    let up = decades(all().map(|(_, y)| y));
    let place = |(from, to): (i32, i32), value: f64| {
        let log = value.max(10f64.powi(from)).log10();
        (log - f64::from(from)) / f64::from((to - from).max(1))
    };
    let x = |value: f64| LEFT + place(across, value) * (WIDE - LEFT - RIGHT);
    let y = |value: f64| HIGH - BELOW - place(up, value) * (HIGH - BELOW - ABOVE);
    let mut svg = format!(
        "<figure><figcaption>{title}</figcaption><svg width={WIDE} height={HIGH} viewBox='0 0 {WIDE} {HIGH}' \
         font-size=11 fill=currentColor role=img>"
    );
    for power in across.0..=across.1 {
        let at = x(10f64.powi(power));
        write!(
            svg,
            "<path d='M{at:.1} {ABOVE}V{:.1}' stroke=currentColor opacity=.15 /><text x={at:.1} y={:.1} \
             text-anchor=middle>{}</text>",
            HIGH - BELOW,
            HIGH - BELOW + 16.0,
            label(power)
        )
        .expect("a string takes all");
    }
    for power in up.0..=up.1 {
        let at = y(10f64.powi(power));
        write!(
            svg,
            "<path d='M{LEFT} {at:.1}H{:.1}' stroke=currentColor opacity=.15 /><text x={:.1} y={:.1} text-anchor=end>{}\
             </text>",
            WIDE - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            label(power)
        )
        .expect("a string takes all");
    }
    for (curve, colour) in curves.iter().zip(COLOURS) {
        let points: Vec<String> =
            curve.points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
        write!(svg, "<polyline points='{}' fill=none stroke='{colour}' stroke-width=2 />", points.join(" "))
            .expect("a string takes all");
        for (at, value) in &curve.points {
            write!(
                svg,
                "<circle cx={:.1} cy={:.1} r=3 fill='{colour}'><title>{at}: {value:.2}</title></circle>",
                x(*at),
                y(*value)
            )
            .expect("a string takes all");
        }
        if let Some((at, value)) = curve.points.last() {
            write!(
                svg,
                "<text x={:.1} y={:.1} fill='{colour}'>{}</text>",
                x(*at) + 7.0,
                y(*value) + 4.0,
                curve.name
            )
            .expect("a string takes all");
        }
    }
    svg.push_str("</svg></figure>");
    svg
}

/// From and to which power of ten values go.
fn decades(values: impl Iterator<Item = f64>) -> (i32, i32) {
    let positive: Vec<f64> = values.filter(|value| *value > 0.0).collect();
    let least = positive.iter().copied().fold(f64::INFINITY, f64::min);
    let most = positive.iter().copied().fold(0.0, f64::max);
    if positive.is_empty() {
        return (0, 1);
    }
    let (from, to) = (least.log10().floor() as i32, most.log10().ceil() as i32);
    (from, to.max(from + 1))
}

fn label(power: i32) -> String {
    match power {
        0..=2 => 10u32.pow(power.unsigned_abs()).to_string(),
        3..=5 => format!("{} k", 10u32.pow(power.unsigned_abs() - 3)),
        6..=8 => format!("{} M", 10u32.pow(power.unsigned_abs() - 6)),
        _ => format!("1e{power}"),
    }
}
