//! What must hold between any two inputs. Checked after each in debug builds, by the simulator and in tests.

use crate::Node;
use crate::call::{Call, Phase};
use crate::instance;
use crate::module::Loading;

impl Node {
    /// Panics if a promise of the node's own structure is broken: that is a bug, whatever came in.
    pub fn check_invariants(&self) {
        self.check_calls();
        self.check_instances();
        self.check_queues();
        self.check_performing();
        self.durable.check_invariants();
    }

    /// Panics if anything is left although nothing goes on any more: a leak.
    pub fn check_quiet(&self) {
        self.check_invariants();
        let left: Vec<_> = self.calls.values().map(|c| (c.id, &c.function, &c.phase)).collect();
        assert!(left.is_empty(), "calls are left: {left:?}");
        assert!(self.by_origin.is_empty() && self.backlog.is_empty(), "callers are left");
        assert!(self.watchers.is_empty() && self.watched.is_empty(), "those who wait for ends are left");
        assert!(self.accepting.is_empty() && self.accepting_bytes == 0, "calls on their way are left");
        assert!(self.publishing.is_empty(), "messages are left");
        self.check_triggers_quiet();
        assert!(self.asked.is_empty(), "questions to the partitions are left");
        assert!(self.rooms.is_empty(), "calls that wait for others to make a list are left");
        assert!(self.door.is_empty() && self.unkeyed.is_empty(), "calls of unknown functions are left");
        assert!(self.instances.values().all(|i| !i.slot) && self.resumable.is_empty(), "slots are left");
        assert!(self.grid.is_quiet(), "calls of or for other nodes are left");
        for (process, i) in &self.instances {
            assert!(i.held.is_empty() && i.cancel.is_none(), "something is held back for {process:?}");
            assert!(i.recall.is_none() && i.load.is_zero(), "calls ahead of {process:?} are left");
        }
        for module in self.modules.values() {
            let served = [&module.current, &module.incoming, &module.attached, &module.elsewhere];
            for (id, revision) in &module.revisions {
                let kept = served.contains(&&Some(id.clone())) || revision.loading == Loading::Failed;
                assert!(kept || !revision.instances.is_empty(), "the revision {id:?} is left");
            }
        }
        self.timers.check_quiet(
            &self.instances.keys().copied().collect(),
            &self.templates.keys().copied().collect(),
        );
    }

    fn check_calls(&self) {
        for (origin, id) in &self.by_origin {
            let call =
                self.calls.get(id).unwrap_or_else(|| panic!("{origin:?} waits for the unknown call {id}"));
            assert_eq!(call.origin, Some(*origin), "an unanswered call knows who waits for it");
        }
        let dues = self.timers.calls();
        for (id, call) in self.calls.iter().filter(|(_, call)| call.origin.is_some()) {
            let rings = dues.get(id).unwrap_or_else(|| panic!("nothing ends the call {id}"));
            assert!(*rings <= call.due(), "a call's timer rings in time");
        }
        let unanswered = self.calls.values().filter(|c| c.origin.is_some()).count();
        assert_eq!(unanswered, self.by_origin.len(), "whoever waits for a call is known by it");
        for (id, call) in &self.calls {
            match &call.phase {
                Phase::Queued => {
                    let module = &self.modules[call.function.module()];
                    let queue = match (call.guest.is_some(), call.is_abroad) {
                        (true, _) => &module.guests,
                        (false, true) => &module.abroad,
                        (false, false) => &module.queue,
                    };
                    assert_eq!(
                        queue.get(&call.place),
                        Some(id),
                        "a queued call stands in its module's queue"
                    );
                    assert!(call.origin.is_some(), "nothing waits that nobody wants");
                }
                Phase::Ahead(process) => {
                    let handed = &self.instances[process].handed;
                    assert!(handed.iter().skip(1).any(|c| c == id), "a call ahead stands behind another");
                }
                Phase::Running(process, _) => {
                    assert_eq!(
                        self.instances[process].running(),
                        Some(*id),
                        "a running call is its instance's first"
                    );
                }
                Phase::Locked => assert!(call.key.is_some(), "who waits for a key has one"),
                Phase::Performing(_) | Phase::Committing { .. } => {}
            }
        }
        for (name, module) in &self.modules {
            let waits = |c: &&Call| c.function.module() == name && matches!(c.phase, Phase::Locked);
            assert_eq!(
                self.calls.values().filter(waits).count(),
                module.locked,
                "who waits for a key is counted"
            );
        }
    }

    fn check_instances(&self) {
        let mut taken = 0_u32;
        for (process, i) in &self.instances {
            taken += u32::from(i.slot && !i.hosts);
            assert_eq!(
                i.slot,
                !i.handed.is_empty() && i.waiting.is_none() && i.runner.is_none(),
                "instance {process:?} has a slot exactly if it runs a call and is not blocked"
            );
            let guest = i.running().is_some_and(|id| self.calls[&id].guest.is_some());
            assert!(
                !i.slot || i.hosts == guest,
                "a guest runs in its own slot, and nobody else in a guest's"
            );
            assert!(i.handed.len() <= self.config.ahead_max + 1, "no more is handed ahead than ahead_max");
            assert!(i.handed.iter().all(|c| self.calls.contains_key(c)), "what was handed over is known");
            let load: std::time::Duration = i.handed.iter().map(|c| self.calls[c].estimate).sum();
            assert_eq!(i.load, load, "the load of {process:?} is that of its calls");
            if let Some(waiting) = i.waiting.as_ref().filter(|w| !w.satisfied) {
                let call = &self.calls[&i.handed[0]];
                let mut waited = waiting.requests.iter();
                assert!(!waiting.requests.is_empty(), "who is blocked waits for something");
                let answered = |r| call.children.contains_key(r) || call.awaited.contains(r);
                assert!(waited.all(answered), "what is waited for will be answered");
            }
            let resumes = self.resumable.contains(process);
            assert_eq!(
                resumes,
                i.waiting.as_ref().is_some_and(|w| w.satisfied),
                "who may go on stands in line"
            );
            if i.phase == instance::Phase::Ready {
                assert!(i.peer.is_some(), "an instance that takes calls is connected");
            }
            let revision = self.modules.get(&i.module).and_then(|m| m.revisions.get(&i.revision));
            assert!(
                i.runner.is_some() || revision.is_some_and(|r| r.instances.contains(process)),
                "an instance's revision knows it"
            );
        }
        let (slots, _, own) = self.grid.market.slots();
        assert_eq!(taken, own, "slots are counted right");
        // Fewer may run since the settings have changed, but no more begin then.
        let running = self.instances.values().filter(|i| i.slot).count();
        assert!(running <= slots.max(self.grid.slots_before) as usize, "no more run than may");
        self.grid.market.check_invariants();
    }

    fn check_queues(&self) {
        for (name, module) in &self.modules {
            assert_eq!(
                self.backlog.contains(name),
                module.waiting() > 0,
                "the backlog names the modules that wait"
            );
            for id in module.queue.values().chain(module.abroad.values()) {
                assert!(matches!(self.calls[id].phase, Phase::Queued), "what stands in a queue is queued");
            }
            let blocked =
                self.instances.values().filter(|i| i.module == *name && i.waiting.is_some()).count();
            assert_eq!(blocked, module.blocked, "blocked instances are counted right");
            assert!(module.blocked <= self.config.of(name).blocked_max, "no more are blocked than may");
            for (id, revision) in &module.revisions {
                if let Some(template) = revision.template {
                    assert_eq!(
                        self.templates.get(&template),
                        Some(&(name.clone(), id.clone())),
                        "a template is known"
                    );
                }
            }
        }
    }
}
