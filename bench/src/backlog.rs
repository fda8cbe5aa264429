//! A long backlog: so many asynchronous calls are accepted while nothing runs them, then they are run.
//!
//! `cargo xtask bench --only backlog [--calls N] [--keys]`. Memory and the time per call should be flat, however long
//! the backlog is: both are told in steps. In the end each call is asked for by its id: it must be done, at its first
//! attempt, with its own result.
//!
//! Calls that are accepted together are at home together; those with an idempotency key are not, it says where.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::http::Connection;
use crate::ours::{ACCEPT, Waiting};
use crate::plot::{Chart, Series, svg};
use crate::process::{resident, resident_most};
use crate::report::short;
use crate::tools::Tools;
use crate::{http, load};

/// Steps in which each half is told.
const STEPS: usize = 20;
/// Between two looks at how many calls have been run.
const LOOK: Duration = Duration::from_millis(50);
/// After so long without a call that ends, the others are not waited for any more.
const STALLED: Duration = Duration::from_secs(30);
const LANE: &str = "waiting";

/// What came out.
pub(crate) struct Backlog {
    calls: usize,
    accepted: Vec<Step>,
    drained: Vec<Step>,
    /// When nothing has been accepted, when all has been run, and the most in between; in megabytes.
    resident: [f64; 3],
    found: Found,
    /// What the daemon has counted.
    counted: [f64; 2],
}

/// A part of the calls.
#[derive(Clone, Copy)]
struct Step {
    /// With those of the steps before.
    calls: usize,
    seconds: f64,
    microseconds_per_call: f64,
    /// At its end.
    resident: f64,
    stored: f64,
}

/// What the calls' ids lead to.
#[derive(Default)]
struct Found {
    done: usize,
    /// Of these, with a result that is not theirs.
    wrong: usize,
    /// Of these, with more than one attempt.
    again: usize,
    /// What others are said to be.
    others: std::collections::BTreeMap<String, usize>,
    seconds: f64,
}

/// Measures it.
pub(crate) fn measure(tools: &Tools, calls: usize, keys: bool) -> Result<Backlog> {
    let waiting = Waiting::start(tools)?;
    let key = |call| if keys { format!("Idempotency-Key: backlog-{call}\r\n") } else { String::new() };
    let before = resident(waiting.pid())?;
    let ids = RefCell::new(vec![String::new(); calls]);
    let mut accepted = Vec::new();
    for step in 1..=STEPS {
        let (from, to) = (calls * (step - 1) / STEPS, calls * step / STEPS);
        let begin = Instant::now();
        load::each(
            waiting.port(),
            from..to,
            |call| http::request(waiting.port(), "POST", ACCEPT, &key(call), &body(call)),
            |call, status, text| {
                let answer: Value = serde_json::from_str(text).unwrap_or_default();
                match answer["id"].as_str() {
                    Some(id) if status == 202 => ids.borrow_mut()[call] = id.to_owned(),
                    _ => bail!("call {call} was not accepted: {status}: {text}"),
                }
                Ok(())
            },
        )?;
        let seconds = begin.elapsed().as_secs_f64();
        accepted.push(Step::new(from, to, seconds, resident(waiting.pid())?, waiting.stored()?));
        eprint!("\rbacklog: {to} of {calls} accepted ");
    }
    if let Some(done) = Counters::read(&waiting)?.done.filter(|done| *done > 0.0) {
        bail!("{done} calls were run before they should");
    }
    waiting.open()?;
    let drained = drain(&waiting, calls)?;
    let counters = Counters::read(&waiting)?;
    let resident = [before, resident(waiting.pid())?, resident_most(waiting.pid())?];
    eprint!("\rbacklog: asking for each call{:<24}", "");
    let found = find(&waiting, &ids.into_inner())?;
    eprint!("\r{:<56}\r", "");
    let counted = [counters.accepted.unwrap_or_default(), counters.done.unwrap_or_default()];
    Ok(Backlog { calls, accepted, drained, resident, found, counted })
}

/// A JSON text of 100 bytes, each call's own.
fn body(call: usize) -> String {
    format!("\"{call:0>100}\"")
}

