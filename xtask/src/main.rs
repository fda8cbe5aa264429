//! The chores of this repository: `cargo xtask tidy | deny | proto | test | bench`.

mod bench;
mod deny;
mod metadata;
mod proto;
mod test;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "\
cargo xtask test [--fast] [--only STEP]...   run all checks and tests; --fast leaves out deny and doc tests
cargo xtask tidy                             check the repository's own rules
cargo xtask deny                             check licences, bans and sources of dependencies against deny.toml
cargo xtask proto                            write the Python SDK's message descriptors anew from proto/
cargo xtask bench [--only NAME]...           measure us beside our peers; bench --help has the options
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<ExitCode> {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["test", options @ ..] => test::run(options),
        ["tidy"] => found("tidy", &tidy::check()?),
        ["deny"] => found("deny", &deny::check()?),
        ["bench", options @ ..] => bench::run(options),
        ["proto"] => proto::write().map(|()| ExitCode::SUCCESS),
        [] | ["help" | "--help" | "-h"] => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => bail!("there is no such task: {}\n\n{USAGE}", args.join(" ")),
    }
}

/// Shows what a check has found.
fn found(check: &str, problems: &[String]) -> Result<ExitCode> {
    for problem in problems {
        println!("{problem}");
    }
    if problems.is_empty() {
        println!("{check}: nothing to complain about");
        return Ok(ExitCode::SUCCESS);
    }
    bail!("{check}: {} problems", problems.len());
}

/// The repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ is in the repository")
}

/// Where builds go.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The cargo that runs this.
fn cargo() -> std::process::Command {
    let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    cargo
}
