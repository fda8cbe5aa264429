//! `bourse top`: what a daemon and its grid are doing, again and again.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};

use super::http::{Ask, Daemon, block_on};
use super::table::{DIM, GOOD, HEAD, ODD, Table};
use super::{Error, OK, Reach};

/// Watches what a daemon and its grid are doing: calls, instances, other nodes, what is bought and sold.
#[derive(clap::Args)]
#[command(after_help = "\
Ctrl-C ends it. Where the output is no terminal it is printed once.

Examples:
  bourse top
  bourse top --every 5s
  bourse top --json --times 3 | jq '.modules[] | {name, calls_per_second}'")]
pub(crate) struct Top {
    /// How often it looks
    #[arg(long, value_name = "TIME", default_value = "1s")]
    every: String,
    /// Look so many times, then end
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u32).range(1..))]
    times: Option<u32>,
    /// Write a line of JSON each time
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Uses the other screen of a terminal, and hides the cursor, until it is dropped.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Self> {
        write!(io::stdout(), "\x1b[?1049h\x1b[?25l")?;
        Ok(Self)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The terminal may be gone.
        let _ = write!(io::stdout(), "\x1b[?25h\x1b[?1049l");
        let _ = io::stdout().flush();
    }
}

/// What was counted of a function so far.
#[derive(Clone, Copy, Default)]
struct Counts {
    done: f64,
    failed: f64,
}

/// One look.
struct Seen {
    at: Instant,
    counts: BTreeMap<String, Counts>,
    json: Value,
}

pub(crate) fn run(top: &Top) -> anyhow::Result<u8> {
    let every = bourse_wire::time::parse_duration(&top.every)
        .filter(|every| *every >= Duration::from_millis(100))
        .ok_or_else(|| {
            Error::Usage(format!("--every {} is no time of at least 100ms, such as 1s", top.every))
        })?;
    let daemon = Daemon::new(top.reach.find()?)?;
    let is_live = io::stdout().is_terminal() && !top.json;
    let times = top.times.unwrap_or(if is_live || top.json { u32::MAX } else { 1 });
    block_on(async {
        let mut interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        let mut before = look(&daemon).await?;
        let screen = is_live.then(Screen::enter).transpose()?;
        for _ in 0..times {
            // Rates need two looks.
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                _ = interrupt.recv() => break,
            }
            let mut seen = look(&daemon).await?;
            rates(&mut seen, &before);
            if top.json {
                writeln!(io::stdout(), "{}", seen.json)?;
            } else {
                show(&daemon.url, &seen.json, is_live)?;
            }
            before = seen;
        }
        drop(screen);
        anyhow::Ok(OK)
    })?
}

async fn look(daemon: &Daemon) -> Result<Seen, Error> {
    let mut all = serde_json::Map::new();
    for what in ["status", "modules", "queues", "nodes", "market", "store"] {
        // One that is kept elsewhere may not be reached.
        let found = daemon.json(&format!("/v1/{what}")).await;
        if matches!(what, "status" | "modules") || found.is_ok() {
            all.insert(what.to_owned(), found?);
        }
    }
    let metrics = Ask { method: Method::GET, path: "/metrics".to_owned(), ..Ask::default() };
    let metrics = daemon.ask(metrics).await?;
    let counts = counts(&String::from_utf8_lossy(&metrics.body));
    Ok(Seen { at: Instant::now(), counts, json: Value::Object(all) })
}

/// How many calls of each module were answered, of `bourse_calls_total{function="m.f",code="ok"} 7`.
fn counts(metrics: &str) -> BTreeMap<String, Counts> {
    let mut counts: BTreeMap<String, Counts> = BTreeMap::new();
    for line in metrics.lines().filter_map(|line| line.strip_prefix("bourse_calls_total{")) {
        let Some((labels, count)) = line.rsplit_once("} ") else { continue };
        let label = |name: &str| {
            let at = labels.find(&format!("{name}=\""))? + name.len() + 2;
            labels[at..].split('"').next()
        };
        let (Some(function), Some(code), Ok(count)) =
            (label("function"), label("code"), count.parse::<f64>())
        else {
            continue;
        };
        let module = function.rsplit_once('.').map_or(function, |(module, _)| module);
        let of = counts.entry(module.to_owned()).or_default();
        *(if code == "ok" { &mut of.done } else { &mut of.failed }) += count;
    }
    counts
}

/// Adds to each module how many of its calls were answered in a second.
fn rates(seen: &mut Seen, before: &Seen) {
    let seconds = seen.at.duration_since(before.at).as_secs_f64().max(0.001);
    for module in seen.json["modules"].as_array_mut().into_iter().flatten() {
        let name = module["name"].as_str().unwrap_or_default().to_owned();
        let of = |seen: &BTreeMap<String, Counts>| seen.get(&name).copied().unwrap_or_default();
        let (now, then) = (of(&seen.counts), of(&before.counts));
        let rate = |now: f64, then: f64| json!((now - then).max(0.0) / seconds);
        module["calls_per_second"] = rate(now.done + now.failed, then.done + then.failed);
        module["failures_per_second"] = rate(now.failed, then.failed);
    }
}

