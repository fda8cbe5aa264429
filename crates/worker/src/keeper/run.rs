//! The keeper's loop: one thread, one `poll` over the daemon's socket, the templates' sockets and signals.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use bourse_wire::keeper::v1::{self, Exited, FromKeeper, Spawn, Started, ToKeeper};
use bourse_wire::keeper::v1::{from_keeper, to_keeper};
use nix::sys::signal::{SigHandler, SigSet, Signal as Name};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{self, Pid, Signal, WaitOptions, WaitStatus};

use super::link::{Link, Read1};
use super::template::{Template, Waiting};
use super::{PROCESSES_MAX, process as program, reap};

/// Exits that no process is known for, kept while a template may still claim them.
const UNCLAIMED_MAX: usize = 4_096;

/// `bourse keeper`: the socket to the daemon is standard input.
pub fn main() -> ExitCode {
    let socket = || {
        let socket = io::stdin().as_fd().try_clone_to_owned()?;
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
        io::Result::Ok(socket)
    };
    match socket() {
        Ok(socket) => run(socket),
        Err(e) => {
            eprintln!("keeper: no socket on standard input: {e}");
            ExitCode::FAILURE
        }
    }
}

/// Keeps instances for the daemon at the other end of `socket`, until that end closes; returns when everything it
/// started is dead. To be called by a process's only thread.
pub fn run(socket: OwnedFd) -> ExitCode {
    let result = Keeping::new(socket).and_then(|mut keeping| keeping.run());
    reap::kill_all();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("keeper: {e}");
            ExitCode::FAILURE
        }
    }
}

/// A process with a number.
pub(super) struct Known {
    pub(super) pid: Pid,
    /// Where it was forked from.
    pub(super) template: Option<u64>,
}

/// The keeper's state.
pub(super) struct Keeping {
    daemon: Link,
    signals: SignalFd,
    pub(super) processes: BTreeMap<u64, Known>,
    pub(super) by_pid: BTreeMap<i32, u64>,
    pub(super) templates: BTreeMap<u64, Template>,
    pub(super) unclaimed: VecDeque<(i32, WaitStatus)>,
    /// Templates that were lost while they may have been forking: a session leader that descends from one and has
    /// no number is an instance that nobody will ever hear of.
    pub(super) orphaning: BTreeSet<u64>,
}

