//! What `bourse.toml` says of modules: `[module]` in a module's own folder, `[modules.NAME]` in the served one.
//!
//! Keys that are not this crate's are handed on in [`Settings::options`]; who reads them refuses those that nobody
//! knows.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The settings of one module.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Settings {
    /// The command line of a module that is not Python.
    pub command: Option<Vec<String>>,
    /// Added to its instances' environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Everything else.
    #[serde(flatten)]
    pub options: toml::Table,
}

/// A `bourse.toml` that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is there and can't be read.
    #[error("{path} can't be read: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not TOML, or a value is not of its type.
    #[error("{path}: {reason}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why, with the line.
        reason: String,
    },
    /// A value that can't be meant.
    #[error("{path}: {reason}")]
    Refused {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

#[derive(Default, Deserialize)]
struct ModuleFile {
    module: Option<Settings>,
}

#[derive(Default, Deserialize)]
struct ServedFile {
    #[serde(default)]
    modules: BTreeMap<String, Settings>,
}

/// `[module]` of a module's own `bourse.toml`; nothing if there is none.
pub(crate) fn of_module(path: &Path) -> Result<Option<Settings>, Error> {
    let settings = read::<ModuleFile>(path)?.module;
    settings.iter().try_for_each(|s| check(path, s))?;
    Ok(settings)
}

/// `[modules.NAME]` of the served folder's `bourse.toml`, by name.
pub fn of_served_folder(path: &Path) -> Result<BTreeMap<String, Settings>, Error> {
    let modules = read::<ServedFile>(path)?.modules;
    modules.values().try_for_each(|s| check(path, s))?;
    Ok(modules)
}

fn read<T: Default + serde::de::DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
        Err(source) => return Err(Error::Unreadable { path: path.to_owned(), source }),
    };
    toml::from_str(&text)
        .map_err(|e| Error::Malformed { path: path.to_owned(), reason: e.to_string().trim_end().to_owned() })
}

fn check(path: &Path, settings: &Settings) -> Result<(), Error> {
    let refused = |reason| Err(Error::Refused { path: path.to_owned(), reason });
    if settings.command.as_ref().is_some_and(|c| c.first().is_none_or(String::is_empty)) {
        return refused("command names no program".to_owned());
    }
    for (name, value) in &settings.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return refused(format!("env: {name:?} can't be an environment variable"));
        }
        if name.starts_with("BOURSE_") {
            return refused(format!("env: {name} is set by Bourse itself"));
        }
    }
    Ok(())
}
