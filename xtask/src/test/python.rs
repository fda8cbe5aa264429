//! Tests in Python, in a virtual environment of their own in the target folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::count::Count;
use super::rust::read;

/// Tests of the Python SDK, some of them with a daemon.
pub(super) fn sdk() -> Result<Count> {
    run(Command::new("cargo").args(["build", "--quiet", "--package", "bourse"]).current_dir(crate::root()))?;
    let binary = crate::target().join("debug/bourse");
    // The end-to-end tests in Rust keep theirs there, too.
    let environments = crate::target().join("tmp/environments");
    pytest(
        &crate::root().join("sdk/python"),
        &[("BOURSE_BINARY", &binary), ("BOURSE_ENVIRONMENTS", &environments)],
    )
}

/// Tests of what is in `examples/`. Those of the Node.js worker run in a copy, where npm has put its packages.
pub(super) fn examples() -> Result<Count> {
    let copy = node_packages()?;
    pytest(&crate::root().join("examples"), &[("BOURSE_TEST_NODE_WORKER", &copy)])
}

/// A Python with all that tests need.
pub(super) fn interpreter() -> Result<PathBuf> {
    let requirements = crate::root().join("xtask/requirements.txt");
    let wanted = fs::read_to_string(&requirements).context("xtask/requirements.txt")?;
    let venv = crate::target().join("xtask/python");
    let python = venv.join("bin/python");
    let stamp = venv.join("requirements.txt");
    fs::create_dir_all(crate::target().join("xtask"))?;
    let lock = File::create(crate::target().join("xtask/python.lock"))?;
    lock.lock()?;
    let made = fs::read_to_string(&stamp).is_ok_and(|made| made == wanted);
    if made && Command::new(&python).arg("--version").output().is_ok_and(|o| o.status.success()) {
        return Ok(python);
    }
    let base = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let old = Command::new(&base)
        .args(["-c", "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 9))"])
        .output()
        .context("python3 is not there: install Python 3.9 or newer, or name one with PYTHON")?;
    if !old.status.success() {
        bail!(
            "{} is older than 3.9, or has no venv module (Debian: apt install python3-venv)",
            Path::new(&base).display()
        );
    }
    println!("making a virtual environment in {}", venv.display());
    run(Command::new(&base).args(["-m", "venv", "--clear"]).arg(&venv))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"];
    run(Command::new(&python).args(pip).arg(&requirements)).context("is PyPI within reach?")?;
    fs::write(&stamp, wanted)?;
    Ok(python)
}

fn pytest(folder: &Path, env: &[(&str, &Path)]) -> Result<Count> {
    let mut command = Command::new(interpreter()?);
    command.args(["-m", "pytest", "-q", "-rs", "--color=no", "-p", "no:cacheprovider"]).current_dir(folder);
    command.envs(env.iter().copied()).env("PYTHONDONTWRITEBYTECODE", "1");
    read(&mut command, |_| true, "")
}

/// A copy of the Node.js worker with its packages.
fn node_packages() -> Result<PathBuf> {
    let source = crate::root().join("examples/worker_node");
    let copy = crate::target().join("xtask/worker_node");
    fs::create_dir_all(&copy)?;
    let mut changed = !copy.join("node_modules/.package-lock.json").is_file();
    for entry in fs::read_dir(&source)? {
        let path = entry?.path();
        let (Some(name), true) = (path.file_name(), path.is_file()) else { continue };
        let there = copy.join(name);
        if fs::read(&path)? != fs::read(&there).unwrap_or_default() {
            changed |= name != "worker.js";
            fs::copy(&path, &there)?;
        }
    }
    if changed {
        println!("installing the packages of the Node.js worker in {}", copy.display());
        let install = ["ci", "--no-audit", "--no-fund", "--loglevel=error"];
        run(Command::new("npm").args(install).current_dir(&copy))
            .context("it takes Node.js 18 or newer with npm (Debian: apt install nodejs npm)")?;
    }
    Ok(copy)
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}
