//! Format, lints and tests of the crates.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use super::count::Count;
use super::{check, python};
use crate::cargo;

pub(super) fn fmt() -> Result<Count> {
    check(cargo().args(["fmt", "--all", "--check", "--", "--files-with-diff"]))
}

pub(super) fn clippy() -> Result<Count> {
    check(cargo().args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]))
}

pub(super) fn tests() -> Result<Count> {
    let has_nextest = cargo().args(["nextest", "--version"]).output().is_ok_and(|o| o.status.success());
    let mut command = cargo();
    if has_nextest {
        command.args(["nextest", "run", "--workspace", "--all-targets", "--color", "never"]);
        // What tests that pass print is read for skips, and not shown.
        command.args([
            "--success-output",
            "immediate",
            "--failure-output",
            "final",
            "--status-level",
            "slow",
        ]);
    } else {
        println!("cargo-nextest is not installed: cargo test it is");
        command.args(["test", "--workspace", "--all-targets", "--no-fail-fast", "--", "--show-output"]);
    }
    command.env("BOURSE_TEST_PYTHON", python::interpreter()?);
    let began = if has_nextest { "Summary [" } else { "failures:" };
    let shown = |line: &str| {
        let said = line.trim_start();
        ["Compiling", "error", "Summary [", "FAIL [", "TIMEOUT [", "SLOW ["]
            .iter()
            .any(|start| said.starts_with(start))
            || line.starts_with("test result: ")
    };
    read(&mut command, shown, began)
}

/// How many grids are simulated besides those among the tests, optimised.
const GRID_SEEDS: &str = "5000";
/// How many grids of whole nodes.
const MACHINE_SEEDS: &str = "1000";

/// The grid's simulators at length.
pub(super) fn seeds() -> Result<Count> {
    let mut command = cargo();
    command.args(["test", "--profile", "seeds", "--package", "bourse-sim"]);
    command.args([
        "--test",
        "grid_seeds",
        "--test",
        "machine_seeds",
        "--",
        "--nocapture",
        "whatever_happens_to",
    ]);
    command.env("BOURSE_GRID_SEEDS", GRID_SEEDS).env("BOURSE_MACHINE_SEEDS", MACHINE_SEEDS);
    let shown = |line: &str| {
        let said = line.trim_start();
        said.starts_with("error") || said.starts_with("bourse sim --") || said.contains(" seeds in ")
    };
    read(&mut command, shown, "failures:")
}

pub(super) fn doc() -> Result<Count> {
    let mut count = read(cargo().args(["test", "--quiet", "--workspace", "--doc"]), |_| false, "failures:")?;
    let mut build = cargo();
    build.args(["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"]);
    count += check(build.env("RUSTDOCFLAGS", "--deny warnings"))?;
    Ok(count)
}

/// Runs a command and counts from its output, of which it shows some lines, and all from `everything_from` on.
/// What it writes to stderr is read too, and shown alike.
pub(super) fn read(
    command: &mut Command,
    shown: impl Fn(&str) -> bool,
    everything_from: &str,
) -> Result<Count> {
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("{command:?}"))?;
    // The command keeps the writing ends open, and so the reading one from ending.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut count = Count::default();
    let (mut everything, mut last) = (false, Vec::new());
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        count.read(&line);
        everything |= line.trim_start().starts_with(everything_from);
        if everything || shown(&line) {
            println!("{line}");
        } else {
            last.push(line);
            if last.len() > 200 {
                last.drain(..100);
            }
        }
    }
    if !child.wait()?.success() && count.failed == 0 {
        // It did not get as far as a summary.
        println!("{}", last.join("\n"));
        count = Count::failure();
    }
    Ok(count)
}
