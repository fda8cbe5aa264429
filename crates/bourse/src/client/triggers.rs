//! `bourse publish` and `bourse triggers`: messages, and what wakes functions.

use std::io::{self, Write as _};

use http::Method;
use serde_json::Value;

use super::arguments::{self, Body};
use super::http::{Ask, Daemon, block_on, encoded};
use super::table::{GOOD, ODD, Table};
use super::{Error, OK, Reach, json};

/// Publishes a message to a queue or a topic.
#[derive(clap::Args)]
#[command(after_help = "\
MESSAGE is one of:
  JSON    a JSON text; anything else is taken for text
  @FILE   the file: JSON if its name ends in .json, else bytes. @- reads stdin.
          --content-type says what it is

It is printed which calls it has become: one of the function that has the
queue, or one of each function that listens to the topic.

Examples:
  bourse publish queue:orders '{\"item\": \"tea\"}'
  bourse publish topic:order.paid '{\"order\": 7}' --delay 10m
  bourse publish queue:photos @cat.jpg --content-type image/jpeg
  bourse calls $(bourse publish queue:orders '{\"item\": \"tea\"}') --wait")]
pub(crate) struct Publish {
    /// queue:NAME or topic:NAME
    #[arg(value_name = "TO")]
    to: String,
    /// JSON, text, or @FILE [default: null]
    #[arg(value_name = "MESSAGE")]
    message: Option<String>,
    /// Nothing is run before that, such as 5s or 2h
    #[arg(long, value_name = "TIME")]
    delay: Option<String>,
    /// What @FILE is, such as application/json or text/plain
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// A second message to the queue with this key, within a day, is the first one
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Print the whole answer or problem as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Shows cron lines, queues and topics, and which functions they wake.
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  bourse triggers
  bourse triggers remove old_module"
)]
pub(crate) struct Triggers {
    #[command(subcommand)]
    command: Option<TriggersCommand>,
    #[command(flatten)]
    shown: Shown,
}

#[derive(clap::Subcommand)]
enum TriggersCommand {
    /// Let a module that is gone from the folder listen no longer
    #[command(after_help = "\
Messages to what it listened to wait for it until then; those that wait already
do so on: bourse calls --status waiting

Example:
  bourse triggers remove old_module")]
    Remove {
        /// The module
        module: String,
        #[command(flatten)]
        shown: Shown,
    },
}

#[derive(clap::Args)]
struct Shown {
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

pub(crate) fn publish(publish: &Publish) -> anyhow::Result<u8> {
    let path = path(&publish.to, publish.delay.as_deref())?;
    let body = message(publish.message.as_deref(), publish.content_type.as_deref())?;
    let ask = Ask {
        method: Method::POST,
        path,
        content_type: Some(body.content_type),
        idempotency_key: publish.idempotency_key.clone(),
        body: body.bytes,
    };
    let published = block_on(Daemon::new(publish.reach.find()?)?.ask_json(ask))??;
    if publish.json {
        writeln!(io::stdout(), "{published}")?;
        return Ok(OK);
    }
    for call in published["calls"].as_array().into_iter().flatten() {
        writeln!(io::stdout(), "{}", call.as_str().unwrap_or_default())?;
    }
    if published["subscribers"] == 0 {
        anstream::eprintln!("nobody listens to {}", publish.to);
    }
    Ok(OK)
}

fn path(to: &str, delay: Option<&str>) -> Result<String, Error> {
    let folder = match to.split_once(':') {
        Some(("queue", name)) => format!("/v1/queues/{}", encoded(name)),
        Some(("topic", name)) => format!("/v1/topics/{}", encoded(name)),
        _ => {
            let hint = "write queue:NAME for the one function that has it, topic:NAME for all that listen";
            return Err(Error::Usage(format!("{to:?} is neither a queue nor a topic\n  hint: {hint}")));
        }
    };
    Ok(match delay {
        Some(delay) => format!("{folder}?delay={}", encoded(delay)),
        None => folder,
    })
}

fn message(given: Option<&str>, content_type: Option<&str>) -> Result<Body, Error> {
    match given {
        Some(file) if file.starts_with('@') => arguments::body(&[file.to_owned()], content_type),
        _ if content_type.is_some() => {
            Err(Error::Usage("--content-type says what @file is; other messages are JSON".to_owned()))
        }
        text => {
            let text = text.unwrap_or("null");
            let json = if json::is_json(text) { text.to_owned() } else { json::quoted(text) };
            Ok(Body { bytes: json.into(), content_type: "application/json".to_owned() })
        }
    }
}

pub(crate) fn triggers(triggers: &Triggers) -> anyhow::Result<u8> {
    match &triggers.command {
        None => list(&triggers.shown),
        Some(TriggersCommand::Remove { module, shown }) => remove(module, shown),
    }
}

fn list(shown: &Shown) -> anyhow::Result<u8> {
    let daemon = Daemon::new(shown.reach.find()?)?;
    let found = block_on(daemon.json("/v1/triggers"))??;
    if shown.json {
        writeln!(io::stdout(), "{found:#}")?;
        return Ok(OK);
    }
    let mut table = Table::new(["KIND", "NAME", "FUNCTION", "NEXT", "LAST", "MODULE"]);
    for trigger in found.as_array().into_iter().flatten() {
        let text = |name: &str| trigger[name].as_str().unwrap_or("-").to_owned();
        let zone = trigger["zone"].as_str().filter(|zone| *zone != "UTC");
        let name = zone.map_or_else(|| text("name"), |zone| format!("{} {zone}", text("name")));
        let (style, state) = match trigger["serving"] == Value::Bool(true) {
            true => (GOOD, "serves"),
            false => (ODD, "is not there"),
        };
        let cells = [text("kind"), name, text("function"), text("next"), text("last"), state.to_owned()];
        table.row_in(style, cells);
    }
    table.write(&mut anstream::stdout().lock())?;
    Ok(OK)
}

fn remove(module: &str, shown: &Shown) -> anyhow::Result<u8> {
    let daemon = Daemon::new(shown.reach.find()?)?;
    let path = format!("/v1/triggers/{}", encoded(module));
    let ask = Ask { method: Method::DELETE, path, ..Ask::default() };
    let removed = block_on(daemon.ask_json(ask))??;
    match shown.json {
        true => writeln!(io::stdout(), "{removed}")?,
        false => writeln!(io::stdout(), "removed: {}", removed["removed"])?,
    }
    Ok(OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_message_goes_and_what_it_is() {
        assert_eq!(path("queue:a b", None).unwrap(), "/v1/queues/a%20b");
        assert_eq!(path("topic:a.b", Some("5s")).unwrap(), "/v1/topics/a.b?delay=5s");
        assert!(path("orders", None).is_err());
        let read = |text| String::from_utf8(message(text, None).unwrap().bytes.to_vec()).unwrap();
        assert_eq!(read(Some("{\"a\": 1}")), "{\"a\": 1}");
        assert_eq!((read(Some("tea")), read(None)), ("\"tea\"".to_owned(), "null".to_owned()));
        assert!(message(Some("1"), Some("text/plain")).is_err());
    }
}