impl Keeping {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        process::set_child_subreaper(Some(process::getpid()))?;
        default_dispositions();
        program::close_others_on_exec();
        // Taken from the queue of pending signals and ignored, so that children start with none of them ignored.
        let mut mask = SigSet::empty();
        mask.extend([Name::SIGCHLD, Name::SIGINT, Name::SIGTERM, Name::SIGHUP, Name::SIGQUIT]);
        mask.extend([Name::SIGTSTP, Name::SIGTTOU, Name::SIGUSR1, Name::SIGUSR2]);
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self {
            daemon: Link::new(socket.into())?,
            signals,
            processes: BTreeMap::new(),
            by_pid: BTreeMap::new(),
            templates: BTreeMap::new(),
            unclaimed: VecDeque::new(),
            orphaning: BTreeSet::new(),
        })
    }

    /// Returns when the daemon is gone or wants an end.
    fn run(&mut self) -> io::Result<()> {
        loop {
            let ready = self.wait()?;
            if ready.daemon.contains(PollFlags::OUT) && self.daemon.flush().is_err() {
                return Ok(());
            }
            if ready.daemon.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) && !self.listen()? {
                return Ok(());
            }
            for (id, flags) in ready.templates {
                if flags.contains(PollFlags::OUT)
                    && self.templates.get_mut(&id).is_some_and(|t| t.link.flush().is_err())
                {
                    self.lose_template(id, "the template takes no orders");
                }
                if !(flags - PollFlags::OUT).is_empty() {
                    self.hear(id);
                }
            }
            if ready.signals {
                while self.signals.read_signal()?.is_some() {}
                self.reap();
            }
        }
    }

    fn wait(&self) -> io::Result<Ready> {
        let room = self.daemon.has_room();
        let mut fds = vec![
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.daemon, self.daemon.interest(room)),
        ];
        let mut ids = Vec::with_capacity(self.templates.len());
        // While the daemon does not read, neither is anything read that would add to what waits for it.
        for (&id, template) in &self.templates {
            let interest = template.link.interest(room);
            if !interest.is_empty() {
                ids.push(id);
                fds.push(PollFd::new(&template.link, interest));
            }
        }
        loop {
            match rustix::event::poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                result => {
                    result?;
                    break;
                }
            }
        }
        let templates = ids.into_iter().zip(fds[2..].iter().map(PollFd::revents));
        Ok(Ready {
            signals: !fds[0].revents().is_empty(),
            daemon: fds[1].revents(),
            templates: templates.filter(|(_, flags)| !flags.is_empty()).collect(),
        })
    }

    /// Does what the daemon asks; `false` when it is gone or asks for the end.
    fn listen(&mut self) -> io::Result<bool> {
        match self.daemon.read() {
            Ok(Read1::Some) => {}
            Ok(Read1::Nothing) => return Ok(true),
            Ok(Read1::End) | Err(_) => return Ok(false),
        }
        while let Some(ToKeeper { message }) = self.daemon.next().map_err(io::Error::other)? {
            match message {
                Some(to_keeper::Message::Spawn(spawn)) => self.on_spawn(&spawn),
                Some(to_keeper::Message::Fork(fork)) => self.on_fork(fork),
                Some(to_keeper::Message::Signal(signal)) => self.on_signal(&signal),
                Some(to_keeper::Message::Shutdown(_)) => return Ok(false),
                None => {}
            }
        }
        Ok(true)
    }

    fn on_spawn(&mut self, spawn: &Spawn) {
        if !self.admits(spawn.process) {
            return;
        }
        match program::start(spawn) {
            Ok(running) => {
                if let Some(template) = running.control.and_then(|socket| Template::new(socket).ok()) {
                    self.templates.insert(spawn.process, template);
                }
                self.started(spawn.process, Known { pid: running.pid, template: None });
            }
            Err(error) => self.never_started(spawn.process, error),
        }
    }

    /// Whether a process of this number can be started. A number in use is the daemon's mistake and ignored: its
    /// one `Exited` is still to come.
    pub(super) fn admits(&mut self, process: u64) -> bool {
        if self.processes.contains_key(&process)
            || self.templates.values().any(|t| t.owed.contains_key(&process))
        {
            eprintln!("keeper: process {process} is there already");
            return false;
        }
        let owed: usize = self.templates.values().map(|t| t.owed.len()).sum();
        if self.processes.len() + owed >= PROCESSES_MAX {
            self.never_started(process, format!("there are {PROCESSES_MAX} processes already"));
            return false;
        }
        true
    }

    fn on_signal(&mut self, order: &v1::Signal) {
        let Some(signal) = Signal::from_named_raw(order.signal) else { return };
        let waiting = Waiting { signal, tree: order.tree };
        match self.processes.get(&order.process) {
            Some(known) => self.signal(known.pid, waiting),
            None => {
                for template in self.templates.values_mut() {
                    if let Some(slot) = template.owed.get_mut(&order.process) {
                        *slot = Some(waiting);
                    }
                }
            }
        }
    }

    /// `pid` was not reaped yet, so it is still that process's.
    pub(super) fn signal(&self, pid: Pid, Waiting { signal, tree }: Waiting) {
        let result = match tree {
            true => reap::signal_tree(pid, signal, &self.pids()),
            false => process::kill_process(pid, signal).map_err(io::Error::from),
        };
        if let Err(e) = result {
            eprintln!("keeper: signal {} to {}: {e}", signal.as_raw(), pid.as_raw_pid());
        }
    }

    /// Collects everything that has ended.
    fn reap(&mut self) {
        while let Ok(Some((pid, status))) = process::wait(WaitOptions::NOHANG) {
            let Some(process) = self.by_pid.remove(&pid.as_raw_pid()) else {
                if self.templates.values().any(|t| !t.owed.is_empty()) {
                    if self.unclaimed.len() == UNCLAIMED_MAX {
                        self.unclaimed.pop_front();
                    }
                    self.unclaimed.push_back((pid.as_raw_pid(), status));
                }
                continue;
            };
            self.processes.remove(&process);
            if self.templates.contains_key(&process) {
                self.hear(process);
                self.lose_owed(process, "its template ended before it forked it");
            } else if !self.shares_group(pid) {
                // Not where instances live on in the group of their template. A group's id is not given to others
                // while it has members, so this meets its own or, most likely, nobody.
                let _ = process::kill_process_group(pid, Signal::KILL);
            }
            self.tell(from_keeper::Message::Exited(exited(process, Some(status))));
        }
        if let Err(e) = self.sweep() {
            eprintln!("keeper: looking for strays: {e}");
        }
    }

    fn shares_group(&self, group: Pid) -> bool {
        self.processes.values().any(|known| {
            known.template.is_some() && process::getpgid(Some(known.pid)).is_ok_and(|its| its == group)
        })
    }

    /// Kills what ended processes have left behind: children of the keeper without a number whose session, or the
    /// process they were started by, has ended. What can't be told to be anyone's is left for the end.
    fn sweep(&mut self) -> io::Result<()> {
        let templates: BTreeSet<u64> = self.processes.values().filter_map(|known| known.template).collect();
        // An instance carries its number before its template has told of it.
        let owed = |id: &u64| self.templates.values().any(|t| t.owed.contains_key(id));
        let lives = |id: &u64| self.processes.contains_key(id) || templates.contains(id) || owed(id);
        self.orphaning.retain(lives);
        let is_own = |entry: &reap::Entry| {
            if self.by_pid.contains_key(&entry.session) {
                return false;
            }
            match reap::cookie(entry.pid) {
                Some(owner) if self.orphaning.contains(&owner) => entry.session == entry.pid.as_raw_pid(),
                Some(owner) => !lives(&owner),
                None => false,
            }
        };
        reap::kill_strays(&self.pids(), is_own)
    }

    pub(super) fn started(&mut self, process: u64, known: Known) {
        let pid = known.pid.as_raw_pid();
        self.by_pid.insert(pid, process);
        self.processes.insert(process, known);
        self.tell(from_keeper::Message::Started(Started { process, pid: pid.unsigned_abs() }));
    }

    pub(super) fn never_started(&mut self, process: u64, error: String) {
        self.tell(from_keeper::Message::Exited(Exited { process, error, ..Default::default() }));
    }

    /// A daemon that is gone is noticed where its socket is read.
    pub(super) fn tell(&mut self, message: from_keeper::Message) {
        if let Err(e) = self.daemon.send(&FromKeeper { message: Some(message) }) {
            eprintln!("keeper: telling the daemon: {e}");
        }
    }

    fn pids(&self) -> BTreeSet<i32> {
        self.by_pid.keys().copied().collect()
    }
}

struct Ready {
    signals: bool,
    daemon: PollFlags,
    templates: Vec<(u64, PollFlags)>,
}

pub(super) fn exited(process: u64, status: Option<WaitStatus>) -> Exited {
    let (code, signal) = status.map_or((None, None), |s| (s.exit_status(), s.terminating_signal()));
    Exited { process, code, signal, ..Default::default() }
}

/// A shell or `nohup` may have left signals ignored, which children would inherit.
fn default_dispositions() {
    for name in Name::iterator().filter(|n| !matches!(n, Name::SIGKILL | Name::SIGSTOP | Name::SIGPIPE)) {
        // SAFETY: the default disposition runs no code of ours, and no handler is replaced that anyone needs: the
        // keeper has none, and the standard library's guard-page handler only words a message.
        #[expect(unsafe_code, reason = "dispositions can't be set safely in general")]
        let _ = unsafe { nix::sys::signal::signal(name, SigHandler::SigDfl) };
    }
}
