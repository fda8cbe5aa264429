//! Files that travel together: a module, or a folder of modules, as one piece that its hash names.
//!
//! Packing reads what the scan would read: no hidden files, no caches, no virtual environments. The same files make the same
//! bundle, whatever their times and owners. Unpacking trusts nothing: a path that leaves the folder is refused.

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use bourse_wire::peer::v1::Files;
use bourse_wire::peer::v1::files::File;
use bytes::Bytes;
use prost::Message as _;

use crate::scan::{DEPLOY_LOCK, FILES_MAX};
use crate::tree;

/// The most bytes that a bundle's files have.
pub const BYTES_MAX: usize = 256 * 1024 * 1024;

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What is to be packed can't be read, or what is to be unpacked not be written.
    #[error("{path}: {source}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Neither a file nor a folder, or an empty one.
    #[error("there is nothing to deploy in {0}")]
    Empty(PathBuf),
    /// It is large.
    #[error("{path} has more than {max} bytes")]
    Large {
        /// What.
        path: PathBuf,
        /// The most.
        max: usize,
    },
    /// A path that is none in a bundle.
    #[error("{0:?} is no path of a file in a bundle")]
    Path(String),
    /// What came is no bundle.
    #[error("it is no bundle: {0}")]
    Malformed(String),
}

/// Packs a file or a folder: a package, or the folder of a `command` module, becomes a folder of its name; of any other folder,
/// what is in it. At most so many bytes.
pub fn pack(path: &Path, bytes_max: usize) -> Result<Bytes, Error> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    let name = PathBuf::from(path.file_name().unwrap_or_default());
    let is_module = path.join("__init__.py").is_file() || is_command(path);
    let (root, prefix) = match (path.is_file(), is_module) {
        (true, _) => (path.parent().unwrap_or(Path::new("")).to_owned(), PathBuf::new()),
        (false, true) => (path.to_owned(), name.clone()),
        (false, false) => (path.to_owned(), PathBuf::new()),
    };
    let all = match path.is_file() {
        true => vec![path.to_owned()],
        false => tree::files(path, FILES_MAX).map_err(io(path))?,
    };
    let (mut files, mut bytes) = (Vec::new(), 0);
    for file in all {
        let within = file.strip_prefix(&root).expect("it was found below the root");
        if within.as_os_str() == DEPLOY_LOCK {
            continue;
        }
        let text = prefix.join(within);
        let text = text.to_str().ok_or_else(|| Error::Path(text.to_string_lossy().into_owned()))?;
        let content = fs::read(&file).map_err(io(&file))?;
        let executable = fs::metadata(&file).map_err(io(&file))?.permissions().mode() & 0o100 != 0;
        bytes += content.len() + text.len();
        if bytes > bytes_max {
            return Err(Error::Large { path: path.to_owned(), max: bytes_max });
        }
        files.push(File { path: text.to_owned(), executable, content: content.into() });
    }
    if files.is_empty() {
        return Err(Error::Empty(path.to_owned()));
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(Files { files }.encode_to_vec().into())
}

fn is_command(path: &Path) -> bool {
    let settings = fs::read_to_string(path.join(crate::scan::SETTINGS_FILE)).unwrap_or_default();
    settings.lines().any(|line| line.trim() == "[module]")
}

/// What names a bundle's contents.
pub fn digest(bundle: &[u8]) -> [u8; 32] {
    *blake3::hash(bundle).as_bytes()
}

/// Whether it is a bundle that can be unpacked.
pub fn check(bundle: Bytes) -> Result<(), Error> {
    files_of(bundle).map(drop)
}

/// The files of a bundle, all of which have paths that stay below the folder they are in.
fn files_of(bundle: Bytes) -> Result<Vec<File>, Error> {
    let files = Files::decode(bundle).map_err(|e| Error::Malformed(e.to_string()))?.files;
    let bytes: usize = files.iter().map(|file| file.content.len()).sum();
    if files.is_empty() || files.len() > FILES_MAX || bytes > BYTES_MAX {
        return Err(Error::Malformed(format!("{} files of {bytes} bytes", files.len())));
    }
    files.iter().try_for_each(|file| checked(&file.path).map(drop))?;
    Ok(files)
}

