//! `bourse logs`: the daemon's log and what modules wrote to stdout and stderr, from the files in the data folder.
//! No daemon is asked, so that the last words of one that died can be read.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anstyle::Style;
use serde_json::{Map, Value, json};

use super::table::{BAD, DIM, GOOD, ODD};
use super::{Error, OK, Place};

mod tail;

use tail::Tail;

/// Shows what the daemon and its functions said.
#[derive(clap::Args)]
#[command(after_help = "\
The daemon's lines have a time and a level; among them is what functions log.
What modules write to stdout and stderr has no time: it comes first, module by
module, and with -f as it arrives.

Examples:
  bourse logs
  bourse logs shop -f
  bourse logs -n 1000 --json | jq -c 'select(.level == \"ERROR\")'")]
pub(crate) struct Logs {
    /// Only what is about this module
    module: Option<String>,
    /// Wait for more, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Lines of each file, from its end
    #[arg(short = 'n', long = "lines", value_name = "N", default_value = "100")]
    lines: usize,
    /// A line of JSON for each: the daemon's as they are, modules' as {module, output}
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// How often files are looked at for more.
const LOOK: Duration = Duration::from_millis(200);

/// The file with the daemon's own lines; its name without the ending.
const DAEMON: &str = "bourse-daemon";

pub(crate) fn run(logs: &Logs) -> anyhow::Result<u8> {
    let folder = logs.place.data()?.join("logs");
    let mut out = anstream::stdout().lock();
    let mut tails: BTreeMap<String, Tail> = BTreeMap::new();
    let mut shown = 0;
    for (name, path) in files(&folder, logs.module.as_deref())? {
        let mut tail = Tail::new(path);
        let mut lines = tail.read()?;
        if name == DAEMON {
            lines.retain(|line| logs.wants(line));
        }
        let first = lines.len().saturating_sub(logs.lines);
        for line in &lines[first..] {
            logs.show(&mut out, &name, line)?;
        }
        shown += lines.len() - first;
        tails.insert(name, tail);
    }
    out.flush()?;
    if logs.follow {
        logs.go_on(&mut out, &folder, tails)?;
    }
    match &logs.module {
        Some(module) if shown == 0 && logs.lines > 0 => Err(nothing(&folder, module)?.into()),
        _ => Ok(OK),
    }
}

/// Why there is not a line about a module.
fn nothing(folder: &Path, module: &str) -> Result<Error, Error> {
    let known: Vec<String> =
        files(folder, None)?.into_iter().map(|(name, _)| name).filter(|name| name != DAEMON).collect();
    let known = if known.is_empty() {
        "no module has written anything yet".to_owned()
    } else {
        format!("there is output of {}", known.join(", "))
    };
    Ok(Error::Refused(format!(
        "the logs hold nothing about {module}\n  hint: {known}; `bourse ps` lists the modules"
    )))
}

/// The files that matter, the daemon's last.
fn files(folder: &Path, module: Option<&str>) -> Result<Vec<(String, PathBuf)>, Error> {
    let failed = |e: io::Error| Error::Refused(format!("{} cannot be read: {e}", folder.display()));
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "log")
            && let Some(name) = path.file_stem().and_then(|n| n.to_str()).map(str::to_owned)
            && (name == DAEMON || module.is_none_or(|m| m == name))
        {
            files.push((name, path));
        }
    }
    files.sort_by_key(|(name, _)| (name == DAEMON, name.clone()));
    Ok(files)
}

impl Logs {
    /// Shows what comes, for ever.
    fn go_on(
        &self,
        out: &mut impl Write,
        folder: &Path,
        mut tails: BTreeMap<String, Tail>,
    ) -> anyhow::Result<()> {
        loop {
            thread::sleep(LOOK);
            // A module that writes for the first time has a file now.
            for (name, path) in files(folder, self.module.as_deref())? {
                tails.entry(name).or_insert_with(|| Tail::new(path));
            }
            // Modules first: what they wrote led to what the daemon says of it.
            let (daemon, modules): (Vec<_>, Vec<_>) = tails.iter_mut().partition(|(name, _)| *name == DAEMON);
            for (name, tail) in modules.into_iter().chain(daemon) {
                for line in tail.read()? {
                    if name != DAEMON || self.wants(&line) {
                        self.show(out, name, &line)?;
                    }
                }
            }
            out.flush()?;
        }
    }