/// Waits until the lane is empty. Between two looks the time of a call is as if all took the same.
fn drain(waiting: &Waiting, calls: usize) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    let begin = Instant::now();
    let (mut before, mut step_began, mut progress) = ((0, 0.0), 0.0, Instant::now());
    while steps.len() < STEPS {
        std::thread::sleep(LOOK);
        let done = Counters::read(waiting)?.done.unwrap_or_default() as usize;
        let now = (done, begin.elapsed().as_secs_f64());
        if done > before.0 {
            progress = Instant::now();
        }
        let (resident, stored) = (resident(waiting.pid())?, waiting.stored()?);
        while steps.len() < STEPS && done >= calls * (steps.len() + 1) / STEPS {
            let (from, to) = (calls * steps.len() / STEPS, calls * (steps.len() + 1) / STEPS);
            let share = (to - before.0) as f64 / (now.0 - before.0).max(1) as f64;
            let ended = before.1 + share * (now.1 - before.1);
            steps.push(Step::new(from, to, ended - step_began, resident, stored));
            step_began = ended;
            eprint!("\rbacklog: {done} of {calls} run{:<10}", "");
        }
        before = now;
        if progress.elapsed() > STALLED {
            let queues = waiting.status("/v1/queues")?;
            eprintln!("\rbacklog: no call has ended for {STALLED:?}: {done} of {calls} have; {queues}");
            return Ok(steps);
        }
    }
    // Counted when they have been run; a little later their results are stored.
    crate::process::until("the end of the lane", || {
        let queues = waiting.status("/v1/queues").ok()?;
        let lane = queues.as_array()?.iter().find(|queue| queue["module"] == LANE);
        let none = |lane: &Value| {
            lane["more"] == false
                && ["ready", "retrying", "running"].iter().all(|what| lane[what].as_u64() == Some(0))
        };
        lane.is_none_or(none).then_some(())
    })?;
    Ok(steps)
}

/// Asks for each call.
fn find(waiting: &Waiting, ids: &[String]) -> Result<Found> {
    let found = RefCell::new(Found::default());
    let begin = Instant::now();
    let port = waiting.port();
    load::each(
        port,
        0..ids.len(),
        |call| http::request(port, "GET", &format!("/v1/calls/{}", ids[call]), "", ""),
        |call, _, text| {
            let answer: Value = serde_json::from_str(text).unwrap_or_default();
            let mut found = found.borrow_mut();
            if answer["status"] == "done" {
                found.done += 1;
                let its_own = body(call);
                found.wrong += usize::from(answer["result"].as_str() != Some(its_own.trim_matches('"')));
                found.again += usize::from(answer["attempts"] != 1);
            } else {
                let status = answer["status"].as_str().unwrap_or("unknown").to_owned();
                *found.others.entry(status).or_default() += 1;
            }
            Ok(())
        },
    )?;
    let mut found = found.into_inner();
    found.seconds = begin.elapsed().as_secs_f64();
    Ok(found)
}

/// What the daemon counts of the calls that wait.
struct Counters {
    accepted: Option<f64>,
    done: Option<f64>,
}

impl Counters {
    fn read(waiting: &Waiting) -> Result<Self> {
        let (_, text) = Connection::open(waiting.port())?.get("/metrics")?;
        let value = |name: &str, labels: &[&str]| {
            let is_it = |line: &&str| {
                line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'))
                    && line.contains("function=\"waiting.echo\"")
                    && labels.iter().all(|label| line.contains(label))
            };
            text.lines().find(is_it)?.rsplit(' ').next()?.parse().ok()
        };
        Ok(Self {
            accepted: value("bourse_durable_accepted_total", &[]),
            // One call waited for the daemon's start.
            done: value("bourse_calls_total", &["code=\"ok\""]).map(|done: f64| done - 1.0),
        })
    }
}

impl Step {
    fn new(from: usize, to: usize, seconds: f64, resident: f64, stored: f64) -> Self {
        let microseconds_per_call = seconds * 1e6 / (to - from).max(1) as f64;
        Self { calls: to, seconds, microseconds_per_call, resident, stored }
    }
}

