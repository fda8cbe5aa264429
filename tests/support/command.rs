//! The commands, as somebody types them.

use std::path::Path;
use std::process::Command;

use super::{Daemon, Setup, wait_for};

/// What a command has printed, and whether it has worked.
pub(crate) struct Told {
    pub(crate) worked: bool,
    pub(crate) out: String,
    pub(crate) err: String,
}

pub(crate) fn bourse(arguments: &[&str]) -> Told {
    let output = Command::new(env!("CARGO_BIN_EXE_bourse")).args(arguments).output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    Told { worked: output.status.success(), out: text(output.stdout), err: text(output.stderr) }
}

#[track_caller]
pub(crate) fn works(arguments: &[&str]) -> String {
    let told = bourse(arguments);
    assert!(told.worked, "{arguments:?}: {}", told.err);
    told.out.trim().to_owned()
}

#[track_caller]
pub(crate) fn fails(arguments: &[&str]) -> String {
    let told = bourse(arguments);
    assert!(!told.worked, "{arguments:?}: {}", told.out);
    told.err
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().expect("text").to_owned()
}

/// The folder that a daemon serves.
pub(crate) fn served(daemon: &Daemon) -> String {
    text(daemon.data().parent().expect("the data are in the folder"))
}

/// Daemons that listen to other nodes; all but the first have joined that one with a ticket.
pub(crate) fn joined(setups: impl Iterator<Item = Setup>) -> Vec<Daemon> {
    let mut all: Vec<Daemon> = Vec::new();
    let mut ticket = String::new();
    for setup in setups {
        match all.first() {
            None => all.push(setup.up()),
            Some(first) => {
                if ticket.is_empty() {
                    ticket = works(&["ticket", "-C", &served(first), "--quiet"]);
                }
                works(&["join", &text(&setup.folder()), &ticket]);
                all.push(setup.up());
            }
        }
    }
    for daemon in &all[1..] {
        wait_for("it knows who keeps the store", || daemon.get("/v1/store").ok()["here"] == false);
    }
    all
}
