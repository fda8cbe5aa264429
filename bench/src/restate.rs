//! Restate and its service, in a network namespace with loopback only: it looks for the outside when it starts.
//!
//! What measures it has to be in that namespace too, so this program starts itself there once more.
//!
//! ```text
//! bench  -> inside: "latency SECONDS" or "throughput SECONDS", a line each
//! inside -> bench: "ready", then a number for each line, or what is wrong
//! ```

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::http::{self, Connection, Differ};
use crate::ours::BODY;
use crate::process::{Running, until, wait_for_port};
use crate::tools::Tools;

/// Restate's own ports; nobody else is in its namespace.
const INGRESS: u16 = 8080;
const ADMIN: u16 = 9070;
const SERVICE: u16 = 9080;
const ECHO: &str = "/bench/echo";
/// Seconds of load before anything counts.
const WARM: f64 = 3.0;
/// After this the inside is killed.
const PATIENCE: Duration = Duration::from_secs(30);

/// The one outside.
pub(crate) struct Restate {
    child: Child,
    /// Closing it ends the inside.
    asks: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Restate {
    pub(crate) fn start(tools: &Tools) -> Result<Self> {
        tools.wrk()?;
        let packages = tools.restate()?;
        let mut unshare = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            unshare.arg("--map-root-user");
        }
        unshare
            .args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"])
            .arg(std::env::current_exe()?)
            .arg("restate")
            .arg(packages)
            .arg(tools.peers())
            .arg(tools.folder.join("restate.log"));
        let mut child = unshare.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let asks = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("it was asked for")?).lines();
        let mut started = Self { child, asks, answers };
        match started.answer()?.as_str() {
            "ready" => Ok(started),
            wrong => bail!("Restate does not start: {wrong}"),
        }
    }

    pub(crate) fn measure(&mut self, what: &str, seconds: f64) -> Result<f64> {
        writeln!(self.asks.as_mut().context("it is open until the end")?, "{what} {seconds}")?;
        let answer = self.answer()?;
        answer.parse().map_err(|_| anyhow::anyhow!("Restate: {answer}"))
    }

    fn answer(&mut self) -> Result<String> {
        Ok(self.answers.next().context("Restate's namespace cannot be made, or has ended")??)
    }
}

impl Drop for Restate {
    fn drop(&mut self) {
        self.asks = None;
        let ended = || self.child.try_wait().ok()?;
        if crate::process::within(PATIENCE, ended).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The one inside.
pub(crate) fn serve(args: &[String]) -> Result<()> {
    let [packages, peers, log] = args else { bail!("restate PACKAGES PEERS LOG") };
    let script = Path::new(peers).join("post.lua");
    let processes = match start(Path::new(packages), Path::new(peers), Path::new(log), &script) {
        Ok(processes) => processes,
        Err(error) => return tell(&format!("{error:#}")),
    };
    tell("ready")?;
    for line in std::io::stdin().lines() {
        let line = line?;
        let (what, seconds) = line.split_once(' ').context("two words")?;
        let figure = match what {
            "latency" => Connection::open(INGRESS)
                .and_then(|mut c| c.latency(ECHO, BODY, seconds.parse()?, Differ::Not)),
            "throughput" => http::throughput(&script, INGRESS, ECHO, seconds.parse()?, Differ::Not),
            other => bail!("{other} is not measured"),
        };
        tell(&figure.map_or_else(|error| format!("{error:#}"), |figure| figure.to_string()))?;
    }
    drop(processes);
    Ok(())
}

/// What is ended with it, and the folder that is removed then.
type Processes = (Running, Running, tempfile::TempDir);

fn start(packages: &Path, peers: &Path, log: &Path, script: &Path) -> Result<Processes> {
    let folder = tempfile::Builder::new().prefix("restate-").tempdir()?;
    let modules = packages.join("node_modules");
    let mut service = Command::new(modules.join("node/bin/node"));
    service.arg(peers.join("restate.js")).arg(SERVICE.to_string()).env("NODE_PATH", &modules);
    let service = Running::start(&mut service, log)?;
    let mut server = Command::new(server(packages).context("no server for this machine")?);
    server
        .arg("--base-dir")
        .arg(folder.path())
        .args(["--bind-ip", "127.0.0.1", "--advertised-host", "127.0.0.1", "--node-name", "n1"])
        .env("RESTATE_DISABLE_TELEMETRY", "true")
        .env("DO_NOT_TRACK", "1");
    let server = Running::start(&mut server, log)?;
    for port in [SERVICE, ADMIN, INGRESS] {
        wait_for_port(port)?;
    }
    let deployment = format!("{{\"uri\":\"http://127.0.0.1:{SERVICE}\"}}");
    until("the service's registration", || {
        let (status, _) = Connection::open(ADMIN).ok()?.post("/deployments", &deployment).ok()?;
        matches!(status, 200 | 201).then_some(())
    })?;
    let answer = until("Restate's first answer", || {
        let (status, text) = Connection::open(INGRESS).ok()?.post(ECHO, BODY).ok()?;
        (status == 200).then_some(text)
    })?;
    if answer != BODY {
        bail!("it answered {answer}");
    }
    http::throughput(script, INGRESS, ECHO, WARM, Differ::Not)?;
    Ok((server, service, folder))
}

/// The server's program for this machine.
pub(crate) fn server(packages: &Path) -> Option<std::path::PathBuf> {
    let all = std::fs::read_dir(packages.join("node_modules/@restatedev")).ok()?;
    all.flatten().map(|p| p.path().join("bin/restate-server")).find(|p| p.exists())
}

fn tell(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", line.replace('\n', " "))?;
    Ok(out.flush()?)
}
