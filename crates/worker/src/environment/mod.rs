//! Virtual environments: what the SDK needs and what the user's `requirements.txt` asks for.
//!
//! An environment is named by a hash of everything it was made from, so one that is there is right, and a change of
//! requirements makes another while the old one goes on serving. It is made under its final name, since virtual
//! environments can't be moved (their scripts contain the path), and counts only once the file `complete` is in it,
//! which is written last; one without it is removed and made anew. A lock file beside it keeps two daemons from
//! making the same one at once. A package that was installed from a local path (`-e .`) is as old as its environment.
//!
//! Everything is installed in one resolution, so that a user's pins of what the SDK needs count for both. (With
//! hashes, which pip then wants for everything, the user's come first and the SDK's own are added to them.)
//!
//! The user's `PIP_*` variables and pip configuration apply.
//!
//! Blocks, often for minutes. Reports progress; needs no cleaning up after a crash.

mod pins;
mod pip;
mod python;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

pub use pins::{Error as RequirementsError, FILE_BYTES_MAX, FILES_MAX, NEEDS};
pub use pip::Problem;
pub use python::{Error as PythonError, OLDEST, Python, Version};

use self::pins::Requirements;
use self::pip::Run;

/// Written last: an environment without it is not one.
const COMPLETE: &str = "complete";

/// What to make an environment from.
#[derive(Clone, Copy, Debug)]
pub struct Spec<'a> {
    /// The Python it is for.
    pub python: &'a Python,
    /// The folder that environments are in.
    pub cache: &'a Path,
    /// The user's requirements; a file that is not there is an error.
    pub requirements: Option<&'a Path>,
    /// Added to pip's environment.
    pub variables: &'a [(OsString, OsString)],
}

/// A complete environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// The hash of what it was made from. Part of the revision of each module that runs in it.
    pub key: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Its interpreter.
    pub python: PathBuf,
    /// The interpreter's version.
    pub version: Version,
}

/// What is being done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Another daemon makes the same environment.
    Waiting,
    /// Making an empty environment.
    Creating,
    /// pip is at work; in its own words, without details.
    Installing(String),
}

/// Why there is no environment.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The requirements can't be used as they are.
    #[error(transparent)]
    Requirements(#[from] RequirementsError),
    /// Python or pip failed.
    #[error("{message}")]
    Install {
        /// What kind of thing went wrong.
        problem: Problem,
        /// In plain words, with pip's own explanation.
        message: String,
        /// The file with everything that pip said.
        log: PathBuf,
    },
    /// The cache folder, or something in it.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Requirements(RequirementsError::Pin { package, oldest, .. }) => {
                format!("allow {package}>={oldest}, or run what needs the older one as a `command` module")
            }
            Self::Requirements(_) => "check the requirements file and the files that it includes".into(),
            Self::Install { problem, log, .. } => {
                format!("{} (pip's log: {})", problem.hint(), log.display())
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Problem::DiskFull.hint().into()
            }
            Self::Io { .. } => "check that the data folder can be written to".into(),
        }
    }
}

impl Environment {
    /// The environment for `spec`; made if it is not there.
    pub fn ensure(spec: Spec<'_>, mut progress: impl FnMut(Progress)) -> Result<Self, Error> {
        let requirements = spec.requirements.map(Requirements::read).transpose()?.unwrap_or_default();
        let this = Self::named(key(spec.python, &requirements), spec);
        if this.is_complete() {
            return Ok(this);
        }
        fs::create_dir_all(spec.cache).map_err(io_error(spec.cache))?;
        let lock_path = spec.cache.join(format!("{}.lock", this.key));
        let lock = open(&lock_path, false).map_err(io_error(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress(Progress::Waiting);
                lock.lock().map_err(io_error(&lock_path))?;
            }
            Err(TryLockError::Error(source)) => return Err(Error::Io { path: lock_path, source }),
        }
        if !this.is_complete() {
            this.make(spec, &requirements, &lock, &mut progress)?;
        }
        Ok(this)
    }