/// Writes a bundle's files below `folder`, whole or not at all: under another name first.
pub fn unpack(bundle: Bytes, folder: &Path) -> Result<(), Error> {
    let files = files_of(bundle)?;
    let fresh = folder.with_extension("new");
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    match fs::remove_dir_all(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(&fresh)(error)),
        _ => {}
    }
    for file in files {
        let path = fresh.join(checked(&file.path)?);
        let parent = path.parent().expect("it is below the folder");
        fs::create_dir_all(parent).map_err(io(parent))?;
        let mode = if file.executable { 0o755 } else { 0o644 };
        let opened = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        io::Write::write_all(&mut opened.map_err(io(&path))?, &file.content).map_err(io(&path))?;
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(folder)(error)),
        _ => {}
    }
    fs::rename(&fresh, folder).map_err(io(folder))
}

/// A path that stays below the folder that it is in.
fn checked(path: &str) -> Result<&Path, Error> {
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    let parts = Path::new(path).components();
    match !path.is_empty() && path.len() <= 4096 && !path.contains('\0') && parts.clone().all(is_plain) {
        true if parts.count() <= tree::DEPTH_MAX => Ok(Path::new(path)),
        _ => Err(Error::Path(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, name: &str, text: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let from = tempfile::tempdir().unwrap();
        write(from.path(), "shop.py", "def f(): pass\n");
        write(from.path(), "tool/__init__.py", "");
        write(from.path(), "tool/data.txt", "größe");
        write(from.path(), "tool/__pycache__/x.pyc", "no");
        write(from.path(), ".git/config", "no");
        fs::set_permissions(from.path().join("tool/data.txt"), fs::Permissions::from_mode(0o700)).unwrap();
        let bundle = pack(from.path(), BYTES_MAX).unwrap();
        assert_eq!(
            digest(&bundle),
            digest(&pack(from.path(), BYTES_MAX).unwrap()),
            "the same files, the same bundle"
        );
        let to = tempfile::tempdir().unwrap();
        let folder = to.path().join("there");
        for _ in 0..2 {
            unpack(bundle.clone(), &folder).unwrap();
            assert_eq!(fs::read_to_string(folder.join("tool/data.txt")).unwrap(), "größe");
            let mode = fs::metadata(folder.join("tool/data.txt")).unwrap().permissions().mode();
            assert_eq!(mode & 0o100, 0o100);
            assert!(!folder.join(".git").exists() && !folder.join("tool/__pycache__").exists());
        }
        // A package keeps its name, and a file is alone.
        let package = pack(&from.path().join("tool"), BYTES_MAX).unwrap();
        unpack(package, &folder).unwrap();
        assert!(folder.join("tool/__init__.py").is_file() && !folder.join("shop.py").exists());
        unpack(pack(&from.path().join("shop.py"), BYTES_MAX).unwrap(), &folder).unwrap();
        assert!(folder.join("shop.py").is_file() && !folder.join("tool").exists());
    }

    #[test]
    fn what_leaves_the_folder_is_refused() {
        let to = tempfile::tempdir().unwrap();
        let folder = to.path().join("there");
        for path in ["../x", "/etc/x", "a/../../x", "", "a\0b", ".", "a/./../b/.."] {
            let files = vec![File { path: path.to_owned(), ..Default::default() }];
            let refused = unpack(Files { files }.encode_to_vec().into(), &folder).unwrap_err();
            assert!(matches!(refused, Error::Path(_)), "{path}: {refused}");
            assert_eq!(to.path().read_dir().unwrap().count(), 0, "nothing was written");
        }
        assert!(matches!(unpack(Bytes::from_static(b"nonsense"), &folder), Err(Error::Malformed(_))));
        assert!(matches!(pack(to.path(), BYTES_MAX), Err(Error::Empty(_))));
        write(to.path(), "big.py", "12345");
        assert!(matches!(pack(to.path(), 5), Err(Error::Large { .. })));
    }
}
