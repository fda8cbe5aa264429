//! Python programs that play the world outside: they use nothing of ours, and say a line of JSON for each thing that
//! happens to them.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value as Json;

use super::PATIENCE;

/// What these programs need.
const PACKAGES: [&str; 2] = ["websockets", "aiosmtpd"];

/// A running program.
pub(crate) struct Script {
    child: Child,
    lines: Receiver<String>,
}

impl Script {
    /// Starts one.
    pub(crate) fn start(text: &str, arguments: &[&str]) -> Self {
        let mut child = Command::new(python())
            .args(["-u", "-c", &super::daemon::dedent(text)])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        let (said, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // The test may have ended.
                let _ = said.send(line);
            }
        });
        Self { child, lines }
    }

    /// What it says next.
    #[track_caller]
    pub(crate) fn says(&self) -> Json {
        let line = self.lines.recv_timeout(PATIENCE).expect("it says something");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"))
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> Vec<Json> {
        self.lines.try_iter().map(|line| serde_json::from_str(&line).expect("JSON")).collect()
    }

    /// Waits for its end.
    pub(crate) fn ends(mut self) -> ExitStatus {
        super::until("the program ends", || self.child.try_wait().expect("a child"))
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An interpreter with these packages, made once for all tests.
fn python() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("outside-venv");
        let python = place.join("bin/python");
        let lock = File::create(place.with_extension("lock")).expect("a lock");
        lock.lock().expect("it is locked");
        let there = || {
            let imports = PACKAGES.map(|package| format!("import {package}")).join("; ");
            Command::new(&python).args(["-c", &imports]).output().is_ok_and(|o| o.status.success())
        };
        if !there() {
            let run = |command: &mut Command| {
                let output = command.output().expect("it starts");
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            };
            run(Command::new("python3").args(["-m", "venv"]).arg(&place));
            run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(PACKAGES));
        }
        python
    })
}