impl Backlog {
    pub(crate) fn table(&self) -> String {
        let mut text = String::from(
            "| calls | accepted, us each | resident, MB | store, MB | run, us each | resident, MB | store, MB |\n|---|---|---|---|---|---|---|\n",
        );
        let cells = |step: Option<&Step>| {
            step.map_or_else(
                || "– | – | –".to_owned(),
                |s| {
                    let figures = [s.microseconds_per_call, s.resident, s.stored].map(short);
                    figures.join(" | ")
                },
            )
        };
        // Writing to a string cannot fail.
        for (at, step) in self.accepted.iter().enumerate() {
            let drained = cells(self.drained.get(at));
            let _ = writeln!(text, "| {} | {} | {drained} |", short(step.calls as f64), cells(Some(step)));
        }
        let rate = |steps: &[Step]| {
            let seconds: f64 = steps.iter().map(|s| s.seconds).sum();
            steps.last().map_or(0.0, |s| s.calls as f64) / seconds
        };
        let [before, after, most] = self.resident.map(short);
        let found = &self.found;
        let _ = writeln!(
            text,
            "\naccepted {} calls/s, the last quarter's take {:.2} × the first's time\n\
             run      {} calls/s, {:.2} ×\n\
             resident {before} MB before, {after} MB after, {most} MB at most\n\
             counted  {} accepted, {} run\n\
             found    {} of {} done, {} with another's result, {} with more than one attempt ({} answers/s)",
            short(rate(&self.accepted)),
            flatness(&self.accepted),
            short(rate(&self.drained)),
            flatness(&self.drained),
            self.counted[0],
            self.counted[1],
            found.done,
            self.calls,
            found.wrong,
            found.again,
            short(self.calls as f64 / found.seconds),
        );
        for (status, calls) in &found.others {
            let _ = writeln!(text, "         {calls} are {status}");
        }
        let _ = writeln!(
            text,
            "{}",
            if self.is_whole() {
                "none is lost"
            } else {
                "**not every call was run once, with its own result**"
            }
        );
        text
    }

    /// Each call has been run once, and has its own result.
    pub(crate) fn is_whole(&self) -> bool {
        let Found { done, wrong, again, .. } = self.found;
        done == self.calls && wrong == 0 && again == 0
    }

    pub(crate) fn json(&self) -> Value {
        let steps = |steps: &[Step]| -> Value {
            steps
                .iter()
                .map(|s| {
                    json!({"calls": s.calls, "seconds": s.seconds, "us_per_call": s.microseconds_per_call,
                           "resident_mb": s.resident, "store_mb": s.stored})
                })
                .collect()
        };
        json!({
            "calls": self.calls,
            "accepted": steps(&self.accepted),
            "run": steps(&self.drained),
            "resident_before_mb": self.resident[0],
            "resident_after_mb": self.resident[1],
            "resident_most_mb": self.resident[2],
            "counted_accepted": self.counted[0],
            "counted_run": self.counted[1],
            "done": self.found.done,
            "wrong": self.found.wrong,
            "again": self.found.again,
            "others": self.found.others,
            "whole": self.is_whole(),
        })
    }

    /// Writes `backlog.csv`, `backlog.json` and `backlog.svg`.
    pub(crate) fn write(&self, tools: &Tools) -> Result<()> {
        let mut csv = String::from("half,calls,seconds,us_per_call,resident_mb,store_mb\n");
        for (half, steps) in [("accepted", &self.accepted), ("run", &self.drained)] {
            for s in steps {
                let Step { calls, seconds, microseconds_per_call: each, resident, stored } = s;
                let _ = writeln!(csv, "{half},{calls},{seconds:.4},{each:.3},{resident:.2},{stored:.2}");
            }
        }
        let files = [
            ("backlog.csv", csv),
            ("backlog.json", format!("{:#}\n", self.json())),
            ("backlog.svg", self.plot()),
        ];
        for (name, text) in files {
            let file = tools.folder.join(name);
            std::fs::write(&file, text).with_context(|| file.display().to_string())?;
        }
        Ok(())
    }

    fn plot(&self) -> String {
        let series = |of: fn(&Step) -> f64| {
            [("accepted", &self.accepted), ("run", &self.drained)].map(|(name, steps)| Series {
                name,
                points: steps.iter().map(|s| (s.calls as f64, of(s))).collect(),
            })
        };
        svg(&[
            Chart { title: "resident memory of the daemon, MB", series: series(|s| s.resident) },
            Chart { title: "time per call, us", series: series(|s| s.microseconds_per_call) },
        ])
    }
}

/// Time per call in the last quarter of the steps by that in the first one. The very first step is left out, if there
/// are others: it begins with what is cold.
fn flatness(steps: &[Step]) -> f64 {
    let steps = steps.get(1..).filter(|rest| !rest.is_empty()).unwrap_or(steps);
    let quarter = steps.len().div_ceil(4);
    let time =
        |steps: &[Step]| http::median(&mut steps.iter().map(|s| s.microseconds_per_call).collect::<Vec<_>>());
    time(&steps[steps.len() - quarter..]) / time(&steps[..quarter])
}
