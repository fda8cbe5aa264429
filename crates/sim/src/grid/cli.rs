//! What `bourse sim --grid` does: many grids from seeds, or one of them with all that happened.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::seeds::{Report, run};
use crate::cli::Options;
use crate::trace::Trace;

/// Between two progress lines.
const PROGRESS: Duration = Duration::from_millis(100);

thread_local! {
    static SEED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Runs grids from seeds and says what came of them, on standard output. Whether nothing was found.
pub fn simulate(options: &Options) -> std::io::Result<bool> {
    let seeds = options.seed.map_or(1..=options.seeds, |seed| seed..=seed);
    // A seed's own panics are its findings. Where a panic ends the process, this is all that is seen of it.
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(|panic| {
        let seed = SEED.get();
        eprintln!("seed {seed}: {panic}\nto see it: bourse sim --grid --seed {seed}");
    }));
    let began = Instant::now();
    let total = all(seeds, options);
    std::panic::set_hook(before);
    let mut out = std::io::stdout().lock();
    let took = began.elapsed();
    if options.json {
        writeln!(out, "{}", total.to_json(took))?;
    } else {
        total.print(&mut out, took)?;
    }
    Ok(total.failed.is_empty())
}

/// Runs seeds on all processors. `shows`: how far it is, on standard error.
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
            eprint!("\r{} of {last} grids", done.load(Ordering::Relaxed));
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

/// All seeds together.
#[derive(Clone, Debug, Default)]
pub struct Total {
    /// How many.
    pub seeds: u64,
    /// What happened.
    pub events: u64,
    /// What went wrong.
    pub faults: u64,
    /// Messages that went wrong.
    pub messages_wrong: u64,
    /// Calls that began.
    pub begun: u64,
    /// How calls ended: done, refused, late, lost, gone.
    pub ended: [u64; super::books::ENDS],
    /// By the worlds' clocks.
    pub simulated: Duration,
    /// By kind of run: how many, and how long it took at most until all agreed.
    pub kinds: BTreeMap<String, (u64, Duration)>,
    /// What went wrong that must not.
    pub failed: Vec<Report>,
}

impl Total {
    /// Only a report that went wrong is kept.
    pub fn add(&mut self, report: Report) {
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

    /// Adds those of another thread.
    pub fn merge(&mut self, other: Self) {
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

    /// For people.
    pub fn print(&self, out: &mut impl std::io::Write, took: Duration) -> std::io::Result<()> {
        for report in &self.failed {
            writeln!(out, "seed {} goes wrong ({}, {} nodes):", report.seed, report.kind, report.nodes)?;
            for violation in &report.violations {
                writeln!(out, "  {violation}")?;
            }
            writeln!(out, "  to see it: bourse sim --grid --seed {}", report.seed)?;
        }
        let (seconds, simulated) = (took.as_secs_f64(), self.simulated.as_secs_f64());
        writeln!(
            out,
            "{} grids in {seconds:.1} s ({:.0} × real time): {} events, {} faults, {} messages lost, repeated or late",
            self.seeds,
            simulated / seconds.max(1e-9),
            self.events,
            self.faults,
            self.messages_wrong
        )?;
        let [done, refused, late, lost, gone] = self.ended;
        writeln!(
            out,
            "{} calls ran; {done} done, {refused} refused, {late} late, {lost} lost, {gone} gone",
            self.begun
        )?;
        match self.failed.len() {
            0 => writeln!(out, "nothing was found"),
            n => writeln!(out, "{n} went wrong"),
        }
    }

    fn to_json(&self, took: Duration) -> Value {
        let [done, refused, late, lost, gone] = self.ended;
        let failed: Vec<Value> = self
            .failed
            .iter()
            .map(|r| json!({"seed": r.seed, "kind": r.kind, "violations": r.violations}))
            .collect();
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
            "failed": failed,
        })
    }
}
