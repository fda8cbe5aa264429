//! The table and the JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::http::median;
use crate::rows::{OWN_ECHO, Row, Target};

/// What came out.
#[derive(Default)]
pub(crate) struct Report {
    lines: Vec<Line>,
    skipped: BTreeMap<String, String>,
}

struct Line {
    row: &'static Row,
    ours: Option<Figure>,
    peer: Option<Figure>,
    /// Our own echo, where that counts beside the peer.
    echo: Option<Figure>,
}

#[derive(Clone, Copy)]
struct Figure {
    median: f64,
    min: f64,
    max: f64,
    samples: usize,
}

impl Figure {
    fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        let median = median(&mut sorted);
        Some(Self { median, min: *sorted.first()?, max: *sorted.last()?, samples: sorted.len() })
    }

    fn json(self) -> Value {
        json!({"median": self.median, "min": self.min, "max": self.max, "samples": self.samples})
    }

    fn text(self) -> String {
        format!("{} [{}–{}]", short(self.median), short(self.min), short(self.max))
    }
}

impl Report {
    /// A row that could not be measured, and why. The first reason counts.
    pub(crate) fn skip(&mut self, row: &str, why: &anyhow::Error) {
        self.skipped.entry(row.to_owned()).or_insert_with(|| format!("{why:#}"));
    }

    /// A row's samples, and those of our own echo over HTTP, which some rows are compared with.
    pub(crate) fn add(&mut self, row: &'static Row, ours: &[f64], peer: &[f64], own_echo: &[f64]) {
        let (peer, echo) = if row.peer == OWN_ECHO {
            (own_echo, &[][..])
        } else if row.needs_echo() {
            (peer, own_echo)
        } else {
            (peer, &[][..])
        };
        let (ours, peer, echo) = (Figure::of(ours), Figure::of(peer), Figure::of(echo));
        self.lines.push(Line { row, ours, peer, echo });
    }

    pub(crate) fn json(&self, rounds: usize, seconds: f64) -> Value {
        let rows: Vec<Value> = self
            .lines
            .iter()
            .map(|line| {
                json!({
                    "name": line.row.name,
                    "what": line.row.what,
                    "unit": line.row.unit,
                    "ours": line.ours.map(Figure::json),
                    "peer": (!line.row.peer.is_empty()).then_some(line.row.peer),
                    "peer_figure": line.peer.map(Figure::json),
                    "ratio": line.ratio(),
                    "own_echo": line.echo.map(Figure::json),
                    "ratio_to_own_echo": line.ratio_to_echo(),
                    "target": line.row.target.text(),
                    "met": line.met(),
                    "skipped": self.skipped.get(line.row.name),
                })
            })
            .collect();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        json!({"version": env!("CARGO_PKG_VERSION"), "cores": cores, "rounds": rounds, "seconds": seconds, "rows": rows})
    }

    pub(crate) fn table(&self) -> String {
        let mut text = String::from("| row | ours | peer | ratio | target | |\n|---|---|---|---|---|---|\n");
        for line in &self.lines {
            let row = line.row;
            let figure = |f: Option<Figure>| {
                f.map_or_else(|| "–".to_owned(), |f| format!("{} {}", f.text(), row.unit))
            };
            let mut peer = if row.peer.is_empty() {
                "–".to_owned()
            } else {
                format!("{}: {}", row.peer, figure(line.peer))
            };
            let mut ratio = line.ratio().map_or_else(|| "–".to_owned(), |r| format!("{r:.2}"));
            if let (Some(echo), Some(to_echo)) = (line.echo, line.ratio_to_echo()) {
                // Writing to a string cannot fail.
                let _ = write!(peer, "; {OWN_ECHO}: {} {}", echo.text(), row.unit);
                let _ = write!(ratio, "; {to_echo:.2}");
            }
            let verdict = match line.met() {
                Some(true) => "met".to_owned(),
                Some(false) => "**missed**".to_owned(),
                None => String::new(),
            };
            let verdict = self
                .skipped
                .get(row.name)
                .map_or(verdict, |why| format!("skipped: {}", why.replace('\n', " ")));
            let _ = writeln!(
                text,
                "| {}: {} | {} | {peer} | {ratio} | {} | {verdict} |",
                row.name,
                row.what,
                figure(line.ours),
                row.target.text()
            );
        }
        text
    }
}

impl Line {
    fn ratio(&self) -> Option<f64> {
        Some(self.ours?.median / self.peer?.median)
    }

    fn ratio_to_echo(&self) -> Option<f64> {
        Some(self.ours?.median / self.echo?.median)
    }

    /// `None` where there is no target, or no figure.
    fn met(&self) -> Option<bool> {
        match self.row.target {
            Target::RatioAtMost(bound) => Some(self.ratio()? <= bound),
            Target::RatioAtLeast(bound) => Some(self.ratio()? >= bound),
            Target::RatioAtLeastOrEcho(peer, echo) => {
                let each = [self.ratio().map(|r| r >= peer), self.ratio_to_echo().map(|r| r >= echo)];
                each.into_iter().flatten().max()
            }
            Target::AtMost(bound) => Some(self.ours?.median <= bound),
            Target::None => None,
        }
    }
}

impl Target {
    fn text(self) -> String {
        match self {
            Self::RatioAtMost(bound) => format!("≤ {bound} ×"),
            Self::RatioAtLeast(bound) => format!("≥ {bound} ×"),
            Self::RatioAtLeastOrEcho(peer, echo) => format!("≥ {peer} ×, or {echo} × {OWN_ECHO}"),
            Self::AtMost(bound) => format!("≤ {bound}"),
            Self::None => String::new(),
        }
    }
}

/// Three digits that count, or all of a large number.
pub(crate) fn short(figure: f64) -> String {
    match figure {
        f if f >= 1000.0 => {
            let digits = format!("{f:.0}");
            let mut text = String::new();
            for (at, digit) in digits.chars().enumerate() {
                if at > 0 && (digits.len() - at) % 3 == 0 {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        f if f >= 100.0 => format!("{f:.0}"),
        f if f >= 10.0 => format!("{f:.1}"),
        0.0 => "0".to_owned(),
        f => format!("{f:.2}"),
    }
}
