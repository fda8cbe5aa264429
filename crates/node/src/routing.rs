//! Which instance runs which call.
//!
//! ```text
//! node -> worker: invoke          a slot's call; or one handed ahead, to wait on the connection
//! node -> worker: recall          the running call takes long: give the others back
//! worker -> node: recalled        those that it had not started
//! ```
//!
//! A slot is the right to run a call now; the node has `running_max` of them. Resumptions take slots first, then
//! the modules, those with the fewest slots first; within a module the oldest tree goes first. A call handed ahead needs no slot: it runs in the slot of the one before it. Only
//! a short call is handed ahead, behind a short one, and it is taken back when that turns out to be long.

use std::time::Duration;

use bourse_wire::id::CallId;
use bourse_wire::time::{DURATION_MAX, Mono, Now, millis};
use bourse_wire::v1;
use bourse_wire::v1::to_worker::Message;
use bytes::Bytes;

use crate::Node;
use crate::call::{Phase, Place};
use crate::governor::STOP_GRACE;
use crate::grid::Guest;
use crate::instance::{self, Instance, Recall};
use crate::message::{Event, Level, ProcessId};
use crate::timers::Timer;

/// Calls are handed ahead as long as those before them take no longer than this, all together.
pub(crate) const AHEAD_TOTAL: Duration = Duration::from_millis(2);
/// What a function that was never seen to run is taken to need.
const UNKNOWN: Duration = Duration::from_secs(3600);

impl Node {
    /// Gives every slot and every place ahead that can be given.
    pub(crate) fn route(&mut self, now: Now) {
        self.resume(now);
        self.route_guests(now);
        self.route_own(now);
        let waiting =
            self.backlog.iter().map(|m| self.modules[m].queue.len()).sum::<usize>() + self.resumable.len();
        self.grid.market.want_slots(now.mono, u32::try_from(waiting).unwrap_or(u32::MAX));
        self.tell_short(now);
    }

    /// Routes the calls that were accepted here.
    fn route_own(&mut self, now: Now) {
        if self.backlog.is_empty() {
            return;
        }
        let mut heads: Vec<_> = Vec::with_capacity(self.backlog.len());
        let mut abroad = Vec::new();
        for module in &self.backlog {
            match self.modules[module].queue.is_empty() {
                true => abroad.push(module.clone()),
                false => heads.push((self.turn(module), module.clone())),
            }
        }
        heads.sort_unstable();
        // Whoever waits for a slot gets the next: an instance that is kept busy with calls ahead never frees one.
        let mut slot_wanted = !self.resumable.is_empty();
        for (_, module) in heads {
            while let Some(call) = self.modules[&module].queue.values().next().copied() {
                let Some(process) = self.choose(now, &module, call, slot_wanted) else { break };
                self.unqueue(call);
                self.hand(now, call, process);
            }
            self.route_elsewhere(now, &module);
            slot_wanted |= !self.modules[&module].queue.is_empty() && self.idle(&module).is_some();
            self.scale(now, &module);
        }
        for module in abroad {
            self.route_elsewhere(now, &module);
        }
    }

    /// When it is a module's turn, among those that wait for slots: first who has the fewest, then who has waited longest.
    /// A module of which as many instances are blocked as may run begins no more before others have had their turn.
    fn turn(&self, module: &str) -> (bool, usize, Place) {
        let entry = &self.modules[module];
        let head = *entry.queue.keys().next().expect("only modules whose calls can run here have a turn");
        if self.backlog.len() == 1 {
            return (false, 0, head);
        }
        let running = self.instances.values().filter(|i| i.slot && i.module == module).count();
        let begins = head.depth.0 == 0;
        (begins && entry.blocked >= self.config.running_max, running, head)
    }

    /// The instance for a call: an idle one if there is a slot, else one that is about to be done.
    fn choose(&mut self, now: Now, module: &str, call: CallId, slot_wanted: bool) -> Option<ProcessId> {
        if let Some(idle) = self.idle(module)
            && self.grid.market.take_slot(now.mono)
        {
            return Some(idle);
        }
        if slot_wanted || self.estimate(call) > AHEAD_TOTAL {
            return None;
        }
        self.serving_instances(module)
            .filter(|i| (1..=self.config.ahead_max).contains(&i.handed.len()))
            .filter(|i| self.soon_done(now, i))
            .min_by_key(|i| (i.load, i.handed.len(), i.process))
            .map(|i| i.process)
    }

    fn serving_instances(&self, module: &str) -> impl Iterator<Item = &Instance> {
        let revision = self.modules[module].own_revision();
        revision.into_iter().flat_map(|r| &r.instances).map(|p| &self.instances[p])
    }

    /// The idle instance used last: its caches are warm, and the others may become idle enough to stop.
    pub(crate) fn idle(&self, module: &str) -> Option<ProcessId> {
        let idle = self.serving_instances(module).filter(|i| i.is_idle());
        idle.max_by_key(|i| (i.idle_since, i.process)).map(|i| i.process)
    }

