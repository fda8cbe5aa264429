//! Starting, watching and stopping instances.
//!
//! ```text
//! node   -> keeper: StartInstance, Kill        keeper -> node: Exited
//! node   -> worker: ping, stop                 worker -> node: pong, bye
//! ```
//!
//! A module's first call starts its first instance. Another is started for each call that has waited for
//! `scale_after`, up to the limits of the module and the node. An instance without work stops after `idle`; one that
//! is connected but silent is a zombie, unless it runs a call: only the call's own timeout bounds that. Instances
//! that crash or do not start make their module pause, longer each time.

use bourse_wire::failure::Code;
use bourse_wire::id::CallId;
use bourse_wire::time::{Mono, Now};
use bourse_wire::v1;
use bourse_wire::v1::to_worker::Message;
use bytes::Bytes;

use crate::Node;
use crate::call::{self, Call};
use crate::instance::{Exit, Instance, Phase};
use crate::message::{Event, Kind, Level, Output, ProcessId, RevisionId};
use crate::module::Loading;
use crate::timers::Timer;

/// How long a stopped instance has for `on_stop`, and a killed or vanished one to be reported, before more is done.
pub(crate) const STOP_GRACE: std::time::Duration = std::time::Duration::from_secs(5);

/// How long the hello of an instance that died while it started may be on its way.
const HELLO_GRACE: std::time::Duration = std::time::Duration::from_millis(100);

impl Node {
    /// Starts as many instances of a module as its waiting calls deserve.
    pub(crate) fn scale(&mut self, now: Now, name: &str) {
        let module = &self.modules[name];
        if module.attached.is_some() {
            return;
        }
        let Some(current) = module.current.clone() else { return };
        if let Some(until) = module.pause.until.filter(|until| *until > now.mono) {
            self.timers.set_earliest(Timer::Scale(name.to_owned()), until);
            if module.pause.open {
                self.refuse_waiting(now, name);
            }
            return;
        }
        let revision = &module.revisions[&current];
        if revision.loading != Loading::Done {
            return; // Its template is being started again.
        }
        let config = self.config.of(name);
        let limit = config.instances_max.unwrap_or(self.config.running_max);
        let instances = || revision.instances.iter().map(|p| &self.instances[p]);
        let alive = instances().filter(|i| i.counts()).count();
        let starting = instances().filter(|i| i.phase == Phase::Starting).count();
        let due_at = |id: &CallId| {
            let call = &self.calls[id];
            // Who asks for capacity elsewhere at once asks for none here.
            call.accepted + call.terms.scale_after.unwrap_or(config.scale_after)
        };
        let waiting = module.queue.values().map(due_at);
        // Guests have slots, and their buyers have waited before.
        let guests = module.guests.len();
        let overdue = guests + waiting.take(limit.max(1)).filter(|due| *due <= now.mono).count();
        let deserved = if alive == 0 && !module.queue.is_empty() { overdue.max(1) } else { overdue };
        let (_, free, _) = self.grid.market.slots();
        let slots_free = (free as usize + guests).saturating_sub(self.starting());
        let start = deserved
            .saturating_sub(starting)
            .min(limit.saturating_sub(alive))
            .min(slots_free.max(usize::from(alive == 0)));
        if overdue == 0
            && let Some(first) = module.queue.values().next()
        {
            let at = due_at(first);
            self.timers.set_earliest(Timer::Scale(name.to_owned()), at);
        }
        for _ in 0..start {
            if !self.make_room(now) {
                return;
            }
            self.start_instance(now, name, &current);
        }
    }

    fn starting(&self) -> usize {
        self.instances.values().filter(|i| i.phase == Phase::Starting).count()
    }

