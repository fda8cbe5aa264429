//! Reads a file's lines as it grows, through its being cut back or replaced.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// The most that is read of a file at its beginning: of more only the end, in bytes.
const FIRST_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A line is given out in pieces of at most this.
const LINE_BYTES_MAX: usize = 1024 * 1024;

pub(super) struct Tail {
    path: PathBuf,
    file: Option<File>,
    /// The start of a line whose end is not there yet.
    rest: Vec<u8>,
    first: bool,
}

impl Tail {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None, rest: Vec::new(), first: true }
    }

    /// The lines that have come since the last time.
    pub(super) fn read(&mut self) -> io::Result<Vec<String>> {
        let mut lines = Vec::new();
        if let Some(file) = &mut self.file
            && file.metadata()?.len() < file.stream_position()?
        {
            file.rewind()?;
            self.rest.clear();
        }
        self.take(&mut lines)?;
        if self.is_replaced()? {
            self.end_line(&mut lines);
            self.file = self.open()?;
            self.take(&mut lines)?;
        }
        self.first = false;
        Ok(lines)
    }

    /// Whether another file has its name now. One that has gone and was not replaced is still read.
    fn is_replaced(&self) -> io::Result<bool> {
        let now = match self.path.metadata() {
            Ok(now) => now,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            Err(e) => return Err(e),
        };
        let Some(file) = &self.file else { return Ok(true) };
        let read = file.metadata()?;
        Ok((now.dev(), now.ino()) != (read.dev(), read.ino()))
    }

    fn open(&self) -> io::Result<Option<File>> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let length = file.metadata()?.len();
        if self.first && length > FIRST_BYTES_MAX {
            file.seek(SeekFrom::Start(length - FIRST_BYTES_MAX))?;
            // To the beginning of a line.
            let mut byte = [0];
            while file.read(&mut byte)? == 1 && byte[0] != b'\n' {}
        }
        Ok(Some(file))
    }

    fn take(&mut self, lines: &mut Vec<String>) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.read_to_end(&mut self.rest)?;
        let mut start = 0;
        while let Some(length) = self.rest[start..].iter().position(|&b| b == b'\n') {
            lines.push(text(&self.rest[start..start + length]));
            start += length + 1;
        }
        self.rest.drain(..start);
        if self.rest.len() > LINE_BYTES_MAX {
            self.end_line(lines);
        }
        Ok(())
    }

    fn end_line(&mut self, lines: &mut Vec<String>) {
        if !self.rest.is_empty() {
            lines.push(text(&self.rest));
            self.rest.clear();
        }
    }
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_file_is_followed_through_everything() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        let mut tail = Tail::new(path.clone());
        assert!(tail.read().unwrap().is_empty());

        // 1. It comes, and grows by parts of lines.
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(tail.read().unwrap(), ["one"]);
        file.write_all(b"o\n").unwrap();
        assert_eq!(tail.read().unwrap(), ["two"]);

        // 2. It is cut back.
        file.set_len(0).unwrap();
        file.write_all(b"3\n").unwrap();
        assert_eq!(tail.read().unwrap(), ["3"]);

        // 3. It is renamed, written to once more, and another takes its place.
        fs::rename(&path, folder.path().join("a.log.1")).unwrap();
        file.write_all(b"four").unwrap();
        assert!(tail.read().unwrap().is_empty());
        fs::write(&path, "five\n").unwrap();
        assert_eq!(tail.read().unwrap(), ["four", "five"]);

        // 4. It goes.
        fs::remove_file(&path).unwrap();
        assert!(tail.read().unwrap().is_empty());
    }
}
