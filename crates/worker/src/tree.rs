//! Walks a folder the way scan, revision and watch all see it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The deepest folder that is looked into.
pub(crate) const DEPTH_MAX: usize = 32;

/// Whether nobody needs to know of a file or folder of this name.
pub(crate) fn is_hidden(name: &OsStr) -> bool {
    matches!(name.as_bytes(), b"__pycache__" | b"node_modules") || name.as_bytes().starts_with(b".")
}

/// The same for a path, which may also be a virtual environment.
pub(crate) fn is_left_out(path: &Path) -> bool {
    path.file_name().is_none_or(is_hidden) || path.join("pyvenv.cfg").is_file()
}

/// All files below `folder`, in order. More than `files_max`, or deeper than [`DEPTH_MAX`], is an error.
pub(crate) fn files(folder: &Path, files_max: usize) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    walk(folder, &mut |path, is_folder| {
        if !is_folder {
            found.push(path.to_owned());
        }
        match found.len() > files_max {
            true => Err(io::Error::other(format!("more than {files_max} files in {}", folder.display()))),
            false => Ok(()),
        }
    })?;
    found.sort();
    Ok(found)
}

/// Calls `visit` with `folder` and everything below it, and whether it is a folder. Follows symbolic links, each
/// folder once; what vanishes meanwhile is left out.
pub(crate) fn walk(folder: &Path, visit: &mut dyn FnMut(&Path, bool) -> io::Result<()>) -> io::Result<()> {
    let mut seen = BTreeSet::new();
    let mut open = vec![(folder.to_owned(), 0)];
    while let Some((path, depth)) = open.pop() {
        let Some(kind) = gone_is_none(fs::metadata(&path))? else { continue };
        if kind.is_file() {
            visit(&path, false)?;
        }
        if !kind.is_dir() || !seen.insert((kind.dev(), kind.ino())) {
            continue;
        }
        if depth > DEPTH_MAX {
            return Err(io::Error::other(format!(
                "{} is more than {DEPTH_MAX} folders deep",
                path.display()
            )));
        }
        visit(&path, true)?;
        let Some(entries) = gone_is_none(fs::read_dir(&path))? else { continue };
        for entry in entries {
            let path = entry?.path();
            if !is_left_out(&path) {
                open.push((path, depth + 1));
            }
        }
    }
    Ok(())
}

fn gone_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => Ok(None),
        Err(e) => Err(e),
    }
}