    /// Keeps the number of living instances below the limit, at the cost of the one that was used least recently.
    fn make_room(&mut self, now: Now) -> bool {
        if self.has_room() {
            return true;
        }
        let idle = self
            .instances
            .values()
            .filter(|i| i.is_idle() && !i.attached)
            .min_by_key(|i| (i.idle_since, i.process));
        match idle.map(|i| i.process) {
            Some(process) => {
                self.stop_instance(now, process);
                true
            }
            None => false,
        }
    }

    /// Instances of a revision that start or are there, blocked ones included.
    fn living(&self, name: &str, id: &RevisionId) -> usize {
        let revision = self.modules.get(name).and_then(|m| m.revisions.get(id));
        let instances = revision.into_iter().flat_map(|r| &r.instances).map(|p| &self.instances[p]);
        instances.filter(|i| matches!(i.phase, Phase::Starting | Phase::Ready)).count()
    }

    fn has_room(&self) -> bool {
        self.instances.values().filter(|i| i.counts()).count() < self.config.instances_max
    }

    /// Starts an instance of a revision; if its template is gone, starts that first.
    pub(crate) fn start_instance(&mut self, now: Now, name: &str, id: &RevisionId) {
        let revision = &self.modules[name].revisions[id];
        let template = match revision.kind {
            Kind::Python if revision.not_forkable.is_empty() => match revision.template {
                Some(template) if revision.loading == Loading::Done => Some(template),
                Some(_) => return,
                None => return self.start_template(now, name, id),
            },
            Kind::Python | Kind::Process => None,
        };
        let process = self.new_process();
        let secret = self.entropy.secret();
        let instance = Instance::new(
            process,
            name.to_owned(),
            id.clone(),
            secret.clone(),
            now.mono,
            self.config.startup,
        );
        self.instances.insert(process, instance);
        self.secrets.insert(secret.clone(), process);
        let module = self.modules.get_mut(name).expect("it was there above");
        module.revisions.get_mut(id).expect("it was there above").instances.insert(process);
        self.watch(process);
        self.outputs.push_back(Output::StartInstance {
            process,
            module: name.to_owned(),
            revision: id.clone(),
            template,
            secret,
        });
    }

    pub(crate) fn new_process(&mut self) -> ProcessId {
        self.next_process += 1;
        ProcessId(self.next_process - 1)
    }

    /// Lets an instance finish what it has, and leave.
    pub(crate) fn stop_instance(&mut self, now: Now, process: ProcessId) {
        let Some(instance) = self.instances.get_mut(&process) else { return };
        match (instance.phase, instance.peer) {
            (Phase::Ready, Some(peer)) => {
                instance.phase = Phase::Stopping;
                if instance.handed.is_empty() {
                    instance.kill_by(now.mono + STOP_GRACE);
                }
                let replaced = instance.attached && !self.draining;
                self.watch(process);
                self.send(peer, Message::Stop(v1::Stop { replaced }), Bytes::new());
            }
            (Phase::Starting, _) => self.kill(now, process, "it was no longer needed"),
            (Phase::Ready | Phase::Stopping | Phase::HungUp | Phase::Dying, _) => {}
        }
    }

    /// Ends an instance at once, for this reason. What it has is answered when it is reported dead.
    pub(crate) fn kill(&mut self, now: Now, process: ProcessId, doom: &'static str) {
        let Some(instance) = self.instances.get_mut(&process) else { return };
        if instance.runner.is_some() {
            return self.kill_runner(now, process, doom);
        }
        if instance.doom.is_empty() && instance.exit.is_none() {
            instance.doom = doom;
        }
        instance.phase = Phase::Dying;
        instance.kill_at = Some(now.mono + STOP_GRACE);
        if instance.attached {
            if let Some(peer) = instance.peer {
                self.outputs.push_back(Output::Close { peer });
            }
        } else {
            self.outputs.push_back(Output::Kill { process });
        }
        self.watch(process);
    }

    /// Ends an instance that broke the protocol.
    pub(crate) fn expel(&mut self, now: Now, process: ProcessId, why: &'static str) {
        let instance = &self.instances[&process];
        let text = format!(
            "instance {} of {} broke the worker protocol and is ended: {why}",
            process.0, instance.module
        );
        self.note(Level::Error, text);
        self.kill(now, process, why);
    }

