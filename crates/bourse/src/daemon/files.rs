//! What the daemon keeps in its data folder, and where its sockets are.
//!
//! | file | is |
//! |---|---|
//! | `store.sqlite` | all state |
//! | `token` | what clients of the worker protocol show (mode 0600) |
//! | `node.key`, `node.pub` | what other nodes know this one by (mode 0600), and the half that they are told |
//! | `allowed` | public keys of nodes that this one speaks with; written by the user |
//! | `members`, `seeds`, `grid-store`, `life` | the grid's list of keys, where to begin, which store is the grid's, and which life of the node the last one was |
//! | `daemon.json` | where the running daemon can be reached; removed when it stops |
//! | `logs/` | the daemon's log, and what instances wrote |

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// Where a running daemon can be reached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Contact {
    pub pid: u32,
    /// The HTTP address, as a URL.
    pub http: String,
    /// Where mail is taken, as a URL, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp: Option<String>,
    /// The worker protocol's endpoint.
    pub endpoint: String,
    /// The same by tcp, if it is served there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_tcp: Option<String>,
    pub token_file: PathBuf,
    pub folder: PathBuf,
    pub version: String,
}

/// The file with a [`Contact`].
pub(crate) const CONTACT_FILE: &str = "daemon.json";

/// The embedded store.
pub(crate) const STORE_FILE: &str = "store.sqlite";
/// The number of the last life, for other nodes.
const LIFE_FILE: &str = "life";
/// Two lives are so far from each other at least, in microseconds: what a life numbers begins with its own number.
const LIFE_STEP: u64 = 1 << 17;

/// Makes the data folder, which nobody else can enter, and what is below it.
pub(crate) fn make_data(data: &Path) -> anyhow::Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(data.join("logs"));
    made.map_err(|e| {
        anyhow::anyhow!(
            "the data folder {} cannot be made: {e}\n  hint: name another with --data",
            data.display()
        )
    })?;
    let ignore = data.join(".gitignore");
    if !ignore.exists() {
        // State and tokens do not belong into anybody's repository.
        fs::write(&ignore, "*\n")
            .with_context(|| format!("the data folder {} cannot be written", data.display()))?;
    }
    Ok(())
}

/// Reads the token file, or makes one.
pub(crate) fn token(data: &Path) -> anyhow::Result<String> {
    let path = data.join("token");
    match fs::read_to_string(&path) {
        Ok(token) if !token.trim().is_empty() => {
            let mode = fs::metadata(&path)?.permissions().mode();
            if mode & 0o077 != 0 {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).with_context(|| {
                    format!("{} can be read by others, and its mode cannot be changed", path.display())
                })?;
            }
            return Ok(token.trim().to_owned());
        }
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => return Err(e).with_context(|| format!("{} cannot be read", path.display())),
    }
    let token: String = entropy()?.iter().map(|b| format!("{b:02x}")).collect();
    write_private(&path, &token)?;
    Ok(token)
}

/// 32 bytes that nobody can guess.
pub(crate) fn entropy() -> anyhow::Result<[u8; 32]> {
    use std::io::Read;
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut bytes))
        .context("/dev/urandom cannot be read")?;
    Ok(bytes)
}

/// This machine's name.
pub(crate) fn hostname() -> anyhow::Result<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    anyhow::ensure!(
        !name.is_empty() && name != "localhost",
        "this machine has no name by which other nodes could reach it\n  hint: say where: --set advertise=HOST:PORT"
    );
    Ok(name)
}

/// What tells this machine from others, for those who want to know what fails together.
pub(crate) fn machine() -> String {
    let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let hash = blake3::hash(format!("bourse {} {name}", id.trim()).as_bytes());
    format!("machine-{}", &hash.to_hex()[..12])
}

/// Writes a file that only its owner can read, whole or not at all.
pub(crate) fn write_private(path: &Path, contents: impl AsRef<[u8]>) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(contents.as_ref())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("{} cannot be written", path.display()))
}

/// A number for this life of the daemon: the time, in microseconds.
pub(crate) fn life() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(0)
}

/// The same for one of several nodes: greater than those of its lives before, even if the clock was put back since. Other nodes take
/// what has a smaller one for something that comes late.
pub(crate) fn next_life(data: &Path) -> anyhow::Result<u64> {
    let path = data.join(LIFE_FILE);
    let last: u64 = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let life = life().max(last.saturating_add(LIFE_STEP));
    write_private(&path, &format!("{life}\n"))?;
    Ok(life)
}

/// Says where the daemon can be reached.
pub(crate) fn write_contact(data: &Path, contact: &Contact) -> anyhow::Result<()> {
    write_private(&data.join(CONTACT_FILE), &serde_json::to_string_pretty(contact)?)
}

pub(crate) fn remove_contact(data: &Path) {
    // If it cannot be removed, its pid tells that it is old.
    let _ = fs::remove_file(data.join(CONTACT_FILE));
}

/// The folder for sockets: short, because their paths are limited, and the daemon's alone. Named after the data
/// folder, so that a daemon finds the place of its predecessor again.
pub(crate) fn runtime_folder(data: &Path) -> PathBuf {
    let base = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|p| p.is_absolute() && p.is_dir())
        .unwrap_or_else(std::env::temp_dir);
    let hash = blake3::hash(data.as_os_str().as_encoded_bytes());
    base.join(format!("bourse-{}", &hash.to_hex()[..12]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_life_has_a_greater_number_whatever_the_clock_says() {
        let data = tempfile::tempdir().unwrap();
        let first = next_life(data.path()).unwrap();
        assert!(first >= life() - 60_000_000, "it is the time");
        let second = next_life(data.path()).unwrap();
        assert!(second >= first + LIFE_STEP);
        // The clock was a day ahead.
        let ahead = second + 86_400_000_000;
        fs::write(data.path().join(LIFE_FILE), ahead.to_string()).unwrap();
        assert_eq!(next_life(data.path()).unwrap(), ahead + LIFE_STEP);
        fs::write(data.path().join(LIFE_FILE), "nonsense").unwrap();
        assert!(next_life(data.path()).unwrap() >= first);
    }
}
