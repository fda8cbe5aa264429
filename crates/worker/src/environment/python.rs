//! Finds a Python that instances can run on.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The oldest Python that the SDK runs on.
pub const OLDEST: Version = Version::new(3, 9, 0);

/// What a Python says of itself, a line each.
const QUESTIONS: &str = "\
import importlib.util as u, platform, sys, sysconfig
print('.'.join(map(str, sys.version_info[:3])))
print(sys.executable)
print(platform.python_implementation(), sysconfig.get_platform(), sys.version.replace('\\n', ' '))
print(all(u.find_spec(m) for m in ('venv', 'ensurepip')))
";

/// A Python's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    /// From its parts.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Whether it is this version of the language or a later one.
    pub fn at_least(self, major: u32, minor: u32) -> bool {
        (self.major, self.minor) >= (major, minor)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|p| p.parse().ok());
        Some(Self::new(parts.next()??, parts.next()??, parts.next()??))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A Python that environments can be made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Python {
    /// As it names itself.
    pub executable: PathBuf,
    /// Its version.
    pub version: Version,
    /// Implementation, platform and build: what compiled packages depend on.
    pub platform: String,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None was named and none is on `PATH`.
    #[error("no Python found: there is no python3 on PATH")]
    None,
    /// The one that was named, by the configuration or `BOURSE_PYTHON`, does not run.
    #[error("{name} can't be run: {reason}")]
    Unusable {
        /// As it was named.
        name: String,
        /// Why not.
        reason: String,
    },
    /// Older than [`OLDEST`].
    #[error("{name} is Python {version}, and at least {OLDEST} is needed")]
    TooOld {
        /// As it was named.
        name: String,
        /// Its version.
        version: Version,
    },
    /// Debian and its kin pack the module `venv` separately.
    #[error("{name} (Python {version}) can't make virtual environments: its venv module is not installed")]
    NoVenv {
        /// As it was named.
        name: String,
        /// Its version.
        version: Version,
    },
}

impl Error {
    /// What to do about it.
    pub fn hint(&self) -> String {
        let other = "name another one with --python or BOURSE_PYTHON";
        match self {
            Self::None => {
                format!("install Python {OLDEST} or later, or name one with --python or BOURSE_PYTHON")
            }
            Self::Unusable { .. } => "check --python, `python` in bourse.toml, or BOURSE_PYTHON".into(),
            Self::TooOld { .. } => format!("install a newer Python, or {other}"),
            Self::NoVenv { version, .. } => format!(
                "on Debian and Ubuntu: apt install python3-venv (or python{}.{}-venv); or {other}",
                version.major, version.minor
            ),
        }
    }
}

impl Python {
    /// The one that is `configured`; else that of `BOURSE_PYTHON`; else python3 on `PATH`. One that was named is
    /// never passed over.
    pub fn find(configured: Option<&Path>) -> Result<Self, Error> {
        let variable = std::env::var_os("BOURSE_PYTHON").filter(|v| !v.is_empty());
        match configured.map(Path::as_os_str).or(variable.as_deref()) {
            Some(named) => Self::ask(named),
            None => match Self::ask(OsStr::new("python3")) {
                Err(Error::Unusable { .. }) if !on_path("python3") => Err(Error::None),
                result => result,
            },
        }
    }

    /// What [`remember`](Self::remember) has written for the same question, if that Python is still there. Asking takes
    /// longer than all the rest of a start where `python3` is a script that looks for one, so a daemon begins with
    /// this; it may be wrong, and must be checked by [`find`](Self::find) meanwhile.
    pub fn recall(file: &Path, configured: Option<&Path>) -> Option<Self> {
        let text = std::fs::read_to_string(file).ok()?;
        let [asked, executable, version, platform] = text.lines().collect::<Vec<_>>()[..] else {
            return None;
        };
        let executable = PathBuf::from(executable);
        (asked == question(configured) && executable.is_file()).then_some(Self {
            executable,
            version: Version::parse(version)?,
            platform: platform.to_owned(),
        })
    }

    /// Keeps the answer to [`find`](Self::find) in a file.
    pub fn remember(&self, file: &Path, configured: Option<&Path>) -> io::Result<()> {
        let Self { executable, version, platform } = self;
        std::fs::write(
            file,
            format!("{}\n{}\n{version}\n{platform}\n", question(configured), executable.display()),
        )
    }

    fn ask(program: &OsStr) -> Result<Self, Error> {
        let name = program.to_string_lossy().into_owned();
        let unusable = |reason: String| Error::Unusable { name: name.clone(), reason };
        // Isolated: nothing in the working folder or the environment takes part.
        let output =
            Command::new(program).args(["-I", "-c", QUESTIONS]).stdin(Stdio::null()).output().map_err(
                |e| match e.kind() {
                    io::ErrorKind::NotFound => unusable("no such file".into()),
                    io::ErrorKind::PermissionDenied => unusable("permission denied".into()),
                    _ => unusable(e.to_string()),
                },
            )?;
        let text = String::from_utf8_lossy(&output.stdout);
        let answers: Vec<&str> = text.lines().collect();
        let [version, executable, platform, has_venv, ..] = answers[..] else {
            let complaint = String::from_utf8_lossy(&output.stderr);
            let complaint =
                complaint.lines().last().unwrap_or("it does not answer as a Python would").to_owned();
            return Err(unusable(complaint));
        };
        let version =
            Version::parse(version).ok_or_else(|| unusable("it does not tell its version".into()))?;
        if version < OLDEST {
            return Err(Error::TooOld { name, version });
        }
        if has_venv != "True" {
            return Err(Error::NoVenv { name, version });
        }
        Ok(Self { executable: executable.into(), version, platform: platform.to_owned() })
    }
}

/// What decides which Python is found, on one line.
fn question(configured: Option<&Path>) -> String {
    let variable = |name| std::env::var_os(name).unwrap_or_default();
    format!("{configured:?} {:?} {:?}", variable("BOURSE_PYTHON"), variable("PATH"))
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|f| f.join(program).is_file()))
}
