//! The daemon: one loop that turns sockets, processes and the store into the node's inputs, and carries out what it
//! says. No policy here.
//!
//! | file | is |
//! |---|---|
//! | `driver` | the loop |
//! | `deploy` | from a folder to modules that can be started (a thread) |
//! | `deployments` | what is kept of bundles that were deployed |
//! | `outside` | what is done for functions: webhooks, mails (a thread) |
//! | `store`, `lister` | the store's threads; lists of durable calls |
//! | `keeper` | the line to the keeper |
//! | `events` | logs and metrics |
//! | `views` | what the admin interface shows, as JSON |
//! | `files`, `logs` | the data folder |
//! | `mail` | the socket for SMTP |
//! | `grid` | who this node is among others, and whether its store is the grid's |
//! | `discovery` | where other nodes are found |

pub(crate) mod deploy;
pub(crate) mod deployments;
pub(crate) mod discovery;
mod driver;
mod events;
pub(crate) mod files;
mod grid;
mod keeper;
mod lister;
mod logs;
mod mail;
pub(crate) mod outside;
mod store;
mod views;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use bourse_gateway::{Auth, Gateway, Limits};
use bourse_peers::clock::Clock;
use bourse_peers::own;
use bourse_transport::{Bounds, Endpoint, Router, RouterOptions};
use bourse_wire::header::HEADER_BYTES_MAX;
use bourse_wire::id::Incarnation;
use tokio::sync::{Notify, mpsc};

use crate::config::Config;
use deploy::Places;
use discovery::{Discovery, Found};
use driver::Driver;
pub(crate) use events::NO_FUNCTIONS;
use files::Contact;
use store::StoreThreads;

/// Runs a daemon until it is told to stop.
pub(crate) fn run(config: Config, ready_file: Option<&Path>) -> anyhow::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(8).build()?;
    runtime.block_on(up(config, ready_file))
}