    /// What was handed to an instance is short, and the call that it runs has not turned out to be long.
    fn soon_done(&self, now: Now, i: &Instance) -> bool {
        // A developer's process may stop at a breakpoint at any time.
        let free =
            i.takes_calls() && !i.attached && !i.hosts && i.slot && i.recall.is_none() && i.kill_at.is_none();
        free && i.load <= AHEAD_TOTAL
            && i.running().is_some_and(|id| match self.calls[&id].phase {
                Phase::Running(_, since) => now.mono.since(since) <= AHEAD_TOTAL,
                _ => false,
            })
    }

    /// How long a call is expected to run; very long if nobody knows.
    fn estimate(&self, call: CallId) -> Duration {
        let name = &self.calls[&call].function;
        let function = self.modules.get(name.module()).and_then(|m| m.function(name.function()));
        function.and_then(|f| f.run_time).unwrap_or(UNKNOWN)
    }

    /// Hands a call to an instance. For one of this node's own, a slot was taken if it is the instance's first.
    pub(crate) fn hand(&mut self, now: Now, id: CallId, process: ProcessId) {
        let estimate = self.estimate(id);
        let instance = self.instances.get_mut(&process).expect("a chosen instance exists");
        let call = self.calls.get_mut(&id).expect("a call in a queue exists");
        call.started.get_or_insert(now.mono);
        call.estimate = estimate;
        instance.load += estimate;
        if let Some(durable) = &call.durable {
            call.deadline = durable.timeout.map_or(Mono::MAX, |timeout| now.mono + timeout);
        }
        if instance.patient {
            call.left = Some(call.deadline.since(now.mono));
            call.deadline = now.mono + DURATION_MAX;
        }
        let invoke = match &call.guest {
            Some(guest) => crate::grid::invoke_of(guest, call.deadline, now.mono, instance.acked),
            None => v1::Invoke {
                call: id.to_wire(),
                attempt: call.attempt.0,
                function: call.function.function().to_owned(),
                timeout_ms: if instance.patient || call.deadline == Mono::MAX {
                    0
                } else {
                    millis(call.deadline.since(now.mono)).max(1)
                },
                depth: call.depth,
                root: call.root.to_wire(),
                parent: call.parent().map_or_else(Bytes::new, |p| p.call.to_wire()),
                traceparent: call.traceparent.clone(),
                context: call.context.clone(),
                redelivered: call.redelivered,
                acked: instance.acked,
                fence: call.fence,
                trigger: call.trigger.clone(),
                step: call.step,
                attempts_before: call.attempts_before,
            },
        };
        let payload = call.payload.clone();
        let peer = instance.peer.expect("an instance that is ready is connected");
        instance.handed.push_back(id);
        // The call's timer may ring earlier than its deadline now; it is then set anew.
        self.timers.set_earliest(Timer::Call(id), call.due());
        if instance.handed.len() == 1 {
            call.phase = Phase::Running(process, now.mono);
            assert!(!instance.slot, "an idle instance has no slot");
            instance.slot = instance.runner.is_none();
            instance.hosts = call.guest.is_some();
        } else {
            call.phase = Phase::Ahead(process);
        }
        self.watch(process);
        self.send(peer, Message::Invoke(invoke), payload);
    }

    /// The running call of an instance is over: the next one runs, or the slot is free.
    pub(crate) fn advance(&mut self, now: Now, process: ProcessId) {
        let instance = self.instances.get_mut(&process).expect("an instance that advances exists");
        match instance.handed.front().copied() {
            Some(next) => {
                let call = self.calls.get_mut(&next).expect("a call that was handed over exists");
                call.phase = Phase::Running(process, now.mono);
                if call.origin.is_none() {
                    // Nobody wants it any more, and the recall came too late.
                    let (deadline, attempt) = (call.deadline, call.attempt.0);
                    let reason = "nobody waits for it".to_owned();
                    let cancel = v1::Cancel { call: next.to_wire(), attempt, interrupt: false, reason };
                    self.timers.set(Timer::Call(next), deadline);
                    self.tell_to_stop(now, process, cancel);
                }
            }
            None => {
                instance.idle_since = now.mono;
                if instance.phase == instance::Phase::Stopping {
                    instance.kill_by(now.mono + STOP_GRACE);
                }
                self.free_slot(process);
            }
        }
        self.watch(process);
    }

    /// An instance has ended its call. A guest's slot goes back by its token.
    pub(crate) fn free_slot(&mut self, process: ProcessId) {
        let instance = self.instances.get_mut(&process).expect("an instance that gives its slot back exists");
        if std::mem::take(&mut instance.slot) && !std::mem::take(&mut instance.hosts) {
            self.grid.market.give_slot();
        }
    }

