//! Our figures.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::http::Connection;
use crate::process::{
    Running, children, free_port, number_from, processor_seconds, proportional, resident, until,
};
use crate::tools::Tools;
use crate::{client, floor, http};

/// A JSON text of 100 bytes.
pub(crate) const BODY: &str = "\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"";
/// Cold starts in each round.
const COLD_STARTS: usize = 12;
/// Starts of the daemon in each round.
const STARTS: usize = 5;
const IDLE: Duration = Duration::from_secs(10);

/// Measures us.
pub(crate) struct Ours<'t> {
    tools: &'t Tools,
    seconds: f64,
    daemon: Option<Daemon>,
    /// With one worker instead of two.
    single: Option<Daemon>,
}

impl<'t> Ours<'t> {
    pub(crate) fn new(tools: &'t Tools, seconds: f64) -> Self {
        Self { tools, seconds, daemon: None, single: None }
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
            "http-latency" => one(Connection::open(self.daemon()?.port)?.latency("/echo", BODY, seconds)?),
            "http-throughput" => one(self.wrk("/echo", false)?),
            "state-writes" => one(self.wrk("/put", true)?),
            "cold-start" => self.daemon()?.cold_starts(),
            "start" => {
                let place = Place::new(tools, 2)?;
                place.start()?; // compiles what it needs
                (0..STARTS).map(|_| Ok(place.start()?.0.as_secs_f64() * 1e3)).collect()
            }
            "start-new-folder" => one(Place::new(tools, 2)?.start()?.0.as_secs_f64() * 1e3),
            "store-writes" => one(store(tools)?.1),
            "memory-after-load" => one(resident(self.daemon()?.rested().pid())?),
            other => bail!("{other} is not measured"),
        }
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

    fn wrk(&mut self, path: &str, keys: bool) -> Result<f64> {
        self.tools.wrk()?;
        let script = self.tools.peers().join("post.lua");
        http::throughput(&script, self.daemon()?.port, path, self.seconds, keys)
    }
}

/// Rows per second of bare SQLite and of the store, 64 rows in 64 batches per commit.
pub(crate) fn store(tools: &Tools) -> Result<(f64, f64)> {
    let output = Command::new(&tools.store)
        .args(["--rounds", "3", "--only", "64 in 64 batches"])
        .arg(&tools.folder)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().and_then(|l| l.trim().strip_prefix("64 in 64 batches"));
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
    /// The functions of `bench/functions`, with so many workers.
    fn new(tools: &Tools, workers: usize) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("b-").tempdir()?;
        let served = folder.path().join("served");
        std::fs::create_dir(&served)?;
        for entry in std::fs::read_dir(tools.root.join("bench/functions"))? {
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
        let first = until("the first answer", || {
            if running.has_ended().ok()? {
                return Some(Err(()));
            }
            let (status, _) = Connection::open(port).ok()?.post("/echo", BODY).ok()?;
            (status == 200).then_some(Ok(()))
        });
        let took = begin.elapsed();
        match first {
            Ok(Ok(())) => Ok((took, running, port)),
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
        let place = Place::new(tools, workers)?;
        let environment_made = place.environments.exists();
        let (_, mut running, mut port) = if environment_made {
            place.start()?
        } else {
            // Making it takes a download.
            let port = free_port()?;
            let running = place.spawn(port)?;
            for _ in 0..10 {
                if until("the environment", || Connection::open(port).ok()?.post("/echo", BODY).ok()).is_ok()
                {
                    break;
                }
            }
            (Duration::ZERO, running, port)
        };
        if running.has_ended()? {
            (_, running, port) = place.start()?;
        }
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

fn pid_in(value: &Value) -> Result<u32> {
    Ok(u32::try_from(value.as_u64().context("a process id")?)?)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).with_context(|| file.display().to_string())
}
