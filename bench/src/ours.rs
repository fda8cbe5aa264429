//! Our figures.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::http::{Connection, Differ};
use crate::process::{
    Running, children, free_port, number_from, processor_seconds, proportional, resident, until, within,
};
use crate::tools::Tools;
use crate::{client, floor, http};

/// The folder in `bench/` that most is measured with.
const FUNCTIONS: &str = "functions";
/// A JSON text of 100 bytes.
pub(crate) const BODY: &str = "\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"";
/// Cold starts in each round.
const COLD_STARTS: usize = 12;
/// Starts of the daemon in each round.
const STARTS: usize = 5;
/// How long a start may take: the first one of all makes the environment, with downloads.
const START_PATIENCE: Duration = Duration::from_secs(200);
const IDLE: Duration = Duration::from_secs(10);
/// Commits of 64 rows, each of a partition of its own.
pub(crate) const SCATTERED: &str = "64 in 64 batches";
/// Commits of 64 rows of one partition: calls that are accepted together are at home together.
pub(crate) const TOGETHER: &str = "64 in 1 batch";
/// What `bench/waiting/bourse.toml` says.
const RUNNING_MAX: usize = 2;
/// Accepts a call of [`Waiting`].
pub(crate) const ACCEPT: &str = "/v1/call/waiting.echo?mode=async";

/// Measures us.
pub(crate) struct Ours<'t> {
    tools: &'t Tools,
    seconds: f64,
    daemon: Option<Daemon>,
    /// With one worker instead of two.
    single: Option<Daemon>,
    /// Whose calls are durable ones, a new one in each round: what is kept of them is to weigh on no other figure.
    durable: Option<Daemon>,
}

impl<'t> Ours<'t> {
    pub(crate) fn new(tools: &'t Tools, seconds: f64) -> Self {
        Self { tools, seconds, daemon: None, single: None, durable: None }
    }

    /// The row's figures; none where it is measured once only, and was.
    pub(crate) fn measure(&mut self, row: &str) -> Result<Vec<f64>> {
        let (tools, seconds) = (self.tools, self.seconds);
        let one = |figure: f64| Ok(vec![figure]);
        match row {
            "idle-memory" => one(resident(Daemon::start(tools, 2)?.rested().pid())?),
            "idle-memory-keeper" => one(resident(self.daemon()?.keeper()?)?),
            "idle-memory-template" => one(proportional(self.daemon()?.template()?)?),
            "idle-cpu" => {
                let pid = self.daemon()?.rested().pid();
                let before = processor_seconds(pid)?;
                std::thread::sleep(IDLE);
                one((processor_seconds(pid)? - before) / IDLE.as_secs_f64() * 100.0)
            }
            "floor-latency" => one(floor::measure(&tools.folder, seconds)?.0),
            "floor-throughput" => one(floor::measure(&tools.folder, seconds)?.1),
            "client-latency" => one(self.python("latency")?),
            "client-throughput" => one(self.python("rate")?),
            "fan-out" => one(self.python("fan")?),
            "raw-throughput" => one(self.daemon()?.raw_throughput(seconds)?),
            "raw-throughput-1" => {
                if self.single.is_none() {
                    self.single = Some(Daemon::start(tools, 1)?);
                }
                one(self.single.as_ref().context("it was started")?.raw_throughput(seconds)?)
            }
            "http-latency" => {
                let mut connection = Connection::open(self.daemon()?.port)?;
                one(connection.latency("/echo", BODY, seconds, Differ::Not)?)
            }
            "http-throughput" => one(wrk(tools, self.daemon()?.port, "/echo", seconds, Differ::Not)?),
            "state-writes" => one(wrk(tools, self.daemon()?.port, "/put", seconds, Differ::InPath)?),
            "durable-latency" => {
                let mut connection = Connection::open(self.durable()?.port)?;
                one(connection.latency("/durable", BODY, seconds, Differ::Not)?)
            }
            "durable-throughput" => one(wrk(tools, self.durable()?.port, "/durable", seconds, Differ::Not)?),
            "accept-throughput" => {
                // A new one each time: what is accepted is never run.
                let waiting = Waiting::start(tools)?;
                one(wrk(tools, waiting.port(), ACCEPT, seconds, Differ::Not)?)
            }
            "cold-start" => self.daemon()?.cold_starts(),
            "start" => {
                let place = Place::new(tools, FUNCTIONS, 2)?;
                place.start()?; // compiles what it needs
                (0..STARTS).map(|_| Ok(place.start()?.0.as_secs_f64() * 1e3)).collect()
            }
            "start-new-folder" => one(Place::new(tools, FUNCTIONS, 2)?.start()?.0.as_secs_f64() * 1e3),
            "store-writes" => one(store(tools, SCATTERED)?.1),
            "memory-after-load" => one(resident(self.daemon()?.rested().pid())?),
            other => bail!("{other} is not measured"),
        }
    }