    /// Sets the timer for whatever an instance has to be looked at next. A timer that is too early does no harm: it
    /// is set anew when it rings.
    pub(crate) fn watch(&mut self, process: ProcessId) {
        let Some(i) = self.instances.get(&process) else { return };
        let config = self.config.of(&i.module);
        let mut due = i.kill_at.unwrap_or(Mono::MAX);
        if i.takes_calls() && !i.attached {
            if i.handed.is_empty() {
                due = due.min(i.ping_at);
                if self.may_stop(i) {
                    due = due.min(i.idle_since + config.idle);
                }
            } else if i.handed.len() > 1 && i.recall.is_none() {
                due = due.min(self.recall_at(i));
            }
        }
        if due < Mono::MAX {
            self.timers.set_earliest(Timer::Instance(process), due);
        }
    }

    fn recall_at(&self, i: &Instance) -> Mono {
        let first = i.running().and_then(|id| self.calls.get(&id));
        match first.map(|call| &call.phase) {
            Some(call::Phase::Running(_, since)) => {
                (*since).max(i.recalled_at.unwrap_or_default()) + self.config.recall_after
            }
            _ => Mono::MAX,
        }
    }

    pub(crate) fn on_instance_due(&mut self, now: Now, process: ProcessId) {
        let Some(i) = self.instances.get(&process) else { return };
        let config = self.config.of(&i.module);
        if i.kill_at.is_some_and(|at| at <= now.mono) {
            self.on_kill_due(now, process);
        } else if i.phase == Phase::Ready
            && i.handed.len() > 1
            && i.recall.is_none()
            && self.recall_at(i) <= now.mono
        {
            self.recall(process);
        } else if i.is_idle() && !i.attached && i.idle_since + config.idle <= now.mono && self.may_stop(i) {
            self.stop_instance(now, process);
        } else if i.is_idle() && i.ping_at <= now.mono {
            self.ping(now, process);
        }
        self.watch(process);
    }

    fn may_stop(&self, i: &Instance) -> bool {
        let least = self.config.of(&i.module).instances_min;
        least == 0 || self.living(&i.module, &i.revision) > least
    }

    fn on_kill_due(&mut self, now: Now, process: ProcessId) {
        let i = &self.instances[&process];
        match i.phase {
            // Reported dead, but its connection never was; or told to die, and nobody says that it did.
            _ if i.exit.is_some() => self.bury(now, process),
            Phase::Dying | Phase::HungUp => self.kill(now, process, "its connection ended"),
            Phase::Starting => {
                let text =
                    format!("an instance of {} was not ready after {:?}", i.module, self.config.startup);
                let hint = "is something slow in its imports or in on_start? raise `startup` in bourse.toml";
                self.failed_to_start(now, process, Code::ModuleFailed.because(text).hint(hint));
                self.kill(now, process, "it took too long to start");
                // Perhaps it was never forked: a template that hangs is of no use, and ends with what it owes.
                self.drop_forking_template(process);
            }
            Phase::Ready | Phase::Stopping => {
                let doom = if i.handed.is_empty() {
                    "it did not stop when it was told to"
                } else {
                    "its call did not stop when its time was over"
                };
                self.note(
                    Level::Warning,
                    format!("instance {} of {} is killed: {doom}", process.0, i.module),
                );
                self.kill(now, process, doom);
            }
        }
    }

