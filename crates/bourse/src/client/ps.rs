//! `bourse ps`: what a daemon serves and runs.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::http::{Daemon, block_on};
use super::table::{BAD, DIM, GOOD, ODD, Table};
use super::{OK, Reach};
use crate::daemon::NO_FUNCTIONS;

/// Shows the modules and instances of a daemon.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  bourse ps
  bourse ps --functions
  bourse ps -C ~/shop
  bourse ps --json | jq '.modules[] | {name, instances, waiting}'")]
pub(crate) struct Ps {
    /// Show the functions, with their parameters and routes
    #[arg(long)]
    functions: bool,
    /// Print everything as JSON: {status, modules, instances}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

pub(crate) fn run(ps: &Ps) -> anyhow::Result<u8> {
    let daemon = Daemon::new(ps.reach.find()?)?;
    let (status, modules, instances) = block_on(async {
        let (status, modules) = (daemon.json("/v1/status").await?, daemon.json("/v1/modules").await?);
        anyhow::Ok((status, modules, daemon.json("/v1/instances").await?))
    })??;
    if ps.json {
        writeln!(
            io::stdout(),
            "{:#}",
            json!({"status": status, "modules": modules, "instances": instances})
        )?;
        return Ok(OK);
    }
    let mut out = anstream::stdout().lock();
    head(&mut out, &daemon.url, &status)?;
    if ps.functions {
        functions(&mut out, &modules)?
    } else {
        tables(&mut out, &modules, &instances)?
    }
    Ok(OK)
}

fn head(out: &mut impl Write, url: &str, status: &Value) -> io::Result<()> {
    let text = |name: &str| status[name].as_str().unwrap_or("?").to_owned();
    let draining = if status["draining"] == true { ", stopping" } else { "" };
    writeln!(
        out,
        "{} at {url}, bourse {}, process {}{draining}",
        text("folder"),
        text("version"),
        status["pid"]
    )?;
    writeln!(
        out,
        "{DIM}{} of {} slots taken, {} calls in flight, {} of them waiting{DIM:#}\n",
        status["running"], status["running_max"], status["calls"], status["waiting"]
    )
}

fn tables(out: &mut impl Write, modules: &Value, instances: &Value) -> io::Result<()> {
    let mut table = Table::new([
        "MODULE",
        "VERSION",
        "REVISION",
        "FUNCTIONS",
        "INSTANCES",
        "BLOCKED",
        "WAITING",
        "STATE",
    ]);
    for m in items(modules) {
        let (style, state) = match (&m["failure"], m["revision"].is_string()) {
            (_, true) if m["attached"] == true => (GOOD, "attached".to_owned()),
            (_, true) if m["elsewhere"] == true => (DIM, "on other nodes".to_owned()),
            (_, _) if m["loading"] == true => (ODD, "loading".to_owned()),
            (Value::Null, true) => (GOOD, "serving".to_owned()),
            (Value::Null, false) => (ODD, "not loaded".to_owned()),
            (failure, true) => (ODD, format!("serving; the newest revision fails: {}", first_line(failure))),
            (failure, false) if is_helper(failure) => (DIM, "helper".to_owned()),
            (failure, false) => (BAD, format!("failed: {}", first_line(failure))),
        };
        let functions = items(&m["functions"]).len().to_string();
        let revision = if m["elsewhere"] == true { "-".to_owned() } else { short(&m["revision"]) };
        let count = |name: &str| cell(&m[name]);
        table.row_in(
            style,
            [
                cell(&m["name"]),
                cell(&m["version"]),
                revision,
                functions,
                count("instances"),
                count("blocked"),
                count("waiting"),
                state,
            ],
        );
    }
    table.write(out)?;
    if items(instances).is_empty() {
        return writeln!(out, "\n{DIM}no instances: they start with the first call{DIM:#}");
    }
    let mut table = Table::new(["INSTANCE", "PID", "MODULE", "REVISION", "PHASE", "AGE", "AHEAD", "RUNNING"]);
    for i in items(instances) {
        let running = match &i["running"] {
            Value::Null => "-".to_owned(),
            r => format!("{} for {}", cell(&r["function"]), seconds(&r["seconds"])),
        };
        let phase = if i["blocked"] == true { "blocked".to_owned() } else { cell(&i["phase"]) };
        let pid = if i["pid"] == 0 { "-".to_owned() } else { cell(&i["pid"]) };
        table.row([
            cell(&i["instance"]),
            pid,
            cell(&i["module"]),
            short(&i["revision"]),
            phase,
            seconds(&i["age_seconds"]),
            cell(&i["ahead"]),
            running,
        ]);
    }
    writeln!(out)?;
    table.write(out)
}

fn functions(out: &mut impl Write, modules: &Value) -> io::Result<()> {
    let mut table = Table::new(["FUNCTION", "ROUTES", "ABOUT"]);
    for m in items(modules) {
        for f in items(&m["functions"]) {
            let parameters: Vec<String> = items(&f["parameters"]).iter().map(parameter).collect();
            let returns = f["returns"]
                .as_str()
                .filter(|r| !r.is_empty())
                .map(|r| format!(" -> {r}"))
                .unwrap_or_default();
            let name =
                format!("{}.{}({}){returns}", cell(&m["name"]), cell(&f["name"]), parameters.join(", "));
            let routes: Vec<&str> = items(&f["http"]).iter().filter_map(Value::as_str).collect();
            let about = f["doc"].as_str().and_then(|d| d.trim().lines().next()).unwrap_or_default();
            let routes = if routes.is_empty() { "-".to_owned() } else { routes.join(", ") };
            table.row([name, routes, about.to_owned()]);
        }
        if m["failure"].is_object() && !is_helper(&m["failure"]) {
            let name = cell(&m["name"]);
            writeln!(out, "{BAD}{name} fails:{BAD:#} {}", cell(&m["failure"]["message"]))?;
        }
    }
    table.write(out)
}

fn parameter(p: &Value) -> String {
    let kind = p["type"].as_str().filter(|t| !t.is_empty()).map(|t| format!(": {t}")).unwrap_or_default();
    let optional = if p["required"] == true { "" } else { "?" };
    format!("{}{optional}{kind}", cell(&p["name"]))
}

/// A file without functions is no mistake: others import it.
fn is_helper(failure: &Value) -> bool {
    failure["message"] == NO_FUNCTIONS
}

/// Of why a module is not served.
fn first_line(failure: &Value) -> String {
    cell(&failure["message"]).lines().next().unwrap_or_default().to_owned()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A revision as people compare it.
fn short(value: &Value) -> String {
    cell(value).chars().take(12).collect()
}

fn seconds(value: &Value) -> String {
    let all = value.as_f64().unwrap_or(0.0);
    let whole = all as u64;
    match whole {
        0..60 => format!("{all:.1}s"),
        60..3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h{:02}m", whole / 3600, whole / 60 % 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole / 3600 % 24),
    }
}
