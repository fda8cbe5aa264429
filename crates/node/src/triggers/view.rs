//! What is shown of triggers.

use bourse_durable::work::TriggerKey;
use bourse_wire::time::Now;

use crate::Node;

/// A trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TriggerView {
    /// "cron", "queue", "topic".
    pub kind: &'static str,
    /// The line, the queue, the pattern.
    pub name: String,
    /// What it wakes.
    pub function: String,
    /// Its module serves now.
    pub serving: bool,
    /// Of a cron line: its zone.
    pub zone: String,
    /// Of a cron line: what becomes of missed ticks.
    pub missed: &'static str,
    /// Of a cron line: the next tick, in milliseconds since 1970.
    pub next_ms: Option<u64>,
    /// Of a cron line: the last tick.
    pub last_ms: Option<u64>,
}

impl Node {
    /// All triggers: cron lines, then queues, then topics.
    pub fn triggers(&self, now: Now) -> Vec<TriggerView> {
        let lines = self.triggers.lines.iter().map(|(key, line)| {
            let record = self.triggers.ticked.get(key);
            let after = record.map_or(now.wall.0, |record| record.tick_ms);
            TriggerView {
                kind: "cron",
                name: line.cron.line.clone(),
                function: line.function.to_string(),
                serving: true,
                zone: line.cron.zone.clone(),
                missed: line.cron.missed.as_str(),
                next_ms: line.cron.next_after(after),
                last_ms: record.filter(|r| r.tick_ms > r.begun_ms).map(|r| r.tick_ms),
            }
        });
        let resting = self.triggers.ticked.iter().filter(|(key, _)| !self.triggers.lines.contains_key(key));
        let resting = resting.filter_map(|(key, record)| match key {
            TriggerKey::Cron { module, function, .. } => Some(TriggerView {
                kind: "cron",
                name: record.line.clone(),
                function: format!("{module}.{function}"),
                serving: false,
                zone: record.zone.clone(),
                missed: "",
                next_ms: None,
                last_ms: (record.tick_ms > record.begun_ms).then_some(record.tick_ms),
            }),
            TriggerKey::Listens { .. } => None,
        });
        let mut listens: Vec<TriggerView> = self
            .triggers
            .listens
            .iter()
            .flat_map(|(module, all)| all.iter().map(move |s| (module, s)))
            .map(|(module, s)| TriggerView {
                kind: if s.kind == "queue" { "queue" } else { "topic" },
                name: s.name.clone(),
                function: format!("{module}.{}", s.function),
                serving: self.modules.get(module).is_some_and(|m| !m.removed && m.serving().is_some()),
                zone: String::new(),
                missed: "",
                next_ms: None,
                last_ms: None,
            })
            .collect();
        listens.sort_by(|a, b| (a.kind, &a.name, &a.function).cmp(&(b.kind, &b.name, &b.function)));
        lines.chain(resting).chain(listens).collect()
    }
}
