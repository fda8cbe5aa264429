//! What `bourse sim` does: many seeds, or one of them with all that happened.
//!
//! ```text
//! bourse sim --seeds 2000      says what was found; a seed that goes wrong comes with the command that shows it
//! bourse sim --seed 17         shows it
//! ```

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::seeds::{Report, run};
use crate::trace::Trace;

/// Between two progress lines.
const PROGRESS: Duration = Duration::from_millis(100);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many seeds.
    pub seeds: u64,
    /// Only this one.
    pub seed: Option<u64>,
    /// One line of JSON instead of text.
    pub json: bool,
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

/// Runs seeds and says what came of them, on standard output. Whether nothing was found.
pub fn simulate(options: &Options) -> std::io::Result<bool> {
    let seeds = match options.seed {
        Some(seed) => seed..=seed,
        None => 1..=options.seeds,
    };
    // A seed's own panics are its findings. Where a panic ends the process, this is all that is seen of it.
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(|panic| {
        let seed = SEED.get();
        eprintln!("seed {seed}: {panic}\nto see it: bourse sim --seed {seed}");
    }));
    let began = Instant::now();
    let total = all(seeds, options);
    std::panic::set_hook(before);
    let took = began.elapsed();
    let mut out = std::io::stdout().lock();
    if options.json {
        writeln!(out, "{}", total.to_json(took))?;
    } else {
        total.print(&mut out, took)?;
    }
    Ok(total.failed.is_empty())
}

thread_local! {
    static SEED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

fn all(seeds: std::ops::RangeInclusive<u64>, options: &Options) -> Total {
    let (next, last) = (AtomicU64::new(*seeds.start()), *seeds.end());
    let (done, alone) = (AtomicU64::new(0), options.seed.is_some());
    let shows = !options.json && !alone && std::io::stderr().is_terminal();
    let threads = if alone { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
    let mut total = Total::default();
    std::thread::scope(|scope| {
        let work = || {
            let mut mine = Total::default();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed > last {
                    return mine;
                }
                SEED.set(seed);
                let trace = if alone && !options.json { Trace::live() } else { Trace::default() };
                mine.add(run(seed, trace));
                done.fetch_add(1, Ordering::Relaxed);
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        while shows && !workers.iter().all(|worker| worker.is_finished()) {
            eprint!("\r{} of {last} seeds", done.load(Ordering::Relaxed));
            std::thread::sleep(PROGRESS);
        }
        if shows {
            eprint!("\r\x1b[K");
        }
        for mine in workers {
            total.merge(mine.join().expect("a run catches its panics"));
        }
    });
    total.failed.sort_by_key(|report| report.seed);
    total
}

impl Total {
    /// Only a report that went wrong is kept.
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

    fn speed(&self, took: Duration) -> f64 {
        self.simulated.as_secs_f64() / took.as_secs_f64().max(1e-9)
    }

    fn print(&self, out: &mut impl std::io::Write, took: Duration) -> std::io::Result<()> {
        let [done, dead, cancelled] = self.ended;
        for report in &self.failed {
            writeln!(out, "seed {} goes wrong:", report.seed)?;
            for violation in &report.violations {
                writeln!(out, "  {violation}")?;
            }
            writeln!(out, "  to see it: bourse sim --seed {}", report.seed)?;
        }
        writeln!(
            out,
            "{} seeds in {:.1} s ({:.0} × real time): {} steps, {} faults, {} crashes",
            self.seeds,
            took.as_secs_f64(),
            self.speed(took),
            self.steps,
            self.faults,
            self.crashes
        )?;
        writeln!(
            out,
            "{} runs of functions; calls: {done} done, {dead} dead letters, {cancelled} cancelled",
            self.runs
        )?;
        match self.failed.len() {
            0 => writeln!(out, "nothing was found"),
            n => writeln!(out, "{n} went wrong"),
        }
    }

    fn to_json(&self, took: Duration) -> Value {
        let [done, dead, cancelled] = self.ended;
        let failed: Vec<Value> =
            self.failed.iter().map(|r| json!({"seed": r.seed, "violations": r.violations})).collect();
        json!({
            "seeds": self.seeds,
            "seconds": took.as_secs_f64(),
            "simulated_seconds": self.simulated.as_secs_f64(),
            "times_real_time": self.speed(took),
            "steps": self.steps,
            "faults": self.faults,
            "crashes": self.crashes,
            "runs": self.runs,
            "done": done,
            "dead": dead,
            "cancelled": cancelled,
            "failed": failed,
        })
    }
}
