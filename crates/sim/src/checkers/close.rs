//! What must hold at the end, when everything is quiet and no fault is left.

use std::collections::{BTreeMap, BTreeSet};

use bourse_durable::work::KeyName;
use bourse_node::Mode;
use bourse_wire::id::CallId;
use bourse_wire::record::v1 as stored;
use bourse_wire::record::v1::ended::Status;
use bytes::Bytes;
use prost::Message as _;

use super::{Books, NO_PLAN, concerned, id};
use crate::disk::Disk;
use crate::gateway::{Gateway, Heard};
use crate::histories::Run;
use crate::stage::{End, Stage};

/// How often something has happened: at least, and at most.
type Range = (usize, usize);

impl Books {
    /// Everything is quiet, and no fault is left.
    pub fn close(&mut self, disk: &Disk, gateway: &Gateway, stage: &Stage) {
        for (kind, what) in
            [(b'c', "lives"), (b'o', "is promised elsewhere"), (b'x', "stands in line for its key")]
        {
            for (partition, key, _) in disk.rows(kind) {
                let call = if kind == b'o' { concerned(key) } else { id(key) };
                let call = call.map_or_else(String::new, |call| call.to_string());
                self.violations.push(format!("call {call} still {what}, in partition {partition}"));
            }
        }
        let rows: Vec<CallId> =
            [b't', b'd'].into_iter().flat_map(|kind| disk.rows(kind)).filter_map(|row| id(row.1)).collect();
        for (call, story) in self.calls.clone() {
            let ends = rows.iter().filter(|row| **row == call).count();
            let expected = usize::from(!story.purged);
            if ends != expected {
                self.wrong(format!("call {call} has {ends} terminal records"));
            }
            if let (Some(plan), Some((status, result, bytes))) =
                (story.steps.last().filter(|plan| **plan != NO_PLAN), &story.ended)
                && !story.purged
            {
                self.close_call(call, *plan, *status, result, bytes, stage);
            }
        }
        self.close_plans(gateway, stage);
        self.close_fences(stage);
        self.close_triggers();
    }

    fn close_call(
        &mut self,
        call: CallId,
        number: u32,
        status: Status,
        result: &str,
        bytes: &Bytes,
        stage: &Stage,
    ) {
        let plan = stage.plan(number);
        match status {
            Status::Done => {
                let place = plan.scope.as_ref().and_then(|scope| {
                    let is = |entry: &super::Entry| (entry.call, entry.plan) == (call, number);
                    let at = self.ledgers.get(scope)?.iter().position(is)?;
                    Some((at + 1).to_string())
                });
                if plan.scope.is_some() && place.as_deref() != Some(result) {
                    self.wrong(format!("call {call} is done as number {result}, and is at {place:?}"));
                }
                if plan.function.starts_with("bourse.") && !self.performed.contains(&call) {
                    self.wrong(format!("call {call} is done, and never went out"));
                }
                if plan.bad == u32::MAX {
                    self.wrong(format!("call {call} is done, though each run of it fails"));
                }
                if plan.next.is_some() {
                    self.wrong(format!("call {call} is done with a step that is not its last"));
                }
            }
            Status::Dead => {
                let itself = plan.bad > 0 && plan.end == End::DeadLetters;
                let handed = stage.handed(call, number);
                if !itself && handed < plan.attempts_max() {
                    let why = stored::Ended::decode(bytes.clone()).ok().and_then(|ended| ended.failure);
                    let why = why.map(|failure| format!("{}: {}", failure.code, failure.message));
                    self.wrong(format!("call {call} is a dead letter after {handed} attempts: {why:?}"));
                }
            }
            Status::Joined => {}
            _ => {
                let itself = plan.bad > 0 && plan.end == End::Discards;
                if !itself && !self.cancels.contains(&call) {
                    self.wrong(format!("call {call} is cancelled, and nobody wanted that"));
                }
            }
        }
    }