    /// Ends what is begun anew in every round.
    pub(crate) fn end_round(&mut self) {
        self.durable = None;
    }

    fn daemon(&mut self) -> Result<&Daemon> {
        if self.daemon.is_none() {
            self.daemon = Some(Daemon::start(self.tools, 2)?);
        }
        self.daemon.as_ref().context("it was started")
    }

    fn python(&mut self, what: &str) -> Result<f64> {
        let mut script = self.tools.script("bourse_client.py")?;
        let seconds = self.seconds.to_string();
        number_from(script.arg(self.daemon()?.place.data()).args([what, &seconds]))
    }

    fn durable(&mut self) -> Result<&Daemon> {
        if self.durable.is_none() {
            self.durable = Some(Daemon::start(self.tools, 2)?);
        }
        self.durable.as_ref().context("it was started")
    }
}

fn wrk(tools: &Tools, port: u16, path: &str, seconds: f64, differ: Differ) -> Result<f64> {
    tools.wrk()?;
    http::throughput(&tools.peers().join("post.lua"), port, path, seconds, differ)
}

/// Rows per second of bare SQLite and of the store, with commits of that shape.
pub(crate) fn store(tools: &Tools, shape: &str) -> Result<(f64, f64)> {
    let output =
        Command::new(&tools.store).args(["--rounds", "3", "--only", shape]).arg(&tools.folder).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().and_then(|l| l.trim().strip_prefix(shape));
    let numbers: Vec<f64> = line
        .context("the store's example printed no figures")?
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    Ok((numbers[0], numbers[1]))
}

/// A folder to serve.
struct Place {
    folder: TempDir,
    bourse: PathBuf,
    environments: PathBuf,
}

