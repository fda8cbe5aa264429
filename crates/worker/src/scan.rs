//! What modules a served folder has.
//!
//! | in the folder | is |
//! |---|---|
//! | `foo.py` | the Python module `foo` |
//! | `foo/__init__.py` | the Python module `foo`, a package |
//! | `foo/bourse.toml` with `[module] command = […]` | the module `foo`, any program |
//! | names that start with `.` or `_`, `__pycache__`, `node_modules`, virtual environments | left out |
//! | any other file or folder | left out: data, or helpers for modules to import |
//!
//! Every `.py` file at the top is a module, because functions need no mark to be served. One that offers no
//! function when it is loaded is a helper that happens to lie there, and the daemon treats it as such; a name that
//! starts with `_`, or a folder without `__init__.py`, says so from the start. Tests are files like any other.
//!
//! Settings of a module are `[module]` in the `bourse.toml` of its own folder, or `[modules.NAME]` in that of the
//! served folder, which is where those of a single file are; where both have one, the module's own counts.
//!
//! A deploy holds the scan: while a file `.bourse-deploy.lock` is in the served folder, nothing is read, and what
//! runs goes on. Removing it is the sign to look again.
//!
//! Reads names and `bourse.toml` only, never a module's code. Symbolic links are followed, each folder once.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::settings::{self, Settings};
use crate::tree;

/// While it is in the served folder, the scan is held.
pub const DEPLOY_LOCK: &str = ".bourse-deploy.lock";

/// The file with settings, in the served folder and in modules' own.
pub const SETTINGS_FILE: &str = "bourse.toml";

/// The most modules in one folder.
pub const MODULES_MAX: usize = 1_000;

/// The most files of one module.
pub const FILES_MAX: usize = 10_000;

/// The longest module name, in bytes.
pub const NAME_BYTES_MAX: usize = 100;

/// Python's keywords that could be file names.
const KEYWORDS: &[&str] = &[
    "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del", "elif", "else",
    "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal", "not",
    "or", "pass", "raise", "return", "try", "while", "with", "yield",
];

/// What a look at the folder gave.
#[derive(Debug)]
pub enum Scan {
    /// A deploy is under way.
    Held {
        /// When its lock file was made.
        since: SystemTime,
    },
    /// What there is.
    Done {
        /// The modules, by name.
        found: Vec<Found>,
        /// Modules that are there and can't be served. Where one ran under such a name, it goes on.
        broken: Vec<Broken>,
        /// What was left out though it looks like a module.
        warnings: Vec<Warning>,
    },
}

/// A module.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Its name, a Python identifier.
    pub name: String,
    /// The file or folder, absolute if the served folder was given so.
    pub path: PathBuf,
    /// How it is run.
    pub kind: Kind,
    /// Its files, relative to the served folder, in order. Those that a single file imports are not known before
    /// it is loaded.
    pub files: Vec<PathBuf>,
    /// From `bourse.toml`.
    pub settings: Settings,
}

/// How a module is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `foo.py`
    PythonFile,
    /// `foo/__init__.py`
    PythonPackage,
    /// Any program that speaks the worker protocol: its command line, relative to the module's folder.
    Process(Vec<String>),
}

/// A module that can't be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its name.
    pub name: String,
    /// Its file or folder.
    pub path: PathBuf,
    /// Why, for people.
    pub reason: String,
}

/// Something that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Which file or folder.
    pub path: PathBuf,
    /// Why, and what to do about it.
    pub reason: String,
}

/// Why nothing could be found at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The served folder is not there, or can't be read.
    #[error("the folder {path} can't be read: {source}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// More than [`MODULES_MAX`].
    #[error("more than {MODULES_MAX} modules in {0}")]
    TooMany(PathBuf),
    /// The served folder's own `bourse.toml`.
    #[error(transparent)]
    Settings(#[from] settings::Error),
}