    fn close_plans(&mut self, gateway: &Gateway, stage: &Stage) {
        let mut keyed: BTreeMap<(&str, &str), BTreeSet<CallId>> = BTreeMap::new();
        for (ticket, made) in gateway.made() {
            let calls = self.of_plan(made.plan);
            let plan = stage.plan(made.plan);
            if let (true, Some(call)) = (!made.key.is_empty(), made.call) {
                keyed.entry((&plan.function, &made.key)).or_default().insert(call);
            }
            let may_be_other = !made.key.is_empty() || plan.is_unique();
            let durable = made.mode == Mode::Async || plan.is_retried() || !calls.is_empty();
            match &made.heard {
                Heard::Nothing => self.wrong(format!("call {} is answered by nobody", ticket.0)),
                Heard::Accepted if !may_be_other && made.call.as_ref() != calls.first() => {
                    self.wrong(format!("call {} was accepted as another", ticket.0));
                }
                Heard::Refused(why) if durable && made.call.is_none() && !calls.is_empty() => {
                    self.wrong(format!("call {} was refused ({why}), and is stored", ticket.0));
                }
                _ => {}
            }
            if calls.len() > 1 {
                self.wrong(format!("call {} was accepted {} times", ticket.0, calls.len()));
            }
            match durable {
                true => self.close_durable(made.plan, &calls, stage),
                false => self.close_sync(made.plan, &made.heard, stage),
            }
        }
        for ((function, key), calls) in keyed {
            if calls.len() > 1 {
                self.wrong(format!("{} calls of {function} have the key {key:?}", calls.len()));
            }
        }
        for (ticket, asked) in gateway.asked() {
            if asked.told.is_none() && !asked.over {
                self.wrong(format!("question {} ({:?}) is answered by nobody", ticket.0, asked.ask));
            }
        }
    }

    /// What has taken effect was begun, by what the functions say themselves.
    pub(crate) fn close_runs(&mut self, runs: &BTreeSet<Run>) {
        let entries = self.ledgers.values().flatten();
        let runs_of =
            |entry: &super::Entry| Run { plan: entry.plan, call: entry.call, attempt: entry.attempt };
        let never: Vec<Run> = entries.map(runs_of).filter(|run| !runs.contains(run)).collect();
        for Run { plan, call, attempt } in never {
            self.wrong(format!(
                "attempt {attempt} of call {call} takes effect with plan {plan}, and was never begun"
            ));
        }
    }

    /// What calls with one exclusive key have changed, in the order in which it landed, has growing fences. Not those that run
    /// inside another with the key, nor those that have come to it by handing on, with the key that they began with.
    fn close_fences(&mut self, stage: &Stage) {
        let mut with_key: BTreeMap<KeyName, Vec<&super::Entry>> = BTreeMap::new();
        for entry in self.ledgers.values().flatten().filter(|entry| entry.plan < stage.count()) {
            let plan = stage.plan(entry.plan);
            let waits = plan.parent.is_some_and(|above| stage.plan(above).nested.contains(&entry.plan));
            if let Some(name) = plan.exclusive().filter(|_| !waits && !stage.is_step(entry.plan)) {
                with_key.entry(name).or_default().push(entry);
            }
        }
        let mut wrongs = Vec::new();
        for (name, mut entries) in with_key {
            entries.sort_by_key(|entry| entry.landed);
            for pair in entries.windows(2) {
                // What lands together has no order.
                if pair[0].landed < pair[1].landed && pair[0].fence >= pair[1].fence {
                    let (one, other) = (pair[0], pair[1]);
                    wrongs.push(format!(
                        "of {name:?}, what call {} has changed with the fence {} landed after that of {} with {}",
                        other.call, other.fence, one.call, one.fence
                    ));
                }
            }
        }
        wrongs.into_iter().for_each(|wrong| self.wrong(wrong));
    }

