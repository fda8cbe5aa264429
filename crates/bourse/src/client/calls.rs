//! `bourse calls`, `bourse dead` and `bourse queue`: what became of durable calls, and what can be done about them.

use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::http::{Ask, Daemon, block_on, encoded};
use super::table::{BAD, DIM, GOOD, ODD, Table};
use super::{Error, FAILED, OK, Reach, json};

/// Shows durable calls: those that wait, run, or have ended in the last day.
#[derive(clap::Args)]
#[command(after_help = "\
Durable are calls that were made with --async, `f.start(…)` or an idempotency
key, and those of functions with `retry`. Other calls leave no record.

Examples:
  bourse calls
  bourse calls --status retrying --function shop
  bourse calls 019ab1c2-7d3e-7000-8000-1234567890ab --wait 10s
  bourse calls 019ab1c2-7d3e-7000-8000-1234567890ab --cancel
  bourse calls --watch
  bourse calls --status done --json | jq -r '.calls[].id'")]
pub(crate) struct Calls {
    /// One call, with its result or error
    #[arg(value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    filter: Filter,
    /// Only those of this status: waiting, running, retrying, done, dead, cancelled
    #[arg(long, conflicts_with = "id")]
    status: Option<String>,
    /// Wait for the call's end, at most so long
    #[arg(long, value_name = "TIME", requires = "id", num_args = 0..=1, default_missing_value = "60s")]
    wait: Option<String>,
    /// Cancel the call
    #[arg(long, requires = "id", conflicts_with = "wait")]
    cancel: bool,
    /// Show the list anew every second, until Ctrl-C
    #[arg(long, conflicts_with_all = ["id", "json"])]
    watch: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Which calls to list.
#[derive(clap::Args)]
struct Filter {
    /// Only those of this function or module
    #[arg(long, value_name = "NAME")]
    function: Option<String>,
    /// At most so many, newest first
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Only those made before this one: continues a list
    #[arg(long, value_name = "ID")]
    before: Option<String>,
}

/// Shows dead letters, and tries them again or forgets them.
#[derive(clap::Args)]
#[command(after_help = "\
A durable call whose attempts have all failed, or need not be repeated, is a
dead letter. It is kept until it is replayed or purged.

Examples:
  bourse dead
  bourse dead show 019ab1c2-7d3e-7000-8000-1234567890ab
  bourse dead replay 019ab1c2-7d3e-7000-8000-1234567890ab
  bourse dead replay --all --function shop.pay
  bourse dead purge --all")]
pub(crate) struct Dead {
    #[command(subcommand)]
    command: Option<DeadCommand>,
    #[command(flatten)]
    filter: Filter,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

#[derive(clap::Subcommand)]
enum DeadCommand {
    /// List them (the default)
    List(DeadList),
    /// Show one, with its last error
    Show(One),
    /// Try them again, from the first attempt
    Replay(Some_),
    /// Forget them
    Purge(Some_),
}

#[derive(clap::Args)]
struct DeadList {
    #[command(flatten)]
    filter: Filter,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

#[derive(clap::Args)]
struct One {
    /// The call
    #[arg(value_name = "ID")]
    id: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// One or several dead letters.
#[derive(clap::Args)]
#[group(skip)]
struct Some_ {
    /// The calls
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,
    /// All there are
    #[arg(long)]
    all: bool,
    /// With --all: only those of this function or module
    #[arg(long, value_name = "NAME", requires = "all")]
    function: Option<String>,
    /// Print a line of JSON for each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Shows how many durable calls wait, by module.
#[derive(clap::Args)]
#[command(after_help = "\
READY counts the calls in memory that can run now; MORE says that the store
holds others. RETRYING ones wait for their next attempt.

Examples:
  bourse queue
  bourse queue shop
  bourse queue --json")]
pub(crate) struct Queue {
    /// Only this module's
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Rows that are asked for at once, where all are wanted.
const ROWS_AT_ONCE: usize = 1_000;
/// Between two looks of `--watch`.
const WATCH: Duration = Duration::from_secs(1);

pub(crate) fn calls(calls: &Calls) -> anyhow::Result<u8> {
    let daemon = Daemon::new(calls.reach.find()?)?;
    let Some(id) = &calls.id else {
        let path = calls.filter.path("/v1/calls", calls.status.as_deref());
        if calls.watch {
            return watch(&daemon, &path);
        }
        return list(&daemon, &path, calls.json, "no durable calls");
    };
    let (method, query) = match (&calls.wait, calls.cancel) {
        (_, true) => (Method::DELETE, String::new()),
        (Some(time), _) => (Method::GET, format!("?poll={}", encoded(time))),
        (None, _) => (Method::GET, String::new()),
    };
    let call = block_on(ask(&daemon, method, &format!("/v1/calls/{}{query}", encoded(id))))??;
    show(&call, calls.json)?;
    let ended_badly = matches!(call["status"].as_str(), Some("dead" | "cancelled")) && !calls.cancel;
    Ok(if ended_badly { FAILED } else { OK })
}

pub(crate) fn dead(dead: &Dead) -> anyhow::Result<u8> {
    const NONE: &str = "no dead letters";
    match &dead.command {
        None => {
            let daemon = Daemon::new(dead.reach.find()?)?;
            list(&daemon, &dead.filter.path("/v1/dead", None), dead.json, NONE)
        }
        Some(DeadCommand::List(given)) => {
            let daemon = Daemon::new(given.reach.find()?)?;
            list(&daemon, &given.filter.path("/v1/dead", None), given.json, NONE)
        }
        Some(DeadCommand::Show(one)) => {
            let daemon = Daemon::new(one.reach.find()?)?;
            let call = block_on(ask(&daemon, Method::GET, &format!("/v1/dead/{}", encoded(&one.id))))??;
            show(&call, one.json)?;
            Ok(OK)
        }
        Some(DeadCommand::Replay(some)) => each(some, Method::POST, "/replay", "replayed"),
        Some(DeadCommand::Purge(some)) => each(some, Method::DELETE, "", "purged"),
    }
}

pub(crate) fn queue(queue: &Queue) -> anyhow::Result<u8> {
    let daemon = Daemon::new(queue.reach.find()?)?;
    let mut lanes = block_on(daemon.json("/v1/queues"))??;
    if let (Some(name), Some(all)) = (&queue.name, lanes.as_array_mut()) {
        all.retain(|lane| lane["module"] == name.as_str());
    }
    let mut out = anstream::stdout().lock();
    if queue.json {
        writeln!(out, "{lanes:#}")?;
        return Ok(OK);
    }
    let mut table = Table::new(["MODULE", "READY", "RETRYING", "RUNNING", "MORE"]);
    for lane in items(&lanes) {
        let more = if lane["more"] == true { "yes" } else { "no" };
        let count = |name: &str| lane[name].to_string();
        table.row([
            text(&lane["module"]),
            count("ready"),
            count("retrying"),
            count("running"),
            more.to_owned(),
        ]);
    }
    if items(&lanes).is_empty() {
        writeln!(out, "{DIM}no durable calls wait{DIM:#}")?;
    } else {
        table.write(&mut out)?;
    }
    Ok(OK)
}

impl Filter {
    fn path(&self, path: &str, status: Option<&str>) -> String {
        let limit = self.limit.to_string();
        let terms = [
            ("limit", Some(limit.as_str())),
            ("function", self.function.as_deref()),
            ("before", self.before.as_deref()),
            ("status", status),
        ];
        let terms: Vec<String> = terms
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", encoded(value?))))
            .collect();
        format!("{path}?{}", terms.join("&"))
    }
}

fn list(daemon: &Daemon, path: &str, as_json: bool, none: &str) -> anyhow::Result<u8> {
    let found = block_on(daemon.json(path))??;
    let mut out = anstream::stdout().lock();
    if as_json {
        writeln!(out, "{found:#}")?;
        return Ok(OK);
    }
    if items(&found["calls"]).is_empty() {
        writeln!(out, "{DIM}{none}{DIM:#}")?;
        return Ok(OK);
    }
    table(&found).write(&mut out)?;
    if let Some(next) = found["next"].as_str() {
        writeln!(out, "{DIM}there are more: --before {next}{DIM:#}")?;
    }
    if let Some(why) = found["incomplete"].as_str() {
        anstream::eprintln!("{BAD}the list is not complete:{BAD:#} {why}");
        return Ok(FAILED);
    }
    Ok(OK)
}

fn table(found: &Value) -> Table<6> {
    let mut table = Table::new(["ID", "FUNCTION", "ACCEPTED", "ATTEMPTS", "ERROR", "STATUS"]);
    for call in items(&found["calls"]) {
        let status = text(&call["status"]);
        let style = match status.as_str() {
            "done" => GOOD,
            "dead" => BAD,
            "retrying" | "cancelled" => ODD,
            _ => DIM,
        };
        let error = match &call["error"] {
            Value::Null => "-".to_owned(),
            error => cut(&format!(
                "{}: {}",
                error["type"].as_str().unwrap_or_else(|| error["code"].as_str().unwrap_or("?")),
                text(&error["message"])
            )),
        };
        table.row_in(
            style,
            [
                text(&call["id"]),
                text(&call["function"]),
                text(&call["accepted_at"]),
                call["attempts"].to_string(),
                error,
                status,
            ],
        );
    }
    table
}

/// One call, as lines of `name  value`.
fn show(call: &Value, as_json: bool) -> anyhow::Result<()> {
    let mut out = anstream::stdout().lock();
    if as_json {
        writeln!(out, "{call:#}")?;
        return Ok(());
    }
    let Some(fields) = call.as_object() else { return Ok(()) };
    for (name, value) in fields.iter().filter(|(name, _)| !matches!(name.as_str(), "error" | "result")) {
        writeln!(out, "{DIM}{:<12}{DIM:#}  {}", name.replace('_', " "), text(value))?;
    }
    if let Some(error) = call.get("error") {
        let kind = error["type"].as_str().or(error["code"].as_str()).unwrap_or("error");
        writeln!(out, "{BAD}{kind}{BAD:#}: {}", text(&error["message"]))?;
        for line in error["traceback"].as_str().unwrap_or_default().trim_end().lines() {
            writeln!(out, "  | {line}")?;
        }
        if let Some(hint) = error["hint"].as_str() {
            writeln!(out, "  hint: {hint}")?;
        }
    }
    if let Some(result) = call.get("result") {
        writeln!(out, "{}", json::pretty(&result.to_string()))?;
    }
    Ok(())
}

/// Does something to each dead letter; goes on when one fails.
fn each(some: &Some_, method: Method, verb: &str, done: &str) -> anyhow::Result<u8> {
    let daemon = Daemon::new(some.reach.find()?)?;
    block_on(async {
        let ids = if some.all { all(&daemon, some.function.as_deref()).await? } else { some.ids.clone() };
        let (mut count, mut failed) = (0, 0);
        for id in &ids {
            match ask(&daemon, method.clone(), &format!("/v1/dead/{}{verb}", encoded(id))).await {
                Ok(call) => {
                    count += 1;
                    if some.json {
                        writeln!(io::stdout(), "{call}")?;
                    }
                }
                Err(error) => {
                    failed += 1;
                    anstream::eprintln!("{BAD}error:{BAD:#} {id}: {error}");
                }
            }
        }
        if !some.json {
            writeln!(anstream::stdout(), "{done}: {count}")?;
        }
        anyhow::Ok(if failed > 0 { FAILED } else { OK })
    })?
}

async fn all(daemon: &Daemon, function: Option<&str>) -> Result<Vec<String>, Error> {
    let mut ids: Vec<String> = Vec::new();
    loop {
        let filter = Filter {
            function: function.map(str::to_owned),
            limit: ROWS_AT_ONCE,
            before: ids.last().cloned(),
        };
        let found = daemon.json(&filter.path("/v1/dead", None)).await?;
        ids.extend(items(&found["calls"]).iter().map(|call| text(&call["id"])));
        if found["next"].is_null() {
            return Ok(ids);
        }
    }
}

/// The list anew every second, on a terminal in place of the one before.
fn watch(daemon: &Daemon, path: &str) -> anyhow::Result<u8> {
    let terminal = io::stdout().is_terminal();
    block_on(async {
        loop {
            let found = daemon.json(path).await?;
            let mut out = anstream::stdout().lock();
            if terminal {
                write!(out, "\x1b[H\x1b[2J")?;
            }
            table(&found).write(&mut out)?;
            out.flush()?;
            drop(out);
            tokio::time::sleep(WATCH).await;
        }
    })?
}

async fn ask(daemon: &Daemon, method: Method, path: &str) -> Result<Value, Error> {
    let ask = Ask { method, path: path.to_owned(), body: Bytes::new(), ..Ask::default() };
    let answer = daemon.ask(ask).await?;
    if let Some(problem) = json::problem(&answer) {
        return Err(Error::Refused(problem.text()));
    }
    let reason = || "it answers with something else than JSON".to_owned();
    serde_json::from_slice(&answer.body)
        .map_err(|_| Error::NotADaemon { url: daemon.url.clone(), reason: reason() })
}

/// The longest error in a list, in characters.
const ERROR_CHARS_MAX: usize = 60;

fn cut(text: &str) -> String {
    let short: String = text.chars().take(ERROR_CHARS_MAX).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