    /// Whether a line of the daemon is about the module that is asked for.
    fn wants(&self, line: &str) -> bool {
        let Some(module) = &self.module else { return true };
        let Ok(Value::Object(line)) = serde_json::from_str(line) else { return false };
        let text = |name: &str| line.get(name).and_then(Value::as_str).unwrap_or_default();
        let starts = |text: &str, end: char| {
            text.strip_prefix(module.as_str()).is_some_and(|rest| rest.starts_with(end))
        };
        text("module") == module || starts(text("function"), '.') || starts(text("message").trim_start(), ':')
    }

    fn show(&self, out: &mut impl Write, name: &str, line: &str) -> io::Result<()> {
        match (name, serde_json::from_str::<Map<String, Value>>(line)) {
            (DAEMON, Ok(_)) if self.json => writeln!(out, "{line}"),
            (DAEMON, Ok(fields)) => show_event(out, fields),
            (_, _) if self.json => writeln!(out, "{}", json!({"module": name, "output": line})),
            (_, _) => writeln!(out, "{DIM}{name} |{DIM:#} {}", printable(line)),
        }
    }
}

/// `time LEVEL module: message name=value…`, and further lines of the message below it.
fn show_event(out: &mut impl Write, mut fields: Map<String, Value>) -> io::Result<()> {
    let mut take = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    let (time, level, message, module) = (take("timestamp"), take("level"), take("message"), take("module"));
    take("target");
    let style = match level.as_str() {
        "ERROR" => BAD,
        "WARN" => ODD,
        "INFO" => GOOD,
        _ => Style::new(),
    };
    // 2026-11-20T12:51:14.123456Z: to the millisecond.
    let time = match time.find('.') {
        Some(dot) if time.len() > dot + 4 => format!("{}Z", &time[..dot + 4]),
        _ => time,
    };
    let module = if module.is_empty() { module } else { format!("{module}: ") };
    let mut lines = message.lines();
    write!(
        out,
        "{DIM}{time}{DIM:#} {style}{level:>5}{style:#} {module}{}",
        printable(lines.next().unwrap_or_default())
    )?;
    for (name, value) in &fields {
        match value {
            Value::String(text) if text.is_empty() => {}
            Value::String(text) => write!(out, "{DIM} {name}={}{DIM:#}", printable(text))?,
            other => write!(out, "{DIM} {name}={other}{DIM:#}")?,
        }
    }
    writeln!(out)?;
    lines.try_for_each(|line| writeln!(out, "      {}", printable(line)))
}

/// Without what would control the terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() || *c == '\t').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(module: Option<&str>) -> Logs {
        let place = Place::default();
        Logs { module: module.map(str::to_owned), follow: false, lines: 10, json: false, place }
    }

    #[test]
    fn an_event_is_one_readable_line() {
        let line = r#"{"timestamp":"2026-11-20T12:51:14.123456Z","level":"WARN","function":"a.f","message":"KeyError: 'x'\nmore","call":"","target":"bourse"}"#;
        let mut out = anstream::StripStream::new(Vec::new());
        logs(None).show(&mut out, DAEMON, line).unwrap();
        logs(None).show(&mut out, "a", "\u{1b}[2Jhello").unwrap();
        let text = String::from_utf8(out.into_inner()).unwrap();
        assert_eq!(
            text,
            "2026-11-20T12:51:14.123Z  WARN KeyError: 'x' function=a.f\n      more\na | [2Jhello\n"
        );
    }

    #[test]
    fn lines_of_a_module() {
        let logs = logs(Some("shop"));
        for line in
            [r#"{"module":"shop"}"#, r#"{"function":"shop.buy"}"#, r#"{"message":"shop: revision a serves"}"#]
        {
            assert!(logs.wants(line), "{line}");
        }
        for line in [
            r#"{"module":"shopping"}"#,
            r#"{"function":"shopping.buy"}"#,
            r#"{"message":"the shop"}"#,
            "shop",
        ] {
            assert!(!logs.wants(line), "{line}");
        }
    }
}
