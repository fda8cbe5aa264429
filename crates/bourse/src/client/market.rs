//! `bourse nodes` and `bourse market`: the grid, as one of its daemons sees it.

use std::io::{self, Write as _};

use serde_json::Value;

use super::http::{Daemon, block_on};
use super::table::{BAD, DIM, GOOD, Table};
use super::{OK, Reach};

/// Shows the nodes of the grid that a daemon knows: itself, the authorities, and those that it trades with.
#[derive(clap::Args)]
#[command(after_help = "\
A node knows those that it has to do with, not all there are. An authority knows
most: the nodes that stay with it. BY is how this one is linked with it: ipc is
a Unix socket of the machine.

Examples:
  bourse nodes
  bourse nodes -C ~/shop
  bourse nodes --json | jq -r '.[] | select(.authority) | .address'")]
pub(crate) struct Nodes {
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Shows what a daemon sells and buys, and the orders of the exchanges that it hosts.
#[derive(clap::Args)]
#[command(after_help = "\
offered  what runs here, and at most so many slots of it
sold     a buyer's channel: tokens it has not used, and its calls that run here
bought   a seller's channel: the same, of calls of this node that run there
short    calls that wait and found neither a slot here nor a token
order    of any node, at the exchanges that this daemon hosts as an authority;
         OPEN is what is promised to nobody

Examples:
  bourse market
  bourse market --json | jq '.bought[] | {module, running}'")]
pub(crate) struct Market {
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

pub(crate) fn nodes(nodes: &Nodes) -> anyhow::Result<u8> {
    let daemon = Daemon::new(nodes.reach.find()?)?;
    let found = block_on(daemon.json("/v1/nodes"))??;
    if nodes.json {
        writeln!(io::stdout(), "{found:#}")?;
        return Ok(OK);
    }
    let all = items(&found);
    if all.is_empty() {
        anstream::eprintln!(
            "this daemon is alone: start it with --listen or --join to make it one of several"
        );
        return Ok(OK);
    }
    let mut table = Table::new(["NODE", "ADDRESS", "DOMAIN", "ROLE", "BY", "LAST HEARD"]);
    for node in all {
        let role = match (node["authority"] == true, node["store"] == true) {
            (true, true) => "authority, store",
            (true, false) => "authority",
            (false, true) => "store",
            (false, false) => "node",
        };
        let (style, heard) = match (node["this"] == true, node["heard_ms_ago"].as_u64()) {
            (true, _) => (GOOD, "this one".to_owned()),
            (_, Some(ms)) => (GOOD, format!("{:.1} s ago", ms as f64 / 1e3)),
            (_, None) => (DIM, "not connected".to_owned()),
        };
        let address = match text(node, "address").as_str() {
            "" => "none: it connects itself".to_owned(),
            address => address.to_owned(),
        };
        let [key, domain, by] = ["key", "domain", "by"].map(|name| text(node, name));
        let cells = [short(&key), address, domain, role.to_owned(), by, heard];
        table.row_in(style, cells);
    }
    table.write(&mut anstream::stdout().lock())?;
    Ok(OK)
}

pub(crate) fn market(market: &Market) -> anyhow::Result<u8> {
    let daemon = Daemon::new(market.reach.find()?)?;
    let found = block_on(daemon.json("/v1/market"))??;
    if market.json {
        writeln!(io::stdout(), "{found:#}")?;
        return Ok(OK);
    }
    let mut out = anstream::stdout().lock();
    writeln!(
        out,
        "{} slots: {} free, {} taken by calls of this node\n",
        found["slots"], found["free"], found["own"]
    )?;
    let mut table = Table::new(["", "MODULE", "VERSION", "NODE", "TOKENS", "RUNNING", "SLOTS", "OPEN"]);
    for offer in items(&found["offers"]) {
        row(&mut table, "offered", offer, [None, None, Some("most"), None]);
    }
    for channel in items(&found["sold"]) {
        row(&mut table, "sold", channel, [Some("tokens"), Some("running"), None, None]);
    }
    for channel in items(&found["bought"]) {
        row(&mut table, "bought", channel, [Some("tokens"), Some("running"), None, None]);
    }
    for short in items(&found["short"]) {
        row(&mut table, "short", short, [None, None, Some("waiting"), None]);
    }
    for order in items(&found["orders"]) {
        let side = match (order["side"] == "sell", order["in_line"] == true) {
            (true, false) => "order: sells",
            (true, true) => "order: sells places in line",
            (false, false) => "order: buys",
            (false, true) => "order: buys, has a place in line",
        };
        row(&mut table, side, order, [None, None, Some("quantity"), Some("open")]);
    }
    table.write(&mut out)?;
    Ok(OK)
}

fn row(table: &mut Table<8>, what: &str, item: &Value, numbers: [Option<&str>; 4]) {
    let style = if what == "short" { BAD } else { GOOD };
    let number = |name: Option<&str>| name.map_or_else(String::new, |name| item[name].to_string());
    let [tokens, running, slots, open] = numbers.map(number);
    let node = item["node"].as_str().map_or_else(String::new, short);
    let cells =
        [what.to_owned(), text(item, "module"), text(item, "version"), node, tokens, running, slots, open];
    table.row_in(style, cells);
}

fn items(json: &Value) -> &[Value] {
    json.as_array().map_or(&[], Vec::as_slice)
}

fn text(json: &Value, name: &str) -> String {
    json[name].as_str().unwrap_or_default().to_owned()
}

/// Enough of a key to tell nodes apart.
fn short(key: &str) -> String {
    key.chars().take(8).collect()
}
