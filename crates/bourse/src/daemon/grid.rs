//! Who this node is among others, with whom it speaks, and whether its own store is to be the grid's.
//!
//! A grid has one store. A node offers its own, unless it is told to use another's (`store = grid`), or knows of another already, or
//! is to join nodes of which it knows nothing yet. Which of those that are offered counts is the nodes' to find out.

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bourse_durable::batch::PartitionId;
use bourse_node::market::store::GridStore;
use bourse_node::{GridConfig, OwnStore};
use bourse_peers::allowed::List;
use bourse_peers::clock::wall_ms;
use bourse_peers::{Options, Peers, catalogue, grid_store, ipc, keys, members, own, seeds};
use bourse_store::{Limit, Memory, Range, Reader, Recorded, Sqlite, Store, StoreId};

use super::files;
use crate::config::{Config, Discover, Source};

/// Opens the store that the settings name. Who uses that of another node has an empty one, which is never written to.
pub(super) fn open_store(config: &Config, data: &Path) -> anyhow::Result<Box<dyn Store>> {
    let store = open_within(config, data)?;
    let Some(history) = config.path("history") else { return Ok(store) };
    let recorded = Recorded::open(store, &history, wall_ms).with_context(|| {
        let hint =
            "name a file that is a history or not there yet, in a folder that is there; or leave it out";
        format!("history = {history:?} cannot be written\n  hint: {hint}")
    })?;
    Ok(Box::new(recorded))
}

fn open_within(config: &Config, data: &Path) -> anyhow::Result<Box<dyn Store>> {
    match config.text("store") {
        "sqlite" => Ok(Box::new(Sqlite::open(data.join(files::STORE_FILE), StoreId::random())?)),
        "memory" | "grid" => Ok(Box::new(Memory::new(StoreId::random()))),
        other => anyhow::bail!(
            "store = {other:?} is not supported by this version\n  hint: use sqlite (state is kept in the data folder), memory (state is lost at the end), or grid (another node keeps it)"
        ),
    }
}

/// The lines to other nodes, as the settings say; `None` if this node neither listens nor joins nor looks for others.
pub(super) async fn start_peers(config: &Config, data: &Path) -> anyhow::Result<Option<Peers>> {
    let joins = config.join();
    let is_alone = config.listen().is_none() && joins.is_empty() && seeds::load(data).is_empty();
    if is_alone && config.discover().is_empty() {
        return Ok(None);
    }
    let own = keys::load_or_make(data)?.keys;
    tracing::info!("other nodes know this one by the key {}", own.public().to_hex());
    let list = List::load(data, config.allow(), &members::load(data)?)?;
    list.check_joins(&joins, own.public())?;
    let ipc = config.flag("ipc").then(ipc::folder);
    let options = Options { own, list, listen: config.listen(), ipc, payload_bytes_max: config.payload() };
    Peers::start(options).await.map(Some)
}

/// As the settings say, and what was kept of the grid.
pub(super) fn config(config: &Config, peers: &Peers, store: &dyn Store) -> anyhow::Result<GridConfig> {
    let address = match (config.text("advertise"), peers.address()) {
        ("", None) => String::new(),
        ("", Some(address)) if address.ip().is_unspecified() => {
            let host = own::hostname()?;
            format!("{host}:{}", address.port())
        }
        ("", Some(address)) => address.to_string(),
        (given, _) => given.to_owned(),
    };
    let domain = match config.text("domain") {
        "" => own::machine(),
        given => given.to_owned(),
    };
    let data = config.data();
    let known = config.join().into_iter().chain(seeds::load(&data));
    let mut seeds: Vec<_> = known.map(|join| (join.key.0, join.address)).collect();
    let known_store = grid_store::load(&data)?;
    let own = own_store(config, store, known_store.as_ref(), (peers.key(), seeds.is_empty()))?;
    let finds_each_other = |source: &Discover| matches!(source, Discover::Machine | Discover::Multicast);
    if !address.is_empty() && config.discover().iter().any(finds_each_other) {
        // Others find this node as it finds them.
        seeds.push((peers.key(), address.clone()));
    }
    Ok(GridConfig {
        id: peers.key(),
        name: own::hostname().unwrap_or_default(),
        // Who can't be connected with is no place that others have to reach.
        may_serve: !address.is_empty(),
        address,
        domain,
        seeds,
        sell_max: config.count("sell"),
        roster: members::load(&data)?,
        store: own,
        known_store,
        catalogue: catalogue::load(&data),
        times: Arc::default(),
    })
}