    /// An instance waits for what its call has called: somebody else may have its slot meanwhile.
    pub(crate) fn lend_slot(&mut self, process: ProcessId) {
        let instance = self.instances.get_mut(&process).expect("an instance that waits exists");
        assert!(std::mem::take(&mut instance.slot), "an instance that runs a call has a slot");
        match instance.running().and_then(|id| self.calls[&id].guest.as_deref()) {
            Some(Guest { lease, .. }) => self.grid.market.park(*lease),
            None => self.grid.market.give_slot(),
        }
    }

    /// A slot for an instance that may go on, if there is one.
    pub(crate) fn take_slot_again(&mut self, process: ProcessId) -> bool {
        let instance = self.instances.get_mut(&process).expect("a dead instance is taken out of the line");
        assert!(!instance.slot, "a blocked instance has no slot");
        let taken = match instance.running().and_then(|id| self.calls[&id].guest.as_deref()) {
            Some(Guest { lease, .. }) => self.grid.market.unpark(*lease),
            None => self.grid.market.take_slot_first(),
        };
        instance.slot = taken;
        taken
    }

    /// Asks an instance to give back what it has not started.
    pub(crate) fn recall(&mut self, process: ProcessId) {
        let nonce = self.next_nonce;
        let Some(instance) = self.instances.get_mut(&process) else { return };
        let (Some(peer), None) = (instance.peer, &instance.recall) else { return };
        let asked: Vec<CallId> = instance.handed.iter().skip(1).copied().collect();
        if asked.is_empty() {
            return;
        }
        self.next_nonce += 1;
        instance.recall = Some(Recall { nonce, calls: asked.iter().copied().collect() });
        let calls = asked
            .iter()
            .map(|id| v1::Invocation { call: id.to_wire(), attempt: self.calls[id].attempt.0 })
            .collect();
        self.send(peer, Message::Recall(v1::Recall { nonce, calls }), Bytes::new());
    }

    /// An instance gives calls back; they stand in line again where they stood.
    pub(crate) fn on_recalled(&mut self, now: Now, process: ProcessId, recalled: v1::Recalled) {
        let instance = self.instances.get_mut(&process).expect("a frame is from an instance that exists");
        let Some(recall) = instance.recall.take_if(|r| r.nonce == recalled.nonce) else {
            self.note(
                Level::Warning,
                format!("instance {} gave back calls that it was not asked for", process.0),
            );
            return;
        };
        for given in recalled.calls {
            let Some(id) = CallId::from_wire(&given.call).filter(|id| recall.calls.contains(id)) else {
                continue;
            };
            let instance = &self.instances[&process];
            match instance.handed.iter().position(|c| *c == id) {
                None => {}
                Some(0) if instance.waiting.is_some() => {
                    self.expel(now, process, "it gave back a call that had started");
                    return;
                }
                // The result of the one before was on its way when the recall was sent, so that it seemed to run.
                Some(0) => self.take_first_back(now, process),
                Some(at) => {
                    let instance = self.instances.get_mut(&process).expect("it was there above");
                    instance.handed.remove(at);
                    instance.load = instance.load.saturating_sub(self.calls[&id].estimate);
                    self.give_back(now, id);
                }
            }
        }
        let instance = self.instances.get_mut(&process).expect("it is not removed meanwhile");
        instance.recalled_at = Some(now.mono);
        self.watch(process);
    }

    /// What an instance was to run next, and says that it never will.
    fn take_first_back(&mut self, now: Now, process: ProcessId) {
        let instance = self.instances.get_mut(&process).expect("the caller has looked it up");
        let id = instance.handed.pop_front().expect("the caller has looked it up");
        instance.load = instance.load.saturating_sub(self.calls[&id].estimate);
        if instance.exit.is_none() && instance.phase == instance::Phase::Ready {
            instance.kill_at = None;
        }
        if self.calls[&id].guest.is_some() {
            self.advance(now, process);
            return self.give_guest_back(now, id);
        }
        // It may lie: nothing that it did for this attempt counts.
        self.abort_children(now, id);
        self.durable.abandon(self.calls[&id].layer());
        self.another_attempt(id);
        self.give_back(now, id);
        self.advance(now, process);
    }

    /// Routes all that an instance was handed anew.
    pub(crate) fn take_all_back(&mut self, now: Now, process: ProcessId) {
        while !self.instances[&process].handed.is_empty() {
            self.take_first_back(now, process);
        }
    }

    /// A call that no instance has started is routed again, or forgotten if nobody waits for it.
    pub(crate) fn give_back(&mut self, now: Now, id: CallId) {
        if self.calls[&id].origin.is_some() {
            self.queue_again(now, id);
        } else {
            self.forget(id);
        }
    }

    pub(crate) fn note(&mut self, level: Level, text: String) {
        self.event(Event::Note { level, text });
    }
}
