//! Where a node begins when it starts again: those that it knew last, in the file `seeds` in the data folder. So one node
//! that lived when it joined is enough, and none is needed afterwards.

use std::fmt::Write as _;
use std::path::Path;

use bourse_market::Contact;
use bourse_transport::Key;

use crate::join::Join;
use crate::own;

/// Which file it is.
pub const SEEDS_FILE: &str = "seeds";

/// Most of them that are kept.
const SEEDS_MAX: usize = 16;

/// Those that can be read. A bad line is a seed less, and said.
pub fn load(data: &Path) -> Vec<Join> {
    let path = data.join(SEEDS_FILE);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let read = |line: &str| match line.parse() {
        Ok(join) => Some(join),
        Err(why) => {
            tracing::warn!("{}: {line:?} is left out: {why}", path.display());
            None
        }
    };
    lines.filter_map(read).take(SEEDS_MAX).collect()
}

/// Writes them, whole or not at all; those that were there before come behind them.
pub fn save(data: &Path, contacts: impl Iterator<Item = Contact>) -> anyhow::Result<()> {
    let before = load(data);
    let join = |contact: Contact| Join { key: Key(contact.id.0), address: contact.address };
    let mut seeds: Vec<Join> = contacts.map(join).take(SEEDS_MAX).collect();
    for old in &before {
        if seeds.len() < SEEDS_MAX && seeds.iter().all(|seed| seed.key != old.key) {
            seeds.push(old.clone());
        }
    }
    if seeds == before {
        return Ok(());
    }
    let mut text = "# where this node begins when it starts again, as bourse keeps it\n".to_owned();
    for Join { key, address } in seeds {
        writeln!(text, "{}@{address}", key.to_hex()).expect("a text can be written to");
    }
    own::write_private(&data.join(SEEDS_FILE), &text)
}