/// The store that this node has of its own. Refused where it is used, and another is known to be the grid's.
fn own_store(
    config: &Config,
    store: &dyn Store,
    known: Option<&GridStore>,
    (key, joins_nobody): ([u8; 32], bool),
) -> anyhow::Result<Option<OwnStore>> {
    if config.text("store") == "grid" {
        return Ok(None);
    }
    let id = store.id().0;
    let own = known.filter(|known| known.node.id.0 == key);
    let other = known.filter(|known| known.node.id.0 != key);
    let used = own.is_some_and(|own| own.used && own.id == id) || is_used(&mut *store.reader()?)?;
    if let Some(other) = other.filter(|other| used && other.used) {
        anyhow::bail!(
            "this node has a store of its own with calls or state in it, {}, and that of its grid is {}, at the node {} ({}): a grid has one\n  \
             hint: to use the grid's, start with --store grid: its own stays as it is, unused. To have its own be the grid's, do that, and \
             then move it: see \"One store\" in docs/grid.md",
            store.id(),
            StoreId(other.id),
            other.node.id.short(),
            other.node.address
        );
    }
    let is_chosen = *config.source("store") != Source::Default;
    let offered = used || own.is_some() || (other.is_none() && (is_chosen || joins_nobody));
    Ok(Some(OwnStore { id, used, offered }))
}

/// Whether there are calls or state in a store; records of triggers are made anew anywhere.
fn is_used(reader: &mut dyn Reader) -> anyhow::Result<bool> {
    for partition in (0..=u8::MAX).map(PartitionId) {
        if reader.owner(partition)?.is_none() {
            continue;
        }
        let mut range = Range { from: Bound::Unbounded, until: Bound::Unbounded };
        loop {
            let page = reader.scan(partition, &range, Limit::rows(PAGE_ROWS))?;
            if page.rows.iter().any(|(key, _)| !bourse_durable::work::is_trigger(key)) {
                return Ok(true);
            }
            match page.rows.into_iter().last() {
                Some((last, _)) if page.more => range = range.after(last),
                _ => break,
            }
        }
    }
    Ok(false)
}

/// Rows that are read at once.
const PAGE_ROWS: usize = 100;

#[cfg(test)]
mod tests {
    use std::fs;

    use bourse_peers::allowed::ALLOWED_FILE;
    use bourse_transport::{Key, KeyPair};
    use tempfile::TempDir;

    use super::*;

    async fn start(data: &TempDir, settings: &[(&str, &str)]) -> anyhow::Result<Option<Peers>> {
        let given = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let config = Config::resolve(data.path(), &given, std::iter::empty())?;
        start_peers(&config, data.path()).await
    }

    #[tokio::test]
    async fn the_settings_say_whether_and_where() {
        let data = tempfile::tempdir().unwrap();
        // 1. Neither listens nor joins: no keys are made.
        assert!(start(&data, &[]).await.unwrap().is_none());
        assert!(!data.path().join(keys::KEY_FILE).exists());
        // 2. Listens; the keys are made, and kept.
        let peers = start(&data, &[("listen", "127.0.0.1:0")]).await.unwrap().unwrap();
        let address = peers.address().unwrap();
        assert_ne!(address.port(), 0);
        let public = fs::read_to_string(data.path().join(keys::PUBLIC_FILE)).unwrap();
        assert_eq!(public.trim(), Key(peers.key()).to_hex());
        // 3. The port is taken.
        let refused = start(&data, &[("listen", &address.to_string())]).await.err().unwrap().to_string();
        assert!(
            refused.contains(&address.to_string()) && refused.contains("stop what listens there"),
            "{refused}"
        );
        // 4. No address of this machine.
        let refused = start(&data, &[("listen", "192.0.2.1:0")]).await.err().unwrap().to_string();
        assert!(refused.contains("no such address"), "{refused}");
        // 5. Beyond loopback without more ado: there are always keys.
        drop(peers);
        assert!(start(&data, &[("listen", ":0")]).await.unwrap().unwrap().address().unwrap().port() > 0);
        // 6. Joins without listening.
        let key = KeyPair::generate().public().to_hex();
        let join = format!("{key}@127.0.0.1:9");
        let peers = start(&data, &[("join", &join), ("allow", &key)]).await.unwrap().unwrap();
        assert_eq!(peers.address(), None);
        // 7. Joins one with whom it does not speak; itself; and a list that is none.
        let refused = start(&data, &[("join", &join)]).await.err().unwrap().to_string();
        assert!(refused.contains("no key is allowed"), "{refused}");
        let own = format!("{}@127.0.0.1:9", public.trim());
        let refused = start(&data, &[("join", &own), ("allow", &key)]).await.err().unwrap().to_string();
        assert!(refused.contains("own key"), "{refused}");
        fs::write(data.path().join(ALLOWED_FILE), "nonsense").unwrap();
        let refused = start(&data, &[("listen", "127.0.0.1:0")]).await.err().unwrap().to_string();
        assert!(refused.contains("line 1: \"nonsense\" is not a key"), "{refused}");
    }
}
