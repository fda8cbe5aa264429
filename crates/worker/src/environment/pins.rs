//! Reads requirements files: which files they are made of, and whether they allow what the SDK needs.
//!
//! Only what can be told from the text is refused here, so that it is said before anything is downloaded; pip has
//! the last word on the rest.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the SDK needs: a package and the oldest version that it works with.
pub const NEEDS: &[(&str, &str)] = &[("cbor2", "5.0"), ("protobuf", "3.20"), ("pyzmq", "22.0")];

/// The most files that include one another.
pub const FILES_MAX: usize = 64;

/// The longest requirements file, in bytes.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What is wrong with requirements.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that is not there or can't be read.
    #[error("{path} can't be read: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Longer than [`FILE_BYTES_MAX`], or more than [`FILES_MAX`] files.
    #[error("{0}: more than {FILES_MAX} files, or one of more than {FILE_BYTES_MAX} bytes")]
    TooMuch(PathBuf),
    /// A pin that the SDK can't work with.
    #[error("{path}:{line}: {requirement} can't be served: Bourse needs {package} {oldest} or later")]
    Pin {
        /// In which file.
        path: PathBuf,
        /// In which line, from 1.
        line: usize,
        /// As it stands there.
        requirement: String,
        /// What it is about.
        package: &'static str,
        /// The oldest version that works.
        oldest: &'static str,
    },
}

/// Requirements, with the files they include.
#[derive(Debug, Default)]
pub(super) struct Requirements {
    /// Paths and contents, in the order in which they were met.
    pub(super) files: Vec<(PathBuf, String)>,
}

impl Requirements {
    /// Reads `path` and the local files it names with `-r` and `-c`, and refuses pins that can't work.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let mut this = Self::default();
        let mut seen = BTreeSet::new();
        let mut open = vec![path.to_owned()];
        while let Some(path) = open.pop() {
            let unreadable = |source| Error::Unreadable { path: path.clone(), source };
            if !seen.insert(fs::canonicalize(&path).map_err(unreadable)?) {
                continue;
            }
            if fs::metadata(&path).map_err(unreadable)?.len() > FILE_BYTES_MAX || seen.len() > FILES_MAX {
                return Err(Error::TooMuch(path));
            }
            let text = fs::read_to_string(&path).map_err(unreadable)?;
            for (number, line) in logical_lines(&text) {
                if let Some(file) = included(&line) {
                    open.push(path.parent().unwrap_or(Path::new("")).join(file));
                } else if let Some((package, oldest)) = impossible(&line) {
                    return Err(Error::Pin { path, line: number, requirement: line, package, oldest });
                }
            }
            this.files.push((path, text));
        }
        Ok(this)
    }

    /// Whether pip will want a hash for everything.
    pub(super) fn has_hashes(&self) -> bool {
        self.files.iter().any(|(_, text)| text.contains("--hash=") || text.contains("--require-hashes"))
    }
}

/// Lines without comments, joined where they end in a backslash; with the number of the first, from 1.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut begun: Option<(usize, String)> = None;
    for (index, line) in text.lines().enumerate() {
        let line = match line.find('#') {
            Some(0) => "",
            Some(at) if line[..at].ends_with([' ', '\t']) => &line[..at],
            _ => line,
        };
        let (number, mut joined) = begun.take().unwrap_or((index + 1, String::new()));
        match line.strip_suffix('\\') {
            Some(more) => begun = Some((number, joined + more)),
            None => {
                joined.push_str(line);
                lines.push((number, joined.trim().to_owned()));
            }
        }
    }
    lines.extend(begun);
    lines.retain(|(_, line)| !line.is_empty());
    lines
}

/// The local file that a line includes.
fn included(line: &str) -> Option<&str> {
    let rest =
        ["--requirement", "--constraint", "-r", "-c"].iter().find_map(|option| line.strip_prefix(option))?;
    let file = rest.trim_start_matches(['=', ' ', '\t']).trim_matches(['"', '\'']);
    (!file.is_empty() && !file.contains("://")).then_some(file)
}

/// The need that a requirement can't meet with any version.
fn impossible(line: &str) -> Option<(&'static str, &'static str)> {
    // With a condition it may not apply here.
    if line.starts_with('-') || line.contains(';') || line.contains('@') {
        return None;
    }
    let line = line.split("--hash").next()?;
    let end = line
        .find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.'))
        .unwrap_or(line.len());
    let name = line[..end].to_ascii_lowercase().replace(['_', '.'], "-");
    let &(package, oldest) = NEEDS.iter().find(|(package, _)| *package == name)?;
    let mut specifiers = line[end..].trim_start();
    if let Some(extras) = specifiers.strip_prefix('[') {
        specifiers = extras.split_once(']')?.1;
    }
    let specifiers = specifiers.trim().trim_start_matches('(').trim_end_matches(')');
    let oldest_parts = parts(oldest)?;
    specifiers.split(',').any(|s| excludes(s.trim(), &oldest_parts)).then_some((package, oldest))
}

