//! What a node shows of itself, for `bourse ps`, the admin interface and metrics.

use std::time::Duration;

use bourse_wire::time::Now;
use bourse_wire::v1;

use crate::Node;
use crate::instance::Phase;
use crate::message::{ProcessId, RevisionId};
use crate::module;

/// The node as a whole.
#[derive(Clone, Debug)]
pub struct Status {
    /// Instances that run a call.
    pub running: usize,
    /// How many may.
    pub running_max: usize,
    /// Calls that wait for an instance.
    pub waiting: usize,
    /// Calls that are not answered yet.
    pub calls: usize,
    /// It takes no more calls.
    pub draining: bool,
}

/// One module.
#[derive(Clone, Debug)]
pub struct ModuleView {
    /// Its name.
    pub name: String,
    /// What serves now, with the functions.
    pub serving: Option<(RevisionId, v1::Module)>,
    /// A developer's process serves it.
    pub attached: bool,
    /// Only other nodes serve it.
    pub elsewhere: bool,
    /// A revision is being loaded.
    pub loading: bool,
    /// Why the last revision does not load, or the last instance did not start.
    pub failure: Option<v1::Failure>,
    /// Calls that wait for an instance.
    pub waiting: usize,
    /// Instances, of all revisions.
    pub instances: usize,
    /// Instances that wait for nested calls.
    pub blocked: usize,
}

/// One instance.
#[derive(Clone, Debug)]
pub struct InstanceView {
    /// Its number.
    pub process: ProcessId,
    /// Its process id, once it has said hello.
    pub pid: u32,
    /// Its module.
    pub module: String,
    /// Its revision.
    pub revision: RevisionId,
    /// Where it is in its life.
    pub phase: Phase,
    /// It waits for nested calls.
    pub blocked: bool,
    /// The function that it runs, and for how long.
    pub running: Option<(String, Duration)>,
    /// Calls handed to it that it has not started.
    pub ahead: usize,
    /// How long ago it was asked for.
    pub age: Duration,
}

impl Node {
    /// The durable calls that are being run.
    pub fn running_work(&self) -> impl Iterator<Item = bourse_wire::id::CallId> {
        self.calls
            .values()
            .filter(|c| {
                c.is_work()
                    && matches!(c.phase, crate::call::Phase::Running(..) | crate::call::Phase::Performing(_))
            })
            .map(|c| c.id)
    }

    /// The lanes of durable calls.
    pub fn lanes(&self) -> impl Iterator<Item = bourse_durable::work::LaneView<'_>> {
        self.durable.lanes()
    }

    /// The node as a whole.
    pub fn status(&self) -> Status {
        Status {
            running: self.instances.values().filter(|i| i.slot).count(),
            running_max: self.config.running_max,
            waiting: self.modules.values().map(module::Module::waiting).sum(),
            calls: self.by_origin.len(),
            draining: self.draining,
        }
    }

    /// All modules, by name.
    pub fn modules(&self) -> impl Iterator<Item = ModuleView> {
        self.modules.iter().filter(|(_, m)| !m.removed).map(|(name, m)| ModuleView {
            name: name.clone(),
            serving: m.serving().zip(m.serving_revision()).map(|(id, r)| (id.clone(), r.description.clone())),
            attached: m.attached.is_some(),
            loading: m.incoming.is_some(),
            failure: m.failure.clone(),
            waiting: m.waiting(),
            elsewhere: m.own().is_none() && m.elsewhere.is_some(),
            instances: m.revisions.values().map(|r| r.instances.len()).sum(),
            blocked: m.blocked,
        })
    }

    /// All instances, in the order in which they were asked for.
    pub fn instances(&self, now: Now) -> impl Iterator<Item = InstanceView> {
        self.instances.values().filter(|i| i.runner.is_none()).map(move |i| InstanceView {
            process: i.process,
            pid: i.pid,
            module: i.module.clone(),
            revision: i.revision.clone(),
            phase: i.phase,
            blocked: i.waiting.is_some(),
            running: i.running().map(|id| {
                let call = &self.calls[&id];
                let since = match call.phase {
                    crate::call::Phase::Running(_, since) => since,
                    _ => now.mono,
                };
                (call.function.to_string(), now.mono.since(since))
            }),
            ahead: i.handed.len().saturating_sub(1),
            age: now.mono.since(i.asked_for),
        })
    }
}
