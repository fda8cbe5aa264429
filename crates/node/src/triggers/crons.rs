//! Cron lines: which ticks are due.
//!
//! A tick is due by the wall clock. Its call has an id of its own, made of the line and the tick, and is accepted in one
//! commit with the line's record, which says that it was: so there is one call for each, over any crash. Ticks that are
//! not after the last one are none, so that a clock which is set back repeats none.

use std::collections::BTreeMap;
use std::time::Duration;

use bourse_durable::work::{NewCall as Accepted, TriggerKey, TriggerWrite};
use bourse_wire::arguments::Arguments;
use bourse_wire::id::{CallId, FunctionName};
use bourse_wire::options::{Cron, Missed};
use bourse_wire::record::v1 as record;
use bourse_wire::time::{Now, Wall};
use bourse_wire::v1;

use crate::Node;
use crate::message::{Level, Mode, NewCall};
use crate::timers::Timer;

/// The most missed ticks of a line that are made up for.
pub(crate) const MISSED_MAX: usize = 1_000;
/// A tick that is later than this was missed.
const MISSED_AFTER: Duration = Duration::from_secs(60);
/// The wall clock is looked at at least so often: it may have been set.
const LOOK: Duration = Duration::from_secs(30);
/// A line whose last tick is further in the future than this begins anew: the clock was wrong then.
const AHEAD_MAX: Duration = Duration::from_secs(3 * 3600);

/// A line of what serves.
pub(crate) struct Line {
    pub(super) function: FunctionName,
    pub(super) cron: Cron,
    /// The last tick, and the next one.
    next: Option<(u64, Option<u64>)>,
}

impl Line {
    /// The tick after the last one.
    fn next_after(&mut self, last: u64) -> Option<u64> {
        match self.next {
            Some((after, next)) if after == last => next,
            _ => {
                let next = self.cron.next_after(last);
                self.next = Some((last, next));
                next
            }
        }
    }
}

impl Node {
    /// Takes the lines of what serves, forgets those that it no longer has, and does what is due.
    pub(super) fn sync_crons(&mut self, now: Now) {
        let mut lines = BTreeMap::new();
        for (name, module) in &self.modules {
            let Some(revision) = module.serving_revision().filter(|_| !module.removed) else { continue };
            for (function, cron) in
                revision.functions.iter().flat_map(|(name, f)| f.cron.iter().map(move |cron| (name, cron)))
            {
                let key =
                    TriggerKey::Cron { module: name.clone(), function: function.clone(), line: cron.key() };
                let known = self.triggers.lines.remove(&key).filter(|line| line.cron == *cron);
                let function = FunctionName::new(name, function);
                lines.insert(key, known.unwrap_or(Line { function, cron: cron.clone(), next: None }));
            }
        }
        self.triggers.lines = lines;
        let over = |key: &&TriggerKey| {
            let module = self.modules.get(key.module()).filter(|m| !m.removed);
            !self.triggers.lines.contains_key(*key)
                && self.triggers.is_free(key)
                && (module.is_some_and(|m| m.serving().is_some())
                    || self.triggers.forgotten.contains_key(key.module()))
        };
        for key in self.triggers.ticked.keys().filter(over).cloned().collect::<Vec<_>>() {
            self.write_trigger(now, TriggerWrite::Delete(key), Vec::new());
        }
        self.run_crons(now);
    }

