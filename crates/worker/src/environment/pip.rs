//! Runs `venv` and `pip`, and says in plain words why they failed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal};

/// Lines of a failed run that are kept to explain it; the log file has all.
const LINES_MAX: usize = 2_000;

/// Variables that would have packages installed elsewhere or Python look elsewhere.
const UNWANTED: &[&str] = &[
    "PIP_PREFIX",
    "PIP_ROOT",
    "PIP_TARGET",
    "PIP_USER",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "VIRTUAL_ENV",
];

/// Why packages could not be installed, as far as pip's words tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No package index answered.
    NoNetwork,
    /// No version of a package fits, or none for this Python and platform.
    NoDistribution,
    /// Requirements exclude one another.
    Conflict,
    /// What was downloaded is not what the hashes say, or hashes are missing.
    Hash,
    /// The disk, or a quota, is full.
    DiskFull,
    /// A package had to be compiled and could not be.
    Build,
    /// A line of the requirements is not one.
    Requirement,
    /// Anything else.
    Other,
}

impl Problem {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoNetwork => {
                "check the network and proxy, or name another index with PIP_INDEX_URL or local files with \
                 PIP_FIND_LINKS"
            }
            Self::NoDistribution => {
                "check the name and version; the package may not exist for this version of Python (see --python)"
            }
            Self::Conflict => "loosen one of these requirements",
            Self::Hash => "update the hashes in the requirements if the package was meant to change",
            Self::DiskFull => {
                "free some space, or move the data folder with --data; pip also needs space in TMPDIR"
            }
            Self::Build => {
                "a compiler or a library is missing, or there is no ready-made wheel for this version of Python"
            }
            Self::Requirement => "correct this line of the requirements",
            Self::Other => "the log has all that pip said",
        }
    }
}

/// One run of a program, its output going to the log.
pub(super) struct Run<'a> {
    pub(super) log: &'a File,
    /// Handed down as standard input, so that whoever waits for it also waits for what a killed daemon left running.
    pub(super) lock: &'a File,
    pub(super) variables: &'a [(OsString, OsString)],
    pub(super) folder: &'a Path,
}

impl Run<'_> {
    /// Runs Python with `arguments`; each line of its output goes to the log and to `line`. Returns the last ones.
    pub(super) fn python(
        &self,
        python: &Path,
        arguments: &[&OsStr],
        line: &mut dyn FnMut(&str),
    ) -> io::Result<(ExitStatus, Vec<String>)> {
        let (output, input) = io::pipe()?;
        let mut command = Command::new(python);
        command.args(arguments).current_dir(self.folder);
        command.stdin(self.lock.try_clone()?).stdout(input.try_clone()?).stderr(input);
        for name in UNWANTED {
            command.env_remove(name);
        }
        command.env("PYTHONUNBUFFERED", "1").env("PIP_USER", "0").envs(self.variables.iter().cloned());
        let guard = Guard::start()?;
        command.process_group(guard.group());
        let mut child = command.spawn()?;
        // It holds the pipe's other ends.
        drop(command);

        let mut log = self.log;
        writeln!(log, "$ {} {}", python.display(), arguments.join(OsStr::new(" ")).display())?;
        let mut lines = Vec::new();
        for bytes in BufReader::new(output).split(b'\n') {
            let text = String::from_utf8_lossy(&bytes?).trim_end().to_owned();
            writeln!(log, "{text}")?;
            line(&text);
            if lines.len() == LINES_MAX {
                lines.remove(0);
            }
            lines.push(text);
        }
        Ok((child.wait()?, lines))
    }
}

/// Ends a group of processes when it is dropped, and when this process ends, however that happens.
///
/// Its leader is a shell that waits for the end of a pipe of which only this process has the other side. A death
/// signal would not do: what pip and `venv` start themselves would go on.
struct Guard {
    shell: Child,
    /// Closed with this process.
    _alive: io::PipeWriter,
}