    fn ping(&mut self, now: Now, process: ProcessId) {
        let nonce = self.next_nonce;
        self.next_nonce += 1;
        let i = self.instances.get_mut(&process).expect("an instance that is due exists");
        let Some(peer) = i.peer else { return };
        if i.pings_missed >= self.config.pings_missed_max {
            let text = format!(
                "instance {} of {} has not answered {} pings, and is killed",
                process.0, i.module, i.pings_missed
            );
            self.note(Level::Warning, text);
            self.kill(now, process, "it did not answer pings");
            return;
        }
        i.pings_missed += 1;
        i.ping_at = now.mono + self.config.ping;
        let acked = i.acked;
        self.send(peer, Message::Ping(v1::Ping { nonce, acked }), Bytes::new());
    }

    /// A process has ended.
    pub(crate) fn on_exited(&mut self, now: Now, process: ProcessId, exit: Exit) {
        if self.templates.contains_key(&process) {
            self.on_template_exited(now, process, exit);
            return;
        }
        let Some(i) = self.instances.get_mut(&process) else { return };
        i.exit = Some(exit);
        if i.peer.is_some() {
            // What it sent before it died may still be on its way; the connection's end comes after that.
            i.kill_by(now.mono + STOP_GRACE);
            self.watch(process);
        } else if i.phase == Phase::Starting && !matches!(i.exit, Some(Exit::NotStarted(_))) {
            // It may have said why it fails, and that may still be on its way.
            i.kill_at = Some(now.mono + HELLO_GRACE);
            self.watch(process);
        } else {
            self.bury(now, process);
        }
    }

    /// An instance is dead: its calls are answered or routed again.
    pub(crate) fn bury(&mut self, now: Now, process: ProcessId) {
        self.unblock(process);
        self.free_slot(process);
        self.resumable.retain(|p| *p != process);
        let i = self.instances.remove(&process).expect("an instance that is buried exists");
        self.timers.clear(&Timer::Instance(process));
        self.secrets.remove(&i.secret);
        if let Some(peer) = i.peer {
            self.peers.remove(&peer);
            self.outputs.push_back(Output::Close { peer });
        }
        let exit = i.exit.clone().unwrap_or(Exit::HungUp);
        let expected = matches!(i.phase, Phase::Stopping | Phase::Dying) || i.attached;
        for (at, id) in i.handed.iter().enumerate() {
            if at == 0 {
                let name = &self.calls[id].function;
                let text = if i.doom.is_empty() {
                    format!("the instance that ran {name} {exit}")
                } else {
                    format!("the instance that ran {name} was ended: {}", i.doom)
                };
                let failure = Code::InstanceCrashed
                    .because(text)
                    .hint("the call may have had effects outside; its state changes were dropped");
                if self.calls[id].guest.is_none() && self.may_repeat(*id) {
                    self.repeat(now, *id);
                    continue;
                }
                self.abort_children(now, *id);
                if self.calls[id].guest.is_some() {
                    self.bury_guest(now, *id, failure);
                    continue;
                }
                self.conclude(now, *id, Err(failure));
                let layer = self.calls[id].layer();
                self.durable.abandon(layer);
                self.forget(*id);
            } else {
                // What came before may have been answered, had the answer come through: then this one has started.
                self.another_attempt(*id);
                self.give_back(now, *id);
            }
        }
        self.event(Event::InstanceGone { module: i.module.clone(), process, exit: exit.clone(), expected });
        if let Some(module) = self.modules.get_mut(&i.module) {
            if let Some(revision) = module.revisions.get_mut(&i.revision) {
                revision.instances.remove(&process);
            }
            self.grid.offers_stale |= i.attached;
            let last = module.revisions.get(&i.revision).is_none_or(|r| r.instances.is_empty());
            if i.attached && last && module.attached.as_ref() == Some(&i.revision) {
                self.detach(now, &i.module);
            }
        }
        if !expected {
            self.on_crash(now, &i, &exit);
        }
        if self.config.of(&i.module).instances_min > 0 {
            self.timers.set_earliest(Timer::Scale(i.module.clone()), now.mono + self.config.backoff_min);
        }
        self.clear_away(&i.module, &i.revision);
    }

