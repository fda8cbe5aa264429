//! What `bourse sim --machines` does: many grids of whole nodes from seeds, or one of them with all that happened.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::seeds::{Report, run_with};
use crate::many::{Options, speed};

/// Runs grids of whole nodes from seeds and says what came of them, on standard output. Whether nothing was found. `machines`: how
/// many each has; else a few, by chance.
pub fn simulate(options: &Options, machines: Option<usize>) -> std::io::Result<bool> {
    crate::many::simulate::<Total>(options, |seed, trace| run_with(seed, machines, trace))
}

/// All seeds together.
#[derive(Clone, Debug, Default)]
struct Total {
    seeds: u64,
    events: u64,
    faults: u64,
    runs: u64,
    bought: u64,
    forwarded: u64,
    ended: [usize; 3],
    heard: [usize; 3],
    simulated: Duration,
    agreed: Duration,
    failed: Vec<Report>,
}

impl crate::many::Total for Total {
    type Report = Report;

    const COMMAND: &'static str = "bourse sim --machines";

    fn add(&mut self, report: Report) {
        self.seeds += 1;
        self.events += report.events;
        self.faults += report.faults;
        self.runs += report.runs;
        self.bought += report.bought;
        self.forwarded += report.forwarded;
        self.simulated += report.simulated;
        self.agreed = self.agreed.max(report.agreed);
        self.ended.iter_mut().zip(report.ended).for_each(|(all, more)| *all += more);
        self.heard.iter_mut().zip(report.heard).for_each(|(all, more)| *all += more);
        if !report.violations.is_empty() {
            self.failed.push(report);
        }
    }

    fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.faults += other.faults;
        self.runs += other.runs;
        self.bought += other.bought;
        self.forwarded += other.forwarded;
        self.simulated += other.simulated;
        self.agreed = self.agreed.max(other.agreed);
        self.ended.iter_mut().zip(other.ended).for_each(|(all, more)| *all += more);
        self.heard.iter_mut().zip(other.heard).for_each(|(all, more)| *all += more);
        self.failed.extend(other.failed);
    }

    fn failed(&self) -> Vec<(u64, String, &[String])> {
        let kind = |report: &Report| format!("{}, {} machines", report.kind, report.nodes);
        self.failed.iter().map(|report| (report.seed, kind(report), &report.violations[..])).collect()
    }

    fn print(&self, out: &mut dyn Write, took: Duration) -> std::io::Result<()> {
        writeln!(
            out,
            "{} grids in {:.1} s ({:.0} × real time): {} events, {} faults; agreed {:.1} s after all had healed at the latest",
            self.seeds,
            took.as_secs_f64(),
            speed(self.simulated, took),
            self.events,
            self.faults,
            self.agreed.as_secs_f64()
        )?;
        let ([done, dead, cancelled], [heard, refused, unknown]) = (self.ended, self.heard);
        writeln!(
            out,
            "{} runs of functions, {} bought elsewhere, {} requests to the node with the store; durable calls: {done} done, {dead} \
             dead letters, {cancelled} cancelled; callers were told: {heard} results, {refused} refusals, {unknown} that nobody knows",
            self.runs, self.bought, self.forwarded
        )
    }

    fn to_json(&self, took: Duration) -> Value {
        let [done, dead, cancelled] = self.ended;
        json!({
            "seeds": self.seeds,
            "seconds": took.as_secs_f64(),
            "simulated_seconds": self.simulated.as_secs_f64(),
            "times_real_time": speed(self.simulated, took),
            "agreed_seconds": self.agreed.as_secs_f64(),
            "events": self.events,
            "faults": self.faults,
            "runs": self.runs,
            "bought": self.bought,
            "forwarded": self.forwarded,
            "done": done,
            "dead": dead,
            "cancelled": cancelled,
        })
    }
}
