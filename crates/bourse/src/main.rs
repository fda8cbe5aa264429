//! `bourse`: the daemon, and the commands that talk to one.

mod bridge;
mod cli;
mod client;
mod config;
mod daemon;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else: the keeper is this program too, and stays small.
    if std::env::args_os().nth(1).is_some_and(|a| a == "keeper") {
        return bourse_worker::keeper::main();
    }
    cli::run()
}