impl Guard {
    fn start() -> io::Result<Self> {
        let (end, alive) = io::pipe()?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "read -r _; kill -KILL 0"]).process_group(0);
        let shell = command.stdin(end).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Self { shell, _alive: alive })
    }

    fn group(&self) -> i32 {
        i32::try_from(self.shell.id()).expect("process ids fit")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It is there until it is waited for, and so is its group.
        let _ = rustix::process::kill_process_group(Pid::from_child(&self.shell), Signal::KILL);
        let _ = self.shell.wait();
    }
}

/// What a line of pip's output says of its progress.
pub(super) fn progress(line: &str) -> Option<String> {
    let line = line.trim();
    let known = [
        "Collecting ",
        "Downloading ",
        "Building wheel",
        "Installing ",
        "Preparing metadata",
        "Using cached ",
    ];
    if !known.iter().any(|k| line.starts_with(k)) {
        return None;
    }
    let first = line.split(" (").next().unwrap_or(line);
    // Names of files, and of all packages at once, are long.
    Some(match first.char_indices().nth(100) {
        Some((at, _)) => format!("{}…", &first[..at]),
        None => first.to_owned(),
    })
}

/// What went wrong, with the words that tell it.
pub(super) fn explain(lines: &[String]) -> (Problem, String) {
    let has = |needles: &[&str]| lines.iter().any(|l| needles.iter().any(|n| l.contains(n)));
    let first = |needle: &str| lines.iter().find(|l| l.contains(needle)).map(|l| plain(l));
    if has(&["No space left on device", "[Errno 28]", "Disk quota exceeded"]) {
        return (Problem::DiskFull, "the disk is full".into());
    }
    if has(&[
        "DO NOT MATCH THE HASHES",
        "Hashes are required",
        "all requirements must have their versions pinned",
    ]) {
        let from = lines
            .iter()
            .position(|l| l.contains("HASHES") || l.contains("Hashes are") || l.contains("pinned"));
        return (Problem::Hash, following(lines, from.unwrap_or(0), 6));
    }
    let unreachable = [
        "NewConnectionError",
        "ConnectTimeoutError",
        "Max retries exceeded",
        "ProxyError",
        "SSLError",
        "ReadTimeoutError",
        "Failed to establish a new connection",
        "Temporary failure in name resolution",
    ];
    let nothing_seen =
        lines.iter().all(|l| !l.contains("No matching distribution")) || has(&["from versions: none"]);
    if has(&unreachable) && nothing_seen {
        let line =
            lines.iter().find(|l| unreachable.iter().any(|n| l.contains(n))).map_or("", String::as_str);
        let cause =
            line.split("': ").nth(if line.contains("broken by '") { 1 } else { 0 }).map(|_| cause(line));
        return (
            Problem::NoNetwork,
            format!("pip could not reach a package index: {}", cause.unwrap_or_default()),
        );
    }
    if let Some(from) = lines.iter().position(|l| l.contains("The conflict is caused by")) {
        return (
            Problem::Conflict,
            format!("requirements exclude one another:\n{}", following(lines, from + 1, 12)),
        );
    }
    if has(&["ResolutionImpossible", "conflicting dependencies", "Double requirement given"]) {
        let line =
            first("conflicting dependencies").or_else(|| first("Double requirement")).unwrap_or_default();
        return (Problem::Conflict, format!("requirements exclude one another: {line}"));
    }
    if let Some(line) = first("No matching distribution found") {
        let found = first("Could not find a version").unwrap_or_default();
        let versions =
            found.split_once("(from versions: ").map(|(_, v)| v.trim_end_matches(')')).unwrap_or("none");
        let other = first("require a different python version").map(|l| format!("\n{l}")).unwrap_or_default();
        return (Problem::NoDistribution, format!("{line} (there are: {}){other}", last_of(versions)));
    }
    if let Some(line) = first("Invalid requirement").or_else(|| first("Could not open requirements file")) {
        return (Problem::Requirement, line);
    }
    if has(&[
        "Failed building wheel",
        "Failed to build",
        "subprocess-exited-with-error",
        "metadata-generation-failed",
    ]) {
        let line = first("Failed building wheel").or_else(|| first("Failed to build"));
        let line = line.or_else(|| first("ERROR:")).or_else(|| first("error:")).unwrap_or_default();
        return (Problem::Build, format!("a package could not be compiled: {line}"));
    }
    let errors: Vec<String> =
        lines.iter().filter(|l| l.contains("ERROR") || l.contains("rror:")).map(|l| plain(l)).collect();
    let words = if errors.is_empty() { lines.last().cloned().unwrap_or_default() } else { errors.join("\n") };
    (Problem::Other, words)
}