    /// Does what is due, and sees to it that the clock is looked at again in time.
    fn run_crons(&mut self, now: Now) {
        let mut next = (!self.triggers.lines.is_empty()).then_some(LOOK);
        for key in self.triggers.lines.keys().cloned().collect::<Vec<_>>() {
            if !self.triggers.is_free(&key) {
                continue;
            }
            let Some(last) = self.triggers.ticked.get(&key).cloned() else {
                self.begin_line(now, key);
                continue;
            };
            if last.tick_ms > now.wall.0.saturating_add(ms(AHEAD_MAX)) {
                let text = format!("the last tick of {key} lies hours ahead of the clock: it begins anew");
                self.note(Level::Warning, text);
                self.begin_line(now, key);
                continue;
            }
            let line = self.triggers.lines.get_mut(&key).expect("it was just listed");
            match line.next_after(last.tick_ms) {
                Some(tick) if tick <= now.wall.0 => self.tick(now, key, last),
                Some(tick) => {
                    let left = Duration::from_millis(tick - now.wall.0);
                    next = next.map(|next| next.min(left));
                }
                None => {}
            }
        }
        match next {
            Some(next) => self.timers.set(Timer::Cron, now.mono + next),
            None => self.timers.clear(&Timer::Cron),
        }
    }

    /// A line begins now.
    fn begin_line(&mut self, now: Now, key: TriggerKey) {
        let cron = &self.triggers.lines[&key].cron;
        let record = record::Cron {
            line: cron.line.clone(),
            zone: cron.zone.clone(),
            tick_ms: now.wall.0,
            begun_ms: now.wall.0,
        };
        self.write_trigger(now, TriggerWrite::Cron(key, record), Vec::new());
    }

    /// At least one tick is due.
    fn tick(&mut self, now: Now, key: TriggerKey, last: record::Cron) {
        let line = &self.triggers.lines[&key];
        let most = if line.cron.missed == Missed::All { MISSED_MAX } else { 1 };
        let (due, more) = line.cron.between(last.tick_ms, now.wall.0, most);
        let Some(&latest) = due.last() else { return };
        let is_missed = now.wall.0 - latest > ms(MISSED_AFTER);
        if more && line.cron.missed == Missed::All {
            let text =
                format!("{key} has missed more than {MISSED_MAX} ticks: the latest of them are made up for");
            self.note(Level::Warning, text);
        }
        let line = &self.triggers.lines[&key];
        let due = if is_missed && line.cron.missed == Missed::Skip { Vec::new() } else { due };
        let calls = due.into_iter().map(|tick| self.call_of(now, &key, tick, last.begun_ms)).collect();
        let record = record::Cron { tick_ms: latest, ..last };
        self.write_trigger(now, TriggerWrite::Cron(key, record), calls);
    }

    /// The call that a tick makes.
    fn call_of(&mut self, now: Now, key: &TriggerKey, tick: u64, begun: u64) -> Accepted {
        let Line { function, cron, .. } = &self.triggers.lines[key];
        let call = NewCall {
            function: function.clone(),
            version: String::new(),
            payload: Arguments::default().to_cbor(),
            timeout: None,
            queue_wait: None,
            traceparent: String::new(),
            context: BTreeMap::new(),
            mode: Mode::Async,
            idempotency_key: String::new(),
            delay: None,
            depth: 0,
            terms: Default::default(),
            trigger: Some(v1::Trigger {
                kind: "cron".to_owned(),
                name: cron.line.clone(),
                at_ms: tick,
                ..Default::default()
            }),
        };
        // Where its key can't be made, it fails when it is run.
        let keys = self.keys_of(&call).unwrap_or_default();
        let home = keys.home(&call).unwrap_or_else(|| key.home());
        let new = self.new_record(now, home, call, keys, None);
        Accepted { call: id_of(key, Wall(tick), begun).at(home), ..new }
    }
}

/// The id of a tick's call, but for its home: the same, however often it is made.
fn id_of(key: &TriggerKey, tick: Wall, begun: u64) -> CallId {
    let mut hash = blake3::Hasher::new();
    hash.update(key.to_string().as_bytes()).update(&[0]);
    hash.update(&tick.0.to_be_bytes()).update(&begun.to_be_bytes());
    let mut random = [0; 10];
    random.copy_from_slice(&hash.finalize().as_bytes()[..10]);
    CallId::new(tick.0, random)
}

fn ms(duration: Duration) -> u64 {
    bourse_wire::time::millis(duration)
}
