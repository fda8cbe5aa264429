//! Programs that are started, watched and ended by their process id.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

/// How long something may take to start, and to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program that is ended when this is dropped.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// Starts it; what it says goes to `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let log = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{command:?}"))?;
        Ok(Self { child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        let pid = Pid::from_child(&self.child);
        // It may end by itself at this moment.
        let _ = kill_process(pid, Signal::TERM);
        if within(PATIENCE, || self.child.try_wait().ok()?).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A port that nobody listens on at the moment.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Loopback, at that port.
pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Tries until it gives something.
pub(crate) fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> Result<T> {
    within(PATIENCE, look).with_context(|| format!("{what}: nothing within {PATIENCE:?}"))
}

/// Tries until it gives something, or for so long.
pub(crate) fn within<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begin = Instant::now();
    while begin.elapsed() < patience {
        if let Some(found) = look() {
            return Some(found);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

/// Waits until somebody listens there.
pub(crate) fn wait_for_port(port: u16) -> Result<()> {
    until(&format!("port {port}"), || TcpStream::connect(local(port)).ok().map(drop))
}

/// Runs a program that prints one number.
pub(crate) fn number_from(command: &mut Command) -> Result<f64> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| {
        anyhow::anyhow!("{command:?} printed {:?}\n{}", text.trim(), String::from_utf8_lossy(&output.stderr))
    })
}

/// Resident memory in megabytes.
pub(crate) fn resident(pid: u32) -> Result<f64> {
    kilobytes(&format!("/proc/{pid}/status"), "VmRSS:")
}

/// The most that has been resident at once, in megabytes.
pub(crate) fn resident_most(pid: u32) -> Result<f64> {
    kilobytes(&format!("/proc/{pid}/status"), "VmHWM:")
}

/// Resident memory in megabytes, where pages shared by n processes count for a n-th.
pub(crate) fn proportional(pid: u32) -> Result<f64> {
    kilobytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:")
}

fn kilobytes(file: &str, name: &str) -> Result<f64> {
    let text = std::fs::read_to_string(file)?;
    let line = text.lines().find_map(|l| l.strip_prefix(name)).context("the kernel tells it")?;
    let number: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(number / 1024.0)
}

/// Processor time of all its threads so far, in seconds. (The kernel's clock ticks would be too coarse.)
pub(crate) fn processor_seconds(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0.0;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let schedule = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        let ran =
            schedule.split_whitespace().next().context("schedstat begins with the time on a processor")?;
        nanoseconds += ran.parse::<f64>()?;
    }
    Ok(nanoseconds / 1e9)
}

/// The processes whose parent that is.
pub(crate) fn children(parent: u32) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let of =
            stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse::<u32>().ok());
        if of == Some(parent) {
            found.push(pid);
        }
    }
    Ok(found)
}
