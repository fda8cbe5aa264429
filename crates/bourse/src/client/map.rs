//! `bourse map`: one call for each item, several at a time, results in the order of the items.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::num::NonZeroUsize;

use bytes::Bytes;
use futures_util::future::try_join_all;
use http::Method;
use tokio::sync::mpsc;

use super::call::{self, Target};
use super::http::{Answer, Ask, Daemon, block_on};
use super::{Error, FAILED, OK, Reach, arguments, json};

/// Calls a function once for each item, and prints the results in the order of the items.
#[derive(clap::Args)]
#[command(after_help = "\
Items are a JSON array, or a JSON value per line (JSON Lines). An item that is
an object is all arguments by name, an array all arguments by position, anything
else the one argument.

Each result is a line of JSON on stdout. Failures are told on stderr and leave
no line; with --json every item has its line, {\"item\": 0, \"result\": …} or
{\"item\": 1, \"problem\": {…}}.

Exit status: 0 all calls succeeded, 1 some failed, otherwise as `bourse call`.

Examples:
  bourse map shop.price @items.json
  seq 100 | bourse map primes.is_prime - --parallel 8
  bourse map shop.price @items.jsonl --json | jq -c 'select(.problem)'")]
pub(crate) struct Map {
    #[command(flatten)]
    target: Target,
    /// @FILE with the items, or - for stdin
    items: String,
    /// Calls at the same time, at most
    #[arg(long, value_name = "N", default_value = "16", value_parser = lanes)]
    parallel: NonZeroUsize,
    /// A line for each item, failed or not
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

fn lanes(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "write a whole number from 1".to_owned())
}

/// An item may not overtake the first unfinished one by more than this: results wait in memory.
const AHEAD_MAX: usize = 10_000;

pub(crate) fn run(map: &Map) -> anyhow::Result<u8> {
    let path = map.target.path()?;
    let file = match map.items.strip_prefix('@') {
        Some(file) => file,
        None if map.items == "-" => "-",
        None => {
            let text = format!("{:?} names no items\n  hint: write @FILE, or - for stdin", map.items);
            return Err(Error::Usage(text).into());
        }
    };
    let daemon = Daemon::new(map.reach.find()?)?;
    let items = items(&arguments::read(file)?)?;
    let failed = block_on(all(&daemon, &path, items, map))??;
    if failed == 0 { Ok(OK) } else { Ok(FAILED) }
}

/// How many failed.
async fn all(daemon: &Daemon, path: &str, items: Vec<String>, map: &Map) -> anyhow::Result<usize> {
    let count = items.len();
    let queue = RefCell::new(items.into_iter().enumerate());
    let written = Cell::new(0);
    let moved = tokio::sync::Notify::new();
    let (done, mut results) = mpsc::unbounded_channel();
    let lanes: Vec<_> = (0..map.parallel.get().min(count))
        .map(|_| {
            let (queue, written, moved, done) = (&queue, &written, &moved, done.clone());
            async move {
                let mut connection = daemon.connect().await?;
                loop {
                    let Some((i, item)) = queue.borrow_mut().next() else { return Ok::<(), Error>(()) };
                    while i >= written.get() + AHEAD_MAX {
                        moved.notified().await;
                    }
                    let content_type = Some("application/json".to_owned());
                    let ask = Ask {
                        method: Method::POST,
                        path: path.to_owned(),
                        content_type,
                        body: Bytes::from(item),
                        ..Ask::default()
                    };
                    // Whoever takes the results outlives the lanes.
                    let _ = done.send((i, connection.ask(ask).await?));
                }
            }
        })
        .collect();
    drop(done);
    let lanes = try_join_all(lanes);
    let write = async {
        let mut waiting: BTreeMap<usize, Answer> = BTreeMap::new();
        let mut failed = 0;
        while let Some((i, answer)) = results.recv().await {
            waiting.insert(i, answer);
            while let Some(answer) = waiting.remove(&written.get()) {
                failed += usize::from(!line(written.get(), &answer, map.json)?);
                written.set(written.get() + 1);
                moved.notify_waiters();
            }
        }
        anyhow::Ok(failed)
    };
    let (lanes, failed) = tokio::join!(lanes, write);
    lanes?;
    failed
}

/// Tells of one item; whether it succeeded.
fn line(item: usize, answer: &Answer, whole: bool) -> anyhow::Result<bool> {
    let problem = json::problem(answer);
    let good = problem.is_none() && answer.status < 400;
    let mut out = io::stdout().lock();
    match problem {
        Some(_) if whole => {
            writeln!(out, r#"{{"item":{item},"problem":{}}}"#, String::from_utf8_lossy(&answer.body))?
        }
        Some(problem) => eprintln!("error: item {item}: {}", problem.text()),
        None if whole => {
            writeln!(
                out,
                r#"{{"item":{item},"status":{},"result":{}}}"#,
                answer.status,
                call::result(answer)
            )?;
        }
        None if good => writeln!(out, "{}", call::result(answer))?,
        None => eprintln!("error: item {item}: the function answered with status {}", answer.status),
    }
    Ok(good)
}

/// The arguments of each call, as JSON.
fn items(bytes: &Bytes) -> Result<Vec<String>, Error> {
    let bad = |e: String| {
        Error::Usage(format!("the items are neither a JSON array nor a JSON value per line: {e}"))
    };
    let text = std::str::from_utf8(bytes).map_err(|e| bad(e.to_string()))?;
    let array = serde_json::from_str::<Vec<Box<serde_json::value::RawValue>>>(text);
    let lines = text.lines().filter(|l| !l.trim().is_empty()).count();
    let values: Vec<String> = match array {
        // One line that is an array is the array of items.
        Ok(values) => values.into_iter().map(|v| v.get().to_owned()).collect(),
        Err(e) if lines == 1 && text.trim_start().starts_with('[') => return Err(bad(e.to_string())),
        Err(_) => text
            .lines()
            .filter(|l| !l.trim().is_empty())
            .map(|l| {
                serde_json::from_str::<serde::de::IgnoredAny>(l)
                    .map(|_| l.trim().to_owned())
                    .map_err(|e| bad(e.to_string()))
            })
            .collect::<Result<_, _>>()?,
    };
    Ok(values.into_iter().map(|v| if v.starts_with(['{', '[']) { v } else { format!("[{v}]") }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_an_array_or_lines() {
        let read = |text: &'static str| items(&Bytes::from_static(text.as_bytes())).map_err(|_| ());
        assert_eq!(read("[1, {\"a\": 2}, [3]]"), Ok(vec!["[1]".into(), "{\"a\": 2}".into(), "[3]".into()]));
        assert_eq!(read("1\n\n\"x\"\n[2]\n"), Ok(vec!["[1]".into(), "[\"x\"]".into(), "[2]".into()]));
        assert_eq!(read(""), Ok(vec![]));
        for bad in ["[1, 2", "1\nx"] {
            assert_eq!(read(bad), Err(()), "{bad}");
        }
    }
}
