//! One container of a module: what the node knows of it.

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

use bourse_wire::id::CallId;
use bourse_wire::time::Mono;
use bourse_wire::v1;
use bytes::Bytes;

use crate::grid::Runner;
use crate::message::{PeerId, ProcessId, RevisionId};

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// Its connection ended; it was no process of ours.
    HungUp,
    /// It was never there, for this reason.
    NotStarted(String),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(9) => f.write_str("was killed (signal 9; out of memory?)"),
            Self::Signal(11) => f.write_str("crashed (signal 11, segmentation fault)"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::HungUp => f.write_str("hung up"),
            Self::NotStarted(why) => write!(f, "could not be started: {why}"),
        }
    }
}

/// Where an instance is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Asked for; has not said hello.
    Starting,
    /// Takes calls.
    Ready,
    /// Told to finish and leave.
    Stopping,
    /// Its connection ended, and it was not reported dead yet.
    HungUp,
    /// Told to die.
    Dying,
}

pub(crate) struct Instance {
    pub process: ProcessId,
    pub module: String,
    pub revision: RevisionId,
    pub secret: Bytes,
    pub phase: Phase,
    /// Not started by us: a developer's process. It ends when its connection does.
    pub attached: bool,
    /// Its calls take all the time they want.
    pub patient: bool,
    pub pid: u32,
    pub peer: Option<PeerId>,
    pub asked_for: Mono,
    /// What was handed to it and not answered, in order. The first one runs.
    pub handed: VecDeque<CallId>,
    /// How long what was handed to it is expected to run, all together.
    pub load: Duration,
    /// It holds one of the node's slots.
    pub slot: bool,
    /// The slot is a guest's: it goes back by the guest's token.
    pub hosts: bool,
    /// It is a slot of another node.
    pub runner: Option<Runner>,
    /// It waits for nested calls.
    pub waiting: Option<Waiting>,
    /// Replies that came while it waited; delivered when it has a slot again.
    pub held: Vec<(v1::Reply, Bytes)>,
    /// Its call was ended while it waited: tell it as soon as it has a slot again.
    pub cancel: Option<v1::Cancel>,
    pub recall: Option<Recall>,
    /// When it last gave calls back.
    pub recalled_at: Option<Mono>,
    /// When to kill it unless it gets on.
    pub kill_at: Option<Mono>,
    pub idle_since: Mono,
    /// When to ping it next, and the ping it has not answered.
    pub ping_at: Mono,
    pub pings_missed: u32,
    /// The last result that came.
    pub acked: u64,
    /// It has answered a call, so it is no case for the crash-loop back-off.
    pub proven: bool,
    pub exit: Option<Exit>,
    /// Why we end it, if that was not its own doing.
    pub doom: &'static str,
}

pub(crate) struct Waiting {
    pub requests: BTreeSet<u64>,
    pub any: bool,
    /// It may go on, and stands in line for a slot.
    pub satisfied: bool,
}

pub(crate) struct Recall {
    pub nonce: u64,
    pub calls: BTreeSet<CallId>,
}

impl Instance {
    /// One that was just asked for.
    pub(crate) fn new(
        process: ProcessId,
        module: String,
        revision: RevisionId,
        secret: Bytes,
        now: Mono,
        startup: Duration,
    ) -> Self {
        Self {
            process,
            module,
            revision,
            secret,
            phase: Phase::Starting,
            attached: false,
            patient: false,
            pid: 0,
            peer: None,
            asked_for: now,
            handed: VecDeque::new(),
            load: Duration::ZERO,
            slot: false,
            hosts: false,
            runner: None,
            waiting: None,
            held: Vec::new(),
            cancel: None,
            recall: None,
            recalled_at: None,
            kill_at: Some(now + startup),
            idle_since: now,
            ping_at: Mono::MAX,
            pings_missed: 0,
            acked: 0,
            proven: false,
            exit: None,
            doom: "",
        }
    }

    /// Calls may be handed to it: it is there, and will be.
    pub(crate) fn takes_calls(&self) -> bool {
        self.phase == Phase::Ready && self.exit.is_none()
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.takes_calls() && self.handed.is_empty()
    }

    /// Counts against the limits of living instances.
    pub(crate) fn counts(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Ready)
            && self.waiting.is_none()
            && !self.attached
            && self.runner.is_none()
    }

    /// Kills it at this time, unless that is to happen earlier anyway.
    pub(crate) fn kill_by(&mut self, at: Mono) {
        self.kill_at = Some(self.kill_at.map_or(at, |old| old.min(at)));
    }

    pub(crate) fn running(&self) -> Option<CallId> {
        self.handed.front().copied()
    }
}
