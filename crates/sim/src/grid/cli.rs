//! What `bourse sim --grid` does: many grids from seeds, or one of them with all that happened.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::seeds::{Report, run};
use crate::many::{Options, speed};

/// Runs grids from seeds and says what came of them, on standard output. Whether nothing was found.
pub fn simulate(options: &Options) -> std::io::Result<bool> {
    crate::many::simulate::<Total>(options, run)
}

/// All seeds together.
#[derive(Clone, Debug, Default)]
struct Total {
    seeds: u64,
    events: u64,
    faults: u64,
    messages_wrong: u64,
    begun: u64,
    ended: [u64; super::books::ENDS],
    simulated: Duration,
    kinds: BTreeMap<String, (u64, Duration)>,
    failed: Vec<Report>,
}

impl crate::many::Total for Total {
    type Report = Report;

    const COMMAND: &'static str = "bourse sim --grid";

    fn add(&mut self, report: Report) {
        self.seeds += 1;
        self.events += report.events;
        self.faults += report.faults;
        self.messages_wrong += report.messages_wrong;
        self.begun += report.begun;
        self.simulated += report.simulated;
        self.ended.iter_mut().zip(report.ended).for_each(|(all, more)| *all += more);
        let kind = self.kinds.entry(report.kind.clone()).or_default();
        *kind = (kind.0 + 1, kind.1.max(report.agreed));
        if !report.violations.is_empty() {
            self.failed.push(report);
        }
    }

    fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.faults += other.faults;
        self.messages_wrong += other.messages_wrong;
        self.begun += other.begun;
        self.simulated += other.simulated;
        self.ended.iter_mut().zip(other.ended).for_each(|(all, more)| *all += more);
        for (name, (runs, agreed)) in other.kinds {
            let kind = self.kinds.entry(name).or_default();
            *kind = (kind.0 + runs, kind.1.max(agreed));
        }
        self.failed.extend(other.failed);
    }

    fn failed(&self) -> Vec<(u64, String, &[String])> {
        let kind = |report: &Report| format!("{}, {} nodes", report.kind, report.nodes);
        self.failed.iter().map(|report| (report.seed, kind(report), &report.violations[..])).collect()
    }

    fn print(&self, out: &mut dyn Write, took: Duration) -> std::io::Result<()> {
        writeln!(
            out,
            "{} grids in {:.1} s ({:.0} × real time): {} events, {} faults, {} messages lost, repeated or late",
            self.seeds,
            took.as_secs_f64(),
            speed(self.simulated, took),
            self.events,
            self.faults,
            self.messages_wrong
        )?;
        let [done, refused, late, lost, gone] = self.ended;
        writeln!(
            out,
            "{} calls ran; {done} done, {refused} refused, {late} late, {lost} lost, {gone} gone",
            self.begun
        )
    }

    fn to_json(&self, took: Duration) -> Value {
        let [done, refused, late, lost, gone] = self.ended;
        json!({
            "seeds": self.seeds,
            "seconds": took.as_secs_f64(),
            "simulated_seconds": self.simulated.as_secs_f64(),
            "events": self.events,
            "faults": self.faults,
            "messages_wrong": self.messages_wrong,
            "begun": self.begun,
            "done": done,
            "refused": refused,
            "late": late,
            "lost": lost,
            "gone": gone,
        })
    }
}
