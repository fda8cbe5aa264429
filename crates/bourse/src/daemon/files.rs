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
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bourse_peers::own::{entropy, write_private};
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
