//! `bourse bridge`: a daemon's grid sells what another grid serves. A program between the two: a client of the other grid, and to the daemon
//! an attached process that shares what it serves.
//!
//! ```text
//! daemon -> lane: invoke, cancel          lane -> daemon: hello with the module's description, result
//! lane -> other grid: a call              other grid -> lane: what it returns
//! ```
//!
//! | file | is |
//! |---|---|
//! | `modules` | what is carried, as it describes itself over there, and how it is described here |
//! | `lane` | one connection with the daemon: one call at a time |
//! | `flow` | how many calls are carried at a time, and what becomes of more |
//!
//! A call that crosses is a call of its own over there: state, keys and nested calls of its function are that grid's. Its arguments,
//! its deadline, its context, its trace and its failure cross; so does its end, if nobody waits any more. How deep it is nested crosses
//! too, so that two bridges back and forth come to an end.

mod flow;
mod lane;
mod modules;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bourse_client::{Client, Options};
use bourse_transport::Endpoint;
use bytes::Bytes;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::locate::{Place, serving};
use flow::Flow;
pub(crate) use flow::Past;
use lane::Lane;
use modules::{Carried, Wish};

/// How often it is looked what the other grid serves.
const LOOK: Duration = Duration::from_secs(1);
/// How long the daemon has to take on the connections of a module that has changed.
const RETIRES: Duration = Duration::from_secs(10);
/// Most calls that are carried at a time: each has a connection.
const LIMIT_MAX: u32 = 1_000;

/// Sells on this grid what another one serves.
#[derive(clap::Args)]
#[command(after_help = "\
It runs beside a daemon of this grid, until it is ended. Its keys over there are
kept in the daemon's data folder, by NAME: a ticket is needed once. The daemon's
setting `running` has to allow as many calls as are to cross at a time.

Examples:
  bourse bridge lab --ticket $(ssh lab bourse ticket --quiet) --module pi
  bourse bridge lab --module pi --module shop=lab_shop --past bounce")]
pub(crate) struct Bridge {
    /// What the other grid is called here: letters, digits, - and _
    name: String,
    /// A ticket that `bourse ticket` has printed over there; needed the first time
    #[arg(long, value_name = "TICKET")]
    ticket: Option<String>,
    /// A module to carry, and what it is called here if that is something else
    #[arg(long = "module", value_name = "MODULE[=NAME]", required = true)]
    modules: Vec<Wish>,
    /// How many calls are carried at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=i64::from(LIMIT_MAX)))]
    limit: u32,
    /// What becomes of more: they wait here, are dropped, or are sent back
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Past::Queue)]
    past: Past,
    #[command(flatten)]
    place: Place,
}

/// Where the daemon is, and how it is greeted.
#[derive(Clone, Debug)]
pub(super) struct Daemon {
    endpoint: Endpoint,
    token: Bytes,
}

pub(crate) fn bridge(bridge: &Bridge) -> anyhow::Result<u8> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if bridge.name.is_empty() || bridge.name.len() > 100 || !bridge.name.chars().all(is_part) {
        anyhow::bail!("{:?} can't be the name of a bridge\n  hint: letters, digits, - and _", bridge.name);
    }
    if let Some(twice) = modules::named_twice(&bridge.modules) {
        anyhow::bail!(
            "two modules are to be called {twice} here\n  hint: name another for one of them: --module MODULE=NAME"
        );
    }
    let data = bridge.place.data()?;
    let contact = serving(&data)?;
    let token = std::fs::read(&contact.token_file)
        .with_context(|| format!("{} cannot be read", contact.token_file.display()))?;
    let endpoint = contact.endpoint.parse().map_err(|e| anyhow::anyhow!("{}: {e}", contact.endpoint))?;
    let daemon = Daemon { endpoint, token: token.trim_ascii().to_vec().into() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(carry(bridge, data.join("bridges").join(&bridge.name), daemon))?;
    Ok(crate::client::OK)
}

async fn carry(bridge: &Bridge, keys: PathBuf, daemon: Daemon) -> anyhow::Result<()> {
    let name = &bridge.name;
    let options = Options::default().name(format!("bridge {name}"));
    let client = match &bridge.ticket {
        Some(ticket) => Client::open_or_join(&keys, ticket, options).await,
        None if keys.is_dir() => Client::open(&keys, options).await,
        None => anyhow::bail!(
            "there is no bridge {name} so far\n  hint: run `bourse ticket` on a node of the other grid, and name what it prints: \
             bourse bridge {name} --ticket TICKET …"
        ),
    }?;
    let (mut terminated, mut interrupted) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut crossing = Crossing {
        flow: Arc::new(Flow::new(name, bridge.limit, bridge.past)),
        client: client.clone(),
        daemon,
        served: BTreeMap::new(),
        retired: Vec::new(),
        lanes: JoinSet::new(),
    };
    let (mut looks, mut missing) = (tokio::time::interval(LOOK), Vec::new());
    let result = loop {
        tokio::select! {
            _ = looks.tick() => {
                let there = client.described().await?;
                let absent = modules::absent(&bridge.modules, &there);
                if absent != missing {
                    if !absent.is_empty() {
                        eprintln!("bridge {name}: not served over there, and waited for: {}", absent.join(", "));
                    }
                    missing = absent;
                }
                crossing.serve(name, Carried::all(&bridge.modules, there));
            }
            Some(ended) = crossing.lanes.join_next() => {
                // One that was told to leave has left; one that was refused ends the bridge.
                if let Err(why) = ended.context("a connection with the daemon ended")? {
                    break Err(why);
                }
            }
            _ = terminated.recv() => break Ok(()),
            _ = interrupted.recv() => break Ok(()),
        }
    };
    crossing.leave().await;
    client.close().await;
    result
}

/// What is carried now.
struct Crossing {
    flow: Arc<Flow>,
    client: Client,
    daemon: Daemon,
    /// By the name here. Dropping the sender tells the lanes to leave.
    served: BTreeMap<String, (Carried, watch::Sender<bool>)>,
    /// The same of what was carried before, until its successor surely serves: as many as changes are seen in [`RETIRES`], at one
    /// [`LOOK`] each.
    retired: Vec<(Instant, watch::Sender<bool>)>,
    lanes: JoinSet<anyhow::Result<()>>,
}

impl Crossing {
    /// From now on these are carried.
    fn serve(&mut self, name: &str, known: BTreeMap<String, Carried>) {
        self.served.retain(|here, _| known.contains_key(here));
        for (here, carried) in known {
            if self.served.get(&here).is_some_and(|(before, _)| *before == carried) {
                continue;
            }
            let (stay, staying) = watch::channel(false);
            let description = &carried.description;
            eprintln!(
                "bridge {name}: {here} {}, {} functions, {}",
                description.version,
                description.functions.len(),
                self.flow
            );
            for _ in 0..self.flow.lanes() {
                let lane = Lane {
                    daemon: self.daemon.clone(),
                    client: self.client.clone(),
                    carried: carried.clone(),
                    flow: self.flow.clone(),
                };
                self.lanes.spawn(lane.run(staying.clone()));
            }
            if let Some((_, before)) = self.served.insert(here, (carried, stay)) {
                // Its lanes leave when the daemon has the new ones: the newest serves.
                before.send_replace(true);
                self.retired.push((Instant::now(), before));
            }
        }
        self.retired.retain(|(since, _)| since.elapsed() < RETIRES);
    }

    /// Calls that are under way end, and nothing new is taken.
    async fn leave(mut self) {
        self.served.clear();
        self.retired.clear();
        while self.lanes.join_next().await.is_some() {}
    }
}
