//! The Python SDK, which travels inside the binary: a daemon and its workers can't be of different releases.
//!
//! It is put on `PYTHONPATH`, not installed: environments are shared between releases of Bourse.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Names relative to what goes on `PYTHONPATH`, and contents.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/sdk_files.rs"));

/// Writes the SDK below `cache` unless it is there, and returns the folder for `PYTHONPATH`. Several daemons may do
/// so at once; a folder that is there is complete.
pub fn install(cache: &Path) -> io::Result<PathBuf> {
    let folder = cache.join(format!("sdk-{}", &hash().to_hex()[..16]));
    if folder.is_dir() {
        return Ok(folder);
    }
    let unfinished = cache.join(format!(".sdk-{}-{}", std::process::id(), thread_number()));
    let _ = fs::remove_dir_all(&unfinished);
    for (name, content) in FILES {
        let path = unfinished.join(name);
        fs::create_dir_all(path.parent().unwrap_or(&unfinished))?;
        let mut file = File::create(path)?;
        file.write_all(content)?;
        file.sync_all()?;
    }
    match fs::rename(&unfinished, &folder) {
        Ok(()) => {}
        // Another was faster.
        Err(_) if folder.is_dir() => fs::remove_dir_all(&unfinished)?,
        Err(e) => return Err(e),
    }
    Ok(folder)
}

fn hash() -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for (name, content) in FILES {
        hasher.update(format!("{name}\n{}\n", content.len()).as_bytes()).update(content);
    }
    hasher.finalize()
}

/// Tells threads of one process apart.
fn thread_number() -> u32 {
    rustix::thread::gettid().as_raw_pid().unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_once_and_whole() {
        let cache = tempfile::tempdir().unwrap();
        let folders: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| install(cache.path()).unwrap())).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(folders.iter().all(|f| *f == folders[0]));
        assert!(folders[0].join("bourse/__init__.py").is_file());
        for (name, content) in FILES {
            assert_eq!(fs::read(folders[0].join(name)).unwrap(), *content);
        }
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1);
    }
}