fn show(url: &str, seen: &Value, is_live: bool) -> io::Result<()> {
    let mut page = Vec::new();
    draw(&mut page, url, seen)?;
    let mut out = anstream::stdout().lock();
    if is_live {
        // Over what was there, so that nothing flickers; then nothing below it.
        let page = String::from_utf8_lossy(&page).replace('\n', "\x1b[K\n");
        write!(out, "\x1b[H{page}\x1b[J")?;
    } else {
        out.write_all(&page)?;
    }
    out.flush()
}

fn draw(out: &mut Vec<u8>, url: &str, seen: &Value) -> io::Result<()> {
    let (status, market) = (&seen["status"], &seen["market"]);
    let number = |value: &Value| value.as_f64().unwrap_or(0.0);
    let whole = |value: &Value| value.as_u64().unwrap_or(0);
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let short = |value: &Value| text(value).chars().take(8).collect::<String>();
    let (running, most) = (number(&status["running"]), number(&status["running_max"]));
    let sold: u64 = items(&market["sold"]).iter().map(|channel| whole(&channel["running"])).sum();
    let bought: u64 = items(&market["bought"]).iter().map(|channel| whole(&channel["running"])).sum();
    writeln!(out, "{HEAD}{}{HEAD:#} at {url}", text(&status["folder"]))?;
    writeln!(
        out,
        "slots {} {running}/{most}   calls {} in flight, {} waiting   {sold} run here for others, {bought} elsewhere for this node\n",
        bar(running, most),
        status["calls"],
        status["waiting"]
    )?;
    let mut table = Table::new(["MODULE", "VERSION", "INSTANCES", "WAITING", "CALLS/S", "FAILED/S", "WHERE"]);
    for module in items(&seen["modules"]) {
        let failed = number(&module["failures_per_second"]);
        let style = if failed > 0.0 || !module["failure"].is_null() { ODD } else { GOOD };
        let place = if module["elsewhere"] == true { "on other nodes" } else { "here" };
        table.row_in(
            style,
            [
                text(&module["name"]),
                text(&module["version"]),
                module["instances"].to_string(),
                module["waiting"].to_string(),
                format!("{:.1}", number(&module["calls_per_second"])),
                format!("{failed:.1}"),
                place.to_owned(),
            ],
        );
    }
    table.write(out)?;
    let queues = items(&seen["queues"]);
    if !queues.is_empty() {
        writeln!(out)?;
        let mut table = Table::new(["DURABLE", "READY", "RETRYING", "RUNNING", "MORE"]);
        for lane in queues {
            let count = |name: &str| lane[name].to_string();
            let more = if lane["more"] == true { "yes" } else { "" };
            table.row([
                text(&lane["module"]),
                count("ready"),
                count("retrying"),
                count("running"),
                more.to_owned(),
            ]);
        }
        table.write(out)?;
    }
    let nodes = items(&seen["nodes"]);
    if !nodes.is_empty() {
        writeln!(out)?;
        let mut table = Table::new(["NODE", "ADDRESS", "SOLD TO IT", "BOUGHT FROM IT", "LAST HEARD"]);
        for node in nodes {
            let with = |side: &str| -> u64 {
                let channels = items(&market[side]);
                channels.iter().filter(|c| c["node"] == node["key"]).map(|c| whole(&c["running"])).sum()
            };
            let (style, heard) = match (node["this"] == true, node["heard_ms_ago"].as_f64()) {
                (true, _) => (GOOD, "this one".to_owned()),
                (false, Some(ms)) => (GOOD, format!("{:.1} s ago", ms / 1e3)),
                (false, None) => (DIM, "not connected".to_owned()),
            };
            let (sold, bought) = (with("sold").to_string(), with("bought").to_string());
            table.row_in(style, [short(&node["key"]), text(&node["address"]), sold, bought, heard]);
        }
        table.write(out)?;
    }
    Ok(())
}

/// Twenty signs that show a part of a whole.
fn bar(part: f64, whole: f64) -> String {
    const SIGNS: usize = 20;
    let share = if whole > 0.0 { (part / whole).clamp(0.0, 1.0) } else { 0.0 };
    // From 0 to 20, so that nothing is cut off.
    let full = (share * SIGNS as f64).round() as usize;
    format!("[{}{}]", "#".repeat(full), ".".repeat(SIGNS - full))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_module() {
        let counts = counts(
            "# TYPE bourse_calls_total counter\nbourse_calls_total{function=\"m.f\",code=\"ok\"} 7\n\
             bourse_calls_total{code=\"timeout\",function=\"m.g\"} 2\nbourse_calls_total{nonsense\nother 3\n",
        );
        assert_eq!(counts.len(), 1);
        assert_eq!((counts["m"].done, counts["m"].failed), (7.0, 2.0));
    }

    #[test]
    fn bars_are_as_full_as_they_say() {
        assert_eq!(
            (bar(0.0, 4.0), bar(2.0, 4.0)),
            (format!("[{}]", ".".repeat(20)), format!("[{}{}]", "#".repeat(10), ".".repeat(10)))
        );
        assert_eq!(bar(9.0, 4.0), bar(4.0, 4.0));
        assert_eq!(bar(0.0, 0.0), bar(0.0, 1.0));
    }
}
