//! What `bourse sim` does: many seeds, or one of them with all that happened.
//!
//! ```text
//! bourse sim --seeds 2000      says what was found; a seed that goes wrong comes with the command that shows it
//! bourse sim --seed 17         shows it
//! ```

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};

pub use crate::many::Options;
use crate::many::speed;
use crate::seeds::{Report, run};

/// Runs seeds and says what came of them, on standard output. Whether nothing was found.
pub fn simulate(options: &Options) -> std::io::Result<bool> {
    crate::many::simulate::<Total>(options, run)
}

/// All seeds together.
#[derive(Clone, Debug, Default)]
struct Total {
    seeds: u64,
    steps: u64,
    faults: u64,
    crashes: u64,
    runs: u64,
    ended: [usize; 3],
    simulated: Duration,
    failed: Vec<Report>,
}

impl crate::many::Total for Total {
    type Report = Report;

    const COMMAND: &'static str = "bourse sim";

    fn add(&mut self, report: Report) {
        self.seeds += 1;
        self.steps += report.steps;
        self.faults += report.faults + report.disk_wrongs;
        self.crashes += report.crashes;
        self.runs += report.runs;
        self.simulated += report.simulated;
        self.ended.iter_mut().zip(report.ended).for_each(|(all, more)| *all += more);
        if !report.violations.is_empty() {
            self.failed.push(report);
        }
    }

    fn merge(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.steps += other.steps;
        self.faults += other.faults;
        self.crashes += other.crashes;
        self.runs += other.runs;
        self.simulated += other.simulated;
        self.ended.iter_mut().zip(other.ended).for_each(|(all, more)| *all += more);
        self.failed.extend(other.failed);
    }

    fn failed(&self) -> Vec<(u64, String, &[String])> {
        self.failed.iter().map(|report| (report.seed, String::new(), &report.violations[..])).collect()
    }

    fn print(&self, out: &mut dyn Write, took: Duration) -> std::io::Result<()> {
        let [done, dead, cancelled] = self.ended;
        writeln!(
            out,
            "{} seeds in {:.1} s ({:.0} × real time): {} steps, {} faults, {} crashes",
            self.seeds,
            took.as_secs_f64(),
            speed(self.simulated, took),
            self.steps,
            self.faults,
            self.crashes
        )?;
        writeln!(
            out,
            "{} runs of functions; calls: {done} done, {dead} dead letters, {cancelled} cancelled",
            self.runs
        )
    }

    fn to_json(&self, took: Duration) -> Value {
        let [done, dead, cancelled] = self.ended;
        json!({
            "seeds": self.seeds,
            "seconds": took.as_secs_f64(),
            "simulated_seconds": self.simulated.as_secs_f64(),
            "times_real_time": speed(self.simulated, took),
            "steps": self.steps,
            "faults": self.faults,
            "crashes": self.crashes,
            "runs": self.runs,
            "done": done,
            "dead": dead,
            "cancelled": cancelled,
        })
    }
}
