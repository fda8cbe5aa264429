//! What `bourse sim --nodes N` shows: a table, and a page with curves that needs nothing else.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::plot::{Curve, plot};
use super::scale::{Plan, Point, measure, sizes};
use super::sight::KINDS;

/// Between two looks of the progress bar.
const PROGRESS: Duration = Duration::from_millis(100);
/// How wide the bar is.
const BAR: usize = 30;

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// What to measure.
    pub plan: Plan,
    /// Where to put the page.
    pub report: Option<PathBuf>,
    /// A line of JSON instead of a table.
    pub json: bool,
}

/// Measures several sizes and shows what came of them. Whether nothing went wrong.
pub fn scale(options: &Options) -> std::io::Result<bool> {
    let shows = !options.json && std::io::stderr().is_terminal();
    let mut points = Vec::new();
    let mut out = std::io::stdout().lock();
    if !options.json {
        writeln!(out, "{}", head())?;
    }
    for nodes in sizes(&options.plan) {
        let shown = std::cell::Cell::new(Instant::now());
        let plan = Plan { nodes, ..options.plan };
        let point = measure(&plan, |done| {
            if shows && shown.get().elapsed() >= PROGRESS {
                shown.set(Instant::now());
                let full = (done * BAR as f64) as usize;
                let (full, rest) = ("█".repeat(full.min(BAR)), "░".repeat(BAR.saturating_sub(full)));
                eprint!("\r{nodes:>6} nodes {full}{rest} {:>3.0} %", done * 100.0);
            }
        });
        if shows {
            eprint!("\r\x1b[K");
        }
        if !options.json {
            writeln!(out, "{}", row(&point))?;
            point.violations.iter().try_for_each(|violation| writeln!(out, "  {violation}"))?;
        }
        points.push(point);
    }
    if !options.json {
        write!(out, "{}", by_kind(&points))?;
    }
    if options.json {
        let all: Vec<_> = points.iter().map(to_json).collect();
        writeln!(out, "{}", serde_json::Value::from(all))?;
    }
    if let Some(path) = &options.report {
        std::fs::write(path, page(&options.plan, &points))?;
        if !options.json {
            writeln!(out, "written: {}", path.display())?;
        }
    }
    Ok(points.iter().all(|point| point.violations.is_empty()))
}

fn head() -> String {
    [
        "  nodes  modules | messages/s node: mean    p99    max | authority: mean     max  (of them) | KB/s node  authority |",
        " first match: p50    max, ms | calls/s  failed |   MiB  events/s      s",
    ]
    .concat()
}

fn row(p: &Point) -> String {
    let [node, authority] = p.messages;
    let kilobytes = p.bytes.map(|rate| rate.mean / 1e3);
    let mut row = String::new();
    write!(row, "{:>7} {:>8} |", p.nodes, p.modules).expect("a string takes all");
    write!(row, "              {:>9.2} {:>6.1} {:>6.1} |", node.mean, node.p99, node.most)
        .expect("a string takes all");
    write!(row, "         {:>8.1} {:>7.1} {:>10} |", authority.mean, authority.most, authority.nodes)
        .expect("a string takes all");
    write!(row, " {:>9.2} {:>10.1} |", kilobytes[0], kilobytes[1]).expect("a string takes all");
    write!(row, "        {:>10.1} {:>7.0}    |", p.first_ms[0], p.first_ms[1]).expect("a string takes all");
    write!(row, " {:>7.0} {:>5.2} % |", p.calls_per_s, p.failed_percent).expect("a string takes all");
    write!(row, " {:>5.0} {:>9.0} {:>6.1}", p.memory_mib, p.events_per_s, p.seconds)
        .expect("a string takes all");
    row
}

/// What is said, by kind of message.
fn by_kind(points: &[Point]) -> String {
    let mut table = format!("\nmessages/s   {:>9} {:>6}", "of", "links");
    KINDS.iter().for_each(|kind| write!(table, " {kind:>10}").expect("a string takes all"));
    for point in points {
        for (role, name) in ["node", "authority"].into_iter().enumerate() {
            write!(table, "\n{:>7} nodes {name:>9} {:>6.1}", point.nodes, point.links[role])
                .expect("a string takes all");
            point.kinds[role]
                .iter()
                .for_each(|mean| write!(table, " {mean:>10.2}").expect("a string takes all"));
        }
    }
    table + "\n"
}

