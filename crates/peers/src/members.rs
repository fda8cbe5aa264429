//! The grid's list of keys, as this node keeps it: the file `members` in the data folder, written by the daemon alone.
//!
//! ```text
//! # key, revision, standing, name
//! 4f0c…e1 1 member alder
//! 97b2…03 2 revoked birch
//! c01d…9a 1 ticket:1764432000000
//! ```
//!
//! Whoever wants to change it says so to a daemon, which tells all others: `bourse admit`, `bourse revoke`, `bourse ticket`.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use bourse_market::NodeId;
use bourse_market::roster::{Entry, Standing};
use bourse_transport::Key;

use crate::own;

/// Which file it is.
pub const MEMBERS_FILE: &str = "members";

/// What is kept; nothing if there is no file.
pub fn load(data: &Path) -> anyhow::Result<Vec<Entry>> {
    let path = data.join(MEMBERS_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("{} cannot be read", path.display())),
    };
    let mut entries = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.starts_with('#') && !line.is_empty())
    {
        entries.push(parse(line).with_context(|| {
            format!(
                "{}, line {}: {line:?} is no entry\n  hint: the daemon writes this file; without it, the node has to be let in again (bourse join)",
                path.display(),
                at + 1
            )
        })?);
    }
    Ok(entries)
}

/// Writes all of it, whole or not at all.
pub fn save<'a>(data: &Path, entries: impl Iterator<Item = &'a Entry>) -> anyhow::Result<()> {
    let mut text =
        "# who belongs to the grid, as bourse keeps it: key, revision, standing, name\n".to_owned();
    for Entry { key, revision, standing, name } in entries {
        let standing = match standing {
            Standing::Member => "member".to_owned(),
            Standing::Ticket(until) => format!("ticket:{until}"),
            Standing::Revoked => "revoked".to_owned(),
        };
        let name: String = name.chars().filter(|c| !c.is_control()).collect();
        writeln!(text, "{} {revision} {standing} {name}", Key(key.0).to_hex())
            .expect("a text can be written to");
    }
    let path = data.join(MEMBERS_FILE);
    own::write_private(&path, &text).with_context(|| format!("{} cannot be written", path.display()))
}

fn parse(line: &str) -> Option<Entry> {
    let mut words = line.splitn(4, ' ');
    let key = NodeId(Key::from_hex(words.next()?).ok()?.0);
    let revision = words.next()?.parse().ok()?;
    let standing = match words.next()? {
        "member" => Standing::Member,
        "revoked" => Standing::Revoked,
        other => Standing::Ticket(other.strip_prefix("ticket:")?.parse().ok()?),
    };
    Some(Entry { key, revision, standing, name: words.next().unwrap_or_default().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(load(data.path()).unwrap(), []);
        let entry = |n, standing, name: &str| Entry {
            key: NodeId([n; 32]),
            revision: 7,
            standing,
            name: name.into(),
        };
        let all = [
            entry(1, Standing::Member, "alder, in the cellar"),
            entry(2, Standing::Revoked, ""),
            entry(3, Standing::Ticket(9), "x"),
        ];
        save(data.path(), all.iter()).unwrap();
        assert_eq!(load(data.path()).unwrap(), all);
        let told = fs::read_to_string(data.path().join(MEMBERS_FILE)).unwrap();
        fs::write(data.path().join(MEMBERS_FILE), format!("{told}nonsense\n")).unwrap();
        let refused = load(data.path()).unwrap_err().to_string();
        assert!(refused.contains("line 5: \"nonsense\" is no entry"), "{refused}");
    }
}