impl Place {
    /// The functions of a folder in `bench/`; those of `functions` with so many workers.
    fn new(tools: &Tools, functions: &str, workers: usize) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("b-").tempdir()?;
        let served = folder.path().join("served");
        std::fs::create_dir(&served)?;
        for entry in std::fs::read_dir(tools.root.join("bench").join(functions))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                let text = std::fs::read_to_string(entry.path())?;
                let text = text.replace("instances_max = 2", &format!("instances_max = {workers}"));
                std::fs::write(served.join(entry.file_name()), text)?;
            }
        }
        Ok(Self { folder, bourse: tools.bourse.clone(), environments: tools.folder.join("environments") })
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("served/.bourse")
    }

    fn spawn(&self, port: u16) -> Result<Running> {
        let mut command = Command::new(&self.bourse);
        command
            .arg("up")
            .arg(self.folder.path().join("served"))
            .args(["--http", &format!("127.0.0.1:{port}")]);
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("BOURSE_")) {
            command.env_remove(name);
        }
        command.env("BOURSE_ENVIRONMENTS", &self.environments).env("TMPDIR", self.folder.path());
        // Bytecode is cached where people run it.
        command.env_remove("XDG_RUNTIME_DIR").env_remove("PYTHONDONTWRITEBYTECODE");
        Running::start(&mut command, &self.folder.path().join("log"))
    }

    /// Starts a daemon; how long it took until it has answered a call.
    fn start(&self) -> Result<(Duration, Running, u16)> {
        let port = free_port()?;
        let begin = Instant::now();
        let mut running = self.spawn(port)?;
        let first = within(START_PATIENCE, || {
            if running.has_ended().ok()? {
                return Some(Err(()));
            }
            let (status, _) = Connection::open(port).ok()?.post("/echo", BODY).ok()?;
            (status == 200).then_some(Ok(()))
        });
        let took = begin.elapsed();
        match first {
            Some(Ok(())) => Ok((took, running, port)),
            _ => bail!("the daemon does not answer:\n{}", self.log()),
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

/// A daemon that serves.
struct Daemon {
    running: Running,
    port: u16,
    place: Place,
}

impl Daemon {
    fn start(tools: &Tools, workers: usize) -> Result<Self> {
        Self::start_in(Place::new(tools, FUNCTIONS, workers)?)
    }

    fn start_in(place: Place) -> Result<Self> {
        let (_, running, port) = place.start()?;
        Ok(Self { running, port, place })
    }

    fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// After it had time to come to rest.
    fn rested(&self) -> &Self {
        std::thread::sleep(Duration::from_millis(500));
        self
    }

    fn status(&self, path: &str) -> Result<Value> {
        Ok(serde_json::from_str(&Connection::open(self.port)?.get(path)?.1)?)
    }

    fn keeper(&self) -> Result<u32> {
        pid_in(&self.status("/v1/status")?["keeper_pid"])
    }

    /// The fork server of one module: a child of the keeper that is no instance.
    fn template(&self) -> Result<u32> {
        let all = self.status("/v1/instances")?;
        let instances: Vec<u32> =
            all.as_array().into_iter().flatten().filter_map(|i| pid_in(&i["pid"]).ok()).collect();
        children(self.keeper()?)?.into_iter().find(|pid| !instances.contains(pid)).context("no fork server")
    }

    fn raw_throughput(&self, seconds: f64) -> Result<f64> {
        let contact: Value = serde_json::from_slice(&read(&self.place.data().join("daemon.json"))?)?;
        let endpoint = contact["endpoint"].as_str().context("an endpoint")?;
        let token = read(&self.place.data().join("token"))?;
        client::throughput(endpoint, token.trim_ascii(), "bench.echo", seconds)
    }

    /// Milliseconds that calls of a module without an instance took.
    fn cold_starts(&self) -> Result<Vec<f64>> {
        let mut connection = Connection::open(self.port)?;
        let mut times = Vec::new();
        for _ in 0..COLD_STARTS {
            until("the idle instance's end", || {
                std::thread::sleep(Duration::from_millis(30));
                let (_, instances) = connection.get("/v1/instances").ok()?;
                (!instances.contains("\"module\":\"cold\"")).then_some(())
            })?;
            std::thread::sleep(Duration::from_millis(50));
            let begin = Instant::now();
            let (status, text) = connection.post("/cold", BODY)?;
            times.push(begin.elapsed().as_secs_f64() * 1e3);
            if status != 200 {
                bail!("{status}: {text}");
            }
        }
        Ok(times)
    }
}

/// A daemon that accepts calls of `waiting.echo` and runs none of them, until its gate is opened.
pub(crate) struct Waiting {
    daemon: Daemon,
    gate: PathBuf,
}

impl Waiting {
    pub(crate) fn start(tools: &Tools) -> Result<Self> {
        let daemon = Daemon::start_in(Place::new(tools, "waiting", 2)?)?;
        let gate = daemon.place.folder.path().join("open");
        let waiting = Self { daemon, gate };
        let mut connection = Connection::open(waiting.port())?;
        let file = serde_json::json!([waiting.gate]).to_string();
        for _ in 0..RUNNING_MAX {
            until("the gate's module", || {
                let (status, _) = connection.post("/v1/call/gate.hold?mode=async&timeout=24h", &file).ok()?;
                (status == 202).then_some(())
            })?;
        }
        until("the gate", || {
            (waiting.daemon.status("/v1/status").ok()?["running"] == RUNNING_MAX).then_some(())
        })?;
        Ok(waiting)
    }

    /// From now on what waits is run.
    pub(crate) fn open(&self) -> Result<()> {
        Ok(std::fs::write(&self.gate, "")?)
    }

    pub(crate) fn port(&self) -> u16 {
        self.daemon.port
    }

    pub(crate) fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    pub(crate) fn status(&self, path: &str) -> Result<Value> {
        self.daemon.status(path)
    }

    /// Megabytes of the store's files.
    pub(crate) fn stored(&self) -> Result<f64> {
        let mut bytes = 0;
        for entry in std::fs::read_dir(self.daemon.place.data())? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("store") {
                bytes += entry.metadata()?.len();
            }
        }
        Ok(bytes as f64 / f64::from(1 << 20))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // So that the daemon stops at once. If it can't be opened, it takes the time that `drain` says.
        let _ = self.open();
    }
}

fn pid_in(value: &Value) -> Result<u32> {
    Ok(u32::try_from(value.as_u64().context("a process id")?)?)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| file.display().to_string())
}