    /// Ends the template that an instance was to be forked from.
    fn drop_forking_template(&mut self, process: ProcessId) {
        let Some(i) = self.instances.get(&process) else { return };
        let (name, id) = (i.module.clone(), i.revision.clone());
        let done = self
            .modules
            .get(&name)
            .and_then(|m| m.revisions.get(&id))
            .is_some_and(|r| r.loading == Loading::Done);
        if done {
            self.drop_template(&name, &id);
        }
    }

    fn on_crash(&mut self, now: Now, i: &Instance, exit: &Exit) {
        if i.phase == Phase::Starting {
            let revision = self.modules.get(&i.module).and_then(|m| m.revisions.get(&i.revision));
            if matches!(exit, Exit::NotStarted(_))
                && revision.is_some_and(|r| r.kind == Kind::Python && r.not_forkable.is_empty())
            {
                // Its template died before it could fork, or forks no more: another is started, and nobody need know.
                self.drop_template(&i.module, &i.revision);
                self.pause(now, &i.module, false);
                return;
            }
            let failure = Code::ModuleFailed
                .because(format!("an instance of {} {exit} before it was ready", i.module))
                .hint(format!("see its output: bourse logs {}", i.module));
            self.start_or_load_failed(now, &i.module, &i.revision, failure);
        } else if !i.proven {
            self.pause(now, &i.module, false);
        }
    }

    /// An instance says, or shows, that it does not start.
    pub(crate) fn failed_to_start(&mut self, now: Now, process: ProcessId, failure: v1::Failure) {
        let i = &self.instances[&process];
        let (module, revision) = (i.module.clone(), i.revision.clone());
        self.start_or_load_failed(now, &module, &revision, failure);
    }

    fn start_or_load_failed(&mut self, now: Now, name: &str, id: &RevisionId, failure: v1::Failure) {
        if self.is_load_check(name, id) {
            self.load_failed(now, name, id, failure);
        } else if self.modules.get(name).is_some_and(|m| m.current.as_ref() == Some(id)) {
            self.start_failed(now, name, failure);
        }
    }

    /// An instance did not start: the module pauses, and those who wait for it are told why.
    pub(crate) fn start_failed(&mut self, now: Now, name: &str, failure: v1::Failure) {
        let traceback = if failure.traceback.is_empty() { "" } else { "\n" };
        let text = format!("{name}: {}{traceback}{}", failure.message, failure.traceback.trim_end());
        self.note(Level::Error, text);
        if let Some(module) = self.modules.get_mut(name) {
            module.failure = Some(failure);
            self.pause(now, name, true);
            self.refuse_waiting(now, name);
        }
    }

    pub(crate) fn pause(&mut self, now: Now, name: &str, open: bool) {
        let (min, max) = (self.config.backoff_min, self.config.backoff_max);
        let Some(module) = self.modules.get_mut(name) else { return };
        let pause = min.saturating_mul(1 << module.pause.failures.min(16)).min(max);
        // Up to a quarter more, so that modules that fail together do not come back together.
        let jitter = self.entropy.upto(u64::try_from(pause.as_nanos() / 4).unwrap_or(u64::MAX));
        let until = now.mono + pause + std::time::Duration::from_nanos(jitter);
        module.pause.failures += 1;
        module.pause.until = Some(until);
        module.pause.open = open;
        self.timers.set(Timer::Scale(name.to_owned()), until);
    }

    /// Answers the waiting calls of a module that does not start.
    fn refuse_waiting(&mut self, now: Now, name: &str) {
        let module = &self.modules[name];
        let alive = module
            .own_revision()
            .is_some_and(|r| r.instances.iter().any(|p| self.instances[p].phase == Phase::Ready));
        let Some(failure) = module.failure.clone().filter(|_| !alive) else { return };
        let pause = module.pause.until.map_or(self.config.backoff_min, |until| until.since(now.mono));
        let waiting: Vec<_> = module.queue.values().chain(module.guests.values()).copied().collect();
        for id in waiting {
            self.abort(now, id, failure.clone().retry_after(pause));
        }
    }