/// Looks at what is in `root`.
pub fn scan(root: &Path) -> Result<Scan, Error> {
    let failed = |source| Error::Folder { path: root.to_owned(), source };
    if let Ok(lock) = fs::symlink_metadata(root.join(DEPLOY_LOCK)) {
        return Ok(Scan::Held { since: lock.modified().map_err(failed)? });
    }
    let mut shared = settings::of_served_folder(&root.join(SETTINGS_FILE))?;
    let mut names: Vec<_> = fs::read_dir(root)
        .map_err(failed)?
        .map(|e| e.map(|e| e.file_name()))
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    names.sort();

    let mut by_name: BTreeMap<String, Vec<Found>> = BTreeMap::new();
    let mut broken = Vec::new();
    let mut warnings = Vec::new();
    for name in names {
        let path = root.join(&name);
        let Some(name) = name.to_str() else {
            warnings.push(Warning { path, reason: "its name is not UTF-8".into() });
            continue;
        };
        if name.starts_with('_') || tree::is_left_out(&path) {
            continue;
        }
        let Some(candidate) = candidate(&path, name) else { continue };
        if let Some(reason) = not_a_name(candidate.name) {
            warnings.push(Warning { path, reason });
            continue;
        }
        match module(root, &path, &candidate, &shared) {
            Ok(found) => by_name.entry(found.name.clone()).or_default().push(found),
            Err(reason) => broken.push(Broken { name: candidate.name.to_owned(), path, reason }),
        }
    }
    if by_name.len() + broken.len() > MODULES_MAX {
        return Err(Error::TooMany(root.to_owned()));
    }

    let mut found = Vec::new();
    for (name, mut modules) in by_name {
        shared.remove(&name);
        match (modules.pop(), modules.pop()) {
            (Some(one), None) => found.push(one),
            (Some(one), Some(other)) => {
                let reason = format!(
                    "{} and {} are both called {name}: rename or remove one of them",
                    shown(root, &other.path),
                    shown(root, &one.path)
                );
                broken.push(Broken { name, path: one.path, reason });
            }
            (None, _) => {}
        }
    }
    for name in shared.into_keys().filter(|name| broken.iter().all(|b| b.name != *name)) {
        let reason = format!("[modules.{name}] has settings for a module that is not there");
        warnings.push(Warning { path: root.join(SETTINGS_FILE), reason });
    }
    Ok(Scan::Done { found, broken, warnings })
}

/// All Python files in the served folder, relative to it: what a module that does not load may need.
pub fn python_files(root: &Path) -> Vec<PathBuf> {
    let all = tree::files(root, FILES_MAX).unwrap_or_default();
    let python = all.into_iter().filter(|f| f.extension().is_some_and(|e| e == "py"));
    python.filter_map(|f| f.strip_prefix(root).map(Path::to_owned).ok()).collect()
}

/// A file or folder that looks like a module.
struct Candidate<'a> {
    name: &'a str,
    is_package: bool,
    is_folder: bool,
}

fn candidate<'a>(path: &Path, name: &'a str) -> Option<Candidate<'a>> {
    let kind = fs::metadata(path).ok()?;
    if kind.is_dir() {
        let is_package = path.join("__init__.py").is_file();
        let has_settings = path.join(SETTINGS_FILE).is_file();
        return (is_package || has_settings).then_some(Candidate { name, is_package, is_folder: true });
    }
    let name = name.strip_suffix(".py").filter(|_| kind.is_file())?;
    Some(Candidate { name, is_package: false, is_folder: false })
}

fn module(
    root: &Path,
    path: &Path,
    candidate: &Candidate<'_>,
    shared: &BTreeMap<String, Settings>,
) -> Result<Found, String> {
    let name = candidate.name.to_owned();
    let relative = |file: PathBuf| file.strip_prefix(root).map(Path::to_owned).unwrap_or(file);
    if !candidate.is_folder {
        let settings = shared.get(&name).cloned().unwrap_or_default();
        if settings.command.is_some() {
            return Err(format!(
                "{SETTINGS_FILE}: a command needs a folder {name}/ to run in, and {name}.py is a file"
            ));
        }
        let files = vec![relative(path.to_owned())];
        return Ok(Found { name, path: path.to_owned(), kind: Kind::PythonFile, files, settings });
    }
    let own = settings::of_module(&path.join(SETTINGS_FILE)).map_err(|e| e.to_string())?;
    let settings = own.or_else(|| shared.get(&name).cloned()).unwrap_or_default();
    let kind = match (&settings.command, candidate.is_package) {
        (Some(command), _) => Kind::Process(command.clone()),
        (None, true) => Kind::PythonPackage,
        (None, false) => {
            return Err(format!(
                "{name}/ has neither an __init__.py nor a command under [module] in its {SETTINGS_FILE}"
            ));
        }
    };
    let files = tree::files(path, FILES_MAX).map_err(|e| e.to_string())?;
    Ok(Found {
        name,
        path: path.to_owned(),
        kind,
        files: files.into_iter().map(relative).collect(),
        settings,
    })
}

/// Why this can't be a module's name.
fn not_a_name(name: &str) -> Option<String> {
    let mut chars = name.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphabetic());
    if !first || !chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        let better: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let better = better.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
        let hint = if better.is_empty() { String::new() } else { format!("; {better} would do") };
        return Some(format!(
            "{name:?} can't be a module's name: a letter, then letters, digits and _{hint}"
        ));
    }
    if KEYWORDS.contains(&name) {
        return Some(format!("{name:?} can't be a module's name: it is a Python keyword"));
    }
    (name.len() > NAME_BYTES_MAX).then(|| format!("its name is longer than {NAME_BYTES_MAX} bytes"))
}

fn shown(root: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(root).unwrap_or(path).display();
    if path.is_dir() { format!("{relative}/") } else { relative.to_string() }
}
