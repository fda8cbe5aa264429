//! The daemon's half: starts a keeper, cleans up after a dead one.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{self, Pid, Signal, WaitOptions};

use super::reap::{self, Entry};

/// How long to wait for orphans to die before looking again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A running keeper, seen from the daemon. Dropping it leaves the keeper alone: it ends with its socket.
#[derive(Debug)]
pub struct Keeper {
    child: Child,
}

/// What became of a dead keeper's processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// Killed and reaped.
    pub ended: usize,
    /// Killed, but not dead when patience ended (waiting for a disk that does not answer, for example).
    pub left: usize,
}

/// Makes orphaned descendants of this process its children, so that [`Keeper::reap_orphans`] finds them. To be
/// called once, before the first keeper is started.
pub fn become_subreaper() -> io::Result<()> {
    Ok(process::set_child_subreaper(Some(process::getpid()))?)
}

impl Keeper {
    /// Starts this very program with the argument `keeper`, also if its file was replaced or removed meanwhile.
    /// The stream is non-blocking and speaks `proto/bourse/v1/keeper.proto`.
    pub fn start() -> io::Result<(Self, UnixStream)> {
        Self::start_program(OsStr::new("/proc/self/exe"), &["keeper".into()])
    }

    /// Starts another program that calls [`main`](super::main).
    pub fn start_program(program: &OsStr, arguments: &[OsString]) -> io::Result<(Self, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        // A group of its own: a terminal's Ctrl-C is for the daemon. It stays in the daemon's session, which tells
        // it from what it starts.
        let child = Command::new(program)
            .args(arguments)
            .stdin(OwnedFd::from(theirs))
            .current_dir("/")
            .process_group(0)
            .spawn()?;
        Ok((Self { child }, ours))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended; `None` while it runs.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Waits for its end, which comes when its stream was closed and everything it started is dead.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Kills it. What it started becomes the daemon's own: follow with [`reap_orphans`](Self::reap_orphans).
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()
    }

    /// Ends and reaps what a dead keeper has left behind: those children of this process that are in another
    /// session than it, with all that descends from them. Everything a keeper starts is, and what the daemon
    /// itself starts (keepers, pip) is not. Blocks, at most for `patience`.
    pub fn reap_orphans(patience: Duration) -> io::Result<Orphans> {
        let me = process::getpid();
        // 0 where the session's leader is outside of this pid namespace, which is no `Pid` to rustix.
        let session = nix::unistd::getsid(None)?.as_raw();
        // The first process of a container also inherits what others started there, so it needs more proof.
        let is_orphan = |e: &Entry| {
            e.parent == me.as_raw_pid()
                && e.session != session
                && (me.as_raw_pid() != 1 || reap::cookie(e.pid).is_some() || e.zombie)
        };
        let until = Instant::now() + patience;
        let mut ended = BTreeSet::new();
        loop {
            let table = reap::table()?;
            let orphans: Vec<&Entry> = table.iter().filter(|e| is_orphan(e)).collect();
            if orphans.is_empty() {
                return Ok(Orphans { ended: ended.len(), left: 0 });
            }
            let roots = orphans.iter().map(|e| e.pid.as_raw_pid()).collect();
            for entry in orphans.iter().copied().chain(&reap::descendants(&table, &roots)) {
                if !entry.zombie {
                    // Another user's stays, and counts as left.
                    let _ = reap::signal(entry, Signal::KILL);
                }
            }
            let mut left = 0;
            for pid in orphans.iter().map(|e| e.pid) {
                match reaped(pid) {
                    true => _ = ended.insert(pid.as_raw_pid()),
                    false => left += 1,
                }
            }
            if Instant::now() >= until {
                return Ok(Orphans { ended: ended.len(), left });
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

/// Reaps a child if it is dead. By its id, so that no other child's exit is taken from the one who waits for it.
fn reaped(pid: Pid) -> bool {
    !matches!(process::waitpid(Some(pid), WaitOptions::NOHANG), Ok(None))
}
