//! Command lines and environments of instances; those of `command` modules whole.
//!
//! An instance's environment is clean. It has, of the daemon's own, only the variables in [`INHERITED`] and those that
//! start with `LC_`; what `[module.env]` adds, which wins over those; and:
//!
//! | variable | is |
//! |---|---|
//! | `BOURSE_MODULE` | the module's name |
//! | `BOURSE_ENDPOINT` | where to connect to |
//! | `BOURSE_SECRET_FD` | the descriptor to read the instance's secret from (set by the keeper) |
//! | `BOURSE_PROCESS` | the keeper's number for it (set by the keeper) |
//!
//! Nothing else of the daemon's environment gets there: not its tokens, not its store's address.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use bourse_wire::keeper::v1::Spawn;

/// What an instance inherits of the daemon's environment, if it is set.
pub const INHERITED: &[&str] =
    &["HOME", "LANG", "LANGUAGE", "LOGNAME", "PATH", "SSL_CERT_DIR", "SSL_CERT_FILE", "TMPDIR", "TZ", "USER"];

/// How to start a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: BTreeMap<String, String>,
    /// The working folder.
    pub cwd: String,
}

/// A path that the keeper's protocol can't carry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} is not UTF-8: rename it", .0.display())]
pub struct NotUtf8(
    /// Which.
    pub PathBuf,
);

impl Launch {
    /// The order to the keeper.
    pub fn spawn(self, process: u64) -> Spawn {
        Spawn { process, argv: self.argv, env: self.env, cwd: self.cwd, ..Default::default() }
    }
}

/// A `command` module's instance. A program that is given with a slash is looked for in the module's `folder`, which is
/// the working folder too; one without is looked for on `PATH`.
pub fn command(
    name: &str,
    folder: &Path,
    command: &[String],
    env: &BTreeMap<String, String>,
    endpoint: &str,
) -> Result<Launch, NotUtf8> {
    let mut argv = command.to_vec();
    if let Some(program) = argv.first_mut().filter(|p| p.contains('/')) {
        *program = text(&folder.join(&*program))?;
    }
    let mut all = environment(std::env::vars_os(), env);
    all.insert("BOURSE_MODULE".into(), name.into());
    all.insert("BOURSE_ENDPOINT".into(), endpoint.into());
    Ok(Launch { argv, env: all, cwd: text(folder)? })
}

/// What an instance gets of the daemon's environment `of`, and what its module adds.
pub(crate) fn environment(
    of: impl Iterator<Item = (OsString, OsString)>,
    added: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> = of
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| INHERITED.contains(&name.as_str()) || name.starts_with("LC_"))
        .collect();
    env.extend(added.iter().map(|(name, value)| (name.clone(), value.clone())));
    env
}

pub(crate) fn text(path: &Path) -> Result<String, NotUtf8> {
    path.to_str().map(str::to_owned).ok_or_else(|| NotUtf8(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_clean() {
        let of = [
            ("PATH", "/bin"),
            ("LC_ALL", "C"),
            ("BOURSE_TOKEN", "t"),
            ("AWS_SECRET_ACCESS_KEY", "k"),
            ("TZ", "UTC"),
        ];
        let of = of.map(|(name, value)| (name.into(), value.into())).into_iter();
        let added = BTreeMap::from([("TZ".to_owned(), "Europe/Berlin".to_owned())]);
        let env = environment(of, &added);
        let env: Vec<_> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(env, [("LC_ALL", "C"), ("PATH", "/bin"), ("TZ", "Europe/Berlin")]);
    }

    #[test]
    fn a_command_is_looked_for_in_its_folder() {
        let launch = |program: &str| {
            let argv = [program.to_owned(), "-v".to_owned()];
            command("tool", Path::new("/srv/tool"), &argv, &BTreeMap::new(), "ipc:///x").unwrap()
        };
        assert_eq!(launch("./run").argv, ["/srv/tool/./run", "-v"]);
        assert_eq!(launch("/bin/cat").argv[0], "/bin/cat");
        let node = launch("node");
        assert_eq!((node.argv[0].as_str(), node.cwd.as_str()), ("node", "/srv/tool"));
        assert_eq!(node.env["BOURSE_ENDPOINT"], "ipc:///x");
        assert_eq!(node.env["BOURSE_MODULE"], "tool");
    }
}