async fn up(config: Config, ready_file: Option<&Path>) -> anyhow::Result<()> {
    let clock = Clock::start();
    // Whoever makes a TLS connection uses this one; it fails only where it has been done before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let files = raise_files();
    config.check_folder()?;
    let data = config.data();
    files::make_data(&data)?;
    events::start_log(&config, &data)?;
    let store = grid::open_store(&config, &data)?;
    let token = files::token(&data)?;
    let scrape = bourse_gateway::metrics::install()?;

    // Bound first: that another daemon is there already should be known before anything is started.
    let (to_driver, http_events) = mpsc::unbounded_channel();
    let seed = own::entropy()?;
    let gateway = Gateway::new(gateway_config(&config, seed, scrape, files), to_driver);
    let listener = gateway.listen(config.http()).map_err(|e| {
        anyhow::anyhow!(
            "{e}\n  hint: {}",
            "stop what listens there, or name another address with --http (port 0 picks a free one)"
        )
    })?;
    let http = listener.local_addr();
    let mail = mail::listen(&gateway, &config, files)?;

    let runtime_folder = files::runtime_folder(&data);
    let bounds = Bounds { send_frames_max: FRAMES_MAX, ..Bounds::new(HEADER_BYTES_MAX + config.payload()) };
    let mut transport = Router::new(RouterOptions::new(bounds))?;
    let endpoint = transport.bind(&Endpoint::Ipc(runtime_folder.join("w"))).await?;
    let endpoint_tcp = match config.worker_tcp() {
        None => None,
        Some(address) => Some(transport.bind(&Endpoint::Tcp(address)).await?),
    };

    let mut peers = grid::start_peers(&config, &data).await?;
    if let Some(peers) = &peers {
        gateway.name_connections(driver::connections_of(&peers.key()));
    }
    let mut discovery = peers.as_ref().map(|peers| Discovery::start(&config, peers)).transpose()?;

    bourse_worker::keeper::become_subreaper()?;
    let keeper = keeper::KeeperLine::start().context("the keeper cannot be started")?;
    let (answers, store_answers) = mpsc::unbounded_channel();
    let mut grid = peers.as_ref().map(|peers| grid::config(&config, peers, &*store)).transpose()?;
    let store = StoreThreads::start(store, answers)?;
    let places = Places {
        root: config.folder.clone(),
        data: data.clone(),
        environments: environments_folder(&config),
        python: Some(config.text("python")).filter(|p| !p.is_empty()).map(PathBuf::from),
        endpoint: endpoint.to_string(),
        attached: !config.list("attached").is_empty(),
    };
    let (to_driver_performed, performed) = mpsc::unbounded_channel();
    let outside = outside::Outside::start(outside::Settings::from(&config), to_driver_performed)?;
    let (from_deployers, deployed) = mpsc::unbounded_channel();
    let deployer = deploy::start(deploy::Source::Folder, places.clone(), from_deployers.clone())?;
    deployer.send(deploy::ToDeployer::Look).ok();
    let look = deployer.clone();
    let watch = bourse_worker::watch::Watch::start(&config.folder, move || {
        drop(look.send(deploy::ToDeployer::Look))
    })?;
    if let bourse_worker::watch::Mode::Polling(why) = watch.mode() {
        tracing::warn!("changes of {} are looked for every second: {why}", config.folder.display());
    }

    let contact = Contact {
        pid: std::process::id(),
        http: format!("http://{http}"),
        smtp: mail.as_ref().map(|mail| format!("smtp://{}", mail.local_addr())),
        endpoint: endpoint.to_string(),
        endpoint_tcp: endpoint_tcp.map(|e| e.to_string()),
        token_file: data.join("token"),
        folder: config.folder.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    files::write_contact(&data, &contact)?;

    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut node_config = config.node(cores, token.into(), http.to_string());
    if let (Some(grid), Some(peers), Some(discovery)) = (&mut grid, &mut peers, &mut discovery) {
        // Who is there already is asked before this node begins a grid of its own.
        grid.seeds.extend(discovery.take().into_iter().filter_map(|found| match found {
            Found::Lead(lead) => peers.seed_of(lead),
            Found::Gone { .. } => None,
        }));
    }
    node_config.grid = grid;
    node_config.deployments = deployments::load(&data)?;
    let life = if peers.is_some() { own::next_life(&data)? } else { own::life() };
    let incarnation = Incarnation(life);
    let (to_looked, looked) = mpsc::unbounded_channel();
    let (to_done, done) = mpsc::unbounded_channel();
    let stop_serving = Arc::new(Notify::new());
    let mut driver = Driver {
        node: bourse_node::Node::new(node_config, incarnation, seed),
        clock,
        transport,
        peers,
        discovery,
        keeper,
        store: Some(store),
        store_answers,
        gateway: gateway.clone(),
        http_events,
        outside,
        performed,
        sources: [(deploy::Source::Folder, driver::Deploying { deployer, planned: None })].into(),
        from_deployers,
        deployed,
        done,
        to_done,
        places,
        config,
        contact,
        ready_file: ready_file.map(Path::to_owned),
        state: driver::State::default(),
        meters: events::Meters::default(),
        looked,
        to_looked,
    };
    let serving = tokio::spawn({
        let stop = stop_serving.clone();
        async move {
            let mail_stop = stop.clone();
            let mail = async move {
                if let Some(mail) = mail {
                    mail.serve(mail_stop.notified()).await;
                }
            };
            tokio::join!(listener.serve(stop.notified()), mail)
        }
    });
    let result = driver.run().await;
    drop(watch);
    stop_serving.notify_waiters();
    // Answers that were given while draining still have to leave.
    let patience = if driver.is_cut_short() { LAST_ANSWERS_CUT_SHORT } else { LAST_ANSWERS };
    let _ = tokio::time::timeout(patience, serving).await;
    files::remove_contact(&data);
    driver.end().await;
    result
}

/// Frames that may wait for one worker or client. A client may have many calls in flight, and the answers to all of
/// them may come at once.
const FRAMES_MAX: u32 = 100_000;

/// Descriptors that are not for HTTP connections: for instances, the store, the folder.
const FILES_KEPT: usize = 256;

/// Raises the number of files that this process may have open as far as it may be; that number. Connections should not
/// use up what instances need.
fn raise_files() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    current.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX))
}

/// How long answers that were given have to leave when the daemon stops.
const LAST_ANSWERS: std::time::Duration = std::time::Duration::from_secs(2);
/// The same when it was told twice.
const LAST_ANSWERS_CUT_SHORT: std::time::Duration = std::time::Duration::from_millis(200);

fn gateway_config(
    config: &Config,
    seed: [u8; 32],
    scrape: bourse_gateway::metrics::Scrape,
    files: usize,
) -> bourse_gateway::Config {
    // Trace ids are seen by strangers; what secrets are made from must not be.
    let public = blake3::derive_key("bourse 2026 trace ids", &seed);
    let kept = FILES_KEPT + mail::connections_max(config, files);
    let word = |at: usize| u64::from_le_bytes(public[at..at + 8].try_into().expect("eight bytes"));
    bourse_gateway::Config {
        auth: match config.text("token") {
            "" => Auth::None,
            token => Auth::Token(token.to_owned()),
        },
        hosts: config.list("hosts"),
        origins: config.list("origins"),
        dev: config.flag("dev"),
        limits: Limits {
            body_bytes_max: config.payload(),
            connections_max: Limits::default().connections_max.min(files.saturating_sub(kept).max(1)),
            ..Limits::default()
        },
        seed: [word(0), word(8)],
        scrape: Some(scrape),
    }
}

fn environments_folder(config: &Config) -> PathBuf {
    if let Some(configured) = config.path("environments") {
        return configured;
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|p| p.is_absolute());
    match cache.or(home.map(|h| h.join(".cache"))) {
        Some(cache) => cache.join("bourse"),
        None => config.data().join("environments"),
    }
}
