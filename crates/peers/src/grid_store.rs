//! Which store is the grid's, as this node knew last: the file `grid-store` in the data folder, written by the daemon alone.
//!
//! ```text
//! # store, term, used, and the node that keeps it: key, life, address
//! 5b1f…0c 0 used 4f0c…e1 1764432000000000 10.0.0.7:7071
//! ```

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context as _;
use bourse_market::store::GridStore;
use bourse_market::{Contact, NodeId};
use bourse_transport::Key;
use bourse_wire::id::Incarnation;

use crate::own;

/// Which file it is.
pub const GRID_STORE_FILE: &str = "grid-store";

/// What is kept; `None` if there is no file.
pub fn load(data: &Path) -> anyhow::Result<Option<GridStore>> {
    let path = data.join(GRID_STORE_FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("{} cannot be read", path.display())),
    };
    let line = text.lines().find(|line| !line.starts_with('#') && !line.is_empty());
    let store = line.and_then(parse).with_context(|| {
        format!(
            "{} does not say which store is the grid's\n  hint: the daemon writes this file. Where the node joined with a ticket, it has to \
             join again; without the file it takes its own store for the grid's, if it meets no other",
            path.display()
        )
    })?;
    Ok(Some(store))
}

/// Writes it, whole or not at all.
pub fn save(data: &Path, store: &GridStore) -> anyhow::Result<()> {
    let GridStore { id, term, used, node } = store;
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let used = if *used { "used" } else { "empty" };
    let text = format!(
        "# the grid's store, as bourse keeps it: store, term, used, and the node that keeps it: key, life, address\n\
         {id} {term} {used} {} {} {}\n",
        Key(node.id.0).to_hex(),
        node.incarnation.0,
        node.address
    );
    let path = data.join(GRID_STORE_FILE);
    own::write_private(&path, &text).with_context(|| format!("{} cannot be written", path.display()))
}

fn parse(line: &str) -> Option<GridStore> {
    let mut words = line.splitn(6, ' ');
    let digits = words.next().filter(|digits| digits.len() == 32 && digits.is_ascii())?;
    let mut id = [0; 16];
    for (byte, at) in id.iter_mut().zip((0..32).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
    }
    let term = words.next()?.parse().ok()?;
    let used = match words.next()? {
        "used" => true,
        "empty" => false,
        _ => return None,
    };
    let key = Key::from_hex(words.next()?).ok()?;
    let incarnation = Incarnation(words.next()?.parse().ok()?);
    let address = words.next().unwrap_or_default().to_owned();
    let node = Contact { id: NodeId(key.0), incarnation, address, domain: String::new() };
    Some(GridStore { id, term, used, node })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded() {
        let data = tempfile::tempdir().unwrap();
        assert_eq!(load(data.path()).unwrap(), None);
        let node = Contact {
            id: NodeId([7; 32]),
            incarnation: Incarnation(99),
            address: "alder:7071".to_owned(),
            domain: String::new(),
        };
        for (used, address) in [(true, "alder:7071"), (false, "")] {
            let node = Contact { address: address.to_owned(), ..node.clone() };
            let store = GridStore { id: [0xab; 16], term: 3, used, node };
            save(data.path(), &store).unwrap();
            assert_eq!(load(data.path()).unwrap(), Some(store));
        }
        for bad in
            ["", "nonsense", "ab 0 used", &format!("{} 0 maybe {} 1 a:1", "ab".repeat(16), "cd".repeat(32))]
        {
            std::fs::write(data.path().join(GRID_STORE_FILE), bad).unwrap();
            let refused = load(data.path()).unwrap_err().to_string();
            assert!(refused.contains("does not say which store"), "{bad}: {refused}");
        }
    }
}
