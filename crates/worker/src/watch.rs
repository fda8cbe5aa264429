//! Notices that the served folder has changed.
//!
//! A thread that blocks on inotify: nothing runs while nothing changes. It says *that* something changed, never
//! what: whoever is told scans again, and revisions tell what is new. A burst of changes is one
//! call, once it was quiet for [`QUIET`], and within [`BURST_MAX`] in any case.
//!
//! Where inotify can't be had (its limits are reached, or the file system has none), the thread compares names,
//! sizes and times every [`POLL`], and [`Watch::mode`] says so. The same goes for a folder that is not there, until
//! it comes back.

use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use crate::scan::DEPLOY_LOCK;
use crate::tree;

/// How long nothing may change before a burst is over.
pub const QUIET: Duration = Duration::from_millis(50);

/// The longest that a burst is waited for.
pub const BURST_MAX: Duration = Duration::from_millis(500);

/// How often to look where inotify can't be had.
pub const POLL: Duration = Duration::from_secs(1);

/// The most folders watched by inotify.
pub const FOLDERS_MAX: usize = 8_192;

/// How changes are noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// At once.
    Inotify,
    /// By looking every [`POLL`]; with the reason, for people.
    Polling(String),
}

/// A watched folder. Dropping it ends the watch, after a callback that runs just then has returned.
#[derive(Debug)]
pub struct Watch {
    mode: Arc<Mutex<Mode>>,
    /// Closing it ends the thread.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Calls `changed` on a thread of its own after every change below `root` from now on.
    pub fn start(root: &Path, changed: impl FnMut() + Send + 'static) -> io::Result<Self> {
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let mode = Arc::new(Mutex::new(Mode::Inotify));
        let mut eye = Eye { root: root.to_owned(), stopped, mode: mode.clone(), changed };
        let (before, sight) = (fingerprint(root), eye.look());
        let thread =
            std::thread::Builder::new().name("bourse-watch".into()).spawn(move || eye.run(before, sight))?;
        Ok(Self { mode, stop: Some(stop), thread: Some(thread) })
    }

    /// How changes are noticed at the moment.
    pub fn mode(&self) -> Mode {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take().filter(|t| t.thread().id() != std::thread::current().id()) {
            let _ = thread.join();
        }
    }
}

struct Eye<F> {
    root: PathBuf,
    stopped: OwnedFd,
    mode: Arc<Mutex<Mode>>,
    changed: F,
}

/// Why waiting has ended.
enum Woke {
    Change,
    Time,
    Stopped,
}

impl<F: FnMut()> Eye<F> {
    fn run(&mut self, mut before: u64, mut sight: Option<OwnedFd>) {
        loop {
            let woke = match &sight {
                Some(sight) => self.wait_for_burst(sight),
                None => self.wait(None, Some(POLL)),
            };
            match woke {
                Woke::Stopped => return,
                Woke::Change => {}
                // Also finds out whether inotify can be had again.
                Woke::Time if fingerprint(&self.root) == before => {
                    sight = self.look();
                    // What changed in between.
                    if sight.is_none() || fingerprint(&self.root) == before {
                        continue;
                    }
                }
                Woke::Time => {}
            }
            // New folders are watched before the callback looks into them.
            sight = self.look();
            before = fingerprint(&self.root);
            (self.changed)();
        }
    }

    /// Watches every folder there is now.
    fn look(&self) -> Option<OwnedFd> {
        let watch = || {
            let sight = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
            let mut folders = 0;
            let flags =
                WatchFlags::CLOSE_WRITE | WatchFlags::MODIFY | WatchFlags::CREATE | WatchFlags::DELETE;
            let flags = flags | WatchFlags::MOVE | WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF;
            if !self.root.is_dir() {
                return Err(io::Error::other("the folder is not there"));
            }
            tree::walk(&self.root, &mut |path, is_folder| {
                if !is_folder {
                    return Ok(());
                }
                folders += 1;
                if folders > FOLDERS_MAX {
                    return Err(io::Error::other(format!("more than {FOLDERS_MAX} folders")));
                }
                match inotify::add_watch(&sight, path, flags | WatchFlags::ONLYDIR) {
                    Ok(_) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(()),
                    Err(rustix::io::Errno::NOSPC) => {
                        Err(io::Error::other("fs.inotify.max_user_watches is reached"))
                    }
                    Err(e) => Err(e.into()),
                }
            })?;
            Ok(sight)
        };
        let (sight, mode) = match watch() {
            Ok(sight) => (Some(sight), Mode::Inotify),
            Err(e) => (None, Mode::Polling(e.to_string())),
        };
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner) = mode;
        sight
    }

    /// Waits for a change that counts and for the end of those that follow it closely.
    fn wait_for_burst(&self, sight: &OwnedFd) -> Woke {
        let mut first = None;
        loop {
            let patience = first.map(|first: Instant| QUIET.min(BURST_MAX.saturating_sub(first.elapsed())));
            match self.wait(Some(sight), patience) {
                Woke::Stopped => return Woke::Stopped,
                Woke::Time => return Woke::Change,
                Woke::Change if counts(sight) => _ = first.get_or_insert_with(Instant::now),
                Woke::Change => {}
            }
            if first.is_some_and(|first| first.elapsed() >= BURST_MAX) {
                return Woke::Change;
            }
        }
    }

    fn wait(&self, sight: Option<&OwnedFd>, patience: Option<Duration>) -> Woke {
        let patience = patience.and_then(|p| Timespec::try_from(p).ok());
        let mut fds = vec![PollFd::new(&self.stopped, PollFlags::IN)];
        fds.extend(sight.map(|sight| PollFd::new(sight, PollFlags::IN)));
        loop {
            match rustix::event::poll(&mut fds, patience.as_ref()) {
                Ok(0) => return Woke::Time,
                Ok(_) if !fds[0].revents().is_empty() => return Woke::Stopped,
                Ok(_) => return Woke::Change,
                Err(rustix::io::Errno::INTR) => {}
                // Out of memory; there is nothing better to do than to look less often.
                Err(_) => std::thread::sleep(POLL),
            }
        }
    }
}

/// Takes all events there are; whether any of them is about something that a scan would see.
fn counts(sight: &OwnedFd) -> bool {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(sight, &mut buffer);
    let mut any = false;
    while let Ok(event) = reader.next() {
        let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
        any |= event.events().contains(ReadFlags::QUEUE_OVERFLOW)
            || name.is_none_or(|name| {
                // Kubernetes swaps the link `..data` to change all files of a volume at once.
                !tree::is_hidden(name) || name == DEPLOY_LOCK || name == "..data"
            });
    }
    any
}

/// Of the names, sizes and times of all files and folders.
fn fingerprint(root: &Path) -> u64 {
    let mut hasher = blake3::Hasher::new();
    let mut add = |path: &Path| {
        let kind = path.metadata().ok();
        let kind = kind.map(|k| (k.ino(), k.is_file().then(|| (k.len(), k.mtime(), k.mtime_nsec()))));
        hasher.update(format!("{path:?} {kind:?}\n").as_bytes());
    };
    add(&root.join(DEPLOY_LOCK));
    let end = tree::walk(root, &mut |path, _| {
        add(path);
        Ok(())
    });
    hasher.update(format!("{end:?}").as_bytes());
    u64::from_le_bytes(*hasher.finalize().as_bytes().first_chunk().expect("a hash has 32 bytes"))
}
