//! `bourse ticket`, `join`, `members`, `admit` and `revoke`: who belongs to the grid.

use std::io::{self, Write as _};
use std::path::PathBuf;

use bourse_peers::enroll::enroll;
use bourse_peers::ticket::Ticket as Invitation;
use bourse_peers::{keys, own};
use http::Method;
use serde_json::{Value, json};

use super::http::{Ask, Daemon, block_on, encoded};
use super::table::{BAD, DIM, GOOD, Table};
use super::{Error, OK, Reach};
use crate::config::{self, Config, Given};
use crate::daemon::files;

/// Makes a ticket, with which another node joins the grid of a running daemon.
#[derive(clap::Args)]
#[command(after_help = "\
Whoever has the ticket can let nodes in until its time is over: send it as you
would send a password. One ticket is enough for many nodes. `bourse revoke KEY`
ends it before its time; the key is the one that is printed here.

Examples:
  bourse ticket
  bourse ticket --for 10m --name for-birch
  ssh birch bourse join functions $(bourse ticket --quiet)")]
pub(crate) struct Ticket {
    /// How long it is good for, such as 10m or 48h
    #[arg(long = "for", value_name = "TIME", default_value = "1h")]
    lifetime: String,
    /// What it is for, for people
    #[arg(long, default_value = "")]
    name: String,
    /// Print the ticket and nothing else
    #[arg(short, long)]
    quiet: bool,
    /// Print {ticket, key, expires} as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Joins a grid: has this node's key put on its list, with a ticket from one of its nodes.
#[derive(clap::Args)]
#[command(after_help = "\
On a node of the grid: bourse ticket. This is done once; from then on
`bourse up` knows the others, and begins with those that it knew last.

Example:
  bourse join functions bourse-ticket-AbC...
  bourse up functions --listen 0.0.0.0:7071")]
pub(crate) struct Join {
    /// The folder that is served
    folder: PathBuf,
    /// What `bourse ticket` has printed
    ticket: String,
    /// Folder for the keys, the store and logs [default: .bourse in the folder served]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Print {key, at, nodes} as JSON
    #[arg(long)]
    json: bool,
}

/// Shows who belongs to the grid: the list of keys, which is the same on all nodes.
#[derive(clap::Args)]
#[command(after_help = "\
Keys that a node allows by itself (--allow, the file `allowed`) are not on it.

Examples:
  bourse members
  bourse members --json | jq -r '.[] | select(.standing == \"member\") | .key'")]
pub(crate) struct Members {
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Puts a key on the grid's list, on all nodes.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  bourse admit 4f0c...e1 alder")]
pub(crate) struct Admit {
    /// The public key that `bourse init` has printed on that node
    key: String,
    /// Its name, for people
    #[arg(default_value = "")]
    name: String,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Takes a key off the grid's list, on all nodes: its node is cut off, or its ticket is void.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  bourse members --json | jq -r '.[] | select(.name == \"birch\") | .key'
  bourse revoke 4f0c...e1")]
pub(crate) struct Revoke {
    /// The public key
    key: String,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

pub(crate) fn ticket(ticket: &Ticket) -> anyhow::Result<u8> {
    let path = format!("/v1/tickets?for={}&name={}", encoded(&ticket.lifetime), encoded(&ticket.name));
    let made = ask(&ticket.reach, Method::POST, path)?;
    let text = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
    let mut out = io::stdout().lock();
    if ticket.json {
        writeln!(out, "{made}")?;
    } else if ticket.quiet {
        writeln!(out, "{}", text("ticket"))?;
    } else {
        writeln!(out, "{}\n", text("ticket"))?;
        writeln!(out, "good until {}; on the other machine:\n", text("expires"))?;
        writeln!(out, "  bourse join FOLDER TICKET\n  bourse up FOLDER --listen ADDRESS:7071\n")?;
        writeln!(out, "to end it before its time: bourse revoke {}", text("key"))?;
    }
    Ok(OK)
}

pub(crate) fn join(join: &Join) -> anyhow::Result<u8> {
    let ticket: Invitation = join.ticket.parse().map_err(|why| {
        Error::Usage(format!(
            "this is no ticket: {why}\n  hint: copy all of what `bourse ticket` has printed"
        ))
    })?;
    let folder = join.folder.canonicalize().map_err(|e| {
        Error::Refused(format!(
            "{} cannot be entered: {e}\n  hint: name the folder that is served, or make one: bourse new {0}",
            join.folder.display()
        ))
    })?;
    let given: Given = join.data.iter().map(|data| ("data".to_owned(), data.clone())).collect();
    let config = Config::resolve(&folder, &given, config::variables())?;
    let data = config.data();
    files::make_data(&data)?;
    if let Ok(contact) = super::serving(&data) {
        return Err(Error::Refused(format!(
            "a daemon serves this folder, process {}: it would not hear of it\n  hint: stop it, join, and start it again",
            contact.pid
        ))
        .into());
    }
    let own_keys = keys::load_or_make(&data)?.keys;
    let name = own::hostname().unwrap_or_default();
    let joined = block_on(enroll(&data, &own_keys, &name, &ticket))??;
    let key = own_keys.public().to_hex();
    let mut out = io::stdout().lock();
    if join.json {
        writeln!(out, "{}", json!({"key": key, "at": joined.at, "nodes": joined.contacts.len()}))?;
        return Ok(OK);
    }
    writeln!(
        out,
        "joined by way of {}: this node is on the grid's list, by the key\n\n  {key}\n",
        joined.at
    )?;
    writeln!(out, "next: bourse up {} --listen ADDRESS:7071", join.folder.display())?;
    Ok(OK)
}

pub(crate) fn members(members: &Members) -> anyhow::Result<u8> {
    let daemon = Daemon::new(members.reach.find()?)?;
    let found = block_on(daemon.json("/v1/members"))??;
    if members.json {
        writeln!(io::stdout(), "{found:#}")?;
        return Ok(OK);
    }
    let all = found.as_array().cloned().unwrap_or_default();
    if all.is_empty() {
        anstream::eprintln!(
            "nobody is on the grid's list: `bourse ticket` makes a ticket, with which others join"
        );
        return Ok(OK);
    }
    let mut table = Table::new(["KEY", "NAME", "STANDING"]);
    for entry in all {
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let style = match entry["standing"].as_str() {
            Some("member") => GOOD,
            Some("revoked") => BAD,
            _ => DIM,
        };
        let standing = if entry["this"] == true { "this node".to_owned() } else { text("standing") };
        table.row_in(style, [text("key"), text("name"), standing]);
    }
    table.write(&mut anstream::stdout().lock())?;
    Ok(OK)
}

pub(crate) fn admit(admit: &Admit) -> anyhow::Result<u8> {
    let path = format!("/v1/members?key={}&name={}", encoded(&admit.key), encoded(&admit.name));
    let told = ask(&admit.reach, Method::POST, path)?;
    say(admit.json, &told, "on the grid's list")
}

pub(crate) fn revoke(revoke: &Revoke) -> anyhow::Result<u8> {
    let told = ask(&revoke.reach, Method::DELETE, format!("/v1/members/{}", encoded(&revoke.key)))?;
    say(revoke.json, &told, "off the grid's list: all nodes cut it off as they hear of it")
}

fn say(json: bool, told: &Value, text: &str) -> anyhow::Result<u8> {
    match json {
        true => writeln!(io::stdout(), "{told}")?,
        false => writeln!(io::stdout(), "{text}")?,
    }
    Ok(OK)
}

fn ask(reach: &Reach, method: Method, path: String) -> anyhow::Result<Value> {
    let daemon = Daemon::new(reach.find()?)?;
    Ok(block_on(daemon.ask_json(Ask { method, path, ..Ask::default() }))??)
}