/// Whether no version from `oldest` on meets the specifier.
fn excludes(specifier: &str, oldest: &[u64]) -> bool {
    let end = specifier.find(|c: char| !"=<>!~".contains(c)).unwrap_or(specifier.len());
    let (operator, version) = (&specifier[..end], specifier[end..].trim());
    let Some(mut version_parts) = parts(version.trim_end_matches(".*")) else { return false };
    let below = |version: &[u64]| compare(version, oldest).is_lt();
    match operator {
        "<" => compare(&version_parts, oldest).is_le(),
        "==" if version.ends_with(".*") => {
            let length = version_parts.len().min(oldest.len());
            version_parts[..length] < oldest[..length]
        }
        "==" | "===" | "<=" => below(&version_parts),
        "~=" => {
            version_parts.pop();
            let length = version_parts.len().min(oldest.len());
            length > 0 && version_parts[..length] < oldest[..length]
        }
        _ => false,
    }
}

/// The release number of a version; a suffix such as `rc1` or `.post1` is left out. `None` if there is no number.
fn parts(version: &str) -> Option<Vec<u64>> {
    let mut parts = Vec::new();
    for part in version.trim_start_matches('v').split('.') {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        match part[..end].parse() {
            Ok(number) => parts.push(number),
            Err(_) => break,
        }
        if end < part.len() {
            break;
        }
    }
    (!parts.is_empty()).then_some(parts)
}

/// As numbers, with zeros where one is shorter.
fn compare(a: &[u64], b: &[u64]) -> std::cmp::Ordering {
    let at = |parts: &[u64], i: usize| parts.get(i).copied().unwrap_or(0);
    (0..a.len().max(b.len()))
        .map(|i| at(a, i).cmp(&at(b, i)))
        .find(|o| o.is_ne())
        .unwrap_or(std::cmp::Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_that_cannot_work() {
        for line in [
            "protobuf==3.19",
            "protobuf == 3.19.6",
            "Protobuf<3.20",
            "protobuf>=3,<3.20.0",
            "protobuf~=3.19.1",
            "protobuf==3.19.*",
            "protobuf<=3.19.6",
            "protobuf===3.9.0",
            "pyzmq<22",
            "PyZMQ (==21.0)",
            "cbor2<5",
            "cbor2[extra]~=4.1",
            "cbor2==4.1.2 --hash=sha256:abc",
        ] {
            assert!(impossible(line).is_some(), "{line}");
        }
    }

    #[test]
    fn pins_that_can() {
        for line in [
            "protobuf",
            "protobuf==3.20",
            "protobuf==3.20.3",
            "protobuf>=3.19",
            "protobuf>3",
            "protobuf~=3.19",
            "protobuf==3.*",
            "protobuf!=3.19",
            "protobuf<4",
            "protobuf==3.19 ; python_version < '3.7'",
            "protobuf @ https://example.org/protobuf-3.19.whl",
            "protobuf-extras==1.0",
            "pyzmq<=22.0",
            "pyzmq==22",
            "cbor2==5.6.5",
            "-e .",
            "./protobuf",
        ] {
            assert_eq!(impossible(line), None, "{line}");
        }
    }

    #[test]
    fn files_include_files() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            fs::create_dir_all(folder.path().join("more")).unwrap();
            fs::write(folder.path().join(name), text).unwrap();
        };
        put("requirements.txt", "six  # a comment\n-r more/a.txt\n-c https://example.org/c.txt\n");
        put(
            "more/a.txt",
            "-r ../requirements.txt\n--constraint=b.txt\nrequests \\\n  ==2.0 \\\n  --hash=sha256:00\n",
        );
        put("more/b.txt", "\n# older\nprotobuf==3.19\n");
        let error = Requirements::read(&folder.path().join("requirements.txt")).unwrap_err().to_string();
        assert!(
            error.ends_with("b.txt:3: protobuf==3.19 can't be served: Bourse needs protobuf 3.20 or later"),
            "{error}"
        );
        put("more/b.txt", "protobuf==4.21");
        let requirements = Requirements::read(&folder.path().join("requirements.txt")).unwrap();
        assert_eq!(requirements.files.len(), 3);
        assert!(requirements.has_hashes());
        put("requirements.txt", "-r missing.txt");
        assert!(matches!(
            Requirements::read(&folder.path().join("requirements.txt")),
            Err(Error::Unreadable { .. })
        ));
    }
}