    fn named(key: String, spec: Spec<'_>) -> Self {
        let folder = spec.cache.join(&key);
        let python = folder.join("bin/python");
        Self { key, folder, python, version: spec.python.version }
    }

    /// The interpreter may have vanished: it is a link to the one that it was made with.
    fn is_complete(&self) -> bool {
        self.folder.join(COMPLETE).is_file() && self.python.exists()
    }

    fn make(
        &self,
        spec: Spec<'_>,
        requirements: &Requirements,
        lock: &File,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        self.remove()?;
        let result = self.install(spec, requirements, lock, progress);
        if result.is_err() {
            // It does not count anyway; this saves space.
            let _ = self.remove();
        }
        result
    }

    fn install(
        &self,
        spec: Spec<'_>,
        requirements: &Requirements,
        lock: &File,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        let log_path = spec.cache.join(format!("{}.log", self.key));
        let log = open(&log_path, true).map_err(io_error(&log_path))?;
        let run = Run { log: &log, lock, variables: spec.variables, folder: spec.cache };
        let failed = |lines: &[String], what: &str| {
            let (problem, words) = pip::explain(lines);
            let message = if words.is_empty() { what.to_owned() } else { format!("{what}: {words}") };
            Error::Install { problem, message, log: log_path.clone() }
        };

        progress(Progress::Creating);
        let arguments = ["-m".as_ref(), "venv".as_ref(), self.folder.as_os_str()];
        let executable = &spec.python.executable;
        let (status, lines) =
            run.python(executable, &arguments, &mut |_| {}).map_err(io_error(executable))?;
        if !status.success() {
            return Err(failed(&lines, "the virtual environment could not be made"));
        }

        let needs: Vec<OsString> =
            NEEDS.iter().map(|(name, oldest)| format!("{name}>={oldest}").into()).collect();
        let file = spec.requirements.map(|file| [OsString::from("-r"), absolute(file).into_os_string()]);
        let rounds = match file {
            Some(file) if requirements.has_hashes() => vec![file.to_vec(), needs],
            Some(file) => vec![file.into_iter().chain(needs).collect()],
            None => vec![needs],
        };
        for round in rounds {
            let fixed = [
                "-m",
                "pip",
                "install",
                "--no-input",
                "--disable-pip-version-check",
                "--progress-bar",
                "off",
            ];
            let arguments: Vec<&OsStr> =
                fixed.iter().map(OsStr::new).chain(round.iter().map(OsString::as_os_str)).collect();
            let mut tell = |line: &str| {
                if let Some(doing) = pip::progress(line) {
                    progress(Progress::Installing(doing));
                }
            };
            let (status, lines) =
                run.python(&self.python, &arguments, &mut tell).map_err(io_error(&self.python))?;
            if !status.success() {
                return Err(failed(&lines, "packages could not be installed"));
            }
        }

        let complete = self.folder.join(COMPLETE);
        File::create(&complete).and_then(|file| file.sync_all()).map_err(io_error(&complete))
    }

    fn remove(&self) -> Result<(), Error> {
        // First what makes it count, in case this does not get to the end.
        let complete = self.folder.join(COMPLETE);
        for result in [fs::remove_file(complete), fs::remove_dir_all(&self.folder)] {
            match result {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error(&self.folder)(e)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn key(python: &Python, requirements: &Requirements) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("bourse 2026 python environment");
    let mut add = |text: &[u8]| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text);
    };
    add(python.version.to_string().as_bytes());
    add(python.executable.as_os_str().as_encoded_bytes());
    add(python.platform.as_bytes());
    for (name, oldest) in NEEDS {
        add(name.as_bytes());
        add(oldest.as_bytes());
    }
    for (_, text) in &requirements.files {
        add(text.as_bytes());
    }
    // A folder's name, and part of the first line of every script below it, which is limited to 127 bytes.
    hasher.finalize().to_hex()[..20].to_owned()
}

fn open(path: &Path, empty: bool) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(empty).open(path)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
    let path = path.to_owned();
    move |source| Error::Io { path, source }
}
