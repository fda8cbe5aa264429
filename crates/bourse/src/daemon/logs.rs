//! The files in `logs/`: the daemon's own, and one for each module's output. None grows without bound: at
//! [`BYTES_MAX`] a file becomes `NAME.log.1`, in place of the one before.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The largest log file, in bytes. With the one before it, twice this is kept.
const BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The daemon's own log: lines of JSON. No module can have that name, with a hyphen in it.
pub(crate) fn of_daemon(data: &Path) -> PathBuf {
    data.join("logs").join("bourse-daemon.log")
}

/// What the instances of a module have written.
pub(crate) fn of_module(data: &Path, module: &str) -> PathBuf {
    data.join("logs").join(format!("{module}.log"))
}

/// Moves a file that has become too large out of the way. Whoever has it open goes on writing to the old one.
pub(crate) fn rotate(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.len() >= BYTES_MAX => fs::rename(path, path.with_extension("log.1")),
        _ => Ok(()),
    }
}

/// Rotates the logs of modules while instances write to them: what is there is copied, and the file begun anew. What is
/// written in between is lost.
pub(super) fn trim_all(data: &Path) {
    let Ok(entries) = fs::read_dir(data.join("logs")) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let is_module = path.extension().is_some_and(|e| e == "log") && path != of_daemon(data);
        if is_module && fs::metadata(&path).is_ok_and(|found| found.len() >= BYTES_MAX) {
            // Rarely, and never on the loop: a copy takes its time.
            tokio::task::spawn_blocking(move || {
                if let Err(error) = trim(&path) {
                    tracing::warn!("the log {} can't be rotated: {error}", path.display());
                }
            });
        }
    }
}

fn trim(path: &Path) -> io::Result<()> {
    fs::copy(path, path.with_extension("log.1"))?;
    OpenOptions::new().write(true).open(path)?.set_len(0)
}

/// A log file that rotates by itself.
pub(crate) struct Rotating {
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Rotating {
    pub(crate) fn open(path: PathBuf) -> io::Result<Self> {
        rotate(&path)?;
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self { path, file, bytes })
    }
}

impl Write for Rotating {
    /// Each write is a whole line, so a file ends with one.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.bytes >= BYTES_MAX {
            *self = Self::open(self.path.clone())?;
        }
        self.file.write_all(line)?;
        self.bytes += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_trimmed_under_its_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.log");
        let mut writer = OpenOptions::new().create(true).append(true).open(&path).unwrap();
        writer.write_all(b"before\n").unwrap();
        trim(&path).unwrap();
        writer.write_all(b"after\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"after\n");
        assert_eq!(fs::read(path.with_extension("log.1")).unwrap(), b"before\n");
    }

    #[test]
    fn a_log_rotates() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let mut log = Rotating::open(path.clone()).unwrap();
        let line = [b'x'; 1 << 20];
        for _ in 0..=BYTES_MAX / line.len() as u64 {
            log.write_all(&line).unwrap();
        }
        assert_eq!(fs::metadata(path.with_extension("log.1")).unwrap().len(), BYTES_MAX);
        assert_eq!(fs::metadata(&path).unwrap().len(), line.len() as u64);
    }
}
