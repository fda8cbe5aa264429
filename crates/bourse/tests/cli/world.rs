//! A folder of functions, the daemon that serves it, and commands in it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use tempfile::TempDir;

/// What a command left.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) exit: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Done {
    #[track_caller]
    pub(crate) fn exits(self, exit: i32) -> Self {
        assert_eq!(self.exit, exit, "stdout: {}\nstderr: {}", String::from_utf8_lossy(&self.out), self.err);
        self
    }

    /// Its output, after it has succeeded.
    #[track_caller]
    pub(crate) fn text(self) -> String {
        String::from_utf8(self.exits(0).out).unwrap()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    #[track_caller]
    pub(crate) fn says(self, part: &str) -> Self {
        assert!(self.err.contains(part), "no {part:?} in: {}", self.err);
        self
    }
}

pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        let folder = Self::new();
        files.iter().for_each(|(name, text)| folder.write(name, text));
        folder
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().canonicalize().unwrap()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Runs a command in it.
    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        finish(bourse(&self.path()).args(arguments), b"")
    }

    pub(crate) fn run_with(&self, arguments: &[&str], stdin: &[u8], variables: &[(&str, &str)]) -> Done {
        finish(bourse(&self.path()).args(arguments).envs(variables.iter().copied()), stdin)
    }

    /// Serves it, and comes back when it is ready.
    pub(crate) fn up(&self, arguments: &[&str]) -> Daemon {
        let mut command = bourse(&self.path());
        command.args(["up", ".", "--http", "127.0.0.1:0"]).args(arguments).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut said = Vec::new();
        let url = loop {
            let Some(line) = lines.next() else { panic!("the daemon ended:\n{}", said.join("\n")) };
            if line.contains("ready: ") {
                break line.split(" on ").nth(1).unwrap().to_owned();
            }
            said.push(line);
        };
        // It must never wait for somebody to read what it says.
        thread::spawn(move || lines.for_each(drop));
        Daemon { child, url }
    }
}

/// A daemon; ends with this.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) url: String,
}

impl Daemon {
    /// Without a chance to tidy up.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let pid = rustix::process::Pid::from_child(&self.child);
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            self.child.wait().unwrap();
        }
    }
}

/// The program, in a folder, without what the tester's own environment says.
pub(crate) fn bourse(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bourse"));
    std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BOURSE_")).for_each(
        |(name, _)| {
            command.env_remove(name);
        },
    );
    // Made once, and used by all tests.
    command
        .current_dir(folder)
        .env("BOURSE_ENVIRONMENTS", Path::new(env!("CARGO_TARGET_TMPDIR")).join("environments"));
    command
}

fn finish(command: &mut Command, stdin: &[u8]) -> Done {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that does not read it is free not to.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    Done { exit: output.status.code().unwrap_or(-1), out: output.stdout, err }
}