    /// A module's pause is over, or a call of it has waited long enough: routing, which follows, sees to it.
    pub(crate) fn on_scale_due(&mut self, now: Now, name: &str) {
        if let Some(module) = self.modules.get_mut(name) {
            if module.pause.until.is_some_and(|until| until <= now.mono) {
                module.pause.until = None;
            }
            self.load_again(now, name);
            self.keep_minimum(now, name);
        }
    }

    /// Starts the instances that a module keeps even when idle.
    pub(crate) fn keep_minimum(&mut self, now: Now, name: &str) {
        let Some(module) = self.modules.get(name) else { return };
        let Some(current) = module.current.clone().filter(|_| module.pause.until.is_none() && !self.draining)
        else {
            return;
        };
        for _ in self.living(name, &current)..self.config.of(name).instances_min {
            if self.has_room() {
                self.start_instance(now, name, &current);
            }
        }
    }

    /// Takes nothing new, finishes what there is, stops.
    pub(crate) fn on_drain(&mut self, now: Now) {
        self.draining = true;
        // Other nodes are told at once that nothing is sold any more: they need not be refused to find out.
        self.grid.offers_stale = true;
        self.timers.set(Timer::Drain, now.mono + self.config.drain);
        let waits = |c: &&Call| c.is_work() && matches!(c.phase, call::Phase::Queued | call::Phase::Locked);
        let waiting: Vec<_> = self.calls.values().filter(waits).map(|c| c.id).collect();
        for id in waiting {
            if matches!(self.calls[&id].phase, call::Phase::Queued) {
                self.unqueue(id);
            }
            self.put_back_work(now, id, std::time::Duration::ZERO);
        }
        self.clear_rooms(now);
        for (origin, call) in std::mem::take(&mut self.door) {
            self.accepting_bytes -= self.accepting.remove(&origin).unwrap_or_default();
            self.on_call(now, origin, call);
        }
        self.drain_idle(now);
    }

    fn drain_idle(&mut self, now: Now) {
        let idle: Vec<_> = self
            .instances
            .values()
            .filter(|i| i.is_idle() || i.phase == Phase::Starting)
            .map(|i| i.process)
            .collect();
        if self.calls.is_empty() {
            for process in idle {
                self.stop_instance(now, process);
            }
        }
    }

    /// The time for draining is over: whatever still waits or runs is ended.
    pub(crate) fn on_drain_due(&mut self, now: Now) {
        let open: Vec<_> = self.by_origin.values().copied().collect();
        for id in open {
            if self.calls.get(&id).is_some_and(|c| c.origin.is_some()) {
                self.abort(now, id, Code::ShuttingDown.because("the daemon stopped before the call ended"));
            }
        }
        let all: Vec<_> = self.instances.keys().copied().collect();
        for process in all {
            self.kill(now, process, "the daemon stops");
        }
        self.drain_over = true;
    }

    pub(crate) fn finish_drain(&mut self, now: Now) {
        if !self.draining || self.drained {
            return;
        }
        self.drain_idle(now);
        if self.calls.is_empty() || self.drain_over {
            self.dismiss_watchers();
        }
        let told = self.drain_over || !self.asked.values().any(|asked| asked.is_of_work());
        let forwarded = !self.calls.is_empty() || self.drain_forwards(self.drain_over);
        if told && (self.calls.is_empty() || self.drain_over) && forwarded && self.instances.is_empty() {
            self.drained = true;
            self.timers.clear(&Timer::Drain);
            for (process, _) in std::mem::take(&mut self.templates) {
                self.timers.clear(&Timer::Template(process));
                self.outputs.push_back(Output::Kill { process });
            }
            for revision in self.modules.values_mut().flat_map(|m| m.revisions.values_mut()) {
                revision.template = None;
            }
            self.outputs.push_back(Output::Drained);
        }
    }
}
