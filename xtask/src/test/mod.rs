//! The test command: every check and every test there is, in steps.
//!
//! A step that fails does not keep the next ones from running. The closing line counts tests, and each check
//! (`fmt`, `tidy`, …) as one. Where `CI=true`, a test that was skipped for another reason than those in
//! `xtask/skips.txt` has failed.

mod count;
mod python;
mod rust;

use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use count::Count;

struct Step {
    name: &'static str,
    /// Left out by `--fast`.
    slow: bool,
    run: fn() -> Result<Count>,
}

const STEPS: &[Step] = &[
    Step { name: "fmt", slow: false, run: rust::fmt },
    Step { name: "tidy", slow: false, run: || problems(crate::tidy::check()?) },
    Step { name: "deny", slow: true, run: || problems(crate::deny::check()?) },
    Step { name: "clippy", slow: false, run: rust::clippy },
    Step { name: "rust", slow: false, run: rust::tests },
    Step { name: "seeds", slow: true, run: rust::seeds },
    Step { name: "doc", slow: true, run: rust::doc },
    Step { name: "python", slow: false, run: python::sdk },
    Step { name: "examples", slow: true, run: python::examples },
];

/// Runs the steps that the options ask for.
pub(crate) fn run(options: &[&str]) -> Result<ExitCode> {
    let chosen = choose(options)?;
    let mut total = Count::default();
    let mut summary = Vec::new();
    for step in chosen {
        println!("\n== {}", step.name);
        let began = Instant::now();
        let count = (step.run)().unwrap_or_else(|error| {
            println!("{}: {error:#}", step.name);
            Count::failure()
        });
        let count = count.judge_skips(is_ci())?;
        let verdict = if count.failed == 0 { "ok" } else { "FAILED" };
        summary.push(format!(
            "{:<10} {:>6.1} s  {verdict:<6}  {count}",
            step.name,
            began.elapsed().as_secs_f64()
        ));
        for reason in &count.reasons {
            summary.push(format!("{:<22}skipped: {reason}", ""));
        }
        total += count;
    }
    println!("\n{}\n\n{total}", summary.join("\n"));
    Ok(if total.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn choose(options: &[&str]) -> Result<Vec<&'static Step>> {
    let names: Vec<_> = STEPS.iter().map(|s| s.name).collect();
    let (mut fast, mut only) = (false, Vec::new());
    let mut options = options.iter();
    while let Some(&option) = options.next() {
        match option {
            "--fast" => fast = true,
            "--only" => {
                let name = *options.next().context("--only needs the name of a step")?;
                if !names.contains(&name) {
                    bail!("there is no step {name}; there are {}", names.join(", "));
                }
                only.push(name);
            }
            _ => bail!("test does not know {option}: --fast, or --only with one of {}", names.join(", ")),
        }
    }
    let wanted = |s: &&Step| if only.is_empty() { !(fast && s.slow) } else { only.contains(&s.name) };
    Ok(STEPS.iter().filter(wanted).collect())
}

fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|ci| ci == "true")
}

fn problems(found: Vec<String>) -> Result<Count> {
    for problem in &found {
        println!("{problem}");
    }
    Ok(if found.is_empty() { Count::success() } else { Count::failure() })
}

/// Runs a command to its end; what it prints is shown.
fn check(command: &mut Command) -> Result<Count> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    Ok(if status.success() { Count::success() } else { Count::failure() })
}
