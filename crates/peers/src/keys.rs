//! This node's own keys: `node.key` in the data folder, which nobody else may read, and `node.pub` beside it.
//!
//! Keys are written in hexadecimal digits everywhere: the usual text form of CURVE keys, Z85, has characters such as
//! `@`, `$` and `&`.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bourse_transport::KeyPair;

use crate::own;

/// The secret key.
pub const KEY_FILE: &str = "node.key";
/// The public key, which others are told.
pub const PUBLIC_FILE: &str = "node.pub";

/// The keys, and whether they are new.
#[derive(Debug)]
pub struct Loaded {
    /// The keys.
    pub keys: KeyPair,
    /// They were not there before.
    pub made: bool,
}

/// Reads the keys, or makes them if there are none.
pub fn load_or_make(data: &Path) -> anyhow::Result<Loaded> {
    let path = data.join(KEY_FILE);
    let loaded = match fs::read_to_string(&path) {
        Ok(text) => Loaded { keys: read(&path, &text)?, made: false },
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let keys = KeyPair::generate();
            own::write_private(&path, format!("{}\n", keys.secret_hex()))?;
            Loaded { keys, made: true }
        }
        Err(e) => {
            return Err(anyhow::anyhow!(
                "{} cannot be read: {e}\n  hint: it holds this node's secret key, and has to belong to the user that runs the daemon",
                path.display()
            ));
        }
    };
    write_public(&data.join(PUBLIC_FILE), &loaded.keys)?;
    Ok(loaded)
}

fn read(path: &Path, text: &str) -> anyhow::Result<KeyPair> {
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        // Whoever has read it can be this node from now on: that is not repaired by closing the file.
        anyhow::bail!(
            "{} can be read by others (its mode is {mode:03o}), and holds this node's secret key\n  hint: if nobody else has read it, chmod 600 {0}; else delete it, and tell the other nodes the new key",
            path.display()
        );
    }
    KeyPair::from_secret_hex(text.trim()).map_err(|_| {
        anyhow::anyhow!(
            "{} does not hold a key: 64 hexadecimal digits are expected\n  hint: put it back as it was, or delete it to have new keys made, which the other nodes then have to be told",
            path.display()
        )
    })
}

/// Written when it is not there, or says something else.
fn write_public(path: &PathBuf, keys: &KeyPair) -> anyhow::Result<()> {
    let text = format!("{}\n", keys.public().to_hex());
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_made_once_and_kept() {
        let data = tempfile::tempdir().unwrap();
        let first = load_or_make(data.path()).unwrap();
        let again = load_or_make(data.path()).unwrap();
        assert!(first.made && !again.made);
        assert_eq!(first.keys.public(), again.keys.public());
        let mode = fs::metadata(data.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let public = fs::read_to_string(data.path().join(PUBLIC_FILE)).unwrap();
        assert_eq!(public, format!("{}\n", first.keys.public().to_hex()));
        // The public half follows from the secret one.
        fs::remove_file(data.path().join(PUBLIC_FILE)).unwrap();
        load_or_make(data.path()).unwrap();
        assert_eq!(fs::read_to_string(data.path().join(PUBLIC_FILE)).unwrap(), public);
    }

    #[test]
    fn what_is_no_secret_key_is_refused_and_left_alone() {
        let data = tempfile::tempdir().unwrap();
        let path = data.path().join(KEY_FILE);
        load_or_make(data.path()).unwrap();
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let refused = load_or_make(data.path()).unwrap_err().to_string();
            assert!(refused.contains(&format!("its mode is {mode:o}")), "{refused}");
            assert!(refused.contains("chmod 600"), "{refused}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "nonsense").unwrap();
        let refused = load_or_make(data.path()).unwrap_err().to_string();
        assert!(refused.contains("does not hold a key"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "nonsense");
    }
}
