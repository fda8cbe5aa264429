//! Templates and the instances they fork: orders, claims, and what is owed when a template is lost.

use bourse_wire::keeper::v1::{Fork, Forked, Loaded, Started, from_keeper};
use prost::Message;
use rustix::process::{self, Pid, Signal};

use super::run::{Keeping, Known, exited};
use super::template::{Said, Waiting};
use super::{process as program, reap};
use crate::codec::FRAME_BYTES_MAX;

/// The longest report of a template that fits into a frame to the daemon.
const REPORT_BYTES_MAX: usize = FRAME_BYTES_MAX - 64;

impl Keeping {
    pub(super) fn on_fork(&mut self, fork: Fork) {
        if !self.admits(fork.process) {
            return;
        }
        let result = match self.templates.get_mut(&fork.template) {
            Some(template) => program::make_log_folder(&fork.log)
                .and_then(|()| template.fork(fork.process, fork.secret, fork.log)),
            None => Err("its template is not running".to_owned()),
        };
        if let Err(error) = result {
            self.never_started(fork.process, error);
        }
    }

    /// Takes what a template has said.
    pub(super) fn hear(&mut self, id: u64) {
        while let Some(template) = self.templates.get_mut(&id) {
            match template.next() {
                Said::Report(report) if report.encoded_len() > REPORT_BYTES_MAX => {
                    return self.lose_template(id, "the template's report is too long to be passed on");
                }
                Said::Report(report) => {
                    self.tell(from_keeper::Message::Loaded(Loaded { template: id, report: Some(report) }));
                }
                Said::Forked(forked) => self.on_forked(id, forked),
                Said::Nothing => return,
                // Its exit code is still to come. One that lives on forks nothing any more, and is the daemon's to end.
                Said::Ended => {
                    return self.lose_owed(id, "its template ended before it forked it");
                }
                Said::Lost(why) => return self.lose_template(id, &why),
            }
        }
    }

    fn on_forked(&mut self, id: u64, forked: Forked) {
        let Some(waiting) = self.templates.get_mut(&id).and_then(|t| t.owed.remove(&forked.process)) else {
            return self.lose_template(id, "the template forked what nobody asked for");
        };
        if !forked.error.is_empty() {
            return self.never_started(forked.process, forked.error);
        }
        let pid = i32::try_from(forked.pid).ok().filter(|&p| p > 0).and_then(Pid::from_raw);
        let alive = pid.filter(|&pid| self.is_new(pid));
        let ended = self.unclaimed.iter().position(|&(pid, _)| u32::try_from(pid) == Ok(forked.pid));
        match (alive, ended) {
            // Alive wins: an exit that was kept is then of an earlier process with the same id.
            (Some(pid), ended) => {
                if let Some(index) = ended {
                    self.unclaimed.remove(index);
                }
                self.started(forked.process, Known { pid, template: Some(id) });
                if let Some(waiting) = waiting {
                    self.signal(pid, waiting);
                }
            }
            (None, Some(index)) => {
                let status = self.unclaimed.remove(index).map(|(_, status)| status);
                self.tell(from_keeper::Message::Started(Started {
                    process: forked.process,
                    pid: forked.pid,
                }));
                self.tell(from_keeper::Message::Exited(exited(forked.process, status)));
            }
            (None, None) => {
                self.never_started(
                    forked.process,
                    format!("the template named no process of its own: {}", forked.pid),
                );
                self.lose_template(id, "the template named a process that is not its own");
            }
        }
        self.forget_unclaimed();
    }

    /// Whether this is a process below the keeper that has no number yet.
    fn is_new(&self, pid: Pid) -> bool {
        let me = process::getpid();
        let mut at = pid;
        if self.by_pid.contains_key(&pid.as_raw_pid()) || pid == me {
            return false;
        }
        while let Some(entry) = reap::entry_of(at) {
            match Pid::from_raw(entry.parent) {
                Some(parent) if parent == me => return true,
                Some(parent) => at = parent,
                None => return false,
            }
        }
        false
    }

    /// A template that can't be used any more is killed; the instances it forked go on.
    pub(super) fn lose_template(&mut self, id: u64, why: &str) {
        self.lose_owed(id, why);
        if let Some(known) = self.processes.get(&id) {
            eprintln!("keeper: template {id}: {why}");
            self.signal(known.pid, Waiting { signal: Signal::KILL, tree: true });
        }
    }

    /// A template takes no orders any more: what it owes will never come.
    pub(super) fn lose_owed(&mut self, id: u64, why: &str) {
        let Some(template) = self.templates.remove(&id) else { return };
        if !template.owed.is_empty() {
            self.orphaning.insert(id);
        }
        for process in template.owed.into_keys() {
            self.never_started(process, why.to_owned());
        }
        self.forget_unclaimed();
    }

    fn forget_unclaimed(&mut self) {
        if self.templates.values().all(|t| t.owed.is_empty()) {
            self.unclaimed.clear();
        }
    }
}
