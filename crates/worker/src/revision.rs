//! What a module's files hash to: a change of a file that counts is a new revision.
//!
//! The files of a package or program are all those in its folder. Those of a single Python file are itself and
//! what it imported from the served folder, which its template reports; before it was loaded, itself. Settings
//! and the environment's key count too.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::settings::Settings;

/// The identity of a module's code.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revision([u8; 32]);

/// Hashes `files`, which are relative to `root`, with their names, whatever their order, and what they run with.
/// A file that is not there counts as such: coming back, it is a new revision. Files are read in pieces and may be
/// of any size.
pub fn revision(
    root: &Path,
    files: &[PathBuf],
    settings: &Settings,
    environment: &str,
) -> io::Result<Revision> {
    let mut files: Vec<&PathBuf> = files.iter().collect();
    files.sort();
    files.dedup();
    let mut whole = blake3::Hasher::new_derive_key("bourse 2026 module revision");
    let mut add = |bytes: &[u8]| {
        whole.update(&(bytes.len() as u64).to_le_bytes());
        whole.update(bytes);
    };
    add(environment.as_bytes());
    add(format!("{:?} {:?} {}", settings.command, settings.env, settings.options).as_bytes());
    for file in files {
        add(file.as_os_str().as_bytes());
        add(content(&root.join(file))?.as_ref().map_or(&[], |hash| hash.as_bytes()));
    }
    Ok(Revision(*whole.finalize().as_bytes()))
}

fn content(path: &Path) -> io::Result<Option<blake3::Hash>> {
    match File::open(path) {
        Ok(file) => Ok(Some(blake3::Hasher::new().update_reader(file)?.finalize())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
    }
}

/// As people see it: the first 12 hexadecimal digits.
impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex()[..12])
    }
}

impl fmt::Debug for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revision({self})")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_counts_changes_it_and_nothing_else_does() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::write(root.join("a.py"), "x = 1").unwrap();
        fs::write(root.join("b.py"), "y = 1").unwrap();
        let files = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        let of = |names: &[&str]| revision(root, &files(names), &Settings::default(), "env").unwrap();
        let first = of(&["a.py", "b.py"]);
        assert_eq!(first, of(&["b.py", "a.py", "b.py"]));
        assert_ne!(first, of(&["a.py"]));
        assert_ne!(first, revision(root, &files(&["a.py", "b.py"]), &Settings::default(), "other").unwrap());
        assert_eq!(first.to_string().len(), 12);

        fs::write(root.join("b.py"), "y = 2").unwrap();
        let second = of(&["a.py", "b.py"]);
        assert_ne!(first, second);
        fs::remove_file(root.join("b.py")).unwrap();
        assert_ne!(second, of(&["a.py", "b.py"]));
        fs::write(root.join("b.py"), "y = 1").unwrap();
        assert_eq!(first, of(&["a.py", "b.py"]));
    }
}
