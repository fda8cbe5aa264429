//! The commands, as somebody types them.

use std::path::Path;
use std::process::Command;

use super::Daemon;

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
