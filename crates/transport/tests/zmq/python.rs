//! A Python with pyzmq for tests: `$BOURSE_TEST_PYTHON`, or one made in the target folder by whoever comes first.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use tokio::process::{Child, Command as TokioCommand};

/// Begins every script. The endpoint is the first argument.
const PRELUDE: &str = r#"
import os, signal, sys, time, zmq
endpoint, args = sys.argv[1], sys.argv[2:]
context = zmq.Context()
def dealer(**options):
    socket = context.socket(zmq.DEALER)
    socket.linger = 10_000
    socket.rcvtimeo = 10_000
    socket.sndtimeo = 10_000
    for name, value in options.items():
        setattr(socket, name, value)
    socket.connect(endpoint)
    return socket
"#;

/// The interpreter, or `None` after saying why the test is skipped.
pub(crate) fn python() -> Option<&'static Path> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match FOUND.get_or_init(find) {
        Ok(path) => Some(path),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

/// Starts a script against an endpoint.
pub(crate) fn start(python: &Path, endpoint: &str, script: &str, args: &[&str]) -> Child {
    TokioCommand::new(python)
        .arg("-c")
        .arg(format!("{PRELUDE}{script}"))
        .arg(endpoint)
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("python starts")
}

fn find() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("BOURSE_TEST_PYTHON") {
        let path = PathBuf::from(path);
        return if has_zmq(&path) { Ok(path) } else { Err(format!("{} has no pyzmq", path.display())) };
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is inside the target folder");
    let venv = target.join("test-venv");
    let python = venv.join("bin/python");
    let lock = File::create(target.join("test-venv.lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    if !has_zmq(&python) {
        run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "pyzmq"]))?;
    }
    Ok(python)
}

fn has_zmq(python: &Path) -> bool {
    run(Command::new(python).args(["-c", "import zmq"])).is_ok()
}

fn run(command: &mut Command) -> Result<(), String> {
    match command.output() {
        Ok(Output { status, .. }) if status.success() => Ok(()),
        Ok(output) => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}
