//! The peers' figures.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::http::{self, Connection, Differ};
use crate::ours::{self, BODY, SCATTERED, TOGETHER};
use crate::process::{Running, free_port, number_from, until, wait_for_port};
use crate::restate::Restate;
use crate::tools::Tools;

/// Starts of an interpreter, and of NATS with a worker, in each round.
const STARTS: usize = 5;

/// Measures the others. They are started when they are first needed.
pub(crate) struct Peers<'t> {
    tools: &'t Tools,
    seconds: f64,
    nats: Option<Nats>,
    workerd: Option<(Running, u16)>,
    /// A new one in each round, and what is wrong if there can be none.
    restate: Option<Result<Restate, String>>,
}

/// A server and its workers.
struct Nats {
    url: String,
    _server: Running,
    _workers: Vec<Running>,
}

impl<'t> Peers<'t> {
    pub(crate) fn new(tools: &'t Tools, seconds: f64) -> Self {
        Self { tools, seconds, nats: None, workerd: None, restate: None }
    }

    /// The figures of the row's peer; none if it has no peer.
    pub(crate) fn measure(&mut self, row: &str) -> Result<Vec<f64>> {
        let one = |figure: f64| Ok(vec![figure]);
        let seconds = self.seconds;
        match row {
            "floor-latency" => one(self.pyzmq("latency")?),
            "floor-throughput" => one(self.pyzmq("rate")?),
            "client-latency" => one(self.nats("latency")?),
            "client-throughput" | "raw-throughput" => one(self.nats("rate")?),
            "fan-out" => one(self.nats("fan")?),
            "http-latency" => {
                one(Connection::open(self.workerd()?)?.latency("/", BODY, self.seconds, Differ::Not)?)
            }
            "http-throughput" => {
                self.tools.wrk()?;
                one(http::throughput(
                    &self.tools.peers().join("post.lua"),
                    self.workerd()?,
                    "/",
                    self.seconds,
                    Differ::Not,
                )?)
            }
            "cold-start" => (0..STARTS).map(|_| self.interpreter()).collect(),
            "start" => (0..STARTS).map(|_| self.start_of_nats()).collect(),
            "store-writes" => one(ours::store(self.tools, SCATTERED)?.0),
            "durable-latency" => one(self.restate()?.measure("latency", seconds)?),
            "durable-throughput" => one(self.restate()?.measure("throughput", seconds)?),
            "accept-throughput" => one(ours::store(self.tools, TOGETHER)?.0),
            _ => Ok(Vec::new()),
        }
    }

    /// Ends what is begun anew in every round.
    pub(crate) fn end_round(&mut self) {
        self.restate = self.restate.take().filter(Result::is_err);
    }

    fn log(&self, name: &str) -> PathBuf {
        self.tools.folder.join(name)
    }

    fn pyzmq(&self, what: &str) -> Result<f64> {
        let folder = tempfile::tempdir()?;
        let endpoint = format!("ipc://{}", folder.path().join("z").display());
        let _server = Running::start(
            self.tools.script("zmq_echo.py")?.args(["serve", &endpoint]),
            &self.log("zmq.log"),
        )?;
        number_from(self.tools.script("zmq_echo.py")?.args([what, &endpoint, &self.seconds.to_string()]))
    }

    fn nats(&mut self, what: &str) -> Result<f64> {
        if self.nats.is_none() {
            self.nats = Some(self.start_nats(2)?);
        }
        let url = &self.nats.as_ref().context("it was started")?.url;
        number_from(self.tools.script("nats_client.py")?.args([url, what, &self.seconds.to_string()]))
    }

    fn start_nats(&self, workers: usize) -> Result<Nats> {
        let port = free_port()?;
        let url = format!("nats://127.0.0.1:{port}");
        let server = self.tools.python()?.with_file_name("nats-server");
        let server = Running::start(
            Command::new(server).args(["-a", "127.0.0.1", "-p", &port.to_string()]),
            &self.log("nats.log"),
        )?;
        wait_for_port(port)?;
        let start =
            || Running::start(self.tools.script("nats_worker.py")?.arg(&url), &self.log("nats_worker.log"));
        let workers = (0..workers).map(|_| start()).collect::<Result<Vec<_>>>()?;
        if workers.len() > 1 {
            // There is no telling from outside when both are there.
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
        Ok(Nats { url, _server: server, _workers: workers })
    }

    /// Milliseconds from nothing to the first answer: the server and one worker. The client asks in NATS's own
    /// protocol, so that its start does not count.
    fn start_of_nats(&self) -> Result<f64> {
        use std::io::{BufRead as _, BufReader, Write as _};
        let begin = Instant::now();
        let nats = self.start_nats(1)?;
        let port = nats.url.rsplit(':').next().context("a port")?.parse()?;
        let mut stream = std::net::TcpStream::connect(crate::process::local(port))?;
        stream.set_nodelay(true)?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        stream.write_all(
            b"CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true}\r\nSUB inbox 1\r\n",
        )?;
        until("NATS's first answer", || {
            stream.write_all(b"PUB f.echo inbox 5\r\nhello\r\n").ok()?;
            loop {
                let line = lines.next()?.ok()?;
                if line.starts_with("MSG inbox") {
                    return Some(());
                }
                if line.starts_with("HMSG") {
                    return None; // 503: nobody there yet
                }
            }
        })?;
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    }

    fn interpreter(&self) -> Result<f64> {
        let begin = Instant::now();
        if !Command::new(self.tools.python()?).args(["-c", "pass"]).status()?.success() {
            bail!("python -c pass failed");
        }
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    }

    fn restate(&mut self) -> Result<&mut Restate> {
        let started =
            self.restate.get_or_insert_with(|| Restate::start(self.tools).map_err(|e| format!("{e:#}")));
        started.as_mut().map_err(|why| anyhow::anyhow!("{why}"))
    }

    fn workerd(&mut self) -> Result<u16> {
        if self.workerd.is_none() {
            let port = free_port()?;
            let mut command = Command::new(self.tools.workerd()?);
            command
                .arg("serve")
                .arg(self.tools.peers().join("workerd.capnp"))
                .arg(format!("--socket-addr=http=127.0.0.1:{port}"));
            let running = Running::start(&mut command, &self.log("workerd.log"))?;
            wait_for_port(port)?;
            self.workerd = Some((running, port));
        }
        Ok(self.workerd.as_ref().context("it was started")?.1)
    }
}
