//! Many seeds on all processors, or one of them with all that happens, and what is said of them on standard output.

use std::io::{IsTerminal as _, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

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

/// The reports of many seeds, put together.
pub trait Total: Default + Send {
    /// What comes of one seed.
    type Report;

    /// The command that shows a seed, but for its number.
    const COMMAND: &'static str;

    /// One more.
    fn add(&mut self, report: Self::Report);

    /// Those of another thread.
    fn merge(&mut self, other: Self);

    /// Seeds that went wrong: their numbers, what kind of run they were, and why.
    fn failed(&self) -> Vec<(u64, String, &[String])>;

    /// What came of all, for people.
    fn print(&self, out: &mut dyn Write, took: Duration) -> std::io::Result<()>;

    /// The same as JSON, but for what went wrong.
    fn to_json(&self, took: Duration) -> Value;
}

thread_local! {
    static SEED: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Runs seeds and says what came of them. Whether nothing was found.
pub fn simulate<T: Total>(
    options: &Options,
    run: impl Fn(u64, Trace) -> T::Report + Sync,
) -> std::io::Result<bool> {
    let seeds = options.seed.map_or(1..=options.seeds, |seed| seed..=seed);
    // A seed's own panics are its findings. Where a panic ends the process, this is all that is seen of it.
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(|panic| {
        let seed = SEED.get();
        eprintln!("seed {seed}: {panic}\nto see it: {} --seed {seed}", T::COMMAND);
    }));
    let began = Instant::now();
    let total = all::<T>(seeds, options, run);
    std::panic::set_hook(before);
    let took = began.elapsed();
    let mut failed = total.failed();
    failed.sort_by_key(|(seed, ..)| *seed);
    let mut out = std::io::stdout().lock();
    if options.json {
        let mut json = total.to_json(took);
        let one = |(seed, kind, violations): &(u64, String, &[String])| match kind.as_str() {
            "" => serde_json::json!({"seed": seed, "violations": violations}),
            kind => serde_json::json!({"seed": seed, "kind": kind, "violations": violations}),
        };
        json["failed"] = failed.iter().map(one).collect();
        writeln!(out, "{json}")?;
        return Ok(failed.is_empty());
    }
    for (seed, kind, violations) in &failed {
        match kind.as_str() {
            "" => writeln!(out, "seed {seed} goes wrong:")?,
            kind => writeln!(out, "seed {seed} goes wrong ({kind}):")?,
        }
        violations.iter().try_for_each(|violation| writeln!(out, "  {violation}"))?;
        writeln!(out, "  to see it: {} --seed {seed}", T::COMMAND)?;
    }
    total.print(&mut out, took)?;
    match failed.len() {
        0 => writeln!(out, "nothing was found")?,
        n => writeln!(out, "{n} went wrong")?,
    }
    Ok(failed.is_empty())
}

/// Runs seeds on all processors, and shows how far it is on standard error.
fn all<T: Total>(
    seeds: std::ops::RangeInclusive<u64>,
    options: &Options,
    run: impl Fn(u64, Trace) -> T::Report + Sync,
) -> T {
    let (next, last) = (AtomicU64::new(*seeds.start()), *seeds.end());
    let (done, alone) = (AtomicU64::new(0), options.seed.is_some());
    let shows = !options.json && !alone && std::io::stderr().is_terminal();
    let threads = if alone { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
    let mut total = T::default();
    std::thread::scope(|scope| {
        let work = || {
            let mut mine = T::default();
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
    total
}

/// What comes of each of these seeds, on all processors, in no order.
pub fn reports<R: Send>(seeds: std::ops::RangeInclusive<u64>, run: impl Fn(u64) -> R + Sync) -> Vec<R> {
    let (next, last) = (AtomicU64::new(*seeds.start()), *seeds.end());
    let work = || -> Vec<R> {
        let numbers = std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)));
        numbers.take_while(|seed| *seed <= last).map(&run).collect()
    };
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a run catches its panics")).collect()
    })
}

/// How much faster than it happens something was simulated.
pub fn speed(simulated: Duration, took: Duration) -> f64 {
    simulated.as_secs_f64() / took.as_secs_f64().max(1e-9)
}