/// The innermost cause in one of pip's warnings of connections.
fn cause(line: &str) -> String {
    let line = plain(line);
    let Some((_, broken)) = line.split_once("broken by '") else { return line };
    let inner = broken.split_once("': /").map_or(broken, |(inner, _)| inner);
    let inner = inner.rsplit_once(">: ").map_or(inner, |(_, inner)| inner);
    inner.trim_end_matches(['\'', '"', ')']).to_owned()
}

fn following(lines: &[String], from: usize, most: usize) -> String {
    let block = lines[from.min(lines.len())..].iter().take_while(|l| !l.starts_with("To fix this"));
    block.filter(|l| !l.trim().is_empty()).take(most).map(|l| plain(l)).collect::<Vec<_>>().join("\n")
}

fn plain(line: &str) -> String {
    let line = line.trim();
    line.strip_prefix("ERROR: ").or_else(|| line.strip_prefix("WARNING: ")).unwrap_or(line).trim().to_owned()
}

/// The latest few of a list of versions.
fn last_of(versions: &str) -> String {
    let all: Vec<&str> = versions.split(", ").collect();
    match all.len() {
        0..=5 => versions.to_owned(),
        more => format!("{} and {} older ones", all[more - 5..].join(", "), more - 5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(output: &str, problem: Problem, words: &str) {
        let lines: Vec<String> = output.lines().map(str::to_owned).collect();
        let (found, message) = explain(&lines);
        assert_eq!(found, problem, "{message}");
        assert!(message.contains(words), "{message}");
    }

    #[test]
    fn pip_in_plain_words() {
        check(
            "WARNING: Retrying (Retry(total=0, connect=None, read=None, redirect=None, status=None)) after connection \
             broken by 'NewConnectionError('<pip._vendor.urllib3.connection.HTTPConnection object at 0x7f>: Failed to \
             establish a new connection: [Errno 111] Connection refused')': /six/\n\
             ERROR: Could not find a version that satisfies the requirement six (from versions: none)\n\
             ERROR: No matching distribution found for six\n",
            Problem::NoNetwork,
            "package index: Failed to establish a new connection: [Errno 111] Connection refused",
        );
        check(
            "ERROR: Could not find a version that satisfies the requirement six==99 (from versions: 1.0, 1.1)\n\
             ERROR: No matching distribution found for six==99\n",
            Problem::NoDistribution,
            "No matching distribution found for six==99 (there are: 1.0, 1.1)",
        );
        check(
            "ERROR: Cannot install -r r.txt (line 1) and six==1.15 because these package versions have conflicting \
             dependencies.\n\nThe conflict is caused by:\n    The user requested six==1.15\n    The user requested \
             six==1.16\n\nTo fix this you could try to:\n1. loosen the range\n",
            Problem::Conflict,
            "The user requested six==1.15\nThe user requested six==1.16",
        );
        check(
            "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated\n    six==1.16 \
             from https://x:\n        Expected sha256 00\n             Got        11\n",
            Problem::Hash,
            "Expected sha256 00",
        );
        check(
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n",
            Problem::DiskFull,
            "disk is full",
        );
        check(
            "  error: x\n  ERROR: Failed building wheel for lxml\n",
            Problem::Build,
            "Failed building wheel for lxml",
        );
        check("ERROR: Invalid requirement: 'six==='\n", Problem::Requirement, "six===");
        check("something\nERROR: odd\n", Problem::Other, "odd");
        check("", Problem::Other, "");
    }

    #[test]
    fn progress_is_told_briefly() {
        assert_eq!(
            progress("Collecting six>=1 (from -r x.txt (line 1))").as_deref(),
            Some("Collecting six>=1")
        );
        assert_eq!(progress("  Downloading six.whl (11 kB)").as_deref(), Some("Downloading six.whl"));
        assert_eq!(progress("Looking in links: /opt"), None);
    }
}
