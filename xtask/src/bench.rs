//! `cargo xtask bench`: builds what is measured and what measures, and hands over to `bench/`.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};

use crate::{cargo, target};

/// Builds, then measures. The options are those of `bench/src/main.rs`.
pub(crate) fn run(options: &[&str]) -> Result<ExitCode> {
    for what in
        [&["-p", "bourse", "-p", "bourse-bench"][..], &["-p", "bourse-store", "--example", "throughput"]]
    {
        let status = cargo().args(["build", "--release", "--quiet"]).args(what).status()?;
        if !status.success() {
            bail!("it does not build");
        }
    }
    let bench = target().join("release/bourse-bench");
    let status = Command::new(bench).args(options).env("BOURSE_BENCH_TARGET", target()).status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