fn to_json(p: &Point) -> serde_json::Value {
    let rate = |rate: &super::scale::Rate| serde_json::json!({"nodes": rate.nodes, "mean": rate.mean, "p99": rate.p99, "max": rate.most});
    let kinds = |means: &[f64]| -> serde_json::Map<String, serde_json::Value> {
        KINDS.iter().zip(means).map(|(kind, mean)| ((*kind).to_owned(), (*mean).into())).collect()
    };
    serde_json::json!({
        "nodes": p.nodes,
        "modules": p.modules,
        "messages_per_s": {"node": rate(&p.messages[0]), "authority": rate(&p.messages[1])},
        "messages_per_s_by_kind": {"node": kinds(&p.kinds[0]), "authority": kinds(&p.kinds[1])},
        "links": {"node": p.links[0], "authority": p.links[1]},
        "bytes_per_s": {"node": rate(&p.bytes[0]), "authority": rate(&p.bytes[1])},
        "first_match_ms": {"p50": p.first_ms[0], "max": p.first_ms[1]},
        "unmatched": p.unmatched,
        "calls_per_s": p.calls_per_s,
        "failed_percent": p.failed_percent,
        "memory_mib": p.memory_mib,
        "events": p.events,
        "events_per_s": p.events_per_s,
        "seconds": p.seconds,
        "violations": p.violations,
    })
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#222;\
background:#fff}table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.2rem .7rem;text-align:right;\
border-bottom:1px solid #ddd}figure{display:inline-block;margin:1rem 1rem 1rem 0}figcaption{font-weight:600}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}td,th{border-color:#444}}";

fn page(plan: &Plan, points: &[Point]) -> String {
    let x =
        |of: &dyn Fn(&Point) -> f64| points.iter().map(|p| (f64::from(p.nodes), of(p))).collect::<Vec<_>>();
    let curve = |name: &'static str, of: &dyn Fn(&Point) -> f64| Curve { name, points: x(of) };
    let figures = [
        plot(
            "messages per second, ordinary node",
            &[
                curve("mean", &|p| p.messages[0].mean),
                curve("p99", &|p| p.messages[0].p99),
                curve("max", &|p| p.messages[0].most),
            ],
        ),
        plot(
            "messages per second, authority",
            &[curve("mean", &|p| p.messages[1].mean), curve("max", &|p| p.messages[1].most)],
        ),
        plot(
            "bytes per second, ordinary node",
            &[curve("mean", &|p| p.bytes[0].mean), curve("p99", &|p| p.bytes[0].p99)],
        ),
        plot(
            "bytes per second, authority",
            &[curve("mean", &|p| p.bytes[1].mean), curve("max", &|p| p.bytes[1].most)],
        ),
        plot("first match, ms", &[curve("p50", &|p| p.first_ms[0]), curve("max", &|p| p.first_ms[1])]),
        plot("events per second of the simulator", &[curve("", &|p| p.events_per_s)]),
    ];
    let mut rows = String::new();
    for p in points {
        let [node, authority] = p.messages;
        let [node_bytes, authority_bytes] = p.bytes;
        write!(
            rows,
            "<tr><td>{}<td>{}<td>{:.2}<td>{:.1}<td>{:.1}<td>{}<td>{:.1}<td>{:.1}<td>{:.0}<td>{:.0}<td>{:.1}<td>{:.0}\
             <td>{:.0}<td>{:.2} %<td>{:.0}<td>{:.0}",
            p.nodes,
            p.modules,
            node.mean,
            node.p99,
            node.most,
            authority.nodes,
            authority.mean,
            authority.most,
            node_bytes.mean,
            authority_bytes.mean,
            p.first_ms[0],
            p.first_ms[1],
            p.calls_per_s,
            p.failed_percent,
            p.memory_mib,
            p.events_per_s
        )
        .expect("a string takes all");
    }
    let seconds = plan.time.as_secs();
    format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>The market at scale</title><style>{STYLE}</style>\
         <h1>The market at scale</h1><p>Simulated nodes, each with a real market, {seconds} s of virtual time after all \
         have found each other. Each node sells two modules and calls one about once per second. Seed {}.</p>\
         {}<table><tr><th>nodes<th>modules<th>messages/s: mean<th>p99<th>max<th>authorities<th>mean<th>max\
         <th>bytes/s: node<th>authority<th>first match p50, ms<th>max<th>calls/s<th>failed<th>MiB<th>events/s{rows}\
         </table></html>\n",
        plan.seed,
        figures.concat()
    )
}