    /// The steps of durable calls that begin with a plan.
    fn close_durable(&mut self, first: u32, calls: &[CallId], stage: &Stage) {
        let mut at = Some(first);
        while let Some(number) = at {
            let passed = self.passed(number, calls);
            let effects = self.effects(number, stage);
            if stage.plan(number).scope.is_some() && effects != passed {
                self.wrong(format!(
                    "plan {number} has taken effect {effects} times, and is over {passed} times"
                ));
            }
            self.close_children(number, (passed, passed), stage);
            at = stage.plan(number).next;
        }
    }

    /// The same of a call that was not durable.
    fn close_sync(&mut self, first: u32, heard: &Heard, stage: &Stage) {
        let (mut at, mut before) = (Some(first), 1);
        while let Some(number) = at {
            at = stage.plan(number).next;
            let range = match heard {
                Heard::Done(_) => (1, 1),
                // One that fails has ended with one of its steps; the others before have taken effect.
                Heard::Refused(_) if at.is_none() => (0, 0),
                _ => (0, before),
            };
            let effects = self.effects(number, stage);
            if stage.plan(number).scope.is_some() {
                if !(range.0..=range.1).contains(&effects) {
                    self.wrong(format!("plan {number} has taken effect {effects} times: {heard:?}"));
                }
                before = effects.min(1);
            }
            self.close_children(number, range, stage);
        }
    }

    /// What a plan's call has made others do, if it took effect so often.
    fn close_children(&mut self, number: u32, (least, most): Range, stage: &Stage) {
        let plan = stage.plan(number);
        for child in &plan.starts {
            let calls = self.of_plan(*child);
            if !(least..=most).contains(&calls.len()) {
                self.wrong(format!("plan {child} was accepted {} times, of {least}", calls.len()));
            }
            self.close_durable(*child, &calls, stage);
        }
        for child in &plan.nested {
            if stage.plan(*child).is_unique() {
                let calls = self.of_plan(*child);
                if calls.len() > 1 {
                    self.wrong(format!("nested plan {child} was accepted {} times", calls.len()));
                }
                self.close_durable(*child, &calls, stage);
                continue;
            }
            let mut at = Some(*child);
            while let Some(step) = at {
                let effects = self.effects(step, stage);
                let joins = stage.plan(step).scope == plan.scope;
                let range = if joins { (least, most) } else { (least, stage.runs(step) as usize) };
                if stage.plan(step).scope.is_some() && !(range.0..=range.1).contains(&effects) {
                    self.wrong(format!("nested plan {step} has taken effect {effects} times, of {range:?}"));
                }
                at = stage.plan(step).next;
            }
        }
    }

    /// The durable calls that begin with a plan, also those that were joined with others.
    fn of_plan(&self, plan: u32) -> Vec<CallId> {
        let is = |story: &super::Story| {
            story.steps.first() == Some(&plan) && (story.stored.is_some() || story.ended.is_some())
        };
        self.calls.iter().filter(|(_, story)| is(story)).map(|(call, _)| *call).collect()
    }

    /// How many of these calls have gone on from a plan, or are done with it.
    fn passed(&self, plan: u32, calls: &[CallId]) -> usize {
        let is_past = |call: &&CallId| {
            let Some(story) = self.calls.get(call) else { return false };
            let is_done = story.ended.as_ref().is_some_and(|(status, ..)| *status == Status::Done);
            match story.steps.iter().position(|step| *step == plan) {
                Some(at) => at + 1 < story.steps.len() || is_done,
                None => false,
            }
        };
        calls.iter().filter(is_past).count()
    }

    fn effects(&self, plan: u32, stage: &Stage) -> usize {
        let scope = stage.plan(plan).scope.as_ref();
        let ledger = scope.and_then(|scope| self.ledgers.get(scope));
        ledger.map_or(0, |ledger| ledger.iter().filter(|entry| entry.plan == plan).count())
    }
}
