//! Bourse beside its peers, measured in one run: `cargo xtask bench`.
//!
//! In every round each row is measured for us and for its peer, one right after the other, and who goes first
//! changes from round to round: what a machine can do changes from minute to minute, so the ratio is what counts.
//! The floor (a bare echo) is in the table to show how much of a figure is the machine's own.
//!
//! Everything runs on loopback and free ports, in temporary folders; what was started is ended by its process id.
//! `docs/benchmarks.md` has the last table and says what the rows mean.

mod backlog;
mod client;
mod floor;
mod http;
mod load;
mod ours;
mod peers;
mod plot;
mod process;
mod report;
mod restate;
mod rows;
mod tools;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use ours::Ours;
use peers::Peers;
use report::Report;
use rows::{ECHO, ROWS, Row};
use tools::Tools;

const USAGE: &str = "\
cargo xtask bench [--only NAME]... [--seconds N] [--rounds N] [--json] [--list]
    --only NAME    only rows whose name contains this
    --seconds N    how long each figure is measured in each round (2)
    --rounds N     (3)
    --json         print JSON instead of the table; it is written to target/bench/results.json in any case
    --list         the rows
cargo xtask bench --only backlog [--calls N] [--keys] [--json]
    --calls N      so many calls wait, then are run (1,000,000, which takes some minutes)
    --keys         each has an idempotency key
";

/// What was asked for.
struct Options {
    only: Vec<String>,
    seconds: f64,
    rounds: usize,
    json: bool,
    calls: usize,
    keys: bool,
}

/// What is measured only where its name is given in full.
const BACKLOG: &str = "backlog";
const CALLS: usize = 1_000_000;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    // Parts that run as processes of their own.
    match args.first().map(String::as_str) {
        Some("floor") => return floor::serve(args.get(1).context("floor SOCKET")?.as_ref()),
        Some("restate") => return restate::serve(&args[1..]),
        _ => {}
    }
    let Some(options) = Options::parse(&args)? else { return Ok(()) };
    let rows: Vec<&'static Row> = ROWS.iter().filter(|r| options.wants(r.name)).collect();
    let backlog = options.only.iter().any(|name| name == BACKLOG);
    if rows.is_empty() && !backlog {
        bail!("there is no such row; --list shows them");
    }
    let target =
        PathBuf::from(std::env::var_os("BOURSE_BENCH_TARGET").context("run me as `cargo xtask bench`")?);
    let tools = Tools::set_up(&target, &rows)?;
    if !rows.is_empty() {
        measure(&options, rows, &tools)?;
    }
    if backlog {
        let backlog = backlog::measure(&tools, options.calls, options.keys)?;
        backlog.write(&tools)?;
        if options.json {
            println!("{:#}", backlog.json());
        } else {
            println!("{}\n{}", backlog.table(), tools.folder.join("backlog.svg").display());
        }
        if !backlog.is_whole() {
            bail!("not every call was run once");
        }
    }
    Ok(())
}

/// The table.
fn measure(options: &Options, rows: Vec<&'static Row>, tools: &Tools) -> Result<()> {
    let mut report = Report::default();
    let mut ours = Ours::new(tools, options.seconds);
    let mut peers = Peers::new(tools, options.seconds);
    let echo_measured = rows.iter().any(|row| row.name == ECHO);
    let mut samples: BTreeMap<(&str, bool), Vec<f64>> = BTreeMap::new();
    for round in 0..options.rounds {
        for row in &rows {
            eprint!("\rround {} of {}: {:<24}", round + 1, options.rounds, row.name);
            for is_ours in if round % 2 == 0 { [false, true] } else { [true, false] } {
                let figures = if is_ours { ours.measure(row.name) } else { peers.measure(row.name) };
                match figures {
                    Ok(figures) => samples.entry((row.name, is_ours)).or_default().extend(figures),
                    Err(error) => report.skip(row.name, &error),
                }
            }
            if row.needs_echo() && !echo_measured {
                match ours.measure(ECHO) {
                    Ok(figures) => samples.entry((ECHO, true)).or_default().extend(figures),
                    Err(error) => report.skip(row.name, &error),
                }
            }
        }
        ours.end_round();
        peers.end_round();
    }
    eprintln!("\r{:<48}", "");
    for row in rows {
        let taken = |is_ours| samples.get(&(row.name, is_ours)).cloned().unwrap_or_default();
        let echo = samples.get(&(ECHO, true)).map_or(&[][..], Vec::as_slice);
        report.add(row, &taken(true), &taken(false), echo);
    }
    let json = report.json(options.rounds, options.seconds);
    let file = tools.folder.join("results.json");
    std::fs::write(&file, format!("{json:#}\n")).with_context(|| file.display().to_string())?;
    if options.json {
        println!("{json:#}")
    } else {
        print!("{}", report.table())
    }
    Ok(())
}

impl Options {
    /// `None`: only help was asked for, and has been given.
    fn parse(args: &[String]) -> Result<Option<Self>> {
        let mut options =
            Self { only: Vec::new(), seconds: 2.0, rounds: 3, json: false, calls: CALLS, keys: false };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} needs a value\n\n{USAGE}"));
            match arg.as_str() {
                "--only" => options.only.push(value()?.clone()),
                "--seconds" => options.seconds = value()?.parse()?,
                "--rounds" => options.rounds = value()?.parse()?,
                "--calls" => options.calls = value()?.parse()?,
                "--keys" => options.keys = true,
                "--json" => options.json = true,
                "--list" => {
                    for row in ROWS {
                        println!("{:<20} {}", row.name, row.what);
                    }
                    println!(
                        "{BACKLOG:<20} many calls wait, then are run; only where it is asked for by name"
                    );
                    return Ok(None);
                }
                "--help" | "-h" => {
                    print!("{USAGE}");
                    return Ok(None);
                }
                other => bail!("there is no option {other}\n\n{USAGE}"),
            }
        }
        Ok(Some(options))
    }

    fn wants(&self, row: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| row.contains(name.as_str()))
    }
}
