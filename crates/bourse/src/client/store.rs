//! `bourse store show` and `claim`: which store is the grid's.

use std::io::{self, Write as _};

use bourse_node::market::store::GridStore;
use bourse_node::market::{Contact, NodeId};
use bourse_peers::{grid_store, keys};
use bourse_store::{Sqlite, Store as _, StoreId};
use bourse_wire::id::Incarnation;
use http::Method;
use serde_json::{Value, json};

use super::http::{Ask, Daemon, block_on};
use super::{Error, OK, Reach};
use crate::daemon::files::STORE_FILE;

/// Shows which store is the grid's, and which node keeps it.
#[derive(clap::Args)]
pub(crate) struct Show {
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Makes this node's store the grid's, from now on and on all nodes.
#[derive(clap::Args)]
#[command(after_help = "\
What is in the store that was the grid's before stays there, and is not used any
more: its node is refused until it is started with --store grid. Use this where
that node is lost and a backup of its store was put into this one's data folder,
or where two grids are to become one.

It does not matter whether the daemon of this node runs.

Examples:
  bourse store claim
  bourse store claim -C ~/shop")]
pub(crate) struct Claim {
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

pub(crate) fn show(show: &Show) -> anyhow::Result<u8> {
    let daemon = Daemon::new(show.reach.find()?)?;
    let found = block_on(daemon.json("/v1/store"))??;
    if show.json {
        writeln!(io::stdout(), "{found:#}")?;
        return Ok(OK);
    }
    let text = |name: &str| found[name].as_str().unwrap_or_default();
    let line = match (text("id"), found["here"] == true) {
        ("", true) => "this node keeps its own store: it is alone".to_owned(),
        ("", false) => "no node of the grid is known that keeps its store".to_owned(),
        (id, true) => format!("this node keeps the grid's store, {id}"),
        (id, false) => {
            format!("the grid's store, {id}, is kept by the node {} at {}", text("node"), text("address"))
        }
    };
    let empty = if found["used"] == false { "; nothing was stored in it so far" } else { "" };
    writeln!(io::stdout(), "{line}{empty}")?;
    Ok(OK)
}

pub(crate) fn claim(claim: &Claim) -> anyhow::Result<u8> {
    let told = match claim.reach.find() {
        Ok(found) => {
            let ask = Ask { method: Method::POST, path: "/v1/store".to_owned(), ..Ask::default() };
            block_on(Daemon::new(found)?.ask_json(ask))??
        }
        Err(Error::NotRunning { data, .. }) => claim_alone(&data)?,
        Err(other) => return Err(other.into()),
    };
    match claim.json {
        true => writeln!(io::stdout(), "{told}")?,
        false => writeln!(
            io::stdout(),
            "the store of this node is the grid's: {}\nall nodes that can be reached hear of it; a node that kept another is refused until it is started with --store grid",
            told["id"].as_str().unwrap_or_default()
        )?,
    }
    Ok(OK)
}

/// Without a daemon: the node says so when it starts.
fn claim_alone(data: &std::path::Path) -> anyhow::Result<Value> {
    let file = data.join(STORE_FILE);
    if !file.exists() {
        let text =
            format!("{} has no store\n  hint: start the daemon once with --store sqlite", data.display());
        return Err(Error::Refused(text).into());
    }
    let id = Sqlite::open(&file, StoreId::random())?.id();
    let key = keys::load_or_make(data)?.keys.public();
    let term = grid_store::load(data)?.map_or(0, |known| known.term) + 1;
    let node = Contact {
        id: NodeId(key.0),
        incarnation: Incarnation(0),
        address: String::new(),
        domain: String::new(),
    };
    grid_store::save(data, &GridStore { id: id.0, term, used: true, node })?;
    Ok(json!({"id": id.to_string(), "term": term, "used": true, "here": true, "node": key.to_hex()}))
}
